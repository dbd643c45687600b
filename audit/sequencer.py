"""The one writer: puts entries in order, in natural batches, one durable transaction for each.

Decides the order of entries and nothing else: whether one is admitted is its judge's word. A batch
is what gathered while the last one was written: an act that comes alone is never delayed. An append is
acknowledged only when entries, tiles, head and signed checkpoint are durable together; a checkpoint
leaves this process only from a committed row.
"""

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, Protocol, TypeVar

from audit import checkpoint
from audit.checkpoint import Checkpoint, TreeHead
from audit.faults import unwritable
from audit.note import NoteSigner
from audit.store import Batch, Head, NewEntry, NewTile, Store
from audit.tiles import MAX_ENTRY, Grown, RightEdge
from fedproto.errors import LocalFault
from fedproto.ids import Digest
from fedproto.statements import SignedEvent, leaf_id

S = TypeVar("S")
MAX_BATCH = 1024
MAX_WAITING = 8192
# Queued together at most: a batch is full where these might not fit any more.
MAX_TOGETHER = 64
MEND_REOPEN = "restart the coordinator: it reads the ledger again and goes on from what is durable"
_NOT_YET = unwritable("no answer was given yet", MEND_REOPEN)


@dataclass(frozen=True, slots=True)
class Appended:
    """Where an entry stands, durably."""

    index: int
    leaf_hash: Digest
    size: int


class Columns(NamedTuple):
    """What a judge says of an entry for the index columns."""

    event_id: str
    type: str
    actor: str
    run: str = ""
    round: int = 0


def _taken() -> threading.Lock:
    lock = threading.Lock()
    lock.acquire()
    return lock


# Not frozen, and no `Future`: either costs as much time as the disk does, for each entry.
@dataclass(slots=True, kw_only=True, eq=False)
class Job:
    """An entry and what became of it; `signed` is what was verified of it before it was queued.

    Raises:
        LocalFault: RNM-LEDGER-0007 it is longer than an entry can be.
    """

    leaf: bytes
    signed: SignedEvent | None = None
    _hash: Digest | None = field(default=None, init=False, repr=False)
    _answer: tuple[int, int] | Exception = field(default=_NOT_YET, init=False, repr=False)
    _given: threading.Lock = field(default_factory=_taken, init=False, repr=False)

    def __post_init__(self) -> None:
        if len(self.leaf) > MAX_ENTRY:
            raise LocalFault(
                "RNM-LEDGER-0007",
                what="an entry was not appended",
                why=f"it has {len(self.leaf)} bytes, more than {MAX_ENTRY}",
                mend="log a digest, and keep the content where its readers can ask for it",
            )

    @property
    def leaf_hash(self) -> Digest:
        """The entry's leaf hash (RFC 6962), made by the thread that asks for it first."""
        if self._hash is None:
            self._hash = leaf_id(self.leaf)
        return self._hash

    def give(self, answer: tuple[int, int] | Exception) -> None:
        """Let the waiting thread go on, once: with index and size, or with a refusal."""
        self._answer = answer
        self._given.release()

    @property
    def is_done(self) -> bool:
        """Whether nobody needs to wait any more."""
        return self._answer is not _NOT_YET

    def await_done(self, timeout_s: float = -1) -> bool:
        """Wait until nobody needs to wait any more, or for a time; return `is_done`."""
        if not self.is_done and self._given.acquire(timeout=timeout_s):
            self._given.release()
        return self.is_done

    def wait(self) -> Appended:
        """Return where the entry stands, durably; raise why it was refused."""
        with self._given:
            if isinstance(self._answer, Exception):
                raise self._answer
            index, size = self._answer
            return Appended(index, self.leaf_hash, size)


class Judge(Protocol[S]):
    """Says whether an entry follows from a state, and what the state is then."""

    def find(self, state: S, leaf_hash: Digest) -> int | None:
        """Return the index of an entry that is in the state already."""

    def admit(self, state: S, job: Job) -> tuple[S, Columns]:
        """Return the next state; raise LocalFault to refuse."""

    def root(self, state: S) -> Digest | None:
        """Return the root that the state stands at, if it keeps one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Doubt(Generic[S]):
    """A batch of which nobody can say whether it is durable, until the database answers again."""

    fault: LocalFault
    head: Head
    grown: Grown
    state: S


class Sequencer(Generic[S]):
    """Owns the store's writing side and the newest durable state."""

    def __init__(
        self,
        store: Store,
        log_key: NoteSigner,
        judge: Judge[S],
        *,
        head: Head,
        edge: RightEdge,
        state: S,
        clock: Callable[[], int],
    ) -> None:
        self._store, self._log_key, self._judge, self._clock = store, log_key, judge, clock
        self._head, self._edge = head, edge
        # Read by other threads; replaced, never changed, and only once it is durable.
        self.state = state
        self._waiting: queue.SimpleQueue[tuple[Job, ...] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._gate = threading.Condition(self._lock)
        self._room = MAX_WAITING
        self._doubt: _Doubt[S] | None = None
        self._closed: LocalFault | None = None
        self._thread = threading.Thread(target=self._run, name="sequencer", daemon=True)
        self._thread.start()

    @property
    def head(self) -> TreeHead:
        """The newest durable tree head."""
        head = self._head
        return TreeHead(head.size, Digest(head.root.hex()))

    def append(self, job: Job, timeout_s: float = 60.0) -> Appended:
        """Wait until an entry is durable.

        Raises:
            LocalFault: what the judge said; RNM-DISK-0001, RNM-LEDGER-0002, -0005.
        """
        self.submit(job, timeout_s=timeout_s)
        return job.wait()

    def submit(self, *jobs: Job, timeout_s: float = 60.0) -> None:
        """Queue up to MAX_TOGETHER entries, waiting for room alone; raise RNM-LEDGER-0002."""
        with self._lock:
            if not self._gate.wait_for(lambda: self._has_room(len(jobs)), timeout_s):
                raise unwritable("too many entries wait for the disk", "send again, more slowly")
            if self._closed is not None:
                raise self._closed
            self._room -= len(jobs)
            self._waiting.put(jobs)

    def _has_room(self, jobs: int) -> bool:
        return self._room >= jobs or self._closed is not None

    def close(self) -> None:
        """Write what waits, then stop."""
        self._shut(unwritable("it is closed", MEND_REOPEN))
        # The thread may be gone already; then nobody reads this, and nothing waits.
        self._waiting.put(None)
        self._thread.join()

    def _shut(self, fault: LocalFault) -> None:
        with self._gate:
            if self._closed is None:
                self._closed = fault
            self._gate.notify_all()

    def _run(self) -> None:
        stopping = False
        while not stopping:
            jobs, stopping = self._take()
            try:
                self._write(jobs)
            except BaseException as error:
                # Nobody may wait for a thread that is gone.
                self._refuse(jobs, unwritable(f"its writer failed: {error!r}", MEND_REOPEN))
                raise
            with self._gate:
                self._room += len(jobs)
                # All: who needs more room than there is would keep the turn of one who does not.
                self._gate.notify_all()

    def _take(self) -> tuple[list[Job], bool]:
        """Return everything that waits, up to a batch, and whether to stop after it."""
        jobs: list[Job] = []
        item = self._waiting.get()
        while item is not None:
            jobs += item
            if len(jobs) > MAX_BATCH - MAX_TOGETHER:
                return jobs, False
            try:
                item = self._waiting.get_nowait()
            except queue.Empty:
                return jobs, False
        return jobs, True

    def _write(self, jobs: list[Job]) -> None:
        now, state, judge = self._clock(), self.state, self._judge
        first = self._head.size
        entries: list[NewEntry] = []
        places: list[tuple[Job, int]] = []
        if self._doubt is not None:
            try:
                self._settle(self._doubt)
            except LocalFault as fault:
                _give(jobs, fault)
                return
            state, first = self.state, self._head.size
        for job in jobs:
            index = judge.find(state, job.leaf_hash)
            if index is None:
                index = first + len(entries)
                try:
                    state, columns = judge.admit(state, job)
                except LocalFault as fault:
                    job.give(fault)
                    continue
                entries.append(_new_entry(job, index, columns, now))
            places.append((job, index))
        if entries:
            try:
                self._commit(entries, state, now)
            except LocalFault as fault:
                _give([job for job, _ in places], fault)
                return
        size = self._head.size
        for job, index in places:
            job.give((index, size))

    def _commit(self, entries: list[NewEntry], state: S, now: int) -> None:
        grown = self._edge.grow([entry.leaf_hash for entry in entries])
        root = grown.root
        expected = self._judge.root(state)
        if expected is not None and expected != root.hex():
            raise unwritable("the state and the tree disagree on the root", MEND_REOPEN)
        before = self._head
        after = Head(
            origin=before.origin,
            log_vkey=before.log_vkey,
            size=grown.size,
            root=root,
            epoch=before.epoch,
        )
        signed = checkpoint.sign(
            Checkpoint(before.origin, TreeHead(grown.size, Digest(root.hex()))), self._log_key
        )
        tiles = [
            NewTile(level=level, n=n, data=bytes(tile), created=(level, n) in grown.created)
            for (level, n), tile in grown.tiles.items()
        ]
        batch = Batch(
            before=before, after=after, entries=entries, tiles=tiles, note=signed, created_at=now
        )
        try:
            self._store.commit(batch)
        except LocalFault as fault:
            self._doubt = _Doubt(fault=fault, head=after, grown=grown, state=state)
            raise
        self._accept(after, grown, state)

    def _accept(self, head: Head, grown: Grown, state: S) -> None:
        self._edge.accept(grown)
        self._head, self.state = head, state

    def _settle(self, doubt: "_Doubt[S]") -> None:
        """After a failed batch, go on only from where the database stands; raise why not."""
        found = self._store.head()
        if found == doubt.head:
            # Only the answer was lost. Whoever sends such an entry again is told its index.
            self._accept(doubt.head, doubt.grown, doubt.state)
        elif found != self._head:
            moved = unwritable(f"after an error ({doubt.fault.why}) it moved", MEND_REOPEN)
            self._shut(moved)
            raise moved
        self._doubt = None

    def _refuse(self, jobs: list[Job], fault: LocalFault) -> None:
        self._shut(fault)
        while True:
            _give([job for job in jobs if not job.is_done], fault)
            try:
                waiting = self._waiting.get_nowait()
            except queue.Empty:
                return
            jobs = list(waiting or ())


def _give(jobs: list[Job], fault: LocalFault) -> None:
    for job in jobs:
        job.give(fault)


def _new_entry(job: Job, index: int, columns: Columns, now: int) -> NewEntry:
    # By position, in the order of the columns: names would cost a third of an entry's time here.
    return NewEntry(
        index,
        bytes.fromhex(job.leaf_hash),
        columns.event_id,
        columns.type,
        columns.actor,
        columns.run,
        columns.round,
        now,
        job.leaf,
    )
