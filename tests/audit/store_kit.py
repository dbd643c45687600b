"""Databases to test the ledger's store on, what a DBA may do to them, and batches to write."""

import sqlite3
from dataclasses import dataclass
from pathlib import Path

from postgres_kit import Server

from audit import merkle
from audit.store import Batch, Head, NewEntry, NewTile, Store
from audit.tiles import RightEdge

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
