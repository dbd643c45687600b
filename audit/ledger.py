"""The coordinator's ledger: admission under the charter, durable order, cosigned checkpoints.

Decides with `apply` what is admitted. Trusts its own log key; never its database: at opening every
entry is hashed up to the signed root and replayed. A shell: threads, files, one lock on its directory.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from audit import bundle, merkle, receipt, tiles
from audit.checkpoint import TreeHead, open_checkpoint
from audit.directory_lock import DirectoryLock
from audit.faults import unverified
from audit.note import Note, NoteSigner, merge, parse, parse_lines
from audit.opening import check_head, columns_of, keep_place, load, place_of, wrong_key
from audit.policy import Cosignature, policy_of
from audit.publication import Content, Publisher
from audit.records import EMPTY, State
from audit.replay import advance
from audit.sequencer import Appended, Columns, Job, Sequencer
from audit.state import Rejected, apply, claim_next, open_next
from audit.store import Store
from audit.validation import validations
from fedproto.durable import make_private_directory
from fedproto.envelope import Claimed
from fedproto.errors import LocalFault
from fedproto.governance.rules import refuse
from fedproto.ids import Digest
from fedproto.party import now_ms

__all__ = ["Appended", "Ledger"]

_PUBLIC = "public"


class CharterJudge:
    """Admits an act if it follows under the charter in force."""

    def find(self, state: State, leaf_hash: Digest) -> int | None:
        """Return where a leaf stands already."""
        return state.leaves.get(leaf_hash)

    def admit(self, state: State, job: Job) -> tuple[State, Columns]:
        """Apply an act; its signatures were verified before it was queued."""
        # A signature stays one whatever was logged while the act waited; whether its key is still in
        # force is for `apply` to say.
        signed = job.signed or open_next(state, job.leaf)
        result = apply(state, job.leaf_hash, signed)
        if isinstance(result, Rejected):
            raise refuse(result.why, result.code)
        return result, columns_of(signed.event)

    def root(self, state: State) -> Digest | None:
        """Return the state's own root."""
        return state.root


@dataclass(frozen=True, slots=True)
class _Cosigned:
    """The newest note that carries the quorum."""

    size: int
    note: bytes


class Ledger:
    """A log and the state that follows from it. Thread-safe."""

    def __init__(
        self,
        directory: Path,
        store: Store,
        lock: DirectoryLock,
        sequencer: Sequencer[State],
        log_key: NoteSigner,
    ) -> None:
        """Use `create` or `open`."""
        self._store, self._lock, self._sequencer = store, lock, sequencer
        self._log_key = log_key
        self._cosigning = threading.Lock()
        self._publisher = Publisher(directory / _PUBLIC)
        self._held: LocalFault | None = None
        self._cosigned = self._newest_cosigned()
        self._publish()

    @classmethod
    def create(
        cls,
        directory: Path,
        *,
        log_key: NoteSigner,
        genesis_leaf: bytes,
        clock: Callable[[], int] = now_ms,
        database: str | None = None,
    ) -> Self:
        """Start a log with its first charter; raise RNM-CONF-0001 if one is here already.

        `database` is a URL of PostgreSQL, kept in `database.url`; without either, entries lie in a
        SQLite file of the directory.
        """
        state, _ = advance(EMPTY, genesis_leaf)
        if state.charter.log_vkey != log_key.vkey:
            raise wrong_key(directory)
        make_private_directory(directory)
        ledger = cls._start(directory, log_key, clock, database, founding=True)
        try:
            ledger.append(genesis_leaf)
        except LocalFault:
            ledger.close()
            raise
        return ledger

    @classmethod
    def open(
        cls,
        directory: Path,
        *,
        log_key: NoteSigner,
        clock: Callable[[], int] = now_ms,
        database: str | None = None,
    ) -> Self:
        """Open a log, verifying every entry.

        Raises:
            LocalFault: RNM-LEDGER-0005 in use; RNM-LEDGER-0001 or -0003 it does not verify;
                RNM-CONF-0001 there is none, or the log key is another.
        """
        return cls._start(directory, log_key, clock, database, founding=False)

    @classmethod
    def _start(
        cls,
        directory: Path,
        log_key: NoteSigner,
        clock: Callable[[], int],
        database: str | None,
        *,
        founding: bool,
    ) -> Self:
        place = place_of(directory, database, founding=founding)
        if database is not None:
            make_private_directory(directory)
        lock = DirectoryLock(directory)
        lock.take()
        store: Store | None = None
        try:
            store = Store(place)
            if database is not None:
                keep_place(directory, database)
            head = check_head(directory, store, log_key, founding=founding)
            edge, state = load(store, head, log_key)
            sequencer = Sequencer(
                store,
                log_key,
                CharterJudge(),
                head=store.take_over(head),
                edge=edge,
                state=state,
                clock=clock,
            )
        except LocalFault:
            if store is not None:
                store.close()
            lock.release()
            raise
        return cls(directory, store, lock, sequencer, log_key)

    def close(self) -> None:
        """Write and publish what waits, then let the directory go."""
        self._sequencer.close()
        self._publisher.close()
        self._store.close()
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def state(self) -> State:
        """The state that follows from every durable entry."""
        return self._sequencer.state

    @property
    def head(self) -> TreeHead:
        """The newest durable tree head."""
        return self._sequencer.head

    @property
    def publish_fault(self) -> LocalFault | None:
        """Why the published files lag behind, if they do; entries are durable all the same."""
        return self._publisher.fault

    @property
    def held(self) -> LocalFault | None:
        """Why no entry is taken at present, or nothing."""
        return self._held

    def hold(self, why: LocalFault) -> None:
        """Take no entry, and so sign nothing, until `release`."""
        self._held = why

    def release(self) -> None:
        """Take entries again."""
        self._held = None

    def append(self, leaf: bytes) -> Appended:
        """Admit an act and wait until it is durable; the same leaf again has the same index.

        Raises:
            LocalFault: RNM-SIG-*, RNM-FORM-*, RNM-GOV-* it is refused; RNM-DISK-0001, RNM-LEDGER-*.
        """
        job, state = Job(leaf=leaf), self.state
        known = self._known(state, job)
        if known is not None:
            return Appended(known, job.leaf_hash, state.size)
        job.signed = open_next(state, leaf)
        self._sequencer.submit(job)
        return job.wait()

    def claim(self, job: Job) -> Claimed:
        """Return what an act claims by the keys in force: to be verified before it is written.

        Raises:
            LocalFault: RNM-SIG-*, RNM-FORM-* as `claim_next`; RNM-LEDGER-* no act is taken at present.
        """
        state = self.state
        # Else nothing is looked up here, and the writer makes the hash.
        if self._held is not None:
            self._known(state, job)
        return claim_next(state, job.leaf)

    def write(self, *jobs: Job) -> None:
        """Queue up to MAX_TOGETHER acts that were verified, without waiting; raise RNM-LEDGER-0002."""
        self._sequencer.submit(*jobs, timeout_s=0)

    def _known(self, state: State, job: Job) -> int | None:
        """Return the index of an act that is there, or nothing; raise why none is taken at present."""
        known = state.leaves.get(job.leaf_hash)
        if known is None and self._held is not None:
            raise self._held
        return known

    def entries(self, start: int, end: int) -> list[bytes]:
        """Return the leaves [start, end); raise RNM-FORM-0002 beyond the end."""
        if not 0 <= start <= end <= self.head.size:
            raise _out_of_range(f"entries {start} to {end}", self.head.size)
        return self._store.entries(start, end)

    def find_entries(self, *, kind: str = "", actor: str = "", run: str = "") -> list[int]:
        """Return the indices of entries by event type, actor and run."""
        return self._store.find_entries(kind=kind, actor=actor, run=run)

    def prove_inclusion(self, index: int, size: int) -> list[bytes]:
        """Return the inclusion proof of an entry in the tree of a size; RNM-FORM-0002 beyond it."""
        if not 0 <= index < size <= self.head.size:
            raise _out_of_range(f"entry {index} at size {size}", self.head.size)
        return merkle.prove_inclusion(tiles.node_reader(self._store.tile), index, size)

    def prove_consistency(self, old: int, size: int) -> list[bytes]:
        """Return the proof that the tree of `size` extends that of `old`; RNM-FORM-0002 beyond it."""
        if not 0 <= old <= size <= self.head.size:
            raise _out_of_range(f"sizes {old} and {size}", self.head.size)
        return merkle.prove_consistency(tiles.node_reader(self._store.tile), old, size)

    def checkpoint(self, min_size: int = 0) -> bytes | None:
        """Return the newest note with the witness quorum, if it is of at least `min_size`."""
        cosigned = self._cosigned
        return cosigned.note if cosigned is not None and cosigned.size >= min_size else None

    def signed_checkpoint(self) -> bytes:
        """Return the newest note that the log signed, for its witnesses."""
        note = self._store.checkpoint(self.head.size)
        if note is None:
            raise unverified("the ledger was refused", "the checkpoint of its head is missing")
        return note

    def add_cosignatures(self, size: int, lines: bytes) -> tuple[Cosignature, ...]:
        """Verify and keep what witnesses answered for the checkpoint of a size.

        Raises:
            LocalFault: RNM-LEDGER-0001 a line is not by a witness of the charter, or does not verify.
        """
        note = self._store.checkpoint(size)
        if note is None:
            raise unverified("cosignatures were refused", f"no checkpoint has size {size}")
        policy = policy_of(self.state.charter_at(size))
        offered = Note(parse(note).text, parse_lines(lines))
        verified = policy.cosignatures(offered) + validations(self.state.charter_at(size), offered)
        if len(verified) != len(offered.lines):
            raise unverified("cosignatures were refused", "a line is not by a witness of this log")
        with self._cosigning:
            self._store.add_cosignatures([_cosignature_row(size, item) for item in verified])
            cosigned = self._read_cosigned(size)
            if cosigned and (self._cosigned is None or size >= self._cosigned.size):
                self._cosigned = cosigned
                self._publish()
        return verified

    def issue_receipt(self, index: int) -> bytes:
        """Return a COSE receipt of an entry under the newest cosigned checkpoint.

        Raises:
            LocalFault: RNM-LEDGER-0006 no checkpoint carries the quorum yet; RNM-FORM-0002 beyond it.
        """
        cosigned = self._cosigned
        if cosigned is None:
            raise _unwitnessed("no receipt was issued")
        hashes = self.prove_inclusion(index, cosigned.size)
        signed = open_checkpoint(cosigned.note, self._log_key.verifier, self._log_key.name)
        (entry,) = self._store.entries(index, index + 1)
        return receipt.issue(entry, index, hashes, signed, self._log_key)

    def export(self, path: Path) -> int:
        """Write the bundle of the newest cosigned checkpoint and return its size.

        Raises:
            LocalFault: RNM-LEDGER-0006 no checkpoint carries the quorum yet.
        """
        cosigned = self._cosigned
        if cosigned is None:
            raise _unwitnessed("no bundle was written")
        policy = policy_of(self.state.charter_at(cosigned.size))
        entries = self._store.entries(0, cosigned.size)
        bundle.write(path, note=cosigned.note, entries=entries, policy=policy)
        return cosigned.size

    def _publish(self) -> None:
        if self._cosigned is not None:
            self._publisher.request(
                Content(
                    size=self._cosigned.size,
                    note=self._cosigned.note,
                    entries=self._store.entries,
                    tile=self._store.tile,
                )
            )

    def _newest_cosigned(self) -> _Cosigned | None:
        found = (self._read_cosigned(size) for size in self._store.cosigned_sizes())
        return next((cosigned for cosigned in found if cosigned), None)

    def _read_cosigned(self, size: int) -> _Cosigned | None:
        """Return the checkpoint of a size with its cosignatures, if they reach the quorum."""
        note = self._store.checkpoint(size)
        stored = self._store.cosignatures(size)
        if note is None or not stored:
            return None
        signed = parse(note)
        lines = merge((*signed.lines, *parse_lines(b"".join(stored))))
        policy = policy_of(self.state.charter_at(size))
        full = Note(signed.text, lines)
        if not policy.is_met(policy.cosignatures(full)):
            return None
        return _Cosigned(size, full.encode())


def _cosignature_row(size: int, item: Cosignature) -> dict[str, object]:
    return {
        "size": size,
        "key_id": item.line.key_id,
        "name": item.line.name,
        "timestamp": item.timestamp,
        "line": item.line.encode(),
    }


def _unwitnessed(what: str) -> LocalFault:
    return LocalFault(
        "RNM-LEDGER-0006",
        what=what,
        why="no checkpoint carries the witness quorum yet",
        mend="have more members' nodes running, then ask again",
    )


def _out_of_range(asked: str, size: int) -> LocalFault:
    return LocalFault(
        "RNM-FORM-0002",
        what="the ledger was not read",
        why=f"{asked} is outside its {size} entries",
        mend="ask within the size of the newest checkpoint",
    )
