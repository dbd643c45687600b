"""Counting ballots: who said what, once each, and whether the clause is met. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from fedproto.events.governance import Choice
from fedproto.governance.charter import Clause, Rule
from fedproto.ids import MemberId


class Verdict(Enum):
    """Where a proposal stands."""

    OPEN = "open"
    CARRIED = "carried"
    REJECTED = "rejected"
    VETOED = "vetoed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """Members by their answer; a member stands in at most one set."""

    approvals: frozenset[MemberId]
    refusals: frozenset[MemberId]
    abstentions: frozenset[MemberId]
    vetoes: frozenset[MemberId]


@dataclass(frozen=True, slots=True, kw_only=True)
class Motion:
    """What one clause asks of a proposal: of whom, and about whom (empty: about nobody)."""

    clause: Clause
    voters: frozenset[MemberId]
    subject: str = ""

    @property
    def entitled(self) -> frozenset[MemberId]:
        """Who counts: the voters, without the one that it is about where the clause says so."""
        if self.clause.rule is Rule.ALL_BUT_SUBJECT:
            return self.voters - {MemberId(self.subject)}
        return self.voters

    @property
    def needed(self) -> int:
        """How many yes votes carry it; never none, for then a motion without voters would carry."""
        if self.clause.rule is Rule.COUNT:
            return self.clause.yes
        return max(1, len(self.entitled))


def count(ballots: Mapping[MemberId, Choice], voters: frozenset[MemberId]) -> Tally:
    """Count the ballots of `voters`; ballots of others do not count."""

    def said(choice: Choice) -> frozenset[MemberId]:
        return frozenset(m for m, answer in ballots.items() if answer is choice and m in voters)

    return Tally(
        approvals=said(Choice.YES),
        refusals=said(Choice.NO),
        abstentions=said(Choice.ABSTAIN),
        vetoes=said(Choice.VETO),
    )


def verdict(motion: Motion, ballots: Mapping[MemberId, Choice]) -> Verdict:
    """Return the verdict; CARRIED as soon as no later ballot but a veto could change it."""
    tally = count(ballots, motion.entitled)
    if tally.vetoes:
        return Verdict.VETOED
    if len(tally.approvals) >= motion.needed:
        return Verdict.CARRIED
    # Refusal is final once the members still silent cannot reach the quorum.
    silent = motion.entitled - tally.approvals - tally.refusals - tally.abstentions
    if len(tally.approvals) + len(silent) < motion.needed:
        return Verdict.REJECTED
    return Verdict.OPEN


def verdict_of_all(verdicts: list[Verdict]) -> Verdict:
    """Return what several motions decide together: one veto or refusal ends it, all must carry."""
    for ending in (Verdict.VETOED, Verdict.REJECTED, Verdict.OPEN):
        if ending in verdicts:
            return ending
    return Verdict.CARRIED
