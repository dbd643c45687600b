"""The rule of each act: what must stand in the ledger before it.

Decides one event type each, on top of the common checks of `audit.state`. Trusts only admitted acts.
Every refusal raises RNM-GOV-*. Pure.
"""

from dataclasses import replace

from audit.policy import WitnessPolicy
from audit.records import Logged, Proposal, Round, Run, State
from fedproto.governance import rules
from fedproto.governance.charter import Charter, Role
from fedproto.governance.rules import refuse
from fedproto.governance.tally import electorate
from fedproto.ids import ZERO_DIGEST, KeyId, MemberId
from fedproto.statements import (
    BaseModelApproved,
    CharterAdopted,
    DatasetDeclared,
    Outcome,
    ParticipationSigned,
    ProposalOpened,
    RoundClosed,
    RoundStarted,
    RunApproved,
    VoteCast,
)

_AGAIN = "RNM-GOV-0003"
_QUORUM = "RNM-GOV-0002"


def adopt_charter(state: State, act: Logged[CharterAdopted], signers: tuple[KeyId, ...]) -> State:
    """The first charter or the next one, signed by all who must."""
    charter = act.body.charter
    try:
        WitnessPolicy.from_charter(charter)
    except ValueError as error:
        raise refuse(f"the charter's witness policy does not hold: {error}") from None
    if state.charters:
        _check_amendment(state.charter, charter, signers)
    else:
        _check_genesis(charter, signers)
    return replace(state, charters=(*state.charters, act))


def _check_genesis(charter: Charter, signers: tuple[KeyId, ...]) -> None:
    if charter.version != 1 or charter.prev_sha256 != ZERO_DIGEST:
        raise refuse("the first charter is version 1 and has no predecessor")
    operators = set(charter.with_role(Role.OPERATOR))
    if not operators:
        raise refuse("the charter names no operator")
    missing = (_voters(charter) | operators) - _members(charter, signers)
    if missing:
        raise refuse(f"the first charter lacks the signature of {_names(missing)}", _QUORUM)


def _check_amendment(old: Charter, new: Charter, signers: tuple[KeyId, ...]) -> None:
    """Ask for the threshold of the old charter and of the new one, and for each newcomer's word."""
    if new.version != old.version + 1 or new.prev_sha256 != old.digest:
        raise refuse(f"an amendment of version {old.version} is version {old.version + 1} after it")
    if (new.consortium, new.origin) != (old.consortium, old.origin):
        raise refuse("an amendment keeps the consortium and the log's origin")
    if new.log_vkey != old.log_vkey:
        raise refuse("an amendment keeps the log key: a new log key starts a new log")
    if not new.with_role(Role.OPERATOR):
        raise refuse("the charter names no operator")
    for name, charter in (("old", old), ("new", new)):
        signed = _members(charter, signers)
        for action, clause in charter.actions.items():
            agreed = signed & electorate(charter, clause)
            if len(agreed) < clause.yes:
                raise refuse(
                    f"{len(agreed)} of {clause.yes} voters of the {name} charter's {action} signed",
                    _QUORUM,
                )
    joined = {m.id for m in new.members} - {m.id for m in old.members}
    missing = joined - _members(new, signers)
    if missing:
        raise refuse(f"the amendment admits {_names(missing)} without their signature", _QUORUM)


def approve_base_model(state: State, act: Logged[BaseModelApproved]) -> State:
    """Base weights are released once, by a pretrainer."""
    rules.check_roles(state.charter, act.member, (Role.PRETRAINER,), "base_model.approved")
    manifest = act.body.manifest_sha256
    if manifest in state.base_models:
        raise refuse(f"base weights {manifest[:16]} are approved already", _AGAIN)
    return replace(state, base_models=state.base_models.with_item(manifest, act))


def declare_dataset(state: State, act: Logged[DatasetDeclared]) -> State:
    """A trainer commits to a dataset once; a copied commitment would hide whose data it is."""
    rules.check_roles(state.charter, act.member, (Role.TRAINER,), "dataset.declared")
    commitment = act.body.commitment
    if commitment in state.datasets:
        raise refuse(f"dataset {commitment[:16]} is declared already", _AGAIN)
    return replace(state, datasets=state.datasets.with_item(commitment, act))


def open_proposal(state: State, act: Logged[ProposalOpened]) -> State:
    """A plan within the charter, on approved weights, by whom the clause lets propose."""
    charter, body = state.charter, act.body
    clause = rules.clause_for(charter, body)
    rules.check_roles(charter, act.member, clause.propose, "proposal.opened")
    rules.check_plan(charter, body.plan)
    if body.plan.base_manifest_sha256 not in state.base_models:
        raise refuse(f"base weights {body.plan.base_manifest_sha256[:16]} are not approved")
    if body.closes_at <= act.at:
        raise refuse("the proposal closes before it opens")
    return replace(state, proposals=state.proposals.with_item(act.leaf, Proposal(opened=act)))


def cast_vote(state: State, act: Logged[VoteCast]) -> State:
    """One ballot a voter, for this proposal and this plan, in time and under one charter."""
    proposal = state.proposals.get(act.body.proposal)
    if proposal is None:
        raise refuse(f"there is no proposal {act.body.proposal[:16]}")
    opened = proposal.opened.body
    clause = rules.clause_for(state.charter, opened)
    rules.check_roles(state.charter, act.member, clause.vote, "vote.cast")
    _check_same_charter(state, proposal)
    if act.body.plan_sha256 != opened.plan_sha256:
        raise refuse("the ballot is for another plan than the proposal's")
    if any(vote.member == act.member for vote in proposal.votes):
        raise refuse(f"{act.member} has voted on this proposal", _AGAIN)
    if proposal.run is not None:
        raise refuse("the proposal is decided: its mandate is in the ledger")
    if act.at > opened.closes_at:
        raise refuse("the ballot is later than the proposal's close")
    voted = replace(proposal, votes=(*proposal.votes, act))
    return replace(state, proposals=state.proposals.with_item(act.body.proposal, voted))


def approve_run(state: State, act: Logged[RunApproved]) -> State:
    """A mandate follows from logged ballots, word by word; recounted here."""
    rules.check_roles(state.charter, act.member, (Role.OPERATOR,), "run.approved")
    proposal = state.proposals.get(act.body.proposal)
    if proposal is None:
        raise refuse(f"there is no proposal {act.body.proposal[:16]}")
    if proposal.run is not None:
        raise refuse("the proposal has a mandate already", _AGAIN)
    if act.body.run in state.runs:
        raise refuse(f"run {act.body.run} has a mandate already", _AGAIN)
    _check_same_charter(state, proposal)
    rules.check_mandate(state.charter, act.body, proposal.opened.body, proposal.ballots)
    decided = replace(proposal, run=act.body.run)
    return replace(
        state,
        proposals=state.proposals.with_item(act.body.proposal, decided),
        runs=state.runs.with_item(act.body.run, Run(mandate=act)),
    )


def start_round(state: State, act: Logged[RoundStarted]) -> State:
    """The next attempt under a mandate in force, with the members and the adapter it must have."""
    rules.check_roles(state.charter, act.member, (Role.OPERATOR,), "round.started")
    body = act.body
    run = state.runs.get(body.run)
    if run is None:
        raise refuse(f"no mandate covers run {body.run}")
    mandate = run.mandate.body
    # A later charter may have expelled a member or lowered a limit.
    rules.check_plan(state.charter, mandate.plan)
    if not mandate.not_before <= act.at <= mandate.not_after:
        raise refuse("the round is outside the mandate's term")
    if body.round > mandate.plan.training.rounds:
        raise refuse(f"the mandate covers {mandate.plan.training.rounds} rounds")
    if body.invited != mandate.members:
        raise refuse("the invited members are not those of the mandate")
    if any(
        attempt.started.body.authorisation_sha256 == body.authorisation_sha256
        for attempt in run.rounds
    ):
        raise refuse("the authorisation was used for another attempt", _AGAIN)
    _check_order(run, body)
    return _with_run(state, body.run, replace(run, rounds=(*run.rounds, Round(started=act))))


def _check_order(run: Run, body: RoundStarted) -> None:
    expected, model_in = (1, 1), run.mandate.body.plan.initial_adapter
    if run.last is not None:
        last, closed = run.last.started.body, run.last.closed
        if closed is None:
            raise refuse(f"round {last.round} attempt {last.attempt} is still open", _AGAIN)
        aborted = closed.body.outcome is Outcome.ABORTED
        expected = (last.round, last.attempt + 1) if aborted else (last.round + 1, 1)
        model_in = closed.body.model_out
    if (body.round, body.attempt) != expected:
        raise refuse(
            f"round {body.round} attempt {body.attempt} is not next; "
            f"next is round {expected[0]} attempt {expected[1]}",
            _AGAIN if (body.round, body.attempt) < expected else "RNM-GOV-0001",
        )
    if body.model_in != model_in:
        raise refuse(f"the round does not start from the adapter that is due, {model_in[:16]}")


def sign_participation(state: State, act: Logged[ParticipationSigned]) -> State:
    """A receipt of an invited member, once an attempt; it may come after the round's close."""
    rules.check_roles(state.charter, act.member, (Role.TRAINER,), "participation.signed")
    body = act.body
    run = state.runs.get(body.run)
    place = (body.round, body.attempt)
    found = [
        (number, attempt)
        for number, attempt in enumerate(run.rounds if run else ())
        if (attempt.started.body.round, attempt.started.body.attempt) == place
    ]
    if run is None or not found:
        raise refuse(f"round {body.round} attempt {body.attempt} of the run was not started")
    number, attempt = found[0]
    if act.member not in attempt.started.body.invited:
        raise refuse(f"{act.member} was not invited to the round")
    if body.authorisation_sha256 != attempt.started.body.authorisation_sha256:
        raise refuse("the receipt names another authorisation than the round's")
    if any(receipt.member == act.member for receipt in attempt.receipts):
        raise refuse(f"{act.member} has signed for this attempt", _AGAIN)
    declared = state.datasets.get(body.dataset)
    if declared is None or declared.member != act.member:
        raise refuse(f"{act.member} has not declared dataset {body.dataset[:16]}")
    signed = replace(attempt, receipts=(*attempt.receipts, act))
    rounds = (*run.rounds[:number], signed, *run.rounds[number + 1 :])
    return _with_run(state, body.run, replace(run, rounds=rounds))


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
        raise refuse("the round is closed already", _AGAIN)
    if body.model_in != started.model_in:
        raise refuse("the round started from another adapter")
    _check_cohort(run, started, body)
    rounds = (*run.rounds[:-1], replace(attempt, closed=act))
    return _with_run(state, body.run, replace(run, rounds=rounds))


def _check_cohort(run: Run, started: RoundStarted, body: RoundClosed) -> None:
    excluded = tuple(item.member for item in body.excluded)
    for named in (body.included, excluded):
        if list(named) != sorted(set(named)):
            raise refuse("the members of a round record are sorted and stand once")
    if sorted((*body.included, *excluded)) != sorted(started.invited):
        raise refuse("included and excluded members together are not those invited")
    minimum = run.mandate.body.plan.min_members
    match body.outcome:
        case Outcome.AGGREGATED:
            if len(body.included) < minimum:
                raise refuse(
                    f"{len(body.included)} members are in the sum, the plan needs {minimum}",
                    _QUORUM,
                )
        case Outcome.ABORTED:
            if body.included:
                raise refuse("an aborted round has no sum, so nobody is in it")
            if body.model_out != body.model_in:
                raise refuse("an aborted round leaves the adapter as it was")


def _check_same_charter(state: State, proposal: Proposal) -> None:
    """A charter change ends what was open: nobody voted under the new rules."""
    if proposal.opened.charter != state.charters[-1].body.sha256:
        raise refuse("the proposal was opened under an earlier charter; it has lapsed")


def _with_run(state: State, name: str, run: Run) -> State:
    return replace(state, runs=state.runs.with_item(name, run))


def _voters(charter: Charter) -> set[MemberId]:
    return {member for clause in charter.actions.values() for member in electorate(charter, clause)}


def _members(charter: Charter, signers: tuple[KeyId, ...]) -> set[MemberId]:
    """Return who signed, by member: two keys of one member are one signature."""
    holders = (charter.holder(key) for key in signers)
    return {holder.id for holder in holders if holder is not None}


def _names(members: set[MemberId]) -> str:
    return ", ".join(sorted(members))
