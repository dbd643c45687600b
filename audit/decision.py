"""What a proposal needs, where it stands, and what a decision that cites it must say.

Decides from logged ballots alone, under the charter in force; an amendment asks the old charter and the
new one. Time is the log's own clock, from witnesses' cosignatures. Used by the acts of `audit.acts`, by
the coordinator's clerk and by members. Every refusal raises RNM-GOV-*. Pure.
"""

from dataclasses import replace

from audit.records import Proposal, State
from fedproto.events.governance import CharterTerms, Choice, KeyTerms, ProposalOpened, StandingTerms
from fedproto.governance.charter import Action, Charter, Role
from fedproto.governance.rules import check_roles, refuse
from fedproto.governance.tally import Motion, Verdict, verdict, verdict_of_all
from fedproto.ids import Digest, MemberId

AGAIN = "RNM-GOV-0003"
QUORUM = "RNM-GOV-0002"


def motions(state: State, opened: ProposalOpened) -> tuple[Motion, ...]:
    """Return all that must carry for a proposal to carry."""
    terms, charter = opened.terms, state.charter
    if isinstance(terms, CharterTerms):
        return _amendment(state, charter, terms.charter)
    subject = terms.member if isinstance(terms, StandingTerms | KeyTerms) else ""
    return (_motion(state, charter, opened.action, subject),)


def _amendment(state: State, old: Charter, new: Charter) -> tuple[Motion, ...]:
    """The old charter's word and the new one's; a seat gained or lost asks for its own clause too."""
    before, after = {m.id for m in old.members}, {m.id for m in new.members}
    asked = [
        _motion(state, old, Action.AMEND_CHARTER),
        _motion(state, new, Action.AMEND_CHARTER),
    ]
    if after - before:
        asked.append(_motion(state, old, Action.ADMIT_MEMBER))
    asked += [_motion(state, old, Action.CHANGE_STANDING, gone) for gone in sorted(before - after)]
    return tuple(asked)


def _motion(state: State, charter: Charter, action: Action, subject: str = "") -> Motion:
    clause = charter.clause(action)
    return Motion(clause=clause, voters=state.voters(charter, clause), subject=subject)


def entitled(state: State, opened: ProposalOpened) -> frozenset[MemberId]:
    """Return who may vote on a proposal now."""
    return frozenset().union(*(motion.entitled for motion in motions(state, opened)))


def stands(state: State, proposal: Proposal) -> Verdict:
    """Return where a proposal stands by the ballots so far; a veto stands, whoever suspends its voter."""
    if proposal.vetoed is not None:
        return Verdict.VETOED
    answers = {member: ballot.choice for member, ballot in proposal.ballots.items()}
    asked = motions(state, proposal.opened.body)
    return verdict_of_all([verdict(motion, answers) for motion in asked])


def approvals(state: State, proposal: Proposal) -> tuple[Digest, ...]:
    """Return the yes votes that count on a proposal, sorted: what its decision cites."""
    # The yes of a member that was suspended or has left since carries nothing.
    counted = entitled(state, proposal.opened.body)
    yes = (vote for vote in proposal.votes if vote.body.choice is Choice.YES)
    return tuple(sorted(vote.leaf for vote in yes if vote.member in counted))


def find(state: State, leaf: Digest) -> Proposal:
    """Return a proposal that is not decided and was opened under the charter in force."""
    proposal = state.proposals.get(leaf)
    if proposal is None:
        raise refuse(f"there is no proposal {leaf[:16]}")
    if proposal.decided is not None:
        raise refuse(f"the proposal was decided by entry {proposal.decided}", AGAIN)
    # A charter change ends what was open: nobody voted under the new rules.
    if proposal.opened.charter != state.charters[-1].body.sha256:
        raise refuse("the proposal was opened under an earlier charter; it has lapsed")
    return proposal


def require_direct(state: State, action: Action, member: MemberId) -> None:
    """Refuse an act without a vote unless the charter leaves it to its actor."""
    clause = state.charter.clause(action)
    if not clause.direct:
        raise refuse(f"{action.value} needs a vote under this charter", QUORUM)
    check_roles(state.charter, member, clause.propose, action.value)


def check_executor(state: State, member: MemberId, action: Action, act: str) -> None:
    """Refuse a decision written down by another than the operator or who may propose the action.

    A decision follows from votes, so whoever writes it down adds nothing; and were it the operator's
    alone, a consortium could not end the operator's own key.
    """
    roles = (Role.OPERATOR, *state.charter.clause(action).propose)
    check_roles(state.charter, member, roles, act)


def require_carried(
    state: State, leaf: Digest, votes: tuple[Digest, ...], action: Action, at: int
) -> Proposal:
    """Return the proposal that a decision cites, if it is carried and ripe, and its votes are those.

    Raises:
        LocalFault: RNM-GOV-0002 it is not carried, or its timelock holds; RNM-GOV-0003 it was carried
            out; RNM-GOV-0001 anything else differs.
    """
    proposal = find(state, leaf)
    opened = proposal.opened.body
    if opened.action is not action:
        raise refuse(f"the decision cites a proposal for {opened.action.value}")
    standing = stands(state, proposal)
    if standing is not Verdict.CARRIED:
        raise refuse(f"the proposal is {standing.value}, not carried", QUORUM)
    if votes != approvals(state, proposal):
        raise refuse("the decision cites other votes than those in the ledger")
    check_ripe(state, proposal)
    term = max(motion.clause.expires_s for motion in motions(state, opened))
    if max(at, state.clock_s * 1000) > proposal.opened.at + term * 1000:
        raise refuse(f"the proposal has lapsed: it was to be carried out within {term} s")
    return proposal


def ripens_at(state: State, proposal: Proposal) -> int | None:
    """Return the witnessed time (Unix seconds) from which a carried proposal may be carried out.

    Nothing before an anchor covers the ballot that carried it. 0 if no timelock holds it.
    """
    lock = max(motion.clause.timelock_s for motion in motions(state, proposal.opened.body))
    if not lock:
        return 0
    if proposal.carried is None:
        return None
    carried = proposal.carried
    witnessed = next((a.time_s for a in state.anchors if a.size > carried), None)
    return None if witnessed is None else witnessed + lock


def check_ripe(state: State, proposal: Proposal) -> None:
    """Refuse a decision whose timelock holds by the log's own clock (RNM-GOV-0002)."""
    due = ripens_at(state, proposal)
    if due is None or state.clock_s < due:
        raise refuse(
            "the proposal's timelock holds: witnesses have not yet cosigned a checkpoint late enough",
            QUORUM,
        )


def recount(state: State) -> State:
    """Note from which entry on each open proposal is carried, after a change in who counts.

    A timelock runs from there, so a proposal that is carried anew waits anew.
    """
    for proposal in state.open_proposals():
        state = noted(state, proposal)
    return state


def noted(state: State, proposal: Proposal) -> State:
    """Put a proposal into the state, with the entry from which on it is carried."""
    carries = stands(state, proposal) is Verdict.CARRIED
    if carries and proposal.carried is None:
        proposal = replace(proposal, carried=state.size)
    elif not carries:
        proposal = replace(proposal, carried=None)
    leaf = proposal.opened.leaf
    return replace(state, proposals=state.proposals.with_item(leaf, proposal))


def decided(state: State, proposal: Proposal) -> State:
    """Return the state in which the entry that comes next has decided a proposal."""
    done = replace(proposal, decided=state.size)
    return replace(
        state,
        proposals=state.proposals.with_item(proposal.opened.leaf, done),
        waiting=tuple(leaf for leaf in state.waiting if leaf != proposal.opened.leaf),
    )
