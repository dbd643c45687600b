"""The ledger's database: one durable transaction for a batch, and reads that never write.

Decides nothing about an entry's meaning. Trusts its rows only as far as `audit.opening` re-hashes
them. One connection writes; every other one can only read. The tables and statements are the same in
SQLite (the default) and PostgreSQL; what differs stands behind `Database`.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from operator import attrgetter
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy import Dialect, Engine, bindparam, func, insert, select, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql.dml import Insert, Update

from audit.faults import unverified
from audit.sqlite import SqliteDatabase
from audit.tables import (
    CHECKPOINT,
    COSIGNATURE,
    ENTRY,
    LOG,
    TILE,
    Batch,
    Head,
    NewEntry,
    NewTile,
)
from fedproto.errors import LocalFault

__all__ = ["Batch", "Head", "NewEntry", "NewTile", "Store"]

_SQLITE = "sqlite:///"
_POSTGRES = ("postgresql://", "postgresql+psycopg://")


class Database(Protocol):
    """What differs between databases."""

    name: str
    dialect: Dialect
    begin: str
    errors: tuple[type[Exception], ...]

    def connect(self) -> Any:
        """Return the driver's connection, the only one that writes; RNM-LEDGER-0005 if there is one."""

    def reader(self) -> Engine:
        """Return connections that cannot write."""

    def insert_entries(self, cursor: Any, sql: str, rows: Sequence[tuple[Any, ...]]) -> None:
        """Write entries."""

    def fault(self, error: BaseException | None) -> LocalFault:
        """Name what the driver says."""

    def close(self) -> None:
        """Let others have it."""


def database_of(place: Path | str) -> Database:
    """Return the database of a file or a URL; raise RNM-CONF-0001, or -0002 without the driver."""
    if isinstance(place, Path):
        return SqliteDatabase(place)
    if place.startswith(_SQLITE):
        return SqliteDatabase(Path(place.removeprefix(_SQLITE)))
    if place.startswith(_POSTGRES):
        from audit.postgres import PostgresDatabase

        return PostgresDatabase(place)
    # Not shown: it may hold a password.
    raise LocalFault(
        "RNM-CONF-0001",
        what="the ledger's database was not opened",
        why="its URL is of neither SQLite nor PostgreSQL",
        mend="write sqlite:///PATH or postgresql+psycopg://USER@HOST:PORT/DATABASE",
    )


class _Statement:
    """A statement of the tables, in a driver's own words: compiled once, then no layer between."""

    def __init__(self, statement: Insert | Update, dialect: Dialect) -> None:
        compiled = statement.compile(dialect=dialect)
        self.sql = str(compiled)
        order: Sequence[str] = compiled.positiontup or ()
        self.row: Callable[[Any], tuple[Any, ...]] = attrgetter(*order)
        self._order = order

    def of(self, values: Mapping[str, Any]) -> tuple[Any, ...]:
        """Return the parameters in order."""
        return tuple(values[name] for name in self._order)


class _Statements:
    """Everything that is ever written."""

    def __init__(self, dialect: Dialect) -> None:
        self.start = _Statement(insert(LOG), dialect)
        self.swap = _Statement(
            update(LOG)
            .where(
                LOG.c.id == bindparam("log"),
                LOG.c.size == bindparam("old_size"),
                LOG.c.epoch == bindparam("old_epoch"),
            )
            .values({name: bindparam(f"new_{name}") for name in ("size", "root", "epoch")}),
            dialect,
        )
        self.entry = _Statement(insert(ENTRY), dialect)
        self.new_tile = _Statement(insert(TILE), dialect)
        self.tile = _Statement(
            update(TILE)
            .where(TILE.c.level == bindparam("at_level"), TILE.c.n == bindparam("at_n"))
            .values(width=bindparam("new_width"), data=bindparam("new_data")),
            dialect,
        )
        self.checkpoint = _Statement(insert(CHECKPOINT), dialect)
        self.cosignature = _Statement(insert(COSIGNATURE), dialect)


class Store:
    """The ledger's database. Thread-safe."""

    def __init__(self, place: Path | str | Database) -> None:
        """Open or create the database of a path or URL, or one that was named already.

        Raises:
            LocalFault: RNM-LEDGER-0005 another process writes it; RNM-LEDGER-0001 it is damaged;
                RNM-DISK-0001, RNM-LEDGER-0002 it cannot be written; RNM-CONF-0001 a wrong URL.
        """
        database = database_of(place) if isinstance(place, Path | str) else place
        self._database = database
        self._sql = _Statements(database.dialect)
        self._writing = threading.Lock()
        self._connection: Any = None
        self._reader = database.reader()
        try:
            with self._writing, self._named_errors():
                self._connected()
        except LocalFault:
            self.close()
            raise

    def close(self) -> None:
        """Close every connection; the writing one last, so that no reader ever checkpoints."""
        self._reader.dispose()
        self._drop()
        self._database.close()

    def head(self) -> Head | None:
        """Return the log's row, or nothing in a new database."""
        row = self._one(select(LOG))
        if row is None:
            return None
        if not isinstance(row.size, int) or not isinstance(row.epoch, int):
            raise unverified(f"{self._database.name} was not used", "its head is not a number")
        return Head(
            origin=row.origin,
            log_vkey=row.log_vkey,
            size=row.size,
            root=self._bytes(row.root),
            epoch=row.epoch,
        )

    def start(self, head: Head) -> None:
        """Write the row of a new log."""
        with self._transaction() as cursor:
            cursor.execute(self._sql.start.sql, self._sql.start.of({"id": 1, **_fields(head)}))

    def take_over(self, head: Head) -> Head:
        """Fence off any earlier writer by a new epoch; raise RNM-LEDGER-0005 if the head moved."""
        after = Head(**{**_fields(head), "epoch": head.epoch + 1})
        with self._transaction() as cursor:
            self._swap_head(cursor, head, after)
        return after

    def commit(self, batch: Batch) -> None:
        """Make a batch durable, whole or not at all.

        Raises:
            LocalFault: RNM-DISK-0001 no room; RNM-LEDGER-0005 another process wrote; RNM-LEDGER-0002.
        """
        entry, checkpoint = self._sql.entry, self._sql.checkpoint
        with self._transaction() as cursor:
            self._swap_head(cursor, batch.before, batch.after)
            self._database.insert_entries(cursor, entry.sql, batch.entries)
            self._write_tiles(cursor, batch.tiles)
            values = {
                "size": batch.after.size,
                "root": batch.after.root,
                "note": batch.note,
                "created_at": batch.created_at,
            }
            cursor.execute(checkpoint.sql, checkpoint.of(values))

    def _swap_head(self, cursor: Any, before: Head, after: Head) -> None:
        values = {
            "log": 1,
            "old_size": before.size,
            "old_epoch": before.epoch,
            "new_size": after.size,
            "new_root": after.root,
            "new_epoch": after.epoch,
        }
        cursor.execute(self._sql.swap.sql, self._sql.swap.of(values))
        if cursor.rowcount != 1:
            raise LocalFault(
                "RNM-LEDGER-0005",
                what="the ledger was not written",
                why="its head was moved by another process",
                mend="stop the other coordinator; one process writes a ledger",
            )

    def _write_tiles(self, cursor: Any, tiles: Sequence[NewTile]) -> None:
        for tile in tiles:
            if tile.created:
                cursor.execute(self._sql.new_tile.sql, self._sql.new_tile.row(tile))
            else:
                values = {
                    "at_level": tile.level,
                    "at_n": tile.n,
                    "new_width": tile.width,
                    "new_data": tile.data,
                }
                cursor.execute(self._sql.tile.sql, self._sql.tile.of(values))

    def add_cosignatures(self, rows: Sequence[dict[str, Any]]) -> None:
        """Keep verified cosignatures; those that are there already stay as they are."""
        statement = self._sql.cosignature
        with self._transaction() as cursor:
            for row in rows:
                # Both databases know these words, and both take the first writer's line.
                cursor.execute(f"{statement.sql} ON CONFLICT DO NOTHING", statement.of(row))

    def entries(self, start: int, end: int) -> list[bytes]:
        """Return the leaves [start, end)."""
        query = (
            select(ENTRY.c.data)
            .where(ENTRY.c.idx >= start, ENTRY.c.idx < end)
            .order_by(ENTRY.c.idx)
        )
        return [self._bytes(row.data) for row in self._all(query)]

    def columns(self, start: int, end: int) -> list[Any]:
        """Return what stands beside the entries [start, end): derived, never trusted."""
        names = ("idx", "leaf_hash", "event_id", "type", "actor", "run", "round")
        query = (
            select(*(ENTRY.c[name] for name in names))
            .where(ENTRY.c.idx >= start, ENTRY.c.idx < end)
            .order_by(ENTRY.c.idx)
        )
        return self._all(query)

    def last_index(self) -> int | None:
        """Return the index of the last entry, whatever the head says."""
        row = self._one(select(func.max(ENTRY.c.idx).label("idx")))
        return None if row is None else row.idx

    def tile(self, level: int, n: int) -> bytes:
        """Return a hash tile; empty where there is none."""
        row = self._one(select(TILE.c.data).where(TILE.c.level == level, TILE.c.n == n))
        return b"" if row is None else self._bytes(row.data)

    def checkpoint(self, size: int) -> bytes | None:
        """Return the checkpoint that the log signed at a size."""
        row = self._one(select(CHECKPOINT.c.note).where(CHECKPOINT.c.size == size))
        return None if row is None else self._bytes(row.note)

    def checkpoints(self) -> list[tuple[int, bytes]]:
        """Return every checkpoint that is kept, by size."""
        query = select(CHECKPOINT.c.size, CHECKPOINT.c.note).order_by(CHECKPOINT.c.size)
        return [(row.size, self._bytes(row.note)) for row in self._all(query)]

    def cosignatures(self, size: int) -> list[bytes]:
        """Return the witness lines under the checkpoint of a size, in key order."""
        query = select(COSIGNATURE.c.name, COSIGNATURE.c.key_id, COSIGNATURE.c.line).where(
            COSIGNATURE.c.size == size
        )
        # Sorted here: a server's collation is not the order of bytes.
        rows = sorted(self._all(query), key=lambda row: (row.name, row.key_id))
        return [self._bytes(row.line) for row in rows]

    def cosigned_sizes(self) -> list[int]:
        """Return the sizes that any witness cosigned, newest first."""
        query = select(COSIGNATURE.c.size).distinct().order_by(COSIGNATURE.c.size.desc())
        return [row.size for row in self._all(query)]

    def find_entries(self, *, kind: str = "", actor: str = "", run: str = "") -> list[int]:
        """Return the indices of entries by type, actor and run; a hint that its reader verifies."""
        query = select(ENTRY.c.idx).order_by(ENTRY.c.idx)
        for column, wanted in ((ENTRY.c.type, kind), (ENTRY.c.actor, actor), (ENTRY.c.run, run)):
            if wanted:
                query = query.where(column == wanted)
        return [row.idx for row in self._all(query)]

    def _bytes(self, value: object) -> bytes:
        # SQLite keeps a value's own type, whatever the column says.
        if not isinstance(value, bytes):
            raise unverified(
                f"{self._database.name} was not used", "a column of bytes holds something else"
            )
        return value

    def _one(self, query: Any) -> Any:
        with self._named_errors(), self._reader.connect() as connection:
            return connection.execute(query).first()

    def _all(self, query: Any) -> list[Any]:
        with self._named_errors(), self._reader.connect() as connection:
            return list(connection.execute(query).all())

    def _connected(self) -> Any:
        if self._connection is None:
            self._connection = self._database.connect()
        return self._connection

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(*self._database.errors):
                connection.close()

    @contextmanager
    def _transaction(self) -> Iterator[Any]:
        """Write all or nothing; whoever else would write waits."""
        with self._writing, self._named_errors():
            connection = self._connected()
            cursor = connection.cursor()
            try:
                cursor.execute(self._database.begin)
                yield cursor
                connection.commit()
            except BaseException:
                self._undo(connection)
                raise

    def _undo(self, connection: Any) -> None:
        try:
            connection.rollback()
        except self._database.errors:
            # Whatever it holds is rolled back by the database; the next writer connects anew.
            self._drop()

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        """Turn what a driver says into the ledger's own errors."""
        try:
            yield
        except DBAPIError as error:
            raise self._database.fault(error.orig) from error
        except self._database.errors as error:
            raise self._database.fault(error) from error


def _fields(head: Head) -> dict[str, Any]:
    return {name: getattr(head, name) for name in head.__slots__}
