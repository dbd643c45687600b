"""Consent: whether this node takes part in one attempt at one round.

Decides it alone, from three sources: the ledger as this node verified it, the member's own policy, and
what its own trainer found. The coordinator's word counts for nothing: each field of the round
authorisation must follow from the mandate that the members voted for. Runs before any data is touched,
and refuses with a code and a why. Never sees a delta. Pure.

Implements the checks of secure aggregation 1.2 that a member makes itself: model_in (against model
inconsistency, Pasquini et al. 2022), prev, cohort, thresholds, and the high-water mark.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from fedproto.authorisation import (
    Authorisation,
    SignedAuthorisation,
    open_authorisation,
    recovery_threshold,
)
from fedproto.errors import LocalFault
from fedproto.governance.charter import Charter, Role
from fedproto.governance.rules import Ballot, check_mandate
from fedproto.identity import VerifyKey
from fedproto.ids import Digest, KeyId, MemberId, RunId
from fedproto.statements import Outcome, ProposalOpened, RoundClosed, RoundStarted, RunApproved
from member_node.ballot import Found, differences
from member_node.marks import Mark, seen_before
from member_node.policy import Policy, check_plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Grounds:
    """What the verified ledger says of one run; the only ground that consent stands on."""

    charter: Charter
    mandate_leaf: Digest
    mandate: RunApproved
    proposal: ProposalOpened
    ballots: Mapping[MemberId, Ballot]
    started: tuple[RoundStarted, ...]
    closed: tuple[tuple[Digest, RoundClosed], ...]
    own_receipts: tuple[Mark, ...]
    base_approved: bool
    stopped: bool


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
    first: bool

    @property
    def round_(self) -> Authorisation:
        """The content that was consented to."""
        return self.authorisation.content


def authenticate(raw: bytes, charter: Charter) -> SignedAuthorisation:
    """Open an authorisation; refuse one that the charter's operator did not sign."""

    def operator_key(key: KeyId) -> VerifyKey | None:
        holder = charter.holder(key)
        known = holder is not None and Role.OPERATOR in holder.roles
        return charter.verify_key(key) if known else None

    try:
        return open_authorisation(raw, operator_key)
    except LocalFault as fault:
        raise _forged(fault.why) from None


def check(
    authorisation: SignedAuthorisation, grounds: Grounds | None, site: Site, now_ms: int
) -> Consent:
    """Return the consent, or refuse: to be called before data is touched.

    Raises:
        LocalFault: RNM-CONSENT-0001 no mandate covers it; -0002 its term is over; -0003 it was
            answered before; -0004 the member's policy; -0005 it does not follow from the mandate;
            -0006 another model; RNM-STATE-0001 this node's marks are older than its own receipts.
    """
    round_ = authorisation.content
    if grounds is None:
        raise _uncovered(round_.run, "the verified ledger has no mandate for this run")
    _check_mandate(round_, grounds, site.me)
    _check_term(round_, grounds.mandate, now_ms)
    _check_parameters(round_, grounds)
    _check_position(round_, grounds)
    _check_entry(authorisation, grounds)
    mark = Mark(round_.round, round_.attempt)
    _check_mark(round_.run, mark, grounds, site.last)
    check_plan(site.policy, grounds.mandate.plan)
    return Consent(
        authorisation=authorisation,
        mandate=grounds.mandate,
        mark=mark,
        first=round_.model_in == grounds.mandate.plan.initial_adapter,
    )


def check_model(consent: Consent, found: Found) -> None:
    """Refuse unless the node's own trainer found the model and layout of the mandate."""
    reasons = differences(consent.mandate.plan, found)
    if reasons:
        raise _other_model("; ".join(reasons))


def _check_mandate(round_: Authorisation, grounds: Grounds, me: MemberId) -> None:
    mandate, run = grounds.mandate, round_.run
    if round_.mandate != grounds.mandate_leaf or run != mandate.run:
        raise _uncovered(run, "it cites another entry than the mandate in the ledger")
    try:
        # The ledger's own rules counted these votes before; a node counts them again.
        check_mandate(grounds.charter, mandate, grounds.proposal, grounds.ballots)
    except LocalFault as fault:
        raise _uncovered(run, fault.why) from None
    if not grounds.base_approved:
        raise _uncovered(run, "the base model that it starts from is not approved in the ledger")
    if grounds.stopped:
        raise _uncovered(run, "the run has ended")
    if me not in mandate.members:
        raise _uncovered(run, f"{me} is not among the members of the mandate")


def _check_term(round_: Authorisation, mandate: RunApproved, now_ms: int) -> None:
    if not mandate.not_before <= now_ms < mandate.not_after:
        raise _expired(round_.run, "the mandate's term does not include this moment")
    if not now_ms < round_.not_after <= mandate.not_after:
        raise _expired(round_.run, "the authorisation is over, or outlasts its mandate")


def _check_parameters(round_: Authorisation, grounds: Grounds) -> None:
    """Compare each field that the plan fixes; what the members voted for is what they get."""
    mandate, charter = grounds.mandate, grounds.charter
    plan = mandate.plan
    cohort = len(mandate.members)
    pairs = (
        ("consortium", round_.consortium, charter.consortium),
        ("charter", round_.charter, charter.digest),
        ("members", round_.members, mandate.members),
        ("tolerated", round_.tolerated, plan.aggregation.tolerated),
        (
            "recovery_threshold",
            round_.recovery_threshold,
            recovery_threshold(cohort, plan.aggregation.tolerated),
        ),
        ("parameters", round_.parameters, plan.parameters),
        ("layout_sha256", round_.layout_sha256, plan.layout_sha256),
        ("plan_sha256", round_.plan_sha256, mandate.plan_sha256),
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
    aggregated = [r for _, r in grounds.closed if r.outcome is Outcome.AGGREGATED]
    prev = grounds.closed[-1][0] if grounds.closed else grounds.mandate_leaf
    number = aggregated[-1].round + 1 if aggregated else 1
    initial = grounds.mandate.plan.initial_adapter
    model_in = aggregated[-1].model_out if aggregated else initial
    if round_.round != number:
        raise _forged(f"round {round_.round} does not follow: the ledger is at round {number}")
    if round_.prev != prev:
        raise _forged("prev is not the last closed round in the ledger")
    if round_.model_in != model_in:
        raise _other_model("model_in is not the adapter that the ledger's last round led to")


def _check_entry(authorisation: SignedAuthorisation, grounds: Grounds) -> None:
    """The attempt must be in the ledger: all members see one and the same authorisation."""
    round_ = authorisation.content
    attempts = [s for s in grounds.started if s.round == round_.round]
    latest = attempts[-1] if attempts else None
    if latest is None or latest.authorisation_sha256 != authorisation.digest:
        raise _uncovered(round_.run, "the ledger's latest round.started entry is not of it")
    said = (latest.run, latest.attempt, latest.model_in, latest.invited)
    if said != (round_.run, round_.attempt, round_.model_in, round_.members):
        raise _forged("the ledger's round.started entry says otherwise")


def _check_mark(run: RunId, mark: Mark, grounds: Grounds, last: Mark) -> None:
    if any(receipt > last for receipt in grounds.own_receipts):
        raise LocalFault(
            "RNM-STATE-0001",
            what="this node takes no part",
            why="the ledger has newer receipts of this node than its own record of rounds: "
            "the record was set back",
            mend="find out who restored an old copy of the node's directory; this run is over "
            "for the node",
        )
    if mark <= last:
        raise seen_before(run, mark, last)


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


def _other_model(why: str) -> LocalFault:
    mend = "compare the base model and the version of Renmei with the other members"
    return _refusal("RNM-CONSENT-0006", why, mend)
