"""Everything that was refused, stopped or left out, and by whom.

Decides nothing: lists refused acts, ballots against, proposals that ended without effect, emergency
stops, aborted rounds, and members left out of a sum with their codes. Pure.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from audit.history import History
from fedproto.events.governance import (
    ActRefused,
    Choice,
    EmergencyStopped,
    ProposalClosed,
    VoteCast,
)
from fedproto.events.models import DatasetWithdrawn, ReleaseRevoked
from fedproto.events.rounds import Outcome, RoundClosed
from fedproto.ids import MemberId
from fedproto.statements import Body


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """`by` refused something of `whom` (empty where it is of no one member), for `reason`.

    `kind` is act, vote, proposal, stop, abort, exclusion, withdrawal, revocation or lapse.
    """

    index: int
    kind: str
    by: MemberId
    whom: str
    what: str
    reason: str


def refusals(history: History) -> tuple[Refusal, ...]:
    """Return every refusal in the order of the ledger."""
    return tuple(
        Refusal(
            index=index, kind=kind, by=signed.event.actor.member, whom=whom, what=what, reason=why
        )
        for index, signed in enumerate(history.events)
        for kind, whom, what, why in _in(history, index, signed.event.body)
    )


_Told = Iterator[tuple[str, str, str, str]]


def _in(history: History, index: int, body: Body) -> _Told:
    match body:
        case ActRefused():
            yield "act", body.member, f"{body.kind} {body.sha256[:16]}", body.code
        case VoteCast() if body.choice in {Choice.NO, Choice.VETO}:
            opened = history.state.proposals[body.proposal].opened
            what = f"{opened.body.action.value} (entry {opened.index})"
            yield "vote", opened.member, what, body.choice.value
        case ProposalClosed():
            opened = history.state.proposals[body.proposal].opened
            what = f"{opened.body.action.value} (entry {opened.index})"
            yield "proposal", opened.member, what, body.outcome.value
        case EmergencyStopped():
            yield "stop", "", f"run {body.run}" if body.run else "everything", body.reason
        case RoundClosed():
            yield from _in_round(body)
        case DatasetWithdrawn():
            yield "withdrawal", "", f"dataset {body.commitment[:16]}", body.reason
        case ReleaseRevoked():
            terms = body.revocation
            yield "revocation", "", f"release {terms.release[:16]}", terms.reason
        case _:
            yield from _lapsed(history, index)


def _in_round(body: RoundClosed) -> _Told:
    what = f"run {body.run[:8]} round {body.round} attempt {body.attempt}"
    if body.outcome is Outcome.ABORTED:
        yield "abort", "", what, body.reason
    for item in body.excluded:
        yield "exclusion", item.member, what, item.reason


def _lapsed(history: History, index: int) -> _Told:
    """An amendment, or time, ends what was open without a record of its own."""
    proposal = history.state.proposals.get(history.leaves[index])
    if proposal is None or proposal.decided is not None:
        return
    outcome, opened = history.outcome(proposal), proposal.opened
    kind = {"lapsed": "lapse", "rejected": "proposal", "vetoed": "proposal"}.get(outcome)
    if kind is not None:
        amended = opened.charter != history.state.charters[-1].body.sha256
        why = ("charter-changed" if amended else "term-over") if kind == "lapse" else outcome
        yield kind, opened.member, opened.body.action.value, why
