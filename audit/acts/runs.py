"""The rules of a run: mandate, rounds, commitments, receipts, records and spent privacy.

Decides one event type each, on top of the common checks of `audit.state`. Trusts only admitted acts.
Every refusal raises RNM-GOV-*. Pure.
"""

from dataclasses import replace

from audit import decision
from audit.decision import AGAIN, QUORUM
from audit.records import Logged, Round, Run, State
from fedproto.events.governance import Standing
from fedproto.events.rounds import (
    BudgetSpent,
    Outcome,
    ParticipationSigned,
    RoundClosed,
    RoundStarted,
    RunApproved,
    SumAudited,
    UpdateCommitted,
)
from fedproto.governance import rules
from fedproto.governance.charter import Role
from fedproto.governance.plan import RunPlan
from fedproto.governance.rules import refuse
from fedproto.ids import MemberId, RunId


def approve_run(state: State, act: Logged[RunApproved]) -> State:
    """A mandate follows from logged ballots, word by word; recounted here."""
    rules.check_roles(state.charter, act.member, (Role.OPERATOR,), "run.approved")
    body = act.body
    proposal = decision.find(state, body.proposal)
    opened = proposal.opened.body
    if opened.plan is None:
        raise refuse(f"the mandate cites a proposal for {opened.action.value}")
    if body.run in state.runs:
        raise refuse(f"run {body.run} has a mandate already", AGAIN)
    _check_running(state, body.run)
    clause = rules.clause_for(state.charter, opened)
    voters = state.voters(state.charter, clause)
    rules.check_mandate(state.charter, body, opened, proposal.ballots, voters=voters)
    decision.check_ripe(state, proposal)
    done = decision.decided(state, replace(proposal, run=body.run))
    return replace(done, runs=done.runs.with_item(body.run, Run(mandate=act, voters=voters)))


def _check_running(state: State, run: RunId) -> None:
    """An emergency stop is obeyed from its entry on."""
    stop = state.stopped(run)
    if stop is not None:
        raise refuse(f"work is stopped by entry {stop.index}, of {stop.member}", "RNM-GOV-0004")


def start_round(state: State, act: Logged[RoundStarted]) -> State:
    """The next attempt under a mandate in force, with the members and the adapter it must have."""
    rules.check_roles(state.charter, act.member, (Role.OPERATOR,), "round.started")
    body = act.body
    run = state.runs.get(body.run)
    if run is None:
        raise refuse(f"no mandate covers run {body.run}")
    _check_running(state, body.run)
    mandate = run.mandate.body
    # A later charter may have expelled a member or lowered a limit.
    rules.check_plan(state.charter, mandate.plan)
    if not mandate.not_before <= act.at <= mandate.not_after:
        raise refuse("the round is outside the mandate's term")
    if state.clock_s * 1000 > mandate.not_after:
        raise refuse("the mandate's term is over by the log's own clock")
    if body.round > mandate.plan.training.rounds:
        raise refuse(f"the mandate covers {mandate.plan.training.rounds} rounds")
    if body.invited != mandate.members:
        raise refuse("the invited members are not those of the mandate")
    for member in body.invited:
        if state.standing(member) is not Standing.ACTIVE:
            raise refuse(f"{member} is no longer in good standing: the run needs a new vote")
    if any(
        attempt.started.body.authorisation_sha256 == body.authorisation_sha256
        for attempt in run.rounds
    ):
        raise refuse("the authorisation was used for another attempt", AGAIN)
    _check_order(run, body)
    return _with_run(state, body.run, replace(run, rounds=(*run.rounds, Round(started=act))))


def _check_order(run: Run, body: RoundStarted) -> None:
    expected, model_in = (1, 1), run.mandate.body.plan.initial_adapter
    if run.last is not None:
        last, closed = run.last.started.body, run.last.closed
        if run.last.disputed is not None:
            # Who is wrong is for the members to find out; a later attempt would sum the same deltas.
            raise refuse(f"entry {run.last.disputed.index} refuses the sum of round {last.round}")
        if closed is None:
            raise refuse(f"round {last.round} attempt {last.attempt} is still open", AGAIN)
        aborted = closed.body.outcome is Outcome.ABORTED
        expected = (last.round, last.attempt + 1) if aborted else (last.round + 1, 1)
        model_in = closed.body.model_out
    if (body.round, body.attempt) != expected:
        raise refuse(
            f"round {body.round} attempt {body.attempt} is not next; "
            f"next is round {expected[0]} attempt {expected[1]}",
            AGAIN if (body.round, body.attempt) < expected else "RNM-GOV-0001",
        )
    if body.model_in != model_in:
        raise refuse(f"the round does not start from the adapter that is due, {model_in[:16]}")


def _attempt(state: State, run: RunId, place: tuple[int, int]) -> tuple[Run, int]:
    """Return a run and which of its attempts is meant."""
    found = state.runs.get(run)
    if found is None:
        raise refuse(f"no mandate covers run {run}")
    for number, attempt in enumerate(found.rounds):
        if (attempt.started.body.round, attempt.started.body.attempt) == place:
            return found, number
    raise refuse(f"round {place[0]} attempt {place[1]} was not started")


def _with_attempt(state: State, run: Run, number: int, attempt: Round) -> State:
    rounds = (*run.rounds[:number], attempt, *run.rounds[number + 1 :])
    return _with_run(state, run.mandate.body.run, replace(run, rounds=rounds))


def commit_update(state: State, act: Logged[UpdateCommitted]) -> State:
    """A commitment of an invited member, once an attempt, before its round is closed."""
    body = act.body
    run, number = _attempt(state, body.run, (body.round, body.attempt))
    attempt = run.rounds[number]
    if act.member not in attempt.started.body.invited:
        raise refuse(f"{act.member} was not invited to the round")
    if attempt.closed is not None:
        raise refuse("the round is closed: a commitment now would commit to nothing")
    if any(commitment.member == act.member for commitment in attempt.commitments):
        raise refuse(f"{act.member} has committed to an update of this attempt", AGAIN)
    if body.clip_milli != run.mandate.body.plan.aggregation.clip_milli:
        raise refuse("the update was not clipped as the plan says")
    changed = replace(attempt, commitments=(*attempt.commitments, act))
    return _with_attempt(state, run, number, changed)


def sign_participation(state: State, act: Logged[ParticipationSigned]) -> State:
    """A receipt of an invited member, once an attempt; it may come after the round's close."""
    body = act.body
    run, number = _attempt(state, body.run, (body.round, body.attempt))
    attempt = run.rounds[number]
    started = attempt.started.body
    if act.member not in started.invited:
        raise refuse(f"{act.member} was not invited to the round")
    if body.authorisation_sha256 != started.authorisation_sha256:
        raise refuse("the receipt is for another authorisation")
    if any(receipt.member == act.member for receipt in attempt.receipts):
        raise refuse(f"{act.member} has signed for this attempt", AGAIN)
    dataset = state.datasets.get(body.dataset)
    if dataset is None or dataset.declared.member != act.member:
        raise refuse(f"{act.member} has not declared dataset {body.dataset[:16]}")
    # What was begun before a withdrawal may still be signed for; nothing later.
    if dataset.withdrawn is not None and dataset.withdrawn < attempt.started.index:
        raise refuse(f"dataset {body.dataset[:16]} was withdrawn by entry {dataset.withdrawn}")
    changed = replace(attempt, receipts=(*attempt.receipts, act))
    return _with_attempt(state, run, number, changed)


def audit_sum(state: State, act: Logged[SumAudited]) -> State:
    """What a member that signed for an attempt found of its sum, once; it may come after the close."""
    body = act.body
    run, number = _attempt(state, body.run, (body.round, body.attempt))
    attempt = run.rounds[number]
    if all(receipt.member != act.member for receipt in attempt.receipts):
        raise refuse(f"{act.member} signed for nothing in this attempt")
    if any(audit.member == act.member for audit in attempt.audits):
        raise refuse(f"{act.member} has audited this attempt", AGAIN)
    changed = replace(attempt, audits=(*attempt.audits, act))
    return _with_attempt(state, run, number, changed)


def close_round(state: State, act: Logged[RoundClosed]) -> State:
    """The record of the open attempt: everyone invited is in the sum or excluded with a reason."""
    rules.check_roles(state.charter, act.member, (Role.OPERATOR,), "round.closed")
    body = act.body
    run = state.runs.get(body.run)
    attempt = run.last if run else None
    if run is None or attempt is None:
        raise refuse("the run has no round to close")
    started = attempt.started.body
    if (body.round, body.attempt) != (started.round, started.attempt):
        raise refuse(f"the open round is {started.round} attempt {started.attempt}")
    if attempt.closed is not None:
        raise refuse("the round is closed already", AGAIN)
    if body.model_in != started.model_in:
        raise refuse("the round started from another adapter")
    _check_cohort(run, started, body)
    if body.outcome is Outcome.AGGREGATED:
        _check_audits(attempt, body)
    rounds = (*run.rounds[:-1], replace(attempt, closed=act))
    return _with_run(state, body.run, replace(run, rounds=rounds))


def _check_audits(attempt: Round, body: RoundClosed) -> None:
    """No adapter stands on a sum that an auditor refused, or that was not the one audited."""
    if attempt.disputed is not None:
        raise refuse(
            f"entry {attempt.disputed.index}, of {attempt.disputed.member}, refuses the sum"
        )
    for act in attempt.audits:
        if act.body.transcript_sha256 != body.transcript_sha256:
            raise refuse(f"{act.member} audited another sum than the one recorded")


def _check_cohort(run: Run, started: RoundStarted, body: RoundClosed) -> None:
    excluded = tuple(item.member for item in body.excluded)
    for named in (body.included, excluded):
        if list(named) != sorted(set(named)):
            raise refuse("the members of a round record are sorted and stand once")
    if sorted((*body.included, *excluded)) != sorted(started.invited):
        raise refuse("included and excluded members together are not those invited")
    match body.outcome:
        case Outcome.AGGREGATED:
            _check_sums(run.mandate.body.plan, body)
        case Outcome.ABORTED:
            if body.included or body.groups:
                raise refuse("an aborted round has no sum, so nobody is in it")
            if body.model_out != body.model_in:
                raise refuse("an aborted round leaves the adapter as it was")


def _check_sums(plan: RunPlan, body: RoundClosed) -> None:
    """Every sum of a round is over as many members as the plan says, and there are enough of them."""
    aggregation, sums = plan.aggregation, body.groups or (body.included,)
    if (aggregation.groups == 1) != (not body.groups):
        raise refuse(f"the plan sums the cohort in {aggregation.groups} groups")
    if any(list(group) != sorted(group) for group in body.groups):
        raise refuse("the members of a group are sorted")
    if sorted(name for group in sums for name in group) != list(body.included):
        raise refuse("the groups together are not the members in the sum")
    if not aggregation.least_groups <= len(sums) <= aggregation.groups:
        raise refuse(f"{len(sums)} sums, the plan needs {aggregation.least_groups}", QUORUM)
    smallest = min(map(len, sums))
    if smallest < plan.min_members:
        raise refuse(
            f"{smallest} members are in the sum, the plan needs {plan.min_members}", QUORUM
        )


def spend_budget(state: State, act: Logged[BudgetSpent]) -> State:
    """A member spends privacy on its own dataset, within the charter's limits, never unspent again."""
    body, limits = act.body, state.charter.limits
    dataset = state.datasets.get(body.dataset)
    if dataset is None or dataset.declared.member != act.member:
        raise refuse(f"{act.member} has not declared dataset {body.dataset[:16]}")
    if dataset.withdrawn is not None:
        raise refuse(f"dataset {body.dataset[:16]} was withdrawn by entry {dataset.withdrawn}")
    if not _invited(state, body.run, body.round, act.member):
        raise refuse(f"{act.member} was not invited to round {body.round} of run {body.run}")
    if body.total_epsilon_micro < max(dataset.epsilon_micro, body.epsilon_micro):
        raise refuse("the total over the dataset is less than what was spent before")
    if dataset.spent and body.delta_exp != dataset.spent[0].body.delta_exp:
        raise refuse("the total is at another delta than before: the two do not compare")
    spent = [item.body for item in dataset.spent if item.body.run == body.run]
    if any(item.round == body.round for item in spent):
        raise refuse(f"{act.member} has spent on round {body.round}", AGAIN)
    if (
        sum(item.epsilon_micro for item in spent) + body.epsilon_micro
        > limits.epsilon_micro_per_run
    ):
        raise refuse("the run would spend more ε than the charter allows", "RNM-GOV-0005")
    if body.total_epsilon_micro > limits.epsilon_micro_per_dataset:
        raise refuse("the dataset would have more ε spent than the charter allows", "RNM-GOV-0005")
    changed = replace(dataset, spent=(*dataset.spent, act))
    return replace(state, datasets=state.datasets.with_item(body.dataset, changed))


def _invited(state: State, run: RunId, number: int, member: MemberId) -> bool:
    started = (attempt.started.body for attempt in state.rounds(run))
    return any(body.round == number and member in body.invited for body in started)


def _with_run(state: State, name: str, run: Run) -> State:
    return replace(state, runs=state.runs.with_item(name, run))
