"""The log's side of witnessing: a real ledger and real witnesses, the stream played by hand."""

import queue
import shutil
import threading
import time

import pytest

from audit.http_client import HttpWitness, Remote
from audit.ledger import Ledger
from audit.note import NoteSigner, NoteVerifier
from audit.witness import Witness, request_body
from audit.witness_site import serve_witness
from federation import witnesses
from federation.guard import StartGuard
from federation.register import Register
from federation.witnesses import Caller, WitnessService
from fedproto.errors import LocalFault
from fedproto.events.models import BaseModel, BaseModelApproved
from fedproto.ids import sha256_hex
from fedproto.party import Party, seed_file, witness_name
from fedproto.statements import Head, Trace, seal_event
from fedproto.v1.witness_pb2 import WitnessAnswer
from renmei.consortium import found

NAMES = ("honda", "nec", "sony")


class Log:
    """A consortium's ledger with its register, and its members' witnesses."""

    def __init__(self, root):
        self.root = root
        party = Party.load(root / "coordinator")
        key = NoteSigner(party.profile.origin, seed_file(party.keys / "log.key", 32))
        self.ledger = Ledger.open(party.root / "ledger", log_key=key)
        self.register = Register(self.ledger, party)
        self.service = WitnessService(self.register)

    def witness(self, name):
        party = Party.load(self.root / name)
        signer = NoteSigner(
            witness_name("test", name), seed_file(party.keys / "witness.key", 32), cosigner=True
        )
        logs = {party.profile.origin: NoteVerifier.from_vkey(party.profile.log_vkey)}
        return Witness(party.root / "witness", signer, logs)

    def grow(self):
        party = Party.load(self.root / "pfn")
        body = BaseModelApproved(
            model=BaseModel(
                name="base",
                manifest_sha256=sha256_hex(str(self.ledger.head.size).encode()),
                corpus_sha256=sha256_hex(b"corpus"),
                licence="Apache-2.0",
                parameters=1,
            ),
            proposal="",
            votes=(),
        )
        head = self.ledger.head
        event = party.event(
            body,
            charter=self.ledger.state.charter.digest,
            head=Head(size=head.size, root=head.root),
            trace=Trace(trace_id="0" * 32, span_id="0" * 16),
        )
        self.register.admit(seal_event(event, (party.signing_key,)))

    def attend(self, name):
        return Stream(self.service, name)


class Context:
    """A call's context; inactive once the member hangs up."""

    def __init__(self, name):
        self.caller = name
        self.active = True

    def is_active(self):
        return self.active


class Stream:
    """One Attend stream; the test answers what is asked."""

    def __init__(self, service, name):
        self.context = Context(name)
        self._answers = queue.SimpleQueue()
        self._answers.put(WitnessAnswer(id=0))
        self._requests = service.Attend(iter(self._answers.get, None), self.context)

    def next(self):
        return next(self._requests)

    def answer(self, request, status, body=b""):
        self._answers.put(WitnessAnswer(id=request.id, status=status, body=body))

    def serve(self, witness, *, requests):
        """Let a real witness answer so many requests; return its statuses."""
        statuses = []
        for _ in range(requests):
            request = self.next()
            status, body = witness.add_checkpoint(request.add_checkpoint)
            self.answer(request, status, body)
            statuses.append(status)
        return statuses

    def settle(self):
        """Let the service take the last answer; there is nothing new to ask after it."""
        self.context.active = False
        assert next(self._requests, None) is None


@pytest.fixture(scope="module")
def founded(tmp_path_factory):
    root = tmp_path_factory.mktemp("witnesses") / "c"
    found(root, consortium="test", coordinator="127.0.0.1:1", gateway="127.0.0.1:2")
    return root


@pytest.fixture
def log(founded, tmp_path):
    shutil.copytree(founded, tmp_path / "c")
    made = Log(tmp_path / "c")
    yield made
    made.register.close()
    made.ledger.close()


def test_a_quorum_of_witnesses_publishes_a_checkpoint(log):
    assert log.ledger.checkpoint(1) is None
    for name in NAMES:
        stream = log.attend(name)
        assert stream.serve(log.witness(name), requests=1) == [200]
        stream.settle()
    assert log.ledger.checkpoint(1) is not None


def test_a_cosignature_that_was_lost_on_the_way_is_asked_for_again(log):
    """The witness persisted, the coordinator died before it stored: the log need not grow first."""
    witnesses = {name: log.witness(name) for name in NAMES}
    for name in NAMES:
        request = log.attend(name).next()
        assert witnesses[name].add_checkpoint(request.add_checkpoint)[0] == 200
    assert log.ledger.checkpoint(1) is None
    for name in NAMES:
        stream = log.attend(name)
        assert stream.serve(witnesses[name], requests=2) == [409, 200]
        stream.settle()
    assert log.ledger.checkpoint(log.ledger.head.size) is not None


def test_a_witness_that_was_away_catches_up_with_a_consistency_proof(log):
    witness = log.witness("nec")
    stream = log.attend("nec")
    stream.serve(witness, requests=1)
    stream.settle()
    for _ in range(5):
        log.grow()
    again = log.attend("nec")
    assert again.serve(witness, requests=2) == [409, 200]
    log.grow()
    assert again.serve(witness, requests=1) == [200]


def test_a_witness_is_asked_when_the_log_grows_and_not_before(log):
    witness = log.witness("nec")
    stream = log.attend("nec")
    stream.serve(witness, requests=1)
    asked = threading.Event()
    sizes = []

    def ask():
        sizes.append(int(stream.next().add_checkpoint.split(b"\n\n")[1].split(b"\n")[1]))
        asked.set()

    threading.Thread(target=ask, daemon=True).start()
    assert not asked.wait(0.3)
    size = log.ledger.head.size
    log.grow()
    assert asked.wait(5)
    assert sizes == [size + 1]


@pytest.mark.parametrize(
    ("status", "body"),
    [(409, b"99\n"), (422, b""), (400, b""), (403, b""), (404, b""), (500, b"")],
)
def test_a_witness_with_another_history_ends_the_stream_and_is_logged(log, caplog, status, body):
    stream = log.attend("sony")
    stream.answer(stream.next(), status, body)
    with pytest.raises(LocalFault) as caught:
        stream.next()
    assert caught.value.code == "RNM-LEDGER-0004"
    assert any("RNM-LEDGER-0004" in r.message and "sony" in r.message for r in caplog.records)


def test_a_witness_that_never_agrees_is_not_asked_for_ever(log):
    stream = log.attend("sony")
    for _ in range(3):
        stream.answer(stream.next(), 409, b"0\n")
    stream.answer(stream.next(), 409, b"0\n")
    with pytest.raises(LocalFault) as caught:
        stream.next()
    assert caught.value.code == "RNM-LEDGER-0004"


@pytest.mark.parametrize("lines", [b"", b"noise\n", b"\xe2\x80\x94 x y\n"])
def test_a_cosignature_that_does_not_verify_counts_for_nothing(log, caplog, lines):
    for name in NAMES:
        stream = log.attend(name)
        stream.answer(stream.next(), 200, lines)
        stream.settle()
    assert log.ledger.checkpoint(1) is None


def test_one_witness_cannot_make_a_quorum_by_itself(log):
    witness = log.witness("nec")
    for _ in NAMES:
        stream = log.attend("nec")
        request = stream.next()
        while (answer := witness.add_checkpoint(request.add_checkpoint))[0] != 200:
            stream.answer(request, *answer)
            request = stream.next()
        stream.answer(request, *answer)
        stream.settle()
    assert log.ledger.checkpoint(1) is None


def test_a_coordinator_that_stops_lets_its_witnesses_go(log):
    stream = log.attend("nec")
    stream.serve(log.witness("nec"), requests=1)
    log.register.close()
    with pytest.raises(StopIteration):
        stream.next()


def test_an_answer_to_another_question_ends_the_stream(log):
    stream = log.attend("nec")
    request = stream.next()
    stream.answer(type(request)(id=request.id + 7), 200, b"")
    with pytest.raises(StopIteration):
        stream.next()


# witnesses that are asked over HTTP


class Door:
    """A member's witness behind HTTP, and a thread of the coordinator that asks it."""

    def __init__(self, log, name, witness=None, service=None):
        self.server = serve_witness(witness or log.witness(name))
        asked = HttpWitness(Remote(self.server.url))
        self.caller = Caller(service or log.service, name, asked)

    def close(self):
        self.caller.close()
        self.server.close()


def until(holds, seconds=20):
    deadline = time.monotonic() + seconds
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.02)
    return holds()


def test_witnesses_that_are_asked_over_http_publish_each_checkpoint(log):
    doors = [Door(log, name) for name in NAMES]
    assert until(lambda: log.ledger.checkpoint(log.ledger.head.size) is not None)
    log.grow()
    assert until(lambda: log.ledger.checkpoint(log.ledger.head.size) is not None)
    for door in doors:
        door.close()


def test_a_witness_over_http_that_was_away_is_asked_again(log, monkeypatch):
    monkeypatch.setattr(witnesses, "_FIRST_PAUSE_S", 0.05)
    witness = log.witness("nec")
    server = serve_witness(witness)
    port = server.port
    server.close()
    caller = Caller(log.service, "nec", HttpWitness(Remote(f"http://127.0.0.1:{port}")))
    time.sleep(0.2)
    server = serve_witness(witness, port=port)
    origin = log.ledger.state.charter.origin
    assert until(lambda: witness.latest(origin) is not None)
    caller.close()
    server.close()


def test_a_restored_backup_is_refused_on_the_word_of_a_witness_over_http(log, founded, tmp_path):
    shutil.copytree(founded, tmp_path / "older")
    ahead = log.witness("nec")
    door = Door(log, "nec", ahead)
    log.grow()
    origin, newest = log.ledger.state.charter.origin, log.ledger.head.size
    assert until(lambda: b"\n%d\n" % newest in (ahead.latest(origin) or b""))
    door.close()
    older = Log(tmp_path / "older")
    guard = StartGuard(older.register, tmp_path)
    door = Door(older, "nec", ahead, WitnessService(older.register, guard))
    assert until(lambda: older.ledger.held.code == "RNM-LEDGER-0009")
    door.close()
    older.register.close()
    older.ledger.close()


def test_a_witness_over_http_of_another_history_is_asked_no_more(log, founded, tmp_path, caplog):
    """Its state is that of a log of the same name and key with another entry 1."""
    shutil.copytree(founded, tmp_path / "other")
    log.grow()
    other = Log(tmp_path / "other")
    other.grow()
    witness = log.witness("nec")
    status, _ = witness.add_checkpoint(request_body(0, [], other.ledger.signed_checkpoint()))
    other.register.close()
    other.ledger.close()
    assert status == 200
    door = Door(log, "nec", witness)
    door.caller._thread.join(20)
    assert not door.caller._thread.is_alive()
    assert "RNM-LEDGER-0004" in caplog.text
    door.close()
