"""The demo as a new user runs it: every process real, on loopback, watched from below libc."""

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[2]
CORPORA = REPOSITORY / ".cache" / "corpora"
MEMBERS = ("honda", "nec", "softbank", "sony")
LOOPBACK = re.compile(
    r"connect (unix|inet 127\.\d+\.\d+\.\d+:\d+|inet6 (::ffff:127\.\d+\.\d+\.\d+|::1):\d+)"
)
OWN_NAMES = {"127.0.0.1", "::1", "localhost"}


@dataclass(frozen=True)
class Demo:
    """What a finished demo left."""

    root: Path
    status: int
    answer: dict[str, Any]
    shown: str
    calls: list[str]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    place = tmp_path_factory.mktemp("demo")
    watcher, log = place / "netwatch.so", place / "netwatch.log"
    source = Path(__file__).with_name("netwatch.c")
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-O2", "-o", str(watcher), str(source), "-ldl"], check=True
    )
    command = [sys.executable, "-m", "renmei.cli", "demo", "--fast", "--json"]
    command += ["--keep", str(place / "kept"), "--cache", str(CORPORA)]
    command += ["--trace", str(place / "trace.jsonl")]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env={**os.environ, "LD_PRELOAD": str(watcher), "NETWATCH_LOG": str(log)},
        check=False,
    )
    assert done.stdout, done.stderr[-3000:]
    return Demo(
        root=place / "kept",
        status=done.returncode,
        answer=json.loads(done.stdout),
        shown=done.stderr,
        calls=log.read_text().splitlines(),
    )


pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


def test_the_demo_runs_to_its_end(demo: Demo) -> None:
    assert demo.status == 0, demo.shown[-3000:]
    data = demo.answer["data"]
    arms = [row["arm"] for row in data["table"]]
    assert arms == [
        "base",
        *(f"local-only {member}" for member in MEMBERS),
        "federated",
        *(f"federated + private {member}" for member in MEMBERS),
        "centralised",
    ]
    for row in data["table"]:
        for cell in row["bits_per_byte"].values():
            assert cell["low"] <= cell["value"] <= cell["high"]
            assert 0.5 < cell["value"] < 12


def test_training_together_changed_the_model_for_the_better(demo: Demo) -> None:
    claims = demo.answer["data"]["claims"]
    assert claims[0]["held"], claims[0]


def test_nothing_but_loopback_was_connected_to_and_no_name_looked_up(demo: Demo) -> None:
    connected = {call.split(" ", 1)[1] for call in demo.calls if " connect " in call}
    looked_up = {call.split(" lookup ")[1] for call in demo.calls if " lookup " in call}
    assert len(connected) > 8, "the watcher saw too little: is it loaded?"
    assert not [call for call in connected if not LOOPBACK.fullmatch(call)]
    assert looked_up <= OWN_NAMES


def test_the_watcher_would_have_seen_a_connection_elsewhere(tmp_path: Path) -> None:
    watcher, log = tmp_path / "netwatch.so", tmp_path / "log"
    source = Path(__file__).with_name("netwatch.c")
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-O2", "-o", str(watcher), str(source), "-ldl"], check=True
    )
    attempt = (
        "import socket\n"
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "s.connect(('192.0.2.1', 9))\n"  # TEST-NET-1 (RFC 5737); a datagram socket sends nothing
        "try: socket.getaddrinfo('renmei.invalid', 80)\n"
        "except OSError: pass\n"
    )
    environment = {**os.environ, "LD_PRELOAD": str(watcher), "NETWATCH_LOG": str(log)}
    subprocess.run([sys.executable, "-c", attempt], env=environment, check=True)
    calls = [line.split(" ", 1)[1] for line in log.read_text().splitlines()]
    assert "connect inet 192.0.2.1:9" in calls
    assert "lookup renmei.invalid" in calls
    assert not LOOPBACK.fullmatch("connect inet 192.0.2.1:9")


def test_a_changed_byte_is_named_by_entry_and_exits_5(demo: Demo) -> None:
    ledger = demo.answer["data"]["ledger"]
    assert ledger["tampered_exit"] == 5
    assert f"entry {ledger['changed_entry']} was changed" in demo.shown
    assert ledger["cosignatures"] >= 3
    assert ledger["validations"] == len(MEMBERS)


def test_each_site_shows_what_left_it_and_only_kinds_that_may_leave(demo: Demo) -> None:
    from member_node.egress import KINDS

    for member in MEMBERS:
        kinds = {line["kind"]: line for line in demo.answer["data"]["egress"][member]}
        assert set(kinds) <= set(KINDS)
        assert kinds["exchange.masked_chunk"]["bytes"] > 100_000
        assert kinds["governance.vote"]["messages"] == 1


def test_no_text_of_a_member_is_in_any_file_of_the_coordinator(demo: Demo) -> None:
    samples = []
    for member in MEMBERS:
        lines = (demo.root / member / "data" / "train.jsonl").read_text().splitlines()
        texts = [json.loads(line)["text"] for line in lines[:40]]
        samples += [text[20:60].encode() for text in texts if len(text) > 60]
    files = [path for path in (demo.root / "coordinator").rglob("*") if path.is_file()]
    assert len(samples) > 50
    assert len(files) > 10
    for path in files:
        content = path.read_bytes()
        assert not [sample for sample in samples if sample in content], path


def test_directories_and_keys_are_of_their_owner_alone(demo: Demo) -> None:
    for party in (*MEMBERS, "coordinator", "pfn", "secretariat", "meti"):
        assert (demo.root / party).stat().st_mode & 0o777 == 0o700
        for key in (demo.root / party / "keys").glob("*.key"):
            assert key.stat().st_mode & 0o777 == 0o600, key


def test_the_private_adapter_stays_at_its_member(demo: Demo) -> None:
    for member in MEMBERS:
        weights = (
            demo.root / member / "adapters" / "private" / "adapter_model.safetensors"
        ).read_bytes()
        window = weights[len(weights) // 2 :][:64]
        elsewhere = [
            path
            for path in demo.root.rglob("*")
            if path.is_file() and demo.root / member not in path.parents
        ]
        assert not [path for path in elsewhere if window in path.read_bytes()]


def test_one_trace_spans_a_round_from_the_coordinator_into_the_members(demo: Demo) -> None:
    spans = [
        json.loads(line) for line in (demo.root.parent / "trace.jsonl").read_text().splitlines()
    ]
    by_id = {span["span_id"]: span for span in spans}
    rounds = [span for span in spans if span["name"] == "fed.round"]
    assert len(rounds) == 2
    for one in rounds:
        members = [
            span
            for span in spans
            if span["name"] == "member.round" and span["trace_id"] == one["trace_id"]
        ]
        assert len({span["attributes"]["member"] for span in members}) == 4
        assert all(span["parent_id"] in by_id for span in members)
