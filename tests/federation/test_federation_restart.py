"""`kill -9` of a real coordinator process in mid-round, and what is there after the restart."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from federation_kit import Federation, until

from audit.ledger import Ledger
from audit.note import NoteSigner
from audit.replay import replay
from federation.client import CoordinatorClient
from federation.coordinator import Coordinator
from federation.superlink import require_free_port
from fedproto import process
from fedproto.errors import FederationError
from fedproto.events.rounds import Outcome
from fedproto.party import runtime_socket, seed_file

WORKER = Path(__file__).with_name("coordinator_worker.py")


class Killable:
    """A federation whose coordinator is another process."""

    def __init__(self, root):
        self.federation = Federation(root)
        self.directory = self.federation.consortium.party("coordinator")
        self.child = None
        self.start()
        self.federation.join()

    def start(self):
        log = self.federation.root / "coordinator.log"
        command = [sys.executable, str(WORKER), str(self.directory)]
        self.child = process.spawn("coordinator", command, log, ready_line=True)
        process.await_line(self.child, 60)

    def kill(self):
        os.kill(self.child.process.pid, signal.SIGKILL)
        self.child.process.wait()
        self.child.process.stdout.close()

    def client(self, name="secretariat"):
        return CoordinatorClient(self.federation.consortium.party(name))

    def begin(self):
        self.federation.prepare_run(rounds=2)
        with self.client() as client:
            until(lambda: len(client.sync().runs))
            self.state = client.sync()
            self.run = next(iter(self.state.runs))
            self.follow()
            client.start(self.run)

    def follow(self):
        socket = runtime_socket(self.directory, "dispatch")
        self.federation.follow(socket, self.run, lambda: self.state)

    def finish(self):
        """Wait for the run's end; return its attempts as an administrator verified them."""
        with self.client() as client:
            last = list(client.watch(self.run))[-1]
            size = client.sync().size
            state = client.sync(min_size=size)
        return last, state.rounds(self.run)

    def close(self):
        self.federation.close()
        if self.child.running:
            self.child.stop()


@pytest.fixture
def killable(tmp_path):
    made = Killable(tmp_path / "c")
    yield made
    made.close()


@pytest.mark.e2e
@pytest.mark.parametrize("phase", ["share_keys", "mask", "confirm", "reveal"])
def test_a_run_goes_on_after_the_coordinator_was_killed_in_mid_round(killable, phase):
    """The kill falls while members stand in the given phase of round 1."""
    reached = threading.Event()
    gate = threading.Event()

    class Waits:
        def __init__(self, half):
            self.half = half

        def __getattr__(self, name):
            if name == phase and not gate.is_set():
                reached.set()
                gate.wait(60)
            return getattr(self.half, name)

    for member in killable.federation.members.values():
        member.tampers = Waits
    killable.begin()
    assert reached.wait(60)
    killable.kill()
    gate.set()
    killable.start()
    killable.follow()
    last, attempts = killable.finish()
    assert (last.state, last.code) == ("finished", "")
    assert attempts[0].closed.body.outcome is Outcome.ABORTED
    assert attempts[0].closed.body.reason == "RNM-ROUND-0001"
    assert attempts[0].closed.body.model_out == attempts[0].started.body.model_in
    done = [attempt.started.body.round for attempt in attempts if attempt.aggregated]
    assert done == [1, 2]
    assert attempts[1].started.body.attempt == 2


@pytest.mark.e2e
def test_after_kills_at_any_moment_the_ledger_replays_and_no_model_lacks_its_entry(killable):
    killable.begin()
    for pause_s in (0.15, 0.4, 0.8):
        threading.Event().wait(pause_s)
        killable.kill()
        killable.start()
        killable.follow()
    last, attempts = killable.finish()
    done = [a.started.body.round for a in attempts if a.aggregated]
    assert done == [1, 2], (last.state, last.code)
    killable.child.stop()
    party = killable.federation.party("coordinator")
    log_key = NoteSigner(party.profile.origin, seed_file(party.keys / "log.key", 32))
    with Ledger.open(killable.directory / "ledger", log_key=log_key) as ledger:
        leaves = ledger.entries(0, ledger.head.size)
        assert not replay(leaves, genesis_sha256=party.profile.genesis_sha256).violations
        recorded = {a.closed.body.model_out for a in attempts if a.closed}
        kept = {path.name for path in (killable.directory / "artifacts" / "files").iterdir()}
        assert recorded <= kept


@pytest.mark.e2e
def test_a_second_coordinator_on_one_directory_is_refused_with_exit_8(killable):
    done = subprocess.run(
        [sys.executable, "-m", "renmei.cli", "coordinator", "serve", "--dir", killable.directory],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 8
    assert "RNM-LEDGER-0005" in done.stderr


def test_a_port_in_use_is_named_and_nothing_is_left_behind(tmp_path):
    import socket

    federation = Federation(tmp_path / "c")
    party = federation.party("coordinator")
    host, port = party.profile.coordinator.split(":")
    with socket.socket() as taken:
        taken.bind((host, int(port)))
        taken.listen()
        for _ in range(2):
            with pytest.raises(FederationError) as caught:
                Coordinator(party.root, lambda *_: federation.flower)
            assert caught.value.code == "RNM-NET-0001"
            assert port in caught.value.what
            assert "ss -ltnp" in caught.value.mend
    # The ledger's lock was let go each time, so it opens now.
    coordinator = Coordinator(party.root, lambda *_: federation.flower)
    coordinator.start()
    coordinator.stop()


def test_a_free_port_is_no_reason_to_complain():
    require_free_port("127.0.0.1", 0, "a test")
