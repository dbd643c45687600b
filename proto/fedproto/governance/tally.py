"""Counting ballots: who said what, once each, and whether the clause is met. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from fedproto.governance.charter import Charter, Clause
from fedproto.ids import MemberId
from fedproto.statements import Choice


class Verdict(Enum):
    """Where a proposal stands."""

    OPEN = "open"
    CARRIED = "carried"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """Members by their answer; a member stands in at most one set."""

    approvals: frozenset[MemberId]
    refusals: frozenset[MemberId]
    abstentions: frozenset[MemberId]


def electorate(charter: Charter, clause: Clause) -> frozenset[MemberId]:
    """Return the members that may vote under a clause."""
    return frozenset(m.id for m in charter.members if set(m.roles) & set(clause.vote))


def count(ballots: Mapping[MemberId, Choice], voters: frozenset[MemberId]) -> Tally:
    """Count the ballots of `voters`; ballots of others do not count."""

    def said(choice: Choice) -> frozenset[MemberId]:
        return frozenset(m for m, answer in ballots.items() if answer is choice and m in voters)

    return Tally(
        approvals=said(Choice.YES), refusals=said(Choice.NO), abstentions=said(Choice.ABSTAIN)
    )


def verdict(tally: Tally, *, voters: frozenset[MemberId], vote_quorum: int) -> Verdict:
    """Return the verdict; CARRIED as soon as no later ballot could change it."""
    if len(tally.approvals) >= vote_quorum:
        return Verdict.CARRIED
    # Refusal is final once the members still silent cannot reach the quorum.
    silent = voters - tally.approvals - tally.refusals - tally.abstentions
    if len(tally.approvals) + len(silent) < vote_quorum:
        return Verdict.REJECTED
    return Verdict.OPEN
