"""The ledger's figures, each next to its limit: `python benchmarks/ledger.py [PART ...] [--json]`.

Every part measures us and a peer by turns in one run on the same disk, and gives the median of the
ratios: the machine varies more than the code. Compare ratios, not rates.
"""

import argparse
import json
import os
import sqlite3
import statistics
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path

from sqlalchemy.dialects import sqlite as dialect
from sqlalchemy.schema import CreateIndex, CreateTable
from sqlmodel import Session, create_engine

from audit import merkle
from audit.note import NoteSigner
from audit.sequencer import Columns, Job, Sequencer
from audit.sqlite import WRITER
from audit.store import Head, NewEntry, Store
from audit.tables import ENTRY, EntryRow
from audit.tiles import RightEdge
from fedproto.ids import Digest

CLIENTS = 64
BATCH = 1000
_BODY = bytes(range(200)) * 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A value and the limit it is held to; `at_most` says on which side."""

    name: str
    value: float
    unit: str
    limit: float | None = None
    at_most: bool = False

    @property
    def holds(self) -> bool | None:
        """Whether the limit is kept."""
        if self.limit is None:
            return None
        return self.value <= self.limit if self.at_most else self.value >= self.limit


@dataclass(slots=True)
class Samples:
    """What the turns of one run gave, by name."""

    values: dict[str, list[float]] = field(default_factory=dict)

    def add(self, name: str, value: float) -> None:
        """Keep one more."""
        self.values.setdefault(name, []).append(value)

    def median(self, name: str) -> float:
        """Return the median of all turns."""
        return statistics.median(self.values[name])

    def ratio(self, name: str, peer: str) -> float:
        """Return the median of the ratios of the same turn."""
        pairs = zip(self.values[name], self.values[peer], strict=True)
        return statistics.median(a / b for a, b in pairs)


def seconds(work: Callable[[], object]) -> float:
    """Return how long something takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def leaf(number: int) -> bytes:
    """Return an entry of about 600 bytes."""
    return number.to_bytes(8, "big") + _BODY


def row(number: int) -> NewEntry:
    """Return an entry with the columns that it is found by."""
    data = leaf(number)
    digest = merkle.leaf_hash(data)
    return NewEntry(number, digest, digest.hex()[:32], "vote.cast", "nec", "r" * 32, 1, 1, data)


class Raw:
    """The bare driver on a table with our columns and indexes, under our pragmas: nothing else."""

    def __init__(self, place: Path) -> None:
        self._connection = sqlite3.connect(place, isolation_level=None)
        self._numbers = count()
        for pragma in WRITER:
            self._connection.execute(f"PRAGMA {pragma}").close()
        made = [CreateTable(ENTRY), *(CreateIndex(index) for index in ENTRY.indexes)]
        for statement in made:
            self._connection.execute(str(statement.compile(dialect=dialect.dialect())))

    def append(self, entries: int, batch: int) -> float:
        """Return entries a second, written in durable batches; the rows are made before."""
        batches = [
            [row(next(self._numbers)) for _ in range(batch)] for _ in range(entries // batch)
        ]

        def write() -> None:
            for rows in batches:
                self._connection.execute("BEGIN IMMEDIATE")
                self._connection.executemany(f"INSERT INTO entry VALUES ({'?, ' * 8}?)", rows)
                self._connection.execute("COMMIT")

        return entries / seconds(write)


class OneByOne:
    """SQLModel as its tutorial has it: a session, add, commit; clients take turns at the lock."""

    def __init__(self, place: Path) -> None:
        self._engine = create_engine(f"sqlite:///{place}", pool_size=CLIENTS)
        with self._engine.begin() as connection:
            connection.exec_driver_sql("PRAGMA journal_mode=WAL")
            ENTRY.metadata.create_all(connection)
        self._numbers, self._turn = count(), threading.Lock()

    def append(self, entries: int) -> float:
        """Return entries a second of all clients."""
        numbers = iter(range(entries))

        def add() -> None:
            entry = EntryRow(**row(next(self._numbers))._asdict())
            with self._turn, Session(self._engine) as session:
                session.add(entry)
                session.commit()

        return entries / seconds(lambda: together(CLIENTS, numbers, add))


class Anything:
    """A judge that admits all: what is measured is order, tree, signature and disk."""

    def find(self, state: None, leaf_hash: Digest) -> int | None:
        """Nothing is there yet."""

    def admit(self, _: None, job: Job) -> tuple[None, Columns]:
        """Say what columns have."""
        return None, Columns(job.leaf_hash[:32], "vote.cast", "nec", "r" * 32, 1)

    def root(self, state: None) -> Digest | None:
        """Keep none."""


class Ours:
    """The sequencer over its store: entries, tiles, head and a signed checkpoint in each batch."""

    def __init__(self, place: Path) -> None:
        key = NoteSigner("bench.example/log", os.urandom(32))
        head = Head(origin=key.name, log_vkey=key.vkey, size=0, root=merkle.EMPTY_ROOT, epoch=1)
        self._store = store = Store(place)
        store.start(head)
        self._sequencer = Sequencer(
            store, key, Anything(), head=head, edge=RightEdge(), state=None, clock=lambda: 1
        )
        self._numbers = count()

    def close(self) -> None:
        """Stop."""
        self._sequencer.close()
        self._store.close()

    def _job(self) -> Job:
        data = leaf(next(self._numbers))
        return Job(leaf=data)

    def one(self) -> float:
        """Return how long a single append takes a lone client, in ms."""
        job = self._job()
        return seconds(lambda: self._sequencer.append(job)) * 1000

    def clients(self, entries: int) -> float:
        """Return entries a second of many clients, each waiting for its answer."""
        numbers = iter(range(entries))
        work = lambda: self._sequencer.append(self._job())  # noqa: E731
        return entries / seconds(lambda: together(CLIENTS, numbers, work))

    def batches(self, entries: int, batch: int) -> float:
        """Return entries a second that come from bytes to the last answer, two batches under way."""

        def send() -> None:
            waiting: deque[Job] = deque()
            for _ in range(entries):
                waiting.append(self._job())
                self._sequencer.submit(waiting[-1])
                if len(waiting) == 2 * batch:
                    for _ in range(batch):
                        waiting.popleft().wait()
            for job in waiting:
                job.wait()

        return entries / seconds(send)


def together(clients: int, numbers: Iterator[int], work: Callable[[], object]) -> None:
    """Have clients do a piece of work for each number, each its next when it has done one."""

    def client() -> None:
        for _ in numbers:
            work()

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def fsyncs(place: Path, times: int) -> list[float]:
    """Return how long it takes to append 4 KiB and have them on the disk, in ms."""
    block = bytes(4096)
    handle = os.open(place / "fsync", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        return [
            seconds(lambda: (os.write(handle, block), os.fsync(handle))) * 1000
            for _ in range(times)
        ]
    finally:
        os.close(handle)


def append(args: argparse.Namespace) -> list[Figure]:
    """Durable appends in SQLite: in batches, by many clients, and by one."""
    samples = Samples()
    with ExitStack() as stack:
        # On the disk of the working directory: many a /tmp is memory.
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=Path.cwd())))
        # One database each, so that all of a kind grow alike.
        raw, raw_one = Raw(place / "raw.db"), Raw(place / "raw_one.db")
        sqlmodel = OneByOne(place / "sqlmodel.db")
        in_batches, by_many, by_one = (
            stack.enter_context(closing(Ours(place / f"{name}.db"))) for name in ("a", "b", "c")
        )
        for turn in range(args.turns + 1):
            took = {
                "raw 1": raw_one.append(200, 1),
                f"raw {BATCH}": raw.append(4 * BATCH, BATCH),
                f"ours {BATCH}": in_batches.batches(4 * BATCH, BATCH),
                f"SQLModel {CLIENTS}": sqlmodel.append(640),
                f"ours {CLIENTS}": by_many.clients(6400),
                "fsync": statistics.median(fsyncs(place, 200)),
            }
            single = sorted(by_one.one() for _ in range(200))
            took |= {"p50": single[100], "p99": single[197]}
            took["over"] = took["p50"] - 3 * took["fsync"]
            # The first turn warms caches.
            for name, value in took.items() if turn else ():
                samples.add(name, value)
    rates = [f"raw {BATCH}", f"ours {BATCH}", "raw 1", f"SQLModel {CLIENTS}", f"ours {CLIENTS}"]
    return [
        *(
            Figure(name=f"{name}, entries a second", value=samples.median(name), unit="/s")
            for name in rates
        ),
        Figure(
            name=f"append in batches of {BATCH}, tiles and checkpoint included : raw sqlite3",
            value=samples.ratio(f"ours {BATCH}", f"raw {BATCH}"),
            unit="x",
            limit=0.6,
        ),
        Figure(
            name=f"{CLIENTS} clients : SQLModel one by one",
            value=samples.ratio(f"ours {CLIENTS}", f"SQLModel {CLIENTS}"),
            unit="x",
            limit=5,
        ),
        Figure(name="4 KiB and fsync, p50", value=samples.median("fsync"), unit="ms"),
        Figure(
            name="a single append, p50 (limit 3 x fsync + 0.5)",
            value=samples.median("p50"),
            unit="ms",
            limit=samples.median("p50") - samples.median("over") + 0.5,
            at_most=True,
        ),
        Figure(name="a single append, p99", value=samples.median("p99"), unit="ms"),
    ]


def service(_: argparse.Namespace) -> list[Figure]:
    """Verified, durable appends over gRPC, beside a handler that does nothing."""
    import ledger_service

    (rate,) = ledger_service.measure_all(2000, [16], rounds=5)
    name = "gRPC unary appends, verified and durable, 16 in flight"
    return [
        Figure(name=name, value=rate.appends_per_s, unit="/s", limit=1500),
        Figure(name="the same calls to an empty handler", value=rate.empty_per_s, unit="/s"),
        Figure(name="one append, p99", value=rate.p99_ms, unit="ms"),
    ]


def witnesses(_: argparse.Namespace) -> list[Figure]:
    """A round of four witnesses, beside the fsyncs that it waits for."""
    import ledger_witnesses

    found = ledger_witnesses.measure(300)
    limit, name = found["limit_ms"], "a four-witness round on loopback, p99"
    return [
        Figure(name=name, value=found["p99_ms"], unit="ms", limit=limit, at_most=True),
        Figure(name="the same, p50", value=found["p50_ms"], unit="ms"),
        Figure(name="its fsyncs alone", value=found["fsyncs_ms"], unit="ms"),
    ]


def reading(_: argparse.Namespace) -> list[Figure]:
    """Offline verification beside the bare primitives, and proofs of a log of a million entries."""
    import ledger_reading

    rates = ledger_reading.hashing(70_000) | ledger_reading.signatures(1500)
    hashes, signed = rates["verified_hashes_per_s"], rates["verified_signatures_per_s"]
    proof = ledger_reading.proofs(1_000_000, 1000)["inclusion_p99_ms"]
    name = "a proof at a million entries, p99"
    return [
        Figure(name="hashes verified on a core", value=hashes, unit="/s", limit=300_000),
        Figure(name="hashlib alone", value=rates["hashlib_per_s"], unit="/s"),
        Figure(name="signatures verified on a core", value=signed, unit="/s", limit=8000),
        Figure(name="Ed25519 alone", value=rates["ed25519_per_s"], unit="/s"),
        Figure(name=name, value=proof, unit="ms", limit=5, at_most=True),
    ]


PARTS: dict[str, Callable[[argparse.Namespace], list[Figure]]] = {
    "append": append,
    "service": service,
    "witnesses": witnesses,
    "reading": reading,
}


def show(figures: list[Figure]) -> None:
    """Print a table."""
    for figure in figures:
        value = f"{figure.value:,.0f}" if figure.value >= 1000 else f"{figure.value:.2f}"
        side = "<=" if figure.at_most else ">="
        limit = "" if figure.limit is None else f"{side} {figure.limit:.2f}"
        verdict = {None: "", True: "ok", False: "MISSED"}[figure.holds]
        print(f"  {figure.name:<70} {value:>10} {figure.unit:<3} {limit:<10} {verdict}")


def main() -> None:
    """Measure the parts that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", nargs="*", choices=[*PARTS, []], help="all without any")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    found = {part: PARTS[part](args) for part in args.part or PARTS}
    if args.json:
        told = {
            part: [{**asdict(figure), "holds": figure.holds} for figure in figures]
            for part, figures in found.items()
        }
        print(json.dumps(told, indent=2))
        return
    for part, figures in found.items():
        print(part)
        show(figures)


if __name__ == "__main__":
    main()
