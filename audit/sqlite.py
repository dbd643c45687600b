"""What SQLite does in its own way: one file, one writing connection, full sync, a lock beside it.

Decides pragmas, guards and how SQLite's errors are named. Readers are query-only and never
checkpoint, because SQLite before 3.51.3 can lose frames when two connections do. Its triggers are a
guard against mistakes, not the security.
"""

import errno
import os
import sqlite3
from collections.abc import Sequence
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

from sqlalchemy import Dialect, Engine, create_engine, event
from sqlalchemy.dialects import sqlite as sqlite_dialect
from sqlalchemy.schema import CreateIndex, CreateTable

from audit.directory_lock import DirectoryLock
from audit.faults import unverified, unwritable
from audit.tables import APPEND_ONLY, APPEND_ONLY_WORDS, Base
from fedproto.durable import disk_fault
from fedproto.errors import LocalFault

_ROOM = 64 * 1024
# 16 MiB of log between checkpoints (a big batch writes 2 MiB), 64 MiB of pages in memory.
WRITER = (
    "journal_mode=WAL",
    "synchronous=FULL",
    "foreign_keys=ON",
    "wal_autocheckpoint=4000",
    "cache_size=-65536",
)
READER = ("query_only=ON", "wal_autocheckpoint=0")
# Few enough statements that each stays prepared, and parameters far below SQLite's limit of 32,766.
_WIDEST = 64
_GUARDS = tuple(
    f"CREATE TRIGGER IF NOT EXISTS {table}_no_{verb.lower()} BEFORE {verb} ON {table} "
    f"BEGIN SELECT RAISE(ABORT, '{APPEND_ONLY_WORDS}'); END"
    for table in APPEND_ONLY
    for verb in ("UPDATE", "DELETE")
)


class SqliteDatabase:
    """A database file; locked from here to `close`."""

    dialect: Dialect = sqlite_dialect.dialect()
    begin = "BEGIN IMMEDIATE"
    errors: tuple[type[Exception], ...] = (sqlite3.Error,)

    def __init__(self, path: Path) -> None:
        # Through any link there is one file, and one lock beside it.
        self._path = path = path.resolve()
        self.name = str(path)
        self._lock = DirectoryLock(path.parent, name=f"{path.name}.lock")
        self._lock.take()

    def close(self) -> None:
        """Let another process open the file."""
        self._lock.release()

    def connect(self) -> sqlite3.Connection:
        """Return the one connection that writes; make the tables if they are not there."""
        connection = sqlite3.connect(
            self._path, timeout=10, isolation_level=None, check_same_thread=False
        )
        try:
            _set(connection, WRITER)
            self._create(connection)
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def _create(self, connection: sqlite3.Connection) -> None:
        connection.execute(self.begin)
        for table in Base.metadata.sorted_tables:
            connection.execute(
                str(CreateTable(table, if_not_exists=True).compile(dialect=self.dialect))
            )
            for index in sorted(table.indexes, key=lambda index: str(index.name)):
                create = CreateIndex(index, if_not_exists=True)
                connection.execute(str(create.compile(dialect=self.dialect)))
        for guard in _GUARDS:
            connection.execute(guard)
        connection.commit()

    def reader(self) -> Engine:
        """Return connections that cannot write."""
        engine = create_engine(
            f"sqlite:///{self._path}",
            pool_size=4,
            max_overflow=0,
            connect_args={"check_same_thread": False, "timeout": 10, "isolation_level": None},
        )
        event.listen(engine, "connect", lambda connection, _: _set(connection, READER))
        return engine

    def insert_entries(self, cursor: Any, sql: str, rows: Sequence[tuple[Any, ...]]) -> None:
        """Write entries, many with each step.

        `executemany` would let the interpreter go and ask for it back once for each row, and wait for
        it as often wherever other threads are busy. OR ROLLBACK, since any conflict undoes the whole
        batch: undoing one statement alone would take a journal of its own.
        """
        for start in range(0, len(rows), _WIDEST):
            part = rows[start : start + _WIDEST]
            cursor.execute(_wide(sql, len(part)), list(chain.from_iterable(part)))

    def fault(self, error: BaseException | None) -> LocalFault:
        """Name what SQLite says."""
        code = getattr(error, "sqlite_errorcode", None)
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
            f"the database {self._path.name} answered: {error}",
            f"see that {self._path.parent} has room and may be written by this user, then try again; "
            "nothing was half written",
        )

    def _is_full(self) -> bool:
        room = os.statvfs(self._path.parent)
        return room.f_bavail * room.f_bsize < _ROOM


@cache
def _wide(sql: str, width: int) -> str:
    """Return an insert of one row as an insert of `width` rows."""
    head, _, values = sql.replace("INSERT", "INSERT OR ROLLBACK", 1).rpartition("VALUES ")
    return f"{head}VALUES {', '.join([values] * width)}"


def _set(connection: sqlite3.Connection, pragmas: Sequence[str]) -> None:
    for pragma in pragmas:
        connection.execute(f"PRAGMA {pragma}").close()
