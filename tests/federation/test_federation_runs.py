"""A run's life around its rounds: stopped, started again, interrupted, short of a part."""

import threading

import federation_kit as kit
import grpc
import pytest
from federation_kit import MEMBERS, Federation, NoFlower, until

from federation import allowance
from federation.client import CoordinatorClient
from federation.coordinator import Coordinator
from federation.rounds.run import RunDriver
from fedproto import transport
from fedproto.errors import LocalFault
from fedproto.events.rounds import Outcome
from fedproto.party import now_ms, runtime_socket
from fedproto.v1 import ledger_pb2, ledger_pb2_grpc, rounds_pb2, rounds_pb2_grpc


class FrailFlower(NoFlower):
    """Flower whose parts a test ends."""

    def __init__(self):
        super().__init__()
        self.ended = False
        self.starts = 0

    def start(self):
        self.starts += 1
        self.ended = False

    def check(self):
        if self.ended:
            raise LocalFault("RNM-PROC-0002", what="x ended", why="a test", mend="none")


class Running:
    """A federation whose coordinator runs in this process, and may be started again."""

    def __init__(self, root):
        self.federation = Federation(root)
        self.flower = FrailFlower()
        self.start()
        self.federation.join()

    def start(self):
        self.coordinator = Coordinator(
            self.federation.consortium.party("coordinator"), lambda *_: self.flower
        )
        # A member that is killed here does not come back.
        self.coordinator.hub.resume_s = 1.0
        self.coordinator.start()

    @property
    def state(self):
        return self.coordinator.ledger.state

    @property
    def members(self):
        return self.federation.members

    def prepare(self, **settings):
        self.federation.prepare_run(**settings)
        until(lambda: len(self.state.runs))
        self.run = next(iter(self.state.runs))

    def begin(self):
        self.coordinator.runs.start(self.run, now_ms())
        self.follow()

    def follow(self):
        socket = runtime_socket(self.coordinator.party.root, "dispatch")
        self.federation.follow(socket, self.run, lambda: self.state)

    def finish(self):
        return list(self.coordinator.runs.journal(self.run).follow(lambda: True))

    @property
    def rounds(self):
        return self.state.rounds(self.run)

    def close(self):
        self.federation.close()
        self.coordinator.stop()


@pytest.fixture
def running(tmp_path):
    made = Running(tmp_path / "c")
    yield made
    made.close()


def hold(running, round_no):
    """Keep every member in the mask phase of a round until the gate opens."""
    reached, gate = threading.Event(), threading.Event()

    def deltas(name, current):
        if current == round_no:
            reached.set()
            gate.wait(30)
        return kit.delta_of(name, current)

    for member in running.members.values():
        member.deltas = deltas
    return reached, gate


def test_a_stopped_run_ends_after_the_round_in_progress_and_is_not_started_again(running):
    running.prepare(rounds=3)
    reached, gate = hold(running, 1)
    running.begin()
    assert reached.wait(30)
    with CoordinatorClient(running.federation.consortium.party("secretariat")) as client:
        client.stop(running.run)
    gate.set()
    last = running.finish()[-1]
    assert (last.phase, last.state, last.code, last.terminal) == ("run", "stopped", "", True)
    assert [attempt.aggregated for attempt in running.rounds] == [True]
    with pytest.raises(LocalFault) as caught:
        running.coordinator.runs.start(running.run, now_ms())
    assert caught.value.code == "RNM-ROUND-0003"


def test_a_run_that_was_told_to_stop_stays_so_over_a_restart(running):
    running.prepare(rounds=3)
    reached, gate = hold(running, 1)
    running.begin()
    assert reached.wait(30)
    running.coordinator.runs.stop(running.run)
    running.coordinator.stop()
    gate.set()
    running.start()
    running.follow()
    assert running.finish()[-1].state == "stopped"
    # The attempt in progress was given up; nothing was begun after it.
    assert [a.closed.body.outcome for a in running.rounds] == [Outcome.ABORTED]


def test_a_run_that_is_not_under_way_cannot_be_stopped(running):
    running.prepare(rounds=1)
    with pytest.raises(LocalFault) as caught:
        running.coordinator.runs.stop(running.run)
    assert caught.value.code == "RNM-CONSENT-0001"


def test_a_run_that_a_fault_ended_is_started_again_and_goes_on(running):
    running.prepare(rounds=2)
    for name in ("nec", "sony"):
        running.members[name].dies = {2: "share_keys"}
    running.begin()
    last = running.finish()[-1]
    assert (last.state, last.code) == ("aborted", "RNM-ROUND-0001")
    assert [(a.started.body.round, a.aggregated) for a in running.rounds] == [
        (1, True),
        (2, False),
        (2, False),
        (2, False),
    ]
    for name in ("nec", "sony"):
        running.members[name].dies = {}
    running.begin()
    assert running.finish()[-1].state == "finished"
    final = running.rounds[-1]
    assert (final.started.body.round, final.started.body.attempt, final.aggregated) == (2, 4, True)
    assert final.started.body.model_in == running.rounds[0].closed.body.model_out
    with pytest.raises(LocalFault) as caught:
        running.coordinator.runs.start(running.run, now_ms())
    assert caught.value.code == "RNM-ROUND-0003"


def test_witnesses_that_vanish_after_a_round_stop_the_run_and_undo_nothing(running, monkeypatch):
    monkeypatch.setitem(RunDriver.__init__.__kwdefaults__, "witness_patience_s", 0.5)
    running.prepare(rounds=2)
    ledger = running.coordinator.ledger
    running.begin()
    checkpoint = ledger.checkpoint

    def blind(min_size=0):
        closed = [a.closed for a in running.rounds if a.closed]
        return None if closed and min_size > closed[-1].index else checkpoint(min_size)

    monkeypatch.setattr(ledger, "checkpoint", blind)
    last = running.finish()[-1]
    assert (last.state, last.code) == ("aborted", "RNM-LEDGER-0006")
    assert [(a.aggregated, a.closed.body.included) for a in running.rounds] == [(True, MEMBERS)]
    monkeypatch.undo()
    running.begin()
    assert running.finish()[-1].state == "finished"
    assert [a.aggregated for a in running.rounds] == [True, True]


def test_flower_is_started_again_when_a_part_of_it_ends_and_the_run_goes_on(running):
    running.prepare(rounds=2)
    reached, gate = hold(running, 1)
    running.begin()
    assert reached.wait(30)
    running.flower.ended = True
    gate.set()
    until(lambda: running.rounds[0].closed)
    running.coordinator.tick()
    assert running.flower.starts == 2
    assert running.finish()[-1].state == "finished"
    # Updates do not pass through Flower: the round in which it ended came to its sum.
    assert [a.aggregated for a in running.rounds] == [True, True]
    assert len(running.flower.started) == 2


def test_a_flower_that_stays_down_ends_the_run_by_name(running, monkeypatch):
    monkeypatch.setitem(RunDriver.__init__.__kwdefaults__, "flower_patience_s", 0.2)
    running.prepare(rounds=1)
    running.flower.ended = True
    running.begin()
    last = running.finish()[-1]
    assert (last.state, last.code) == ("aborted", "RNM-PROC-0002")
    assert running.rounds == ()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_error_without_a_name_is_shown_to_those_who_watch_and_a_restart_goes_on(
    running, monkeypatch
):
    running.prepare(rounds=1)

    def broken(*_):
        raise ZeroDivisionError

    monkeypatch.setattr(running.flower, "start_run", broken)
    running.begin()
    last = running.finish()[-1]
    assert (last.state, last.code, last.terminal) == ("suspended", "RNM-BUG-0001", True)
    monkeypatch.undo()
    running.coordinator.stop()
    running.start()
    running.follow()
    assert running.finish()[-1].state == "finished"
    assert [a.aggregated for a in running.rounds] == [False, True]


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (lambda path: path.unlink(), "RNM-MODEL-0003"),
        (lambda path: path.write_bytes(path.read_bytes()[:-4]), "RNM-MODEL-0001"),
    ],
    ids=["missing", "cut"],
)
@pytest.mark.parametrize("part", ["momenta", "files"])
def test_a_run_is_not_continued_from_an_adapter_that_is_not_whole(running, part, damage, code):
    running.prepare(rounds=2)
    reached, gate = hold(running, 2)
    running.begin()
    assert reached.wait(30)
    running.coordinator.stop()
    gate.set()
    digest = running.rounds[0].closed.body.model_out
    damage(running.coordinator.party.root / "artifacts" / part / digest)
    running.start()
    last = running.finish()[-1]
    assert (last.state, last.code) == ("aborted", code)
    assert sum(a.aggregated for a in running.rounds) == 1


def test_a_tick_lives_through_a_named_fault(running, monkeypatch, caplog):
    def full(_):
        raise LocalFault("RNM-DISK-0001", what="x", why="no room", mend="free some")

    monkeypatch.setattr(running.coordinator.clerk, "review", full)
    running.coordinator.tick()
    assert any("RNM-DISK-0001" in record.message for record in caplog.records)


def test_one_party_cannot_use_up_the_server(running):
    running.prepare(rounds=1)
    with running.federation.channel("meti") as channel:
        stub = rounds_pb2_grpc.RoundsStub(channel)
        request = rounds_pb2.WatchRequest(run=running.run)
        watches = [stub.Watch(request) for _ in range(allowance.CALLS + 1)]
        ended = []
        for watch in watches:
            threading.Thread(target=lambda w=watch: ended.append(_code(w)), daemon=True).start()
        until(lambda: ended)
        assert ended == ["RNM-NET-0002"]
        # Others are served, and so is this one when it has let some go.
        with running.federation.channel("secretariat") as other:
            request = ledger_pb2.GetCheckpointRequest()
            assert ledger_pb2_grpc.LedgerStub(other).GetCheckpoint(request, timeout=10).note
        for watch in watches:
            watch.cancel()
        ledger = ledger_pb2_grpc.LedgerStub(channel)
        until(lambda: _code_of(lambda: ledger.GetCheckpoint(request, timeout=10)) == "")


def _code(stream):
    return _code_of(lambda: list(stream))


def _code_of(call):
    try:
        call()
    except grpc.RpcError as error:
        return transport.from_rpc_error(error, "test").code
    return ""


@pytest.mark.parametrize(("start", "end"), [(0, 10**6), (3, 2), (2**63, 2**63), (0, 2**64 - 1)])
def test_entries_beyond_the_ledger_are_refused_by_name(running, start, end):
    with running.federation.channel("meti") as channel:
        stub = ledger_pb2_grpc.LedgerStub(channel)
        request = ledger_pb2.GetEntriesRequest(start=start, end=end)
        assert _code(stub.GetEntries(request, timeout=10)) == "RNM-FORM-0002"


def test_entries_come_whole_and_in_order_whatever_the_page(running, monkeypatch):
    running.prepare(rounds=1)
    ledger = running.coordinator.ledger
    size = ledger.head.size
    with running.federation.channel("meti") as channel:
        stub = ledger_pb2_grpc.LedgerStub(channel)
        for page in (1, 2, 3, 256):
            monkeypatch.setattr("federation.services._PAGE", page)
            for start in (0, 1, size - 1, size):
                request = ledger_pb2.GetEntriesRequest(start=start, end=size)
                got = [e for chunk in stub.GetEntries(request, timeout=10) for e in chunk.entries]
                assert got == ledger.entries(start, size)
