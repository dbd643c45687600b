"""Citations: each entry that an answer rests on, so that it can be checked alone.

Decides nothing: gives an entry's index, leaf hash, witnessed time and inclusion proof. Its `at` is the
signer's claim; its bracket is between which witnessed times it was made. Pure.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from audit import merkle, proof
from audit.records import State
from fedproto.ids import Digest, MemberId
from fedproto.statements import SignedEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One entry in a list. `witnessed` is false while no quorum has cosigned it."""

    index: int
    leaf: Digest
    type: str
    member: MemberId
    at: int
    not_before_s: int | None
    not_after_s: int | None
    witnessed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Citation:
    """An entry with the hashes (hex) that lead from its leaf to the root of the checkpoint."""

    row: Row
    inclusion: tuple[str, ...]


class Citations:
    """Makes the rows and proofs of one log."""

    def __init__(
        self,
        *,
        entries: Sequence[bytes],
        events: Sequence[SignedEvent],
        state: State,
        note: bytes,
        witnessed: int,
    ) -> None:
        """Cite the entries of a log that was verified, under its checkpoint `note`."""
        self._entries, self._events = entries, events
        self._note, self._witnessed = note, witnessed
        self._sizes = [anchor.size for anchor in state.anchors]
        self._times = [anchor.time_s for anchor in state.anchors]

    def row(self, index: int) -> Row:
        """Return the row of an entry."""
        event = self._events[index].event
        after, before = self.bracket(index)
        return Row(
            index=index,
            leaf=Digest(merkle.leaf_hash(self._entries[index]).hex()),
            type=event.type,
            member=event.actor.member,
            at=event.at,
            not_before_s=after,
            not_after_s=before,
            witnessed=index < self._witnessed,
        )

    def bracket(self, index: int) -> tuple[int | None, int | None]:
        """Return what `State.bracket_s` does, by bisection: a list asks for every entry."""
        at = bisect_right(self._sizes, index)
        before = self._times[at] if at < len(self._times) else None
        return (self._times[at - 1] if at else None, before)

    def cite(self, index: int) -> Citation:
        """Return an entry with its inclusion proof."""
        return Citation(row=self.row(index), inclusion=tuple(h.hex() for h in self._path(index)))

    def tlog_proof(self, index: int) -> bytes:
        """Return the C2SP tlog-proof of an entry."""
        return proof.make(index, self._path(index), self._note)

    def _path(self, index: int) -> list[bytes]:
        levels = self._levels
        return merkle.prove_inclusion(
            lambda height, i: levels[height][i], index, len(self._entries)
        )

    @cached_property
    def _levels(self) -> list[list[bytes]]:
        """The complete subtrees' roots, height by height."""
        levels = [[merkle.leaf_hash(entry) for entry in self._entries]]
        while len(levels[-1]) > 1:
            below = levels[-1]
            pairs = zip(below[::2], below[1::2], strict=False)
            levels.append([merkle.node_hash(left, right) for left, right in pairs])
        return levels
