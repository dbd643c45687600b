"""A consortium governs itself, every party a process of its own: founded, stopped, resumed, rekeyed."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from audit import bundle
from audit.bundle import Pinned
from federation.client import CoordinatorClient
from fedproto import process

RENMEI = (sys.executable, "-m", "renmei.cli")
NODES = ("honda", "nec", "softbank", "sony")
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


class Parties:
    """The processes of a consortium, and the command as each of them runs it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.children: list[process.Child] = []
        ports = process.free_ports(2)
        self.founded = json.loads(
            run(
                *("consortium", "init", "--dir", str(root), "--json"),
                *("--coordinator", f"127.0.0.1:{ports[0]}", "--gateway", f"127.0.0.1:{ports[1]}"),
            ).stdout
        )["data"]
        self.spawn("coordinator", "coordinator", "serve")
        for name in NODES:
            self.spawn(name, "node", "run", "--no-compile")

    def spawn(self, name: str, *words: str) -> None:
        command = [*RENMEI, *words, "--dir", str(self.root / name)]
        child = process.spawn(name, command, self.root / f"{name}.log", ready_line=True)
        self.children.append(child)
        process.await_line(child, 120)

    def govern(self, who: str, *words: str, expect: int = 0) -> Any:
        done = run("govern", *words, "--dir", str(self.root / who), "--json")
        assert done.returncode == expect, done.stderr
        return json.loads(done.stdout)["data"]

    def file(self, name: str, value: object) -> str:
        path = self.root / name
        path.write_text(json.dumps(value))
        return str(path)

    def until(self, holds: Any, timeout_s: float = 60) -> Any:
        deadline = time.monotonic() + timeout_s
        while not (found := holds()):
            assert time.monotonic() < deadline, "did not come to pass in time"
            time.sleep(0.2)
        return found

    def close(self) -> None:
        for child in reversed(self.children):
            if child.running:
                child.stop()


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*RENMEI, *words], capture_output=True, text=True, timeout=120, check=False
    )


@pytest.fixture
def parties(tmp_path: Path) -> Iterator[Parties]:
    made = Parties(tmp_path / "c")
    yield made
    made.close()


def test_a_consortium_stops_resumes_suspends_and_changes_a_key_that_was_killed(
    parties: Parties,
) -> None:
    # One member stops everything; only a vote resumes it.
    stop = parties.govern("nec", "stop", "--reason", "data-leak")["entry"]
    terms = parties.file("resume.json", {"stop": stop})
    leaf = parties.govern("secretariat", "propose", "emergency.resume", "--terms", terms)[
        "proposal"
    ]
    for name in ("honda", "nec", "sony"):
        told = parties.govern(name, "vote", leaf, "yes")
    assert (told["stands"], told["outcome"]) == ("decided", "emergency.resumed")
    # The default charter holds an amendment for seven days: carried, and nobody can hurry it.
    draft = parties.govern("honda", "draft", "charter")
    draft["charter"]["limits"]["max_rounds"] = 7
    terms = parties.file("amendment.json", draft)
    leaf = parties.govern("honda", "propose", "charter.amend", "--terms", terms)["proposal"]
    for name in ("honda", "nec", "sony"):
        parties.govern(name, "vote", leaf, "yes")

    def ripens() -> Any:
        rows = parties.govern("meti", "list")["proposals"]
        (row,) = (row for row in rows if row["proposal"] == leaf)
        assert row["stands"] == "carried"
        return row["ripens_at"]

    in_six_days = datetime.now(UTC) + timedelta(days=6)
    assert datetime.fromisoformat(parties.until(ripens)) > in_six_days
    _kill_a_rotation(parties)
    found = _verified(parties)
    assert found.state.stops == ()
    assert found.state.charter.version == 1


def _kill_a_rotation(parties: Parties) -> None:
    """SIGKILL as soon as the next key is durable, wherever the command is then; run it again."""
    following = parties.root / "pfn" / "keys" / "acting.key.next"
    command = [*RENMEI, "govern", "rotate-key", "--dir", str(parties.root / "pfn")]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    # Looked for without a pause: the command goes on while this waits.
    while not following.exists() and child.poll() is None:
        time.sleep(0.001)
    child.kill()
    assert child.wait() == -signal.SIGKILL
    said = parties.govern("pfn", "rotate-key")
    keys = parties.govern("pfn", "keys")
    assert keys["key"] == said["key_sha256"]
    assert not following.exists()


def _verified(parties: Parties) -> bundle.Findings:
    path = parties.root / "bundle.zip"
    with CoordinatorClient(parties.root / "meti") as client:
        client.export(path)
    pinned = Pinned(
        log_vkey=parties.founded["log_vkey"], genesis_sha256=parties.founded["genesis_sha256"]
    )
    return bundle.verify(path, pinned=pinned)
