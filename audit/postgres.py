"""What PostgreSQL does in its own way: a server, a lock held by a session, COPY, guards in plpgsql.

Decides session settings, guards and how the server's errors are named. Trusts the server to keep what
it said is durable: refuses one that runs without fsync. Never sees a password in a URL: libpq takes it
from a file of mode 0600, so that it stands in no process list, log or traceback.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Dialect, Engine, create_engine, event
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.schema import CreateIndex, CreateTable

from audit.faults import unverified, unwritable
from audit.tables import APPEND_ONLY, APPEND_ONLY_WORDS, ENTRY, Base
from fedproto.errors import LocalFault

try:
    import psycopg
except ImportError:
    raise LocalFault(
        "RNM-CONF-0002",
        what="PostgreSQL was not used",
        why="its driver is not installed",
        mend="run: pip install 'renmei[postgresql]'",
    ) from None

_COPY_FROM = 50
_LOCK_MS = 1000
_MEND_URL = (
    "write postgresql+psycopg://USER@HOST:PORT/DATABASE; the password belongs in a file of mode 0600 "
    "that ?passfile=PATH, PGPASSFILE or a service file names"
)
# A server that vanished is noticed within half a minute; a URL may say otherwise.
_DEFAULTS = {
    "connect_timeout": "10",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
    "application_name": "renmei",
}
_SECRETS = frozenset({"password", "sslpassword", "oauth_client_secret"})
_FUNCTION = (
    "CREATE OR REPLACE FUNCTION renmei_append_only() RETURNS trigger LANGUAGE plpgsql AS "
    f"$$ BEGIN RAISE EXCEPTION '{APPEND_ONLY_WORDS}'; END $$"
)
_GUARDS = (
    _FUNCTION,
    *(
        f"CREATE OR REPLACE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} "
        "FOR EACH STATEMENT EXECUTE FUNCTION renmei_append_only()"
        for table in APPEND_ONLY
        for verb in ("UPDATE", "DELETE", "TRUNCATE")
    ),
)
_FULL, _CORRUPT = "53100", ("XX001", "XX002")


class PostgresDatabase:
    """A database of a server. Only one session writes: it holds an advisory lock."""

    dialect: Dialect = PGDialect_psycopg(paramstyle="format")  # type: ignore[no-untyped-call]
    begin = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"
    errors: tuple[type[Exception], ...] = (psycopg.Error,)

    def __init__(self, url: str) -> None:
        self._url = _read_url(url)
        self.name = f"the database {self._url.database} on {self._url.host or 'the service'}"

    def close(self) -> None:
        """Do nothing: the lock ended with its session."""

    def connect(self) -> "psycopg.Connection[tuple[Any, ...]]":
        """Return the one session that writes, locked; make the tables if they are not there."""
        connection = self._session()
        try:
            self._prepare(connection)
        except (psycopg.Error, LocalFault):
            connection.close()
            raise
        return connection

    def _session(self) -> "psycopg.Connection[tuple[Any, ...]]":
        options: dict[str, Any] = self._url.translate_connect_args(username="user")
        options["dbname"] = options.pop("database", None)
        options |= {**self._url.query, "autocommit": True}
        try:
            return psycopg.connect(**options)
        except psycopg.Error as error:
            # Not chained: a driver's traceback may hold what it was given.
            raise self._unreachable(error) from None

    def _prepare(self, connection: "psycopg.Connection[tuple[Any, ...]]") -> None:
        connection.execute("SET synchronous_commit = on")
        (fsync, schema) = _row(connection, "SELECT current_setting('fsync'), current_schema()")
        if fsync != "on":
            raise unwritable(
                f"{self.name} runs with fsync={fsync}: what it says is durable may be lost",
                "set fsync = on in postgresql.conf and restart the server",
            )
        if schema is None:
            raise unwritable(f"{self.name} has no schema to write to", "see its search_path")
        self._lock(connection, _lock_key(str(schema)))
        # A role that may only insert, and update `log` and `tile`, writes a ledger made by its owner.
        (guards,) = _row(
            connection,
            "SELECT count(*) FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid "
            "WHERE tgname ~ '_no_(update|delete|truncate)$' AND tgenabled <> 'D' "
            "AND relnamespace = %s::regnamespace",
            f'"{schema}"',
        )
        if guards != len(_GUARDS) - 1:
            self._create(connection)

    def _lock(self, connection: "psycopg.Connection[tuple[Any, ...]]", key: int) -> None:
        # The session of a coordinator that was killed ends a moment after it.
        connection.execute(f"SET lock_timeout = {_LOCK_MS}".encode())
        try:
            _row(connection, "SELECT pg_advisory_lock(%s)", key)
        except psycopg.errors.LockNotAvailable:
            raise LocalFault(
                "RNM-LEDGER-0005",
                what=f"{self.name} was not opened",
                why="another session holds the ledger's lock",
                mend="stop the other coordinator; one process writes a ledger",
            ) from None
        connection.execute("RESET lock_timeout")

    def _create(self, connection: "psycopg.Connection[tuple[Any, ...]]") -> None:
        with connection.transaction():
            for table in Base.metadata.sorted_tables:
                create = CreateTable(table, if_not_exists=True)
                connection.execute(str(create.compile(dialect=self.dialect)).encode())
                for index in sorted(table.indexes, key=lambda index: str(index.name)):
                    made = CreateIndex(index, if_not_exists=True)
                    connection.execute(str(made.compile(dialect=self.dialect)).encode())
            for guard in _GUARDS:
                connection.execute(guard.encode())

    def reader(self) -> Engine:
        """Return sessions that cannot write; a server that was restarted is asked again."""
        engine = create_engine(self._url, pool_size=4, max_overflow=0, pool_pre_ping=True)
        event.listen(engine, "connect", _read_only)
        return engine

    def insert_entries(self, cursor: Any, sql: str, rows: Sequence[tuple[Any, ...]]) -> None:
        """Write entries; many of them by COPY."""
        if len(rows) < _COPY_FROM:
            cursor.executemany(sql, rows)
            return
        columns = ", ".join(f'"{column.name}"' for column in ENTRY.columns)
        with cursor.copy(f"COPY entry ({columns}) FROM STDIN (FORMAT BINARY)") as copy:
            copy.set_types([_COPY_TYPES[column.name] for column in ENTRY.columns])
            for row in rows:
                copy.write_row(row)

    def fault(self, error: BaseException | None) -> LocalFault:
        """Name what the server says."""
        state = getattr(error, "sqlstate", None)
        if state == _FULL:
            return LocalFault(
                "RNM-DISK-0001",
                what=f"{self.name} could not be written",
                why="the server's file system has no room left",
                mend="free space on the database server, then send again; nothing was half written",
            )
        if state in _CORRUPT:
            return unverified(
                f"{self.name} was not used",
                "the server found its own files damaged",
                "keep them as evidence; restore the newest backup, or a member's mirror",
            )
        if isinstance(error, psycopg.OperationalError):
            return self._unreachable(error)
        return unwritable(
            f"{self.name} answered: {_first_line(error)}",
            "see the server's log and this role's rights, then try again; nothing was half written",
        )

    def _unreachable(self, error: BaseException) -> LocalFault:
        return unwritable(
            f"{self.name} does not answer: {_first_line(error)}",
            "see that the server runs, takes this role, and that the password stands in a file of "
            "mode 0600 named by ?passfile=PATH, PGPASSFILE or a service file (never in the URL); "
            "nothing was half written",
        )


_COPY_TYPES = {
    column.name: {"BIGINT": "int8", "BYTEA": "bytea", "VARCHAR": "varchar"}[
        column.type.compile(dialect=PostgresDatabase.dialect)
    ]
    for column in ENTRY.columns
}


def _read_url(text: str) -> URL:
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise _bad_url("it cannot be read") from None
    if url.password is not None or _SECRETS & url.query.keys():
        raise _bad_url("it holds a password, which every list of processes and log would show")
    passfile = url.query.get("passfile")
    if isinstance(passfile, str):
        _check_private(Path(passfile))
    return url.set(drivername="postgresql+psycopg").update_query_dict({**_DEFAULTS, **url.query})


def _check_private(path: Path) -> None:
    """Libpq would leave out a file that others may read, and say so where nobody looks."""
    try:
        mode = path.stat().st_mode & 0o777
    except OSError as error:
        raise _bad_url(f"its passfile {path} cannot be read: {error.strerror}") from None
    if mode & 0o077:
        raise LocalFault(
            "RNM-KEY-0002",
            what=f"the password file {path} was not used",
            why=f"its mode is {mode:04o}: others on this machine may read it",
            mend=f"run: chmod 600 {path}   (and change the password if others had access)",
        )


def _bad_url(why: str) -> LocalFault:
    return LocalFault(
        "RNM-CONF-0001", what="the database's URL was not used", why=why, mend=_MEND_URL
    )


def _lock_key(schema: str) -> int:
    """Return a lock's number: one for each log, of which a schema holds one."""
    digest = hashlib.sha256(b"renmei/ledger/lock/v1\0" + schema.encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


def _row(connection: "psycopg.Connection[tuple[Any, ...]]", sql: str, *values: object) -> Any:
    return connection.execute(sql.encode(), values).fetchone()


def _first_line(error: BaseException | None) -> str:
    return str(error).strip().partition("\n")[0]


def _read_only(connection: Any, _record: object) -> None:
    connection.read_only = True
