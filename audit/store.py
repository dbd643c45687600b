"""The ledger's tables: one durable transaction for a batch, and reads that never write.

Decides nothing about an entry's meaning. Trusts its file only as far as `audit.ledger` re-hashes it.
One connection writes (WAL, synchronous=FULL); readers are query-only and never checkpoint, because
SQLite before 3.51.3 can lose frames when two connections do. Triggers refuse to change or delete an
entry or a checkpoint: a guard against mistakes, not the security.
"""

import errno
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event, insert, select, text, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

from audit.faults import unverified, unwritable
from fedproto.durable import disk_fault
from fedproto.errors import LocalFault


class _Base(SQLModel, registry=registry()):
    """The ledger's own tables, apart from those of other stores."""


class LogRow(_Base, table=True):
    """The head: changed by compare-and-swap of size and epoch, so that two writers cannot both win."""

    __tablename__ = "log"
    id: int = Field(primary_key=True)
    origin: str
    log_vkey: str
    size: int
    root: bytes
    epoch: int


class EntryRow(_Base, table=True):
    """A leaf's exact bytes, and columns to search by; those are derived, never trusted."""

    __tablename__ = "entry"
    idx: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    leaf_hash: bytes = Field(unique=True)
    event_id: str = Field(unique=True)
    type: str = Field(index=True)
    actor: str = Field(index=True)
    run: str = Field(index=True)
    round: int
    received_at: int
    data: bytes


class TileRow(_Base, table=True):
    """A hash tile, `width` hashes wide."""

    __tablename__ = "tile"
    level: int = Field(primary_key=True)
    n: int = Field(primary_key=True)
    width: int
    data: bytes


class CheckpointRow(_Base, table=True):
    """A checkpoint that the log signed, one for each batch."""

    __tablename__ = "checkpoint"
    size: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    root: bytes
    note: bytes
    created_at: int


class CosignatureRow(_Base, table=True):
    """A verified line of a witness under a checkpoint."""

    __tablename__ = "cosignature"
    size: int = Field(primary_key=True, foreign_key="checkpoint.size")
    key_id: bytes = Field(primary_key=True)
    name: str
    timestamp: int
    line: bytes


_LOG, _ENTRY, _TILE, _CHECKPOINT, _COSIGNATURE = (
    _Base.metadata.tables[name] for name in ("log", "entry", "tile", "checkpoint", "cosignature")
)

_ROOM = 64 * 1024

_GUARDS = tuple(
    f"CREATE TRIGGER IF NOT EXISTS {table}_no_{verb.lower()} BEFORE {verb} ON {table} "
    f"BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END"
    for table in ("entry", "checkpoint")
    for verb in ("UPDATE", "DELETE")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The log's row."""

    origin: str
    log_vkey: str
    size: int
    root: bytes
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEntry:
    """An entry to be written."""

    idx: int
    leaf_hash: bytes
    event_id: str
    type: str
    actor: str
    run: str
    round: int
    received_at: int
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTile:
    """A hash tile to be written; `created` if no narrower one is there."""

    level: int
    n: int
    data: bytes
    created: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What becomes durable together."""

    before: Head
    after: Head
    entries: Sequence[NewEntry]
    tiles: Sequence[NewTile]
    note: bytes
    created_at: int


class Store:
    """The ledger's database."""

    def __init__(self, path: Path) -> None:
        """Open or create the database; raise RNM-LEDGER-0001 if it is damaged, RNM-DISK-0001."""
        self._path = path
        # pool_size 1: exactly one connection ever writes.
        self._writer = _engine(path, _prepare_writer, pool_size=1)
        self._reader = _engine(path, _prepare_reader, pool_size=4)
        try:
            with self._named_errors(), self._writer.begin() as connection:
                _Base.metadata.create_all(connection)
                for guard in _GUARDS:
                    connection.execute(text(guard))
        except LocalFault:
            self.close()
            raise

    def close(self) -> None:
        """Close every connection."""
        self._reader.dispose()
        self._writer.dispose()

    def head(self) -> Head | None:
        """Return the log's row, or nothing in a new database."""
        row = self._one(select(_LOG))
        if row is None:
            return None
        if not isinstance(row.size, int) or not isinstance(row.epoch, int):
            raise unverified(f"{self._path} was not used", "its head is not a number")
        return Head(
            origin=row.origin,
            log_vkey=row.log_vkey,
            size=row.size,
            root=self._bytes(row.root),
            epoch=row.epoch,
        )

    def start(self, head: Head) -> None:
        """Write the row of a new log."""
        with self._named_errors(), self._writer.begin() as connection:
            connection.execute(insert(_LOG).values(id=1, **_fields(head)))

    def take_over(self, head: Head) -> Head:
        """Fence off any earlier writer by a new epoch; raise RNM-LEDGER-0005 if the head moved."""
        after = Head(**{**_fields(head), "epoch": head.epoch + 1})
        with self._named_errors(), self._writer.begin() as connection:
            _swap_head(connection, head, after)
        return after

    def commit(self, batch: Batch) -> None:
        """Make a batch durable, whole or not at all.

        Raises:
            LocalFault: RNM-DISK-0001 no room; RNM-LEDGER-0005 another process wrote; RNM-LEDGER-0002.
        """
        with self._named_errors(), self._writer.begin() as connection:
            _swap_head(connection, batch.before, batch.after)
            connection.execute(insert(_ENTRY), [_fields(entry) for entry in batch.entries])
            self._write_tiles(connection, batch.tiles)
            connection.execute(
                insert(_CHECKPOINT).values(
                    size=batch.after.size,
                    root=batch.after.root,
                    note=batch.note,
                    created_at=batch.created_at,
                )
            )

    @staticmethod
    def _write_tiles(connection: Any, tiles: Sequence[NewTile]) -> None:
        created = [tile for tile in tiles if tile.created]
        if created:
            connection.execute(
                insert(_TILE),
                [
                    {"level": t.level, "n": t.n, "width": len(t.data) // 32, "data": t.data}
                    for t in created
                ],
            )
        for tile in tiles:
            if not tile.created:
                connection.execute(
                    update(_TILE)
                    .where(_TILE.c.level == tile.level, _TILE.c.n == tile.n)
                    .values(width=len(tile.data) // 32, data=tile.data)
                )

    def add_cosignatures(self, rows: Sequence[dict[str, Any]]) -> None:
        """Keep verified cosignatures; those that are there already stay as they are."""
        with self._named_errors(), self._writer.begin() as connection:
            for row in rows:
                there = select(_COSIGNATURE.c.size).where(
                    _COSIGNATURE.c.size == row["size"], _COSIGNATURE.c.key_id == row["key_id"]
                )
                if connection.execute(there).first() is None:
                    connection.execute(insert(_COSIGNATURE).values(**row))

    def entries(self, start: int, end: int) -> list[bytes]:
        """Return the leaves [start, end)."""
        query = (
            select(_ENTRY.c.data)
            .where(_ENTRY.c.idx >= start, _ENTRY.c.idx < end)
            .order_by(_ENTRY.c.idx)
        )
        return [self._bytes(row.data) for row in self._all(query)]

    def tile(self, level: int, n: int) -> bytes:
        """Return a hash tile; empty where there is none."""
        row = self._one(select(_TILE.c.data).where(_TILE.c.level == level, _TILE.c.n == n))
        return b"" if row is None else self._bytes(row.data)

    def checkpoint(self, size: int) -> bytes | None:
        """Return the checkpoint that the log signed at a size."""
        row = self._one(select(_CHECKPOINT.c.note).where(_CHECKPOINT.c.size == size))
        return None if row is None else self._bytes(row.note)

    def cosignatures(self, size: int) -> list[bytes]:
        """Return the witness lines under the checkpoint of a size, in key order."""
        query = (
            select(_COSIGNATURE.c.line)
            .where(_COSIGNATURE.c.size == size)
            .order_by(_COSIGNATURE.c.name, _COSIGNATURE.c.key_id)
        )
        return [self._bytes(row.line) for row in self._all(query)]

    def cosigned_sizes(self) -> list[int]:
        """Return the sizes that any witness cosigned, newest first."""
        query = select(_COSIGNATURE.c.size).distinct().order_by(_COSIGNATURE.c.size.desc())
        return [row.size for row in self._all(query)]

    def find_entries(self, *, kind: str = "", actor: str = "", run: str = "") -> list[int]:
        """Return the indices of entries by type, actor and run; a hint that its reader verifies."""
        query = select(_ENTRY.c.idx).order_by(_ENTRY.c.idx)
        for column, wanted in ((_ENTRY.c.type, kind), (_ENTRY.c.actor, actor), (_ENTRY.c.run, run)):
            if wanted:
                query = query.where(column == wanted)
        return [row.idx for row in self._all(query)]

    def _bytes(self, value: object) -> bytes:
        # SQLite keeps a value's own type, whatever the column says.
        if not isinstance(value, bytes):
            raise unverified(f"{self._path} was not used", "a column of bytes holds something else")
        return value

    def _one(self, query: Any) -> Any:
        with self._named_errors(), self._reader.connect() as connection:
            return connection.execute(query).first()

    def _all(self, query: Any) -> list[Any]:
        with self._named_errors(), self._reader.connect() as connection:
            return list(connection.execute(query).all())

    def _is_full(self) -> bool:
        return (
            os.statvfs(self._path.parent).f_bavail * os.statvfs(self._path.parent).f_bsize < _ROOM
        )

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        """Turn what SQLite says into the ledger's own errors."""
        try:
            yield
        except DBAPIError as error:
            raise self._fault(error.orig) from error

    def _fault(self, cause: BaseException | None) -> LocalFault:
        code = getattr(cause, "sqlite_errorcode", None)
        primary = None if code is None else code & 0xFF
        # A full file system also shows as an IO error, where SQLite sizes its shared memory.
        if primary == sqlite3.SQLITE_FULL or (primary == sqlite3.SQLITE_IOERR and self._is_full()):
            return disk_fault(self._path, OSError(errno.ENOSPC, "full"))
        if primary in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
            return unverified(
                f"{self._path} was not used",
                "the database file is damaged",
                "keep it as evidence; restore the newest backup, or the entries from a member's mirror",
            )
        return unwritable(
            f"the database {self._path.name} answered: {cause}",
            f"see that {self._path.parent} has room and may be written by this user, then try again; "
            "nothing was half written",
        )


def _fields(value: Head | NewEntry) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__slots__}


def _swap_head(connection: Any, before: Head, after: Head) -> None:
    swapped = connection.execute(
        update(_LOG)
        .where(_LOG.c.id == 1, _LOG.c.size == before.size, _LOG.c.epoch == before.epoch)
        .values(size=after.size, root=after.root, epoch=after.epoch)
    )
    if swapped.rowcount != 1:
        raise LocalFault(
            "RNM-LEDGER-0005",
            what="the ledger was not written",
            why="its head was moved by another process",
            mend="stop the other coordinator; one process writes a ledger",
        )


def _engine(path: Path, prepare: Any, *, pool_size: int) -> Engine:
    engine = create_engine(
        f"sqlite:///{path}",
        pool_size=pool_size,
        max_overflow=0,
        connect_args={"check_same_thread": False, "timeout": 10},
    )
    event.listen(engine, "connect", prepare)
    event.listen(engine, "begin", _begin_immediate if prepare is _prepare_writer else _begin)
    return engine


def _prepare_writer(connection: sqlite3.Connection, _record: object) -> None:
    # The driver's own transactions start late; ours start with BEGIN IMMEDIATE below.
    connection.isolation_level = None
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}").close()


def _prepare_reader(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None
    for pragma in ("query_only=ON", "wal_autocheckpoint=0"):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin_immediate(connection: Any) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _begin(connection: Any) -> None:
    connection.exec_driver_sql("BEGIN")
