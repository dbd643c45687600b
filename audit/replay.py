"""The auditor: derives the ledger's state again from its leaves, and lists what should not be there.

Decides nothing new: it applies the same rules as admission did. Trusts no index, table or summary of
the coordinator. Pure.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from audit.faults import unverified
from audit.records import EMPTY, State
from audit.state import Rejected, apply, integrate, open_next
from fedproto.errors import LocalFault
from fedproto.governance.rules import refuse
from fedproto.ids import Digest
from fedproto.statements import SignedEvent, leaf_id


@dataclass(frozen=True, slots=True)
class Violation:
    """An entry that does not follow from those before it."""

    index: int
    code: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """A derived state, the events (None where a leaf could not be opened) and the violations."""

    state: State
    events: tuple[SignedEvent | None, ...]
    violations: tuple[Violation, ...]


def advance(state: State, leaf: bytes) -> tuple[State, SignedEvent]:
    """Verify the next leaf and apply it; raise what `open_next` or the broken rule says."""
    signed = open_next(state, leaf)
    result = apply(state, leaf_id(leaf), signed)
    if isinstance(result, Rejected):
        raise refuse(result.why, result.code)
    return result, signed


def replay(leaves: Iterable[bytes], *, genesis_sha256: Digest | None = None) -> Replay:
    """Derive the state from leaves; a violating entry is listed and has no effect.

    Raises:
        LocalFault: RNM-LEDGER-0001 the first charter is not the one that was pinned.
    """
    state = EMPTY
    events: list[SignedEvent | None] = []
    violations: list[Violation] = []
    for index, leaf in enumerate(leaves):
        try:
            state, signed = advance(state, leaf)
            events.append(signed)
        except LocalFault as fault:
            violations.append(Violation(index, fault.code, fault.why))
            state = integrate(state, leaf_id(leaf))
            events.append(None)
    check_genesis(state, genesis_sha256)
    return Replay(state=state, events=tuple(events), violations=tuple(violations))


def check_genesis(state: State, pinned: Digest | None) -> None:
    """Refuse a ledger whose first charter is another than the one pinned (RNM-LEDGER-0001)."""
    if pinned is None or not state.charters:
        return
    found = state.charters[0].body.sha256
    if found != pinned:
        raise unverified(
            "the ledger was refused",
            f"its first charter is {found[:16]}…, pinned is {pinned[:16]}…",
            "compare the pinned digest with the other members; this is another consortium's ledger",
        )
