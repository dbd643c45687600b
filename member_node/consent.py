"""Consent: whether this node takes part in one attempt at one round.

Decides it alone, from three sources: the ledger as this node verified it, the member's own policy, and
what its own trainer found. The coordinator's word counts for nothing: each field of the round
authorisation must follow from the mandate that the members voted for. Runs before any data is touched,
and refuses with a code and a why. Never sees a delta. Pure.

Implements the checks of secure aggregation 1.2 that a member makes itself: model_in (against model
inconsistency, Pasquini et al. 2022), prev, cohort, thresholds, and the high-water mark.
"""

from dataclasses import dataclass

from audit.records import Logged, Proposal, Round, State
from fedproto.authorisation import (
    Authorisation,
    SignedAuthorisation,
    open_authorisation,
    recovery_threshold,
    word_bits,
)
from fedproto.errors import LocalFault
from fedproto.events.rounds import Outcome, RunApproved
from fedproto.governance.charter import Charter, Role
from fedproto.governance.rules import check_mandate
from fedproto.identity import VerifyKey
from fedproto.ids import KeyId, MemberId, RunId
from member_node.ballot import Found, differences
from member_node.marks import Mark
from member_node.policy import Policy, check_plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Grounds:
    """What the verified ledger says of one run; the only ground that consent stands on.

    `charter` is the one in force; `voted_under` and `voters` are those that the mandate was counted by.
    """

    charter: Charter
    voted_under: Charter
    voters: frozenset[MemberId]
    mandate: Logged[RunApproved]
    proposal: Proposal
    attempts: tuple[Round, ...]
    base_approved: bool
    stopped_by: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What the node knows of itself: who it is, its policy, and the last attempt it answered."""

    me: MemberId
    policy: Policy
    last: Mark


@dataclass(frozen=True, slots=True, kw_only=True)
class Consent:
    """The node takes part; nothing else makes one. `model_in` is what training starts from."""

    authorisation: SignedAuthorisation
    mandate: RunApproved
    mark: Mark

    @property
    def content(self) -> Authorisation:
        """What was consented to."""
        return self.authorisation.content


def grounds_of(state: State, run: RunId) -> Grounds | None:
    """Look a run up in the verified ledger; nothing if it has no mandate there."""
    found = state.runs.get(run)
    proposal = state.proposal(found.mandate.body.proposal) if found else None
    if found is None or proposal is None:
        return None
    base = found.mandate.body.plan.base_manifest_sha256
    stop = state.stopped(run)
    return Grounds(
        charter=state.charter,
        voted_under=state.charter_at(found.mandate.index),
        mandate=found.mandate,
        voters=found.voters,
        proposal=proposal,
        attempts=found.rounds,
        base_approved=state.base_model(base) is not None,
        stopped_by=stop.index if stop else None,
    )


def authenticate(raw: bytes, state: State) -> SignedAuthorisation:
    """Open an authorisation; refuse one that the charter's operator did not sign."""

    def operator_key(key: KeyId) -> VerifyKey | None:
        found = state.key(key)
        operators = state.charter.with_role(Role.OPERATOR)
        return found.verify_key if found and found.member in operators else None

    try:
        return open_authorisation(raw, operator_key)
    except LocalFault as fault:
        raise _forged(fault.why) from None


def is_decided(authorisation: SignedAuthorisation, state: State) -> bool:
    """Say whether the verified ledger shows this attempt, under whichever authorisation.

    For waiting, not for consent: until then the entry may be on its way.
    """
    content = authorisation.content
    place = (content.round, content.attempt)
    started = [attempt.started.body for attempt in state.rounds(content.run)]
    return any((s.round, s.attempt) >= place for s in started)


def check(
    authorisation: SignedAuthorisation, grounds: Grounds | None, site: Site, now_ms: int
) -> Consent:
    """Return the consent, or refuse: to be called before data is touched.

    Raises:
        LocalFault: RNM-GOV-0004 work is stopped; RNM-CONSENT-0001 no mandate covers it; -0002 its term is over; -0003 it was
            answered before; -0004 the member's policy; -0005 it does not follow from the mandate;
            -0006 another model; -0007 the sum before was not audited; RNM-STATE-0001 this node's marks are older than its own receipts.
    """
    round_ = authorisation.content
    if grounds is None:
        raise _uncovered(round_.run, "the verified ledger has no mandate for this run")
    mandate = grounds.mandate.body
    check_running(round_.run, grounds.stopped_by)
    _check_mandate(round_, grounds, site.me)
    _check_term(round_, mandate, now_ms)
    _check_parameters(round_, grounds)
    _check_position(round_, grounds)
    _check_entry(authorisation, grounds.attempts)
    mark = Mark(round_.round, round_.attempt, round_.pass_no)
    _check_mark(round_.run, mark, grounds.attempts, site)
    check_plan(site.policy, mandate.plan)
    return Consent(authorisation=authorisation, mandate=mandate, mark=mark)


def check_running(run: RunId, stopped_by: int | None) -> None:
    """Refuse to go on while an emergency stop is in the verified ledger (RNM-GOV-0004)."""
    if stopped_by is not None:
        raise _refusal(
            "RNM-GOV-0004",
            f"entry {stopped_by} of the ledger stopped work",
            "nothing at this node: work goes on once the members have voted to resume",
            run,
        )


def check_model(consent: Consent, found: Found) -> None:
    """Refuse unless the node's own trainer found the model and layout of the mandate."""
    reasons = differences(consent.mandate.plan, found)
    if reasons:
        raise _other_model("; ".join(reasons))


def _check_mandate(round_: Authorisation, grounds: Grounds, me: MemberId) -> None:
    mandate, run = grounds.mandate.body, round_.run
    if round_.mandate != grounds.mandate.leaf or run != mandate.run:
        raise _uncovered(run, "it cites another entry than the mandate in the ledger")
    proposal = grounds.proposal
    if proposal.opened.leaf != mandate.proposal:
        raise _uncovered(run, "its mandate cites another proposal")
    try:
        # The ledger's own rules counted these votes before; a node counts them again.
        check_mandate(
            grounds.voted_under,
            mandate,
            proposal.opened.body,
            proposal.ballots,
            voters=grounds.voters,
        )
    except LocalFault as fault:
        raise _uncovered(run, fault.why) from None
    if not grounds.base_approved:
        raise _uncovered(run, "the base model that it starts from is not approved in the ledger")
    if me not in mandate.members:
        raise _uncovered(run, f"{me} is not among the members of the mandate")


def _check_term(round_: Authorisation, mandate: RunApproved, now_ms: int) -> None:
    if not mandate.not_before <= now_ms < mandate.not_after:
        raise _expired(round_.run, "the mandate's term does not include this moment")
    if not now_ms < round_.not_after <= mandate.not_after:
        raise _expired(round_.run, "the authorisation is over, or outlasts its mandate")


def _check_parameters(round_: Authorisation, grounds: Grounds) -> None:
    """Compare each field that the plan fixes; what the members voted for is what they get."""
    mandate, charter = grounds.mandate.body, grounds.charter
    plan = mandate.plan
    cohort = len(mandate.members)
    pairs = (
        ("consortium", round_.consortium, charter.consortium),
        ("charter", round_.charter, charter.digest),
        ("members", round_.members, mandate.members),
        ("tolerated", round_.tolerated, plan.aggregation.tolerated),
        ("groups", round_.groups, plan.aggregation.groups),
        (
            "recovery_threshold",
            round_.recovery_threshold,
            recovery_threshold(cohort, plan.aggregation.tolerated),
        ),
        ("parameters", round_.parameters, plan.parameters),
        ("layout_sha256", round_.layout_sha256, plan.layout_sha256),
        ("plan_sha256", round_.plan_sha256, mandate.plan_sha256),
        ("passes", round_.passes, plan.aggregation.method.passes),
        ("word_bits", round_.word_bits, word_bits(cohort, plan.aggregation.bits)),
        ("bits", round_.bits, plan.aggregation.bits),
        ("clip_milli", round_.clip_milli, plan.aggregation.clip_milli),
    )
    wrong = [name for name, said, due in pairs if said != due]
    if wrong:
        raise _forged(f"{', '.join(wrong)} differ from the mandate's plan")
    if round_.round > plan.training.rounds:
        raise _uncovered(round_.run, f"the mandate has {plan.training.rounds} rounds")


def _check_position(round_: Authorisation, grounds: Grounds) -> None:
    """The round must be the next one of the run, from the adapter that the last one led to."""
    records = [attempt.closed for attempt in grounds.attempts if attempt.closed]
    aggregated = [record.body for record in records if record.body.outcome is Outcome.AGGREGATED]
    prev = records[-1].leaf if records else grounds.mandate.leaf
    number = len(aggregated) + 1
    plan = grounds.mandate.body.plan
    model_in = aggregated[-1].model_out if aggregated else plan.initial_adapter
    _check_audited(round_, grounds.attempts)
    if round_.round != number:
        raise _forged(f"round {round_.round} does not follow: the ledger is at round {number}")
    if round_.prev != prev:
        raise _forged("prev is not the last closed round in the ledger")
    if round_.model_in != model_in:
        raise _other_model("model_in is not the adapter that the ledger's last round led to")


def _check_audited(round_: Authorisation, attempts: tuple[Round, ...]) -> None:
    """T members must have found the sum of the round before right: one that no one checks may be any."""
    done = [attempt for attempt in attempts if attempt.aggregated]
    if not done:
        return
    last = done[-1]
    disputed = last.disputed
    if disputed is not None:
        raise _unaudited(f"entry {disputed.index}, of {disputed.member}, refuses its sum")
    missing = last.unaudited(round_.recovery_threshold, round_.tolerated)
    if missing:
        raise _unaudited(missing)


def _check_entry(authorisation: SignedAuthorisation, attempts: tuple[Round, ...]) -> None:
    """The attempt must be in the ledger: all members see one and the same authorisation."""
    round_ = authorisation.content
    latest = attempts[-1] if attempts else None
    if latest is None or latest.started.body.authorisation_sha256 != authorisation.digest:
        raise _uncovered(round_.run, "the ledger's latest round.started entry is not of it")
    if latest.closed is not None:
        raise _uncovered(round_.run, "the ledger has the attempt as closed already")
    started = latest.started.body
    said = (started.run, started.round, started.attempt, started.model_in, started.invited)
    if said != (round_.run, round_.round, round_.attempt, round_.model_in, round_.members):
        raise _forged("the ledger's round.started entry says otherwise")


def _check_mark(run: RunId, mark: Mark, attempts: tuple[Round, ...], site: Site) -> None:
    receipts = [
        Mark(receipt.body.round, receipt.body.attempt)
        for attempt in attempts
        for receipt in attempt.receipts
        if receipt.member == site.me
    ]
    if any(receipt > site.last for receipt in receipts):
        raise LocalFault(
            "RNM-STATE-0001",
            what="this node takes no part",
            why="the ledger has newer receipts of this node than its own record of rounds: "
            "the record was set back",
            mend="find out who restored an old copy of the node's directory; this run is over "
            "for the node",
        )
    mark.require_after(run, site.last)


def _refusal(code: str, why: str, mend: str, run: str = "") -> LocalFault:
    what = f"run {run[:8]} was refused" if run else "a round was refused"
    return LocalFault(code, what=what, why=why, mend=mend)


def _uncovered(run: RunId, why: str) -> LocalFault:
    mend = "nothing at this node: a run needs a mandate that the members voted for"
    return _refusal("RNM-CONSENT-0001", why, mend, run)


def _expired(run: RunId, why: str) -> LocalFault:
    mend = "compare the clock of this node; if it is right, the members have to vote again"
    return _refusal("RNM-CONSENT-0002", why, mend, run)


def _forged(why: str) -> LocalFault:
    mend = "keep the node's log and tell the other members: the coordinator sent what it may not"
    return _refusal("RNM-CONSENT-0005", why, mend)


def _unaudited(why: str) -> LocalFault:
    mend = "nothing at this node: ask the coordinator why, and put it before the members"
    return _refusal("RNM-CONSENT-0007", f"of the round before, {why}", mend)


def _other_model(why: str) -> LocalFault:
    mend = "compare the base model and the version of Renmei with the other members"
    return _refusal("RNM-CONSENT-0006", why, mend)
