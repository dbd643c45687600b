"""What follows from the ballots in the ledger and is not written down yet.

Decides nothing of its own: the count is the charter's, and every node counts again. Of a run it waits
until all members of the plan have answered, or voting has closed, so that no willing member is left
out. Also says when the log's own clock needs a cosigned checkpoint. Pure.
"""

from collections.abc import Iterator
from typing import assert_never

from audit import decision
from audit.checkpoint import open_checkpoint, read_text
from audit.note import Note, parse
from audit.policy import policy_of
from audit.records import Proposal, State
from fedproto.events.governance import (
    CharterAdopted,
    CharterTerms,
    Choice,
    Closing,
    EmergencyResumed,
    KeyChanged,
    KeyOperation,
    KeyTerms,
    MemberStatus,
    ProposalClosed,
    ResumeTerms,
    StandingTerms,
)
from fedproto.events.models import (
    BaseModel,
    BaseModelApproved,
    ReleaseApproved,
    ReleaseRevoked,
    ReleaseTerms,
    RevocationTerms,
)
from fedproto.events.oversight import AnchorKind, AnchorMade
from fedproto.events.rounds import RunApproved
from fedproto.governance import rules
from fedproto.governance.plan import RunPlan
from fedproto.governance.tally import Verdict
from fedproto.ids import Digest, RunId
from fedproto.statements import Body

ANCHOR_EVERY_S = 3_600


def due(state: State, run: RunId, now_ms: int) -> Iterator[Body]:
    """Yield the acts that follow now, oldest proposal first; `run` names a mandate if one is among them.

    Each holds in `state` alone: the caller appends the first, then asks again.
    """
    if not state.charters or not state.founded:
        return
    for proposal in state.open_proposals():
        yield from _due(state, proposal, run, now_ms)


def _due(state: State, proposal: Proposal, run: RunId, now_ms: int) -> Iterator[Body]:
    standing = decision.stands(state, proposal)
    if standing is Verdict.VETOED:
        yield _closing(proposal, Closing.VETOED)
    elif standing is Verdict.REJECTED:
        yield _closing(proposal, Closing.REJECTED)
    else:
        if standing is Verdict.CARRIED and _is_ripe(state, proposal):
            act = _carried_out(state, proposal, run, now_ms)
            if act is not None:
                yield act
        # Also what was carried and cannot be carried out: the ledger refused the act before this one.
        if now_ms > proposal.opened.body.closes_at and _lapsed(state, proposal, now_ms):
            yield _closing(proposal, Closing.EXPIRED)


def _lapsed(state: State, proposal: Proposal, now_ms: int) -> bool:
    """Say whether nothing is to be expected of a proposal that is neither vetoed nor rejected."""
    waits = proposal.carried is not None and not _is_ripe(state, proposal)
    term_ms = rules.clause_for(state.charter, proposal.opened.body).expires_s * 1000
    return not waits or now_ms > proposal.opened.at + term_ms


def _closing(proposal: Proposal, outcome: Closing) -> ProposalClosed:
    return ProposalClosed(
        proposal=proposal.opened.leaf,
        outcome=outcome,
        votes=tuple(sorted(vote.leaf for vote in proposal.votes)),
    )


def _is_ripe(state: State, proposal: Proposal) -> bool:
    ripe = decision.ripens_at(state, proposal)
    return ripe is not None and state.clock_s >= ripe


def _carried_out(state: State, proposal: Proposal, run: RunId, now_ms: int) -> Body | None:
    """Return the act that carries a proposal out, or nothing while something else is missing."""
    terms, leaf = proposal.opened.body.terms, proposal.opened.leaf
    votes = decision.approvals(state, proposal)
    match terms:
        case RunPlan():
            return _mandate(state, proposal, terms, run, now_ms)
        case CharterTerms():
            digest = terms.charter.digest
            return CharterAdopted(
                sha256=digest, charter=terms.charter, operator_key=None, proposal=leaf, votes=votes
            )
        case BaseModel():
            return BaseModelApproved(model=terms, proposal=leaf, votes=votes)
        case StandingTerms():
            return MemberStatus(
                member=terms.member, standing=terms.standing, proposal=leaf, votes=votes
            )
        case KeyTerms():
            return _revocation(state, terms, leaf, votes)
        case ReleaseTerms():
            return _release(state, terms, leaf, votes)
        case RevocationTerms():
            return ReleaseRevoked(revocation=terms, proposal=leaf, votes=votes)
        case ResumeTerms():
            return EmergencyResumed(stop=terms.stop, proposal=leaf, votes=votes)
        case _:
            assert_never(terms)


def _mandate(
    state: State, proposal: Proposal, plan: RunPlan, run: RunId, now_ms: int
) -> RunApproved | None:
    opened, ballots = proposal.opened.body, proposal.ballots
    if not (set(plan.members) <= ballots.keys() or now_ms > opened.closes_at):
        return None
    counted = decision.entitled(state, opened)
    yes = {m for m, ballot in ballots.items() if ballot.choice is Choice.YES and m in counted}
    willing = tuple(m for m in plan.members if m in yes)
    if len(willing) < plan.min_members or state.stopped(run) is not None:
        return None
    return RunApproved(
        run=run,
        proposal=proposal.opened.leaf,
        votes=decision.approvals(state, proposal),
        members=willing,
        plan=plan,
        plan_sha256=opened.terms_sha256,
        not_before=now_ms,
        not_after=now_ms + rules.clause_for(state.charter, opened).expires_s * 1000,
    )


def _revocation(
    state: State, terms: KeyTerms, leaf: Digest, votes: tuple[Digest, ...]
) -> KeyChanged | None:
    key = state.key(terms.key)
    if key is None:
        # Its holder was quicker; the proposal will expire.
        return None
    return KeyChanged(
        op=KeyOperation.REVOKE,
        use=key.use,
        key=terms.key,
        new=None,
        reason=terms.reason,
        proposal=leaf,
        votes=votes,
    )


def _release(
    state: State, terms: ReleaseTerms, leaf: Digest, votes: tuple[Digest, ...]
) -> ReleaseApproved | None:
    attested = state.evaluations.get(terms.artifact, ())
    enough = len({item.member for item in attested}) >= state.charter.limits.evaluations
    if not enough or state.stopped(terms.made_by) is not None:
        return None
    evaluations = tuple(sorted(item.leaf for item in attested))
    return ReleaseApproved(release=terms, evaluations=evaluations, proposal=leaf, votes=votes)


def anchor_due(state: State, note: bytes | None, now_s: int) -> AnchorMade | None:
    """Return the anchor that moves the log's clock now, if one is due.

    A timelock needs one after the ballot that carried, and one after its time; auditors need one
    every hour in which something happened. `note` is the newest cosigned checkpoint.
    """
    if note is None or not state.charters or not state.founded:
        return None
    size = read_text(parse(note).text).head.size
    covered = state.anchors[-1].size if state.anchors else 0
    # What the last anchor did not cover, besides that anchor's own entry.
    news = size - covered - (1 if state.anchors else 0)
    hourly = news > 0 and now_s - state.clock_s >= ANCHOR_EVERY_S
    if size <= covered or not (
        hourly or any(_needs_clock(state, p, size, now_s) for p in state.open_proposals())
    ):
        return None
    return _anchor(state, note)


def _needs_clock(state: State, proposal: Proposal, size: int, now_s: int) -> bool:
    if proposal.carried is None:
        return False
    ripe = decision.ripens_at(state, proposal)
    if ripe is None:
        return size > proposal.carried
    return bool(ripe) and state.clock_s < ripe <= now_s


def _anchor(state: State, note: bytes) -> AnchorMade:
    """Strip a note to what the anchor may carry: the log's line and those of its witnesses."""
    policy = policy_of(state.charter)
    signed = open_checkpoint(note, policy.log, policy.origin)
    policy = policy_of(state.charter_at(signed.head.size))
    log = signed.note.find(policy.log)
    assert log is not None  # noqa: S101  # open_checkpoint found it
    lines = (log, *(item.line for item in policy.cosignatures(signed.note)))
    text = Note(signed.note.text, lines).encode().decode("utf-8")
    return AnchorMade(kind=AnchorKind.WITNESSED, size=signed.head.size, note=text, token_sha256="")
