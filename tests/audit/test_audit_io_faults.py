"""Each call that writes fails in turn, at the store's driver and below Python: nothing acknowledged is lost.

After each, what is left opens and verifies, every acknowledged entry stands at its index, no index was
used twice, and the ledger goes on.
"""

import errno
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg
import pytest
from store_kit import job, sequencer_of, verified

from audit.store import Store, database_of
from fedproto.errors import LocalFault

HERE = Path(__file__).parent
SLOW = pytest.mark.slow


class Faults:
    """Counts the calls to a driver; the one that is asked for fails, before it or after it was done."""

    def __init__(self, at, *, width, after, cut):
        self.at, self.width, self.after, self.cut, self.calls = at, width, after, cut, 0

    @contextmanager
    def call(self, connection):
        self.calls += 1
        fails = self.at <= self.calls < self.at + self.width
        if fails and not self.after:
            self.fail(connection)
        yield
        if fails and self.after:
            self.fail(connection)

    def fail(self, connection):
        if self.cut:
            connection.close()
        postgres = isinstance(connection, psycopg.Connection)
        raise (psycopg if postgres else sqlite3).OperationalError("the disk or the line broke")


class FaultyCursor:
    def __init__(self, cursor, connection, faults):
        self._cursor, self._connection, self._faults = cursor, connection, faults

    def execute(self, *arguments):
        with self._faults.call(self._connection):
            return self._cursor.execute(*arguments)

    def executemany(self, *arguments):
        with self._faults.call(self._connection):
            return self._cursor.executemany(*arguments)

    @contextmanager
    def copy(self, *arguments):
        with self._faults.call(self._connection), self._cursor.copy(*arguments) as copy:
            yield copy

    @property
    def rowcount(self):
        return self._cursor.rowcount


class FaultyConnection:
    def __init__(self, connection, faults):
        self._connection, self._faults = connection, faults

    def cursor(self):
        return FaultyCursor(self._connection.cursor(), self._connection, self._faults)

    def commit(self):
        with self._faults.call(self._connection):
            self._connection.commit()

    def rollback(self):
        with self._faults.call(self._connection):
            self._connection.rollback()

    def close(self):
        self._connection.close()


class FaultyDatabase:
    """A real database over a driver that fails."""

    def __init__(self, database, faults):
        self._database, self._faults = database, faults

    def __getattr__(self, name):
        return getattr(self._database, name)

    def connect(self):
        return FaultyConnection(self._database.connect(), self._faults)


def send(writer, texts, acknowledged):
    """Append texts, alone and many at once; send again what was refused, as a client does."""
    waiting = list(texts)
    for _ in range(4):
        refused = []
        for text in waiting[:3]:
            try:
                keep(acknowledged, text, writer.append(job(text)).index)
            except LocalFault:
                refused.append(text)
        many = []
        try:
            for text in waiting[3:]:
                many.append(job(text))
                writer.submit(many[-1])
        except LocalFault:
            refused += [text for text in waiting[3:] if text.encode() not in {j.leaf for j in many}]
            refused.append(many.pop().leaf.decode())
        for each in many:
            try:
                keep(acknowledged, each.leaf.decode(), each.wait().index)
            except LocalFault:
                refused.append(each.leaf.decode())
        waiting = refused
        if not waiting:
            return True
    return False


def keep(acknowledged, text, index):
    assert acknowledged.setdefault(index, text) == text, "an index was used twice"


@pytest.mark.parametrize("width", [1, 2], ids=["one", "two"])
@pytest.mark.parametrize("cut", [False, True], ids=["error", "cut"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_each_call_to_the_database_fails_in_turn(place, after, cut, width):
    """The second that fails is mostly the one that would undo what the first left."""
    acknowledged, at, started, fired = {}, 0, 0, True
    while fired:
        at += 1
        faults = Faults(at, width=width, after=after, cut=cut)
        store = Store(FaultyDatabase(database_of(place.place), faults))
        # The epoch may be what could not be written; then nobody becomes the writer.
        with suppress(LocalFault):
            writer = sequencer_of(store)
            started += 1
            whole = send(writer, [f"{at}: {number}" for number in range(60)], acknowledged)
            writer.close()
            assert whole, "a writer that met one error did not go on"
        store.close()
        fired = faults.calls >= at
        again = place.open()
        entries = verified(again)
        again.close()
        assert all(entries[index] == text.encode() for index, text in acknowledged.items())
        assert len(set(entries)) == len(entries)
    assert at > 20
    assert started >= at - 8
    assert len(acknowledged) == 60 * started


def build_shim(place):
    shim = place / "faulty_disk.so"
    build = ["cc", "-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC", "-o", str(shim)]
    subprocess.run([*build, str(HERE / "faulty_disk.c"), "-ldl"], check=True)
    return shim


def sweep(place, error, *, lasting, step=1):
    """Fail each writing call of a coordinator in turn; return what each run left."""
    shim, root = build_shim(place), place / "disk"
    root.mkdir()
    worker = [str(HERE / "disk_fault_worker.py"), str(shim), str(root)]
    run = subprocess.run(
        [sys.executable, *worker, str(error), str(int(lasting)), str(step)],
        env={
            **os.environ,
            "LD_PRELOAD": str(shim),
            "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path]),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert run.returncode == 0, run.stderr[-4000:]
    assert "Traceback" not in run.stderr, run.stderr[-4000:]
    return [json.loads(line) for line in run.stdout.splitlines()]


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler: apt-get install gcc")
@pytest.mark.parametrize(
    ("error", "lasting", "step"),
    [
        (errno.EIO, False, 1),
        (errno.ENOSPC, True, 7),
        pytest.param(errno.ENOSPC, False, 1, marks=SLOW),
        pytest.param(errno.ENOSPC, True, 1, marks=SLOW),
        pytest.param(errno.EIO, True, 1, marks=SLOW),
    ],
    ids=[
        "EIO once",
        "full from then on, some",
        "full once",
        "full from then on",
        "EIO from then on",
    ],
)
def test_each_writing_call_below_python_fails_in_turn(tmp_path, error, lasting, step):
    runs = sweep(tmp_path, error, lasting=lasting, step=step)
    assert len(runs) > 200 // step
    assert [run["fired"] for run in runs] == [1] * (len(runs) - 1) + [0]
    allowed = {"RNM-LEDGER-0002", "RNM-CONF-0001", "RNM-DISK-0001", "RNM-GOV-0001"}
    for run in runs:
        assert run["whole"], run
        assert set(run["codes"]) <= allowed, run
        assert all(run["found"][index] == leaf for index, leaf in run["acknowledged"]), run
        places = {leaf: index for index, leaf in run["acknowledged"]}
        assert len(places) == len(dict(map(tuple, run["acknowledged"]))), "an index was used twice"
    # The fault was felt, and most appends were acknowledged the second time.
    assert sum(bool(run["codes"]) for run in runs) > len(runs) // 2
    assert len(runs[-1]["found"]) == 4
    if not lasting:
        assert sum(len(run["found"]) == 4 for run in runs) > len(runs) // 2
