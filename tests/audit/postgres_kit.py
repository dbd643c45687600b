"""A real PostgreSQL server for tests: made, started and stopped here, with fsync on.

Its programs are those of Debian's package `postgresql` (or of RENMEI_POSTGRES_BIN). `initdb` refuses
root, so that root runs it as `postgres` or `nobody`. Passwords are asked of one role only, `guarded`.
"""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

import psycopg
import pytest

REQUIRED = "RENMEI_REQUIRE_POSTGRES"
PASSWORD = "correct horse battery"
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "fsync": "on",
    "synchronous_commit": "off",  # the store has to force it
    "max_connections": "60",
    "shared_buffers": "32MB",
    "log_min_messages": "fatal",
    "lc_messages": "C",
}
_RULES = """\
host all guarded 127.0.0.1/32 scram-sha-256
host all all 127.0.0.1/32 trust
"""


def programs() -> Path | None:
    """Return the directory of `initdb` and `postgres`, the newest there is."""
    named = os.environ.get("RENMEI_POSTGRES_BIN")
    places = [Path(named)] if named else []
    found = shutil.which("initdb")
    places += [Path(found).resolve().parent] if found else []
    debian = Path("/usr/lib/postgresql").glob("*/bin")
    places += sorted(debian, key=lambda place: int(place.parent.name), reverse=True)
    return next((p for p in places if (p / "initdb").exists() and (p / "postgres").exists()), None)


def account() -> str | None:
    """Return the account that the server runs under, if it must not be ours."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in known else "nobody"


class Server:
    """A server of its own on a free port of 127.0.0.1."""

    def __init__(self, place: Path) -> None:
        self._place, self._bin = place, programs()
        self._numbers = count()
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._run(
            "initdb",
            "--pgdata",
            str(place),
            "--username",
            "ledger",
            "--auth",
            "trust",
            "--encoding",
            "UTF8",
            "--no-locale",
            "--no-sync",
            "--no-instructions",
        )
        settings = "".join(f"{name} = '{value}'\n" for name, value in _SETTINGS.items())
        with (place / "postgresql.conf").open("a") as file:
            file.write(f"{settings}port = {self.port}\nunix_socket_directories = ''\n")
        (place / "pg_hba.conf").write_text(_RULES)

    def _command(self, name: str, *arguments: str) -> list[str]:
        return [str(self._bin / name), *arguments]

    def _run(self, name: str, *arguments: str) -> None:
        done = subprocess.run(
            self._command(name, *arguments),
            user=account(),
            cwd="/",
            capture_output=True,
            check=False,
            env=_environment(),
        )
        assert done.returncode == 0, done.stderr.decode()

    def start(self) -> None:
        """Start, and wait until it answers."""
        log = (self._place.parent / "server.log").open("ab")
        with log:
            self._process = subprocess.Popen(
                self._command("postgres", "-D", str(self._place)),
                user=account(),
                cwd="/",
                stdout=log,
                stderr=log,
                env=_environment(),
            )
        pause, left = threading.Event(), 2400
        while True:
            try:
                psycopg.connect(self.conninfo("postgres"), connect_timeout=2).close()
            except psycopg.OperationalError:
                left -= 1
                if not left or self._process.poll() is not None:
                    raise
                pause.wait(0.05)
            else:
                return

    def kill(self) -> None:
        """Kill the server and every session of it: what a power cut of that machine is to us."""
        children = subprocess.run(
            ["pgrep", "-P", str(self._process.pid)], capture_output=True, text=True, check=False
        ).stdout.split()
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        for child in children:
            _kill(int(child))

    def stop(self) -> None:
        """Shut down at once: sessions are cut, and the next start recovers."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(60)

    def conninfo(self, database: str, user: str = "ledger") -> str:
        return f"host=127.0.0.1 port={self.port} dbname={database} user={user}"

    def url(self, database: str, user: str = "ledger") -> str:
        return f"postgresql+psycopg://{user}@127.0.0.1:{self.port}/{database}"

    def connect(self, database: str = "postgres") -> "psycopg.Connection":
        """Connect as the superuser that a DBA is."""
        return psycopg.connect(self.conninfo(database), autocommit=True)

    def database(self) -> str:
        """Make an empty database; return its name."""
        name = f"ledger_{next(self._numbers)}"
        with self.connect() as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return name


def _environment() -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "LC_ALL": "C", "TZ": "UTC"}


def _kill(process: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)


@contextmanager
def running() -> Iterator[Server]:
    """Run a server; skip where there is none, unless this run must have one."""
    if programs() is None:
        reason = "no PostgreSQL server here: apt-get install postgresql, or set RENMEI_POSTGRES_BIN"
        if os.environ.get(REQUIRED):
            pytest.fail(reason)
        pytest.skip(reason)
    # Not below pytest's own directory: the server's account may not enter that.
    root = Path(tempfile.mkdtemp(prefix="renmei-pg-"))
    server = None
    try:
        root.chmod(0o755)
        place = root / "data"
        place.mkdir(mode=0o700)
        if account() is not None:
            shutil.chown(place, account())
        server = Server(place)
        server.start()
        yield server
    finally:
        if server is not None:
            server.stop()
        shutil.rmtree(root, ignore_errors=True)
