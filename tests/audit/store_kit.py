"""Databases to test the ledger's store on, what a DBA may do to them, and batches to write."""

import sqlite3
from dataclasses import dataclass
from pathlib import Path

from ledger_kit import LOG_KEY
from postgres_kit import Server

from audit import merkle
from audit.checkpoint import TreeHead, open_checkpoint
from audit.sequencer import Columns, Job, Sequencer
from audit.store import Batch, Head, NewEntry, NewTile, Store
from audit.tiles import RightEdge, encode_bundle
from audit.tree_check import check_tree
from fedproto.errors import LocalFault
from fedproto.ids import Digest, sha256_hex

APPEND_ONLY = ("entry", "checkpoint")


class SqlitePlace:
    """A database file."""

    truncates = False
    mark = "?"

    def __init__(self, path: Path) -> None:
        self.place, self.path = path, path

    def open(self, kind: type[Store] = Store) -> Store:
        return kind(self.place)

    def dba(self, sql: str, *values: object) -> list[tuple]:
        """Do what whoever owns the database can do, past the store."""
        connection = sqlite3.connect(self.path, timeout=10)
        try:
            with connection:
                return connection.execute(sql, values).fetchall()
        finally:
            connection.close()

    def disarm(self) -> None:
        for table in APPEND_ONLY:
            for verb in ("update", "delete"):
                self.dba(f"DROP TRIGGER {table}_no_{verb}")


class PostgresPlace:
    """A database of the server."""

    truncates = True
    mark = "%s"

    def __init__(self, server: Server) -> None:
        self.server, self.name = server, server.database()
        self.place = server.url(self.name)

    def open(self, kind: type[Store] = Store) -> Store:
        return kind(self.place)

    def dba(self, sql: str, *values: object) -> list[tuple]:
        with self.server.connect(self.name) as connection:
            cursor = connection.execute(sql.encode(), values)
            return cursor.fetchall() if cursor.description else []

    def disarm(self) -> None:
        for table in APPEND_ONLY:
            self.dba(f"ALTER TABLE {table} DISABLE TRIGGER ALL")


NEW = Head(
    origin="o.example/log", log_vkey="o.example/log+0+x", size=0, root=merkle.EMPTY_ROOT, epoch=1
)


@dataclass
class Growth:
    """A tree that grows by batches, as the sequencer grows it."""

    head: Head
    edge: RightEdge

    def batch(self, leaves: list[bytes], **columns: str) -> Batch:
        hashes = [merkle.leaf_hash(leaf) for leaf in leaves]
        grown = self.edge.grow(hashes)
        after = Head(
            origin=self.head.origin,
            log_vkey=self.head.log_vkey,
            size=grown.size,
            root=grown.root,
            epoch=self.head.epoch,
        )
        entries = [
            NewEntry(
                idx=self.head.size + i,
                leaf_hash=hashes[i],
                event_id=hashes[i].hex()[:32],
                type=columns.get("type", "x"),
                actor=columns.get("actor", "nec"),
                run=columns.get("run", ""),
                round=i,
                received_at=1_790_000_000_000 + i,
                data=leaf,
            )
            for i, leaf in enumerate(leaves)
        ]
        tiles = [
            NewTile(level=level, n=n, data=bytes(data), created=(level, n) in grown.created)
            for (level, n), data in grown.tiles.items()
        ]
        note = b"note of %d" % grown.size
        self._grown = grown
        return Batch(
            before=self.head, after=after, entries=entries, tiles=tiles, note=note, created_at=7
        )

    def accept(self, batch: Batch) -> None:
        self.edge.accept(self._grown)
        self.head = batch.after

    def write(self, store: Store, leaves: list[bytes], **columns: str) -> Batch:
        batch = self.batch(leaves, **columns)
        store.commit(batch)
        self.accept(batch)
        return batch


def begin(store: Store) -> Growth:
    store.start(NEW)
    return Growth(NEW, RightEdge())


def texts(start: int, end: int) -> list[bytes]:
    return [b"entry %d" % number for number in range(start, end)]


class Anything:
    """A judge that admits all, so that only the writer is under test."""

    def find(self, state, leaf_hash):
        return state.get(leaf_hash)

    def admit(self, state, job):
        if job.leaf == b"refuse":
            raise LocalFault("RNM-GOV-0001", what="w", why="y", mend="m")
        if job.leaf == b"bug":
            raise RuntimeError("a bug in the judge")
        state = {**state, job.leaf_hash: len(state)}
        return state, Columns(event_id=job.leaf_hash, type="x", actor="x")

    def root(self, state):
        return None


def job(text: str) -> Job:
    return Job(leaf=text.encode())


def verified(store: Store) -> list[bytes]:
    """Return the entries, hashed up to the root of the head; the newest checkpoint is of it."""
    head = store.head()
    if head is None or not head.size:
        assert store.entries(0, 1) == []
        return []
    entries = check_tree(
        TreeHead(head.size, Digest(head.root.hex())),
        store.tile,
        lambda n, width: encode_bundle(store.entries(n * 256, n * 256 + width)),
    )
    assert store.last_index() == head.size - 1
    assert store.checkpoints()[-1] == (head.size, store.checkpoint(head.size))
    signed = open_checkpoint(store.checkpoint(head.size), LOG_KEY.verifier, LOG_KEY.name)
    assert signed.head.root_bytes == head.root
    return entries


def sequencer_of(store: Store) -> Sequencer:
    """Start a writer where the database stands, as a coordinator does."""
    head = store.head()
    if head is None:
        head = Head(
            origin=LOG_KEY.name, log_vkey=LOG_KEY.vkey, size=0, root=merkle.EMPTY_ROOT, epoch=0
        )
        store.start(head)
    entries, edge = verified(store), RightEdge()
    edge.accept(edge.grow([merkle.leaf_hash(entry) for entry in entries]))
    state = {sha256_hex(entry): index for index, entry in enumerate(entries)}
    return Sequencer(
        store,
        LOG_KEY,
        Anything(),
        head=store.take_over(head),
        edge=edge,
        state=state,
        clock=lambda: 0,
    )
