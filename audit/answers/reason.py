"""Why an entry was allowed: the clause, the votes and thresholds, and the charter they stand in.

Recounts a decision in the state before it, by the same functions as admission. An act that needs no
vote names the clause or the roles that leave it to its actor. Pure.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from audit import decision
from audit.history import History
from audit.records import Proposal, State
from fedproto.events import models, rounds
from fedproto.events.governance import (
    CharterAdopted,
    CharterTerms,
    Choice,
    EmergencyResumed,
    EmergencyStopped,
    KeyChanged,
    MemberStatus,
    ProposalClosed,
    ProposalOpened,
    VoteCast,
)
from fedproto.governance.charter import Action, Charter, Clause
from fedproto.governance.tally import Motion, count
from fedproto.ids import Digest, MemberId
from fedproto.statements import Body


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    """A ballot, and whether it counts (an amendment asks twice, and who left is not asked)."""

    index: int
    member: MemberId
    choice: str
    counts: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What one clause asked, and how many said yes; `under` is the charter's version."""

    action: str
    under: int
    clause: Clause
    entitled: tuple[MemberId, ...]
    subject: str
    needed: int
    yes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Why entry `index` was allowed. `basis` is vote, direct, role or founding.

    `decided_by` is the entry of the decision that it rests on: the mandate, for an act of a run.
    """

    index: int
    type: str
    member: MemberId
    roles: tuple[str, ...]
    basis: Literal["vote", "direct", "role", "founding"]
    charter_version: int
    charter_sha256: Digest
    charter_index: int
    decided_by: int | None = None
    proposal: int | None = None
    asked: tuple[Asked, ...] = ()
    votes: tuple[Vote, ...] = ()
    carried: int | None = None
    vetoed: int | None = None

    @property
    def cites(self) -> tuple[int, ...]:
        """Every entry that this rests on, in order."""
        named = (
            self.index,
            self.charter_index,
            self.decided_by,
            self.proposal,
            self.carried,
            self.vetoed,
        )
        votes = (vote.index for vote in self.votes)
        return tuple(sorted({index for index in (*named, *votes) if index is not None}))


# What an actor may do by a clause without a vote.
_DIRECT: dict[type[Body], Action] = {
    models.BaseModelApproved: Action.APPROVE_BASE_MODEL,
    EmergencyStopped: Action.STOP,
}
_OF_A_RUN = (
    rounds.RoundStarted
    | rounds.RoundClosed
    | rounds.UpdateCommitted
    | rounds.ParticipationSigned
    | rounds.SumAudited
    | rounds.BudgetSpent
)
_DECISIONS = (
    CharterAdopted
    | MemberStatus
    | KeyChanged
    | EmergencyResumed
    | ProposalClosed
    | models.BaseModelApproved
    | models.ReleaseApproved
    | models.ReleaseRevoked
    | rounds.RunApproved
)


def reason(history: History, index: int) -> Reason:
    """Return why an entry was allowed; raise RNM-CONF-0001 if there is none."""
    history.event(index)
    found = _plain(history.state_at(index), history, index)
    behind = _behind(history, index)
    if behind is None:
        return found
    leaf, decided = behind
    state = history.state_at(_judged_at(history, leaf) if decided is None else decided)
    return _by_vote(state, found, state.proposals[leaf], decided)


def _plain(state: State, history: History, index: int) -> Reason:
    event = history.event(index)
    # The first entry adopts the charter that it stands under.
    act = history.state.charters[0] if not state.charters else state.charters[-1]
    charter = act.body.charter
    member = charter.member(event.actor.member)
    action = _DIRECT.get(type(event.body)) if state.founded else None
    clause = charter.clause(action) if action else None
    return Reason(
        index=index,
        type=event.type,
        member=event.actor.member,
        roles=tuple(role.value for role in member.roles) if member else (),
        basis="direct" if clause else "role" if state.founded else "founding",
        charter_version=charter.version,
        charter_sha256=charter.digest,
        charter_index=act.index,
        asked=(_asked(Motion(clause=clause, voters=frozenset()), charter, {}),) if clause else (),
    )


def _behind(history: History, index: int) -> tuple[Digest, int | None] | None:
    """Return the proposal that an entry rests on, and the entry that decided it if one did."""
    state, body = history.state, history.event(index).body
    if isinstance(body, _OF_A_RUN):
        mandate = state.runs[body.run].mandate
        return mandate.body.proposal, mandate.index
    if isinstance(body, ProposalOpened | VoteCast):
        leaf = history.leaves[index] if isinstance(body, ProposalOpened) else body.proposal
        return leaf, state.proposals[leaf].decided
    if isinstance(body, _DECISIONS) and body.proposal:
        return Digest(body.proposal), index
    return None


def _judged_at(history: History, leaf: Digest) -> int:
    """Return the size up to which an undecided proposal could be voted on: an amendment ends it."""
    opened = history.state.proposals[leaf].opened
    later = (act.index for act in history.state.charters if act.index > opened.index)
    return next(later, len(history.events))


def _by_vote(state: State, found: Reason, proposal: Proposal, decided: int | None) -> Reason:
    opened, act = proposal.opened.body, state.charters[-1]
    motions = decision.motions(state, opened)
    charters = [act.body.charter]
    if isinstance(opened.terms, CharterTerms):
        charters.append(opened.terms.charter)
    answers = {vote.member: vote.body.choice for vote in proposal.votes}
    entitled = decision.entitled(state, opened)
    return replace(
        found,
        basis="vote",
        charter_version=act.body.charter.version,
        charter_sha256=act.body.sha256,
        charter_index=act.index,
        decided_by=decided,
        proposal=proposal.opened.index,
        asked=tuple(_asked(motion, _charter_of(motion, charters), answers) for motion in motions),
        votes=tuple(
            Vote(
                index=vote.index,
                member=vote.member,
                choice=vote.body.choice.value,
                counts=vote.member in entitled,
            )
            for vote in proposal.votes
        ),
        carried=proposal.carried,
        vetoed=proposal.vetoed,
    )


def _charter_of(motion: Motion, charters: list[Charter]) -> Charter:
    """Return the charter that a motion's clause is of: an amendment asks two."""
    return next(c for c in charters if any(motion.clause is own for own in c.actions.values()))


def _asked(motion: Motion, charter: Charter, answers: Mapping[MemberId, Choice]) -> Asked:
    names = [name for name, clause in charter.actions.items() if clause is motion.clause]
    direct = motion.clause.direct
    return Asked(
        action=names[0],
        under=charter.version,
        clause=motion.clause,
        entitled=tuple(sorted(motion.entitled)),
        subject=motion.subject,
        needed=0 if direct else motion.needed,
        yes=len(count(answers, motion.entitled).approvals),
    )
