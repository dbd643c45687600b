"""A verified local copy of the log: what a member or an auditor believes, and why.

Decides whether the coordinator's newest checkpoint is accepted: signed by the pinned log key, cosigned
by the quorum of the charter in force, extending what is here, and every entry valid under `apply`. Never
goes back. Keeps the files of a static log, so that a lost coordinator can be rebuilt from any mirror.
"""

import threading
from collections.abc import Iterable, Sequence
from pathlib import Path

from audit import merkle, tiles
from audit.checkpoint import SignedCheckpoint, TreeHead, open_checkpoint
from audit.directory_lock import DirectoryLock
from audit.faults import two_histories, unverified
from audit.note import NoteVerifier
from audit.policy import policy_of
from audit.publication import CHECKPOINT, Content, publish
from audit.records import EMPTY, State
from audit.replay import advance, check_genesis
from audit.tree_check import check_tree
from fedproto.durable import make_private_directory
from fedproto.errors import LocalFault
from fedproto.ids import Digest


class Mirror:
    """A copy that only grows. Thread-safe."""

    def __init__(
        self, directory: Path, *, log_vkey: str, origin: str, genesis_sha256: Digest
    ) -> None:
        """Open a mirror, verifying again what it holds.

        Raises:
            LocalFault: RNM-LEDGER-0001, -0003 or -0006 its files were changed; RNM-CONF-0001 bad pins.
        """
        self._directory, self._origin, self._genesis = directory, origin, genesis_sha256
        try:
            self._log = NoteVerifier.from_vkey(log_vkey)
        except ValueError as error:
            raise LocalFault(
                "RNM-CONF-0001",
                what="the pinned log key was not used",
                why=str(error),
                mend="pin the log's verifier key as the other members have it, whole",
            ) from None
        make_private_directory(directory)
        self._files = DirectoryLock(directory, code="RNM-PROC-0003")
        self._updating = threading.Lock()
        self._edge, self._state = tiles.RightEdge(), EMPTY
        self._note: bytes | None = None
        self._load()

    @property
    def state(self) -> State:
        """The state that follows from the accepted entries."""
        return self._state

    @property
    def head(self) -> TreeHead:
        """The newest accepted tree head; size 0 before the first update."""
        return self._state.head

    @property
    def note(self) -> bytes | None:
        """The newest accepted checkpoint with its cosignatures."""
        return self._note

    def leaf(self, index: int) -> bytes:
        """Return an entry, checked against its accepted hash; raise RNM-FORM-0002 beyond the end."""
        leaves = self.entries(index, index + 1)
        return leaves[0]

    def entries(self, start: int, end: int) -> list[bytes]:
        """Return the entries [start, end), each checked against its accepted hash."""
        size = self.head.size
        if not 0 <= start <= end <= size:
            raise LocalFault(
                "RNM-FORM-0002",
                what="the mirror was not read",
                why=f"entries {start} to {end} are outside its {size}",
                mend="update the mirror first",
            )
        found: list[bytes] = []
        for n in range(start // tiles.WIDTH, -(-end // tiles.WIDTH)):
            first = n * tiles.WIDTH
            width = min(tiles.WIDTH, size - first)
            entries = tiles.decode_bundle(self._bundle(n, width), first=first, width=width)
            for index, entry in enumerate(entries, start=first):
                if start <= index < end:
                    self._check_leaf(index, entry)
                    found.append(entry)
        return found

    def prove_consistency(self, old: int, size: int) -> list[bytes]:
        """Return the proof that the tree of `size` extends that of `old`; RNM-FORM-0002 beyond the end."""
        if not 0 <= old <= size <= self.head.size:
            raise LocalFault(
                "RNM-FORM-0002",
                what="the mirror proved nothing",
                why=f"sizes {old} and {size} are not within its {self.head.size}",
                mend="update the mirror first",
            )
        return merkle.prove_consistency(tiles.node_reader(self._tile), old, size)

    def update(self, note: bytes, entries: Iterable[bytes]) -> State:
        """Accept a checkpoint and the entries from here up to it, durably, or raise and stay.

        Raises:
            LocalFault: RNM-LEDGER-0001 it does not verify or an entry does not follow;
                RNM-LEDGER-0004 it contradicts what is here; RNM-LEDGER-0006 too few witnesses;
                RNM-PROC-0003 another process has updated this mirror.
        """
        with self._updating:
            signed = open_checkpoint(note, self._log, self._origin)
            self._refuse_contradiction(signed)
            if signed.head.size == self.head.size:
                policy_of(self._state.charter).check_quorum(signed)
                return self._state
            leaves = list(entries)
            state = self._advance(signed, leaves)
            grown = self._edge.grow([merkle.leaf_hash(leaf) for leaf in leaves])
            self._persist(signed, note, leaves, grown)
            self._edge.accept(grown)
            self._state, self._note = state, note
            return state

    def _refuse_contradiction(self, signed: SignedCheckpoint) -> None:
        new, here = signed.head, self.head
        if new.size > here.size:
            return
        if new.root != self._state.root_at(new.size):
            raise two_histories(
                f"the log signed root {new.root[:16]}… for size {new.size}; "
                f"this mirror accepted {self._state.root_at(new.size)[:16]}… for it"
            )
        if new.size < here.size:
            raise unverified(
                "a checkpoint was refused",
                f"it goes back to size {new.size}; this mirror has accepted {here.size}",
                "ask the coordinator why it serves an older log; it may run on a restored backup",
            )

    def _advance(self, signed: SignedCheckpoint, leaves: Sequence[bytes]) -> State:
        state = self._state
        if len(leaves) != signed.head.size - state.size:
            raise unverified(
                "an update was refused",
                f"{signed.head.size - state.size} entries lead to size {signed.head.size}, "
                f"{len(leaves)} came",
            )
        hashes = [merkle.leaf_hash(leaf) for leaf in leaves]
        if self._edge.grow(hashes).root.hex() != signed.head.root:
            raise unverified(
                "an update was refused",
                f"after what is here, its entries do not lead to the root that the log signed for "
                f"size {signed.head.size}",
            )
        for leaf in leaves:
            try:
                state, _ = advance(state, leaf)
            except LocalFault as fault:
                raise unverified(
                    "an update was refused",
                    f"entry {state.size} does not follow: {fault.code} {fault.why}",
                    "tell the other members: the coordinator logged what the charter does not allow",
                ) from None
        check_genesis(state, self._genesis)
        policy = policy_of(state.charter)
        if policy.log != self._log:
            raise unverified("an update was refused", "the charter names another log key")
        policy.check_quorum(signed)
        return state

    def _persist(
        self, signed: SignedCheckpoint, note: bytes, leaves: list[bytes], grown: tiles.Grown
    ) -> None:
        before, kept = self.head.size, self._tail()

        def entries(start: int, end: int) -> list[bytes]:
            first = before - len(kept)
            return [*kept, *leaves][start - first : end - first]

        content = Content(
            size=signed.head.size,
            note=note,
            entries=entries,
            tile=lambda level, n: bytes(grown.tiles.get((level, n), b"")) or self._tile(level, n),
        )
        with self._files:
            if self._read(CHECKPOINT) != (self._note or b""):
                raise LocalFault(
                    "RNM-PROC-0003",
                    what="the mirror was not updated",
                    why="another process has updated it since it was opened",
                    mend="open it again",
                )
            publish(self._directory, content, after=before)

    def _tail(self) -> list[bytes]:
        """Return the entries of the last, partial bundle: the next ones are written with them."""
        size = self.head.size
        return self.entries(size - size % tiles.WIDTH, size)

    def _load(self) -> None:
        note = self._read(CHECKPOINT)
        if not note:
            return
        signed = open_checkpoint(note, self._log, self._origin)
        size = signed.head.size
        entries = check_tree(signed.head, lambda level, n: self._tile(level, n, size), self._bundle)
        state = self._advance(signed, entries)
        self._edge.accept(self._edge.grow([merkle.leaf_hash(entry) for entry in entries]))
        self._state, self._note = state, note

    def _check_leaf(self, index: int, entry: bytes) -> None:
        if self._state.leaves.get(merkle.leaf_hash(entry).hex()) != index:
            raise unverified("the mirror was not read", f"entry {index} was changed on disk")

    def _bundle(self, n: int, width: int) -> bytes:
        return self._read(tiles.bundle_path(n, width))

    def _tile(self, level: int, n: int, size: int | None = None) -> bytes:
        count = (self.head.size if size is None else size) // tiles.WIDTH**level
        return self._read(tiles.tile_path(level, n, min(tiles.WIDTH, count - n * tiles.WIDTH)))

    def _read(self, name: str) -> bytes:
        try:
            return (self._directory / name).read_bytes()
        except FileNotFoundError:
            return b""
