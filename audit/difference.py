"""What changed between two sizes of one log.

Decides nothing: reads the states that follow from the two prefixes as flat facts, and compares those.
Entries are named by index. Pure.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from audit.records import Dataset, Key, Logged, Proposal, Release, Run, Seat, State
from fedproto.events.models import EvaluationAttested
from fedproto.jcs import Json
from fedproto.schema import to_json

V = TypeVar("V")
# (kind, subject, field) to its value.
Facts = dict[tuple[str, str, str], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One thing that is not as it was; `before` is empty if it is new, `after` if it is gone."""

    kind: str
    subject: str
    field: str
    before: str
    after: str


def difference(old: State, new: State) -> tuple[Change, ...]:
    """Return every change from one state to another, in the order of the facts."""
    before, after = facts(old), facts(new)
    return tuple(
        Change(kind=kind, subject=subject, field=field, before=was, after=now)
        for kind, subject, field in dict.fromkeys((*before, *after))
        if (was := before.get((kind, subject, field), ""))
        != (now := after.get((kind, subject, field), ""))
    )


def facts(state: State) -> Facts:
    """Return a state as flat facts."""
    found: Facts = {}
    if state.charters:
        charter = state.charter
        found["charter", "", "sha256"] = charter.digest
        for field, value in _flat(to_json(charter)):
            found["charter", "", field] = value
    stops = {stop.leaf: stop.index for stop in state.stops}
    found |= _facts_of("seat", state.seats.items(), _seat)
    found |= _facts_of("key", state.keys.items(), _key)
    found |= _facts_of(
        "base_model", state.base_models.items(), lambda act: _entry("approved", act.index)
    )
    found |= _facts_of("dataset", state.datasets.items(), _dataset)
    found |= _facts_of("proposal", state.proposals.items(), _proposal)
    found |= _facts_of("run", state.runs.items(), _run)
    found |= _facts_of("evaluation", state.evaluations.items(), _evaluations)
    found |= _facts_of("release", state.releases.items(), _release)
    found |= _facts_of("stop", stops.items(), partial(_entry, "since"))
    found |= _facts_of("erasure", state.erased.items(), partial(_entry, "done"))
    found |= _facts_of("refusal", state.refused.items(), partial(_entry, "recorded"))
    found["clock", "", "witnessed_s"] = str(state.clock_s)
    found["clock", "", "anchors"] = str(len(state.anchors))
    return found


def _flat(value: Json, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield the leaves of a JSON value by path; members of a list by their id where they have one."""
    match value:
        case dict():
            for name in sorted(value):
                yield from _flat(value[name], f"{path}.{name}" if path else name)
        case list() if path == "members":
            for item in value:
                assert isinstance(item, dict)  # noqa: S101  # a charter's members are objects
                yield from _flat(item, f"{path}[{item['id']}]")
        case list():
            yield path, ", ".join(str(item) for item in value)
        case _:
            yield path, str(value)


def _seat(seat: Seat) -> dict[str, str]:
    return {
        "standing": seat.standing.value,
        "acting": seat.acting or "none",
        "recovery": seat.recovery or "none",
    }


def _key(key: Key) -> dict[str, str]:
    told = {"of": f"{key.member} {key.use.value}", "since": str(key.since)}
    return told if key.until is None else {**told, "until": str(key.until)}


def _dataset(dataset: Dataset) -> dict[str, str]:
    told = {
        "declared": f"entry {dataset.declared.index} by {dataset.declared.member}",
        "epsilon_micro": str(dataset.epsilon_micro),
    }
    return told if dataset.withdrawn is None else {**told, "withdrawn": str(dataset.withdrawn)}


def _proposal(proposal: Proposal) -> dict[str, str]:
    votes = (f"{vote.member} {vote.body.choice.value}" for vote in proposal.votes)
    told = {
        "opened": f"entry {proposal.opened.index}: {proposal.opened.body.action.value}",
        "votes": ", ".join(votes),
    }
    places = {
        "carried": proposal.carried,
        "vetoed": proposal.vetoed,
        "decided": proposal.decided,
    }
    return told | {name: str(index) for name, index in places.items() if index is not None}


def _run(run: Run) -> dict[str, str]:
    told = {
        "mandate": f"entry {run.mandate.index}",
        "attempts": str(len(run.rounds)),
        "aggregated": str(sum(attempt.aggregated for attempt in run.rounds)),
    }
    made = [a.closed.body.model_out for a in run.rounds if a.closed and a.aggregated]
    return told | ({"adapter": made[-1]} if made else {})


def _evaluations(acts: tuple[Logged[EvaluationAttested], ...]) -> dict[str, str]:
    return {"attested": ", ".join(f"{act.member} (entry {act.index})" for act in acts)}


def _release(release: Release) -> dict[str, str]:
    terms = release.approved.body.release
    told = {
        "approved": f"entry {release.approved.index}",
        "artifact": terms.artifact,
        "channels": ", ".join(terms.channels),
    }
    return told if release.revoked is None else {**told, "revoked": f"entry {release.revoked}"}


def _entry(name: str, index: int) -> dict[str, str]:
    return {name: f"entry {index}"}


def _facts_of(
    kind: str, items: Iterable[tuple[str, V]], told: Callable[[V], dict[str, str]]
) -> Facts:
    return {
        (kind, subject, field): value
        for subject, item in items
        for field, value in told(item).items()
    }
