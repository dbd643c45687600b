"""The node as a process of its own: stock SuperNode, trainer child, signals."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from dataclasses import replace

import pytest
from node_kit import SmallCoordinator

from fedproto.ids import sha256_hex
from fedproto.party import Party, runtime_socket
from member_node import control, egress, setup
from member_node import policy as policies
from renmei.consortium import found as found_consortium

PATIENCE_S = 60


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(condition, what):
    waiting = threading.Event()
    for _ in range(PATIENCE_S * 20):
        if condition():
            return
        waiting.wait(0.05)
    raise AssertionError(f"never: {what}")


def children_of(pid):
    """Return the ids of all descendants of a process."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat") as file:
                    fields = file.read().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == pid:
                found += [int(entry), *children_of(int(entry))]
    return found


def is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture
def consortium(tmp_path):
    address = f"127.0.0.1:{free_port()}"
    gateway = f"127.0.0.1:{free_port()}"
    made = found_consortium(tmp_path / "c", consortium="t", coordinator=address, gateway=gateway)
    coordinator = SmallCoordinator(made, address)
    yield made, coordinator
    coordinator.stop()


class Process:
    def __init__(self, root):
        self.root = root
        setup.equip(Party.load(root))
        self.log = root / "node.log"
        with self.log.open("wb") as sink:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "renmei.cli", "node", "run", "--dir", str(root)],
                stdout=subprocess.PIPE,
                stderr=sink,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )
        self.ready = json.loads(self.process.stdout.readline() or b"{}")

    def end(self, number):
        self.process.send_signal(number)
        try:
            return self.process.wait(PATIENCE_S)
        finally:
            self.process.stdout.close()


@pytest.mark.e2e
def test_a_node_runs_votes_and_leaves_nothing_behind_when_it_is_told_to_stop(
    consortium, plan_of, willing
):
    made, coordinator = consortium
    base = coordinator.approve_base(Party.load(made.party("pfn")), b"manifest")
    nodes = []
    for name in ("honda", "nec", "sony"):
        root = made.party(name)
        policies.save(root, replace(willing, max_rank=1))
        nodes.append(Process(root))
    for node in nodes:
        assert node.ready == {"ready": True, "member": node.root.name}, node.log.read_text()
    plan = replace(plan_of(base_manifest_sha256=base))
    proposal = coordinator.propose(Party.load(made.party("secretariat")), plan)
    until(lambda: len(coordinator.ledger.state.ballots(proposal)) == 3, "three ballots")
    node = nodes[0]
    status = control.ask(runtime_socket(node.root, control.NAME), "status")
    assert status["member"] == node.root.name
    # The trainer and the courier; without a gateway the courier gives up and is started again.
    until(lambda: len(children_of(node.process.pid)) == 2, "trainer and courier run")
    children = children_of(node.process.pid)
    assert node.end(signal.SIGTERM) == 0, node.log.read_text()
    assert not [child for child in children if is_alive(child)]
    for line in node.log.read_text().splitlines():
        assert json.loads(line)["member"] == node.root.name
    assert {d.kind for d in egress.read(node.root)} <= {
        *("ledger.read", "witness.answer", "witness.validation", "governance.vote"),
        "flower.tunnel",
    }
    other = nodes[1]
    children = children_of(other.process.pid)
    assert other.end(signal.SIGKILL) == -signal.SIGKILL
    until(lambda: not [c for c in children if is_alive(c)], "the children ended with the node")
    secret = (node.root / "keys" / "acting.key").read_bytes().strip()
    assert secret not in node.log.read_bytes()
    nodes[2].end(signal.SIGTERM)


@pytest.mark.e2e
def test_a_node_with_a_damaged_key_ends_with_a_named_error(consortium):
    made, _ = consortium
    root = made.party("nec")
    (root / "keys" / "acting.key").write_bytes(b"canary-77aa")
    (root / "keys" / "acting.key").chmod(0o600)
    done = subprocess.run(
        [sys.executable, "-m", "renmei.cli", "node", "run", "--dir", str(root)],
        capture_output=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 1
    assert b"RNM-KEY-0003" in done.stderr
    assert b"canary-77aa" not in done.stderr
    assert sha256_hex(b"") not in done.stdout.decode()
