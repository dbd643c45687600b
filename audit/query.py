"""Search: which entries a question is about.

Decides by what the entries say and by witnessed time, never by a signer's clock. A search over a log
that was replayed whole is complete, and each hit has its proof. Pure.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from audit.history import History
from audit.records import Proposal, State
from fedproto.events.governance import (
    ActRefused,
    EmergencyResumed,
    ProposalClosed,
    ProposalOpened,
    VoteCast,
)
from fedproto.events.models import EvaluationAttested, ReleaseApproved, ReleaseRevoked, ReleaseTerms
from fedproto.ids import Digest
from fedproto.jcs import Json
from fedproto.schema import to_json
from fedproto.statements import Body

# Shorter beginnings of a digest name too many things.
MIN_PREFIX = 8
Bracket = tuple[int | None, int | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """What is asked for; None asks for anything. `artifact` is a digest or how it begins.

    `since_s` and `until_s` leave out only what witnesses prove to be earlier or later: an entry whose
    bracket reaches into the time asked for is listed.
    """

    type: str | None = None
    member: str | None = None
    run: str | None = None
    round: int | None = None
    artifact: str | None = None
    outcome: str | None = None
    since_s: int | None = None
    until_s: int | None = None


def search(history: History, asked: Filter, bracket: Callable[[int], Bracket]) -> Iterator[int]:
    """Yield the indices of the entries that are asked for."""
    for index in range(len(history.events)):
        if _is_asked(history, index, asked) and _is_within(bracket(index), asked):
            yield index


def _is_asked(history: History, index: int, asked: Filter) -> bool:
    event = history.event(index)
    body = event.body
    return (
        asked.type in {None, event.type}
        and asked.member in {None, event.actor.member}
        and asked.round in {None, getattr(body, "round", None)}
        and (asked.run is None or asked.run in runs_of(history, index))
        and (asked.outcome is None or asked.outcome in outcomes_of(history, index))
        and (asked.artifact is None or _names(to_json(body), asked.artifact))
    )


def _is_within(bracket: Bracket, asked: Filter) -> bool:
    after, before = bracket
    too_early = asked.since_s is not None and before is not None and before < asked.since_s
    too_late = asked.until_s is not None and after is not None and after > asked.until_s
    return not (too_early or too_late)


def _names(value: Json, prefix: str) -> bool:
    """Say whether a text somewhere in an act begins so."""
    match value:
        case str():
            return value.startswith(prefix)
        case dict():
            return any(_names(item, prefix) for item in value.values())
        case list():
            return any(_names(item, prefix) for item in value)
        case _:
            return False


def runs_of(history: History, index: int) -> frozenset[str]:
    """Return the runs that an entry is about, also by way of its proposal, release or adapter."""
    state, body = history.state, history.event(index).body
    match body:
        case ProposalOpened():
            return _runs_of_proposal(state.proposals.get(history.leaves[index]))
        case VoteCast() | ProposalClosed() | EmergencyResumed():
            return _runs_of_proposal(state.proposals.get(body.proposal))
        case ReleaseApproved():
            return frozenset({body.release.made_by})
        case ReleaseRevoked():
            release = state.releases.get(body.revocation.release)
            return frozenset({release.approved.body.release.made_by} if release else ())
        case EvaluationAttested():
            return runs_that_made(state, body.artifact)
        case _:
            return _run_in(body)


def _run_in(body: Body) -> frozenset[str]:
    run = getattr(body, "run", "")
    return frozenset({run} if run else ())


def _runs_of_proposal(proposal: Proposal | None) -> frozenset[str]:
    if proposal is None:
        return frozenset()
    terms = proposal.opened.body.terms
    if isinstance(terms, ReleaseTerms):
        return frozenset({terms.made_by})
    return frozenset({proposal.run} if proposal.run else ())


def runs_that_made(state: State, artifact: Digest) -> frozenset[str]:
    """Return the runs of which a round led to an adapter."""
    return frozenset(
        name
        for name, run in state.runs.items()
        for attempt in run.rounds
        if attempt.aggregated and attempt.closed and attempt.closed.body.model_out == artifact
    )


def outcomes_of(history: History, index: int) -> frozenset[str]:
    """Return what an entry decided, or how what it put to the vote ended."""
    body = history.event(index).body
    match body:
        case ActRefused():
            return frozenset({"refused"})
        case ProposalOpened():
            return frozenset({history.outcome(history.state.proposals[history.leaves[index]])})
        case _:
            said = (getattr(body, name, None) for name in ("outcome", "choice", "standing"))
            return frozenset(str(item.value) for item in said if item is not None)
