"""Whether the log was ever rewritten: what its own acts, its clock and others' checkpoints say.

Decides whether a checkpoint that somebody kept is of this history. Every act names the checkpoint that
its signer had verified, so a member that signed late heads vouches for all before. Pure.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from audit.checkpoint import open_checkpoint
from audit.history import History
from audit.note import NoteVerifier
from audit.summary import state_digest
from fedproto.events.governance import KeyChanged
from fedproto.events.oversight import AnchorMade, LogContinued, StateSnapshot
from fedproto.ids import Digest, MemberId


@dataclass(frozen=True, slots=True, kw_only=True)
class Vouched:
    """The last head that a member's acts name: it had verified the log up to there."""

    member: MemberId
    size: int
    index: int
    acts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A checkpoint that was kept elsewhere. `beyond` says that this log does not reach to it yet."""

    name: str
    size: int
    root: Digest
    verdict: Literal["agrees", "contradicts", "beyond"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Integrity:
    """What a whole replay found. Anchors, snapshots and continuations are given by entry index."""

    size: int
    root: Digest
    state_sha256: Digest
    signatures: int
    heads: int
    vouched: tuple[Vouched, ...]
    anchors: tuple[int, ...]
    snapshots: tuple[int, ...]
    continued: tuple[int, ...]
    keys_changed: tuple[int, ...]
    kept: tuple[Kept, ...]

    @property
    def rewritten(self) -> tuple[Kept, ...]:
        """The kept checkpoints that prove another history, with the log's own signature."""
        return tuple(item for item in self.kept if item.verdict == "contradicts")

    @property
    def cites(self) -> tuple[int, ...]:
        """Every entry that this rests on, in order."""
        own = {item.index for item in self.vouched}
        return tuple(sorted(own | {*self.anchors, *self.snapshots, *self.continued}))


def integrity(
    history: History, *, log: NoteVerifier, kept: Sequence[tuple[str, bytes]] = ()
) -> Integrity:
    """Judge a log that was replayed whole, against checkpoints (name, note) that others kept.

    Raises:
        LocalFault: RNM-LEDGER-0001 a kept checkpoint was not signed by the log: it proves nothing.
    """
    state = history.state
    return Integrity(
        size=state.size,
        root=state.root,
        state_sha256=state_digest(state),
        signatures=sum(len(signed.signers) for signed in history.events),
        heads=sum(signed.event.head.size > 0 for signed in history.events),
        vouched=tuple(_vouched(history)),
        anchors=_of_type(history, AnchorMade),
        snapshots=_of_type(history, StateSnapshot),
        continued=_of_type(history, LogContinued),
        keys_changed=_of_type(history, KeyChanged),
        kept=tuple(_judge(history, log, name, note) for name, note in kept),
    )


def _vouched(history: History) -> Iterator[Vouched]:
    last: dict[MemberId, tuple[int, int]] = {}
    acts: dict[MemberId, int] = {}
    for index, signed in enumerate(history.events):
        member, size = signed.event.actor.member, signed.event.head.size
        acts[member] = acts.get(member, 0) + 1
        last[member] = max(last.get(member, (0, index)), (size, index))
    for member in sorted(last):
        size, index = last[member]
        yield Vouched(member=member, size=size, index=index, acts=acts[member])


def _of_type(history: History, body: type) -> tuple[int, ...]:
    return tuple(
        i for i, signed in enumerate(history.events) if isinstance(signed.event.body, body)
    )


def _judge(history: History, log: NoteVerifier, name: str, note: bytes) -> Kept:
    head = open_checkpoint(note, log, log.name).head
    verdict: Literal["agrees", "contradicts", "beyond"] = "beyond"
    if head.size <= history.state.size:
        same = history.state.root_at(head.size) == head.root
        verdict = "agrees" if same else "contradicts"
    return Kept(name=name, size=head.size, root=head.root, verdict=verdict)
