"""Connections that break in mid-attempt: the session goes on, and nothing is counted twice (T38)."""

import threading
import time
import weakref
from concurrent.futures import Future
from functools import partial

import grpc
import numpy as np
import pytest
from federation_kit import until
from line_kit import Line, beyond, every, never, once
from secagg_members import NAMES, Members
from test_federation_sum_audit_wire import hand_out_the_result
from wire_kit import Wire

from federation import exchange
from federation.exchange import Gone, Hub
from federation.rounds.phases import Phase
from fedproto.errors import LocalFault, PeerFault
from fedproto.ids import sha256_hex
from fedproto.outbox import RESUME_S, SESSION_BYTES
from fedproto.transport import OPTIONS, SERVER_OPTIONS
from fedproto.v1.exchange_pb2 import CoordinatorFrame, Hello, MemberFrame, Welcome
from member_node import egress

# Three chunks of 1 MiB and a short one.
PARAMETERS = 800_000
UPLOAD_BYTES = 4 * (PARAMETERS + 1)


def soon(when):
    """Wait until `when` holds and notice at once: a phase may last a few milliseconds."""
    until(when, every_s=0.001)


class Lines:
    """A line for each member."""

    def __init__(self, **decide):
        self.of = {}
        self._decide = decide

    def __call__(self, name, port):
        line = self.of[name] = Line(port, self._decide.get(name, never))
        return line.port

    def cut(self):
        for line in list(self.of.values()):
            line.cut()

    def part(self, seconds, when):
        """Let nothing pass for a while, from the moment that `when` holds."""

        def work():
            soon(when)
            for line in self.of.values():
                line.silent.set()
            # The silence itself is what is tested: nothing can be waited for.
            time.sleep(seconds)
            for line in self.of.values():
                line.silent.clear()

        threading.Thread(target=work, daemon=True).start()


def wired(tmp_path, lines, **options):
    return Wire(tmp_path, members=Members(PARAMETERS), between=lines, **options)


def all_is_exact(wire, included=NAMES):
    """The sum is over whom it should be, and each of them is in it once."""
    assert wire.error is None, wire.error
    assert wire.total.included == included
    mean = np.mean([wire.members.delta(name) for name in included], axis=0)
    assert np.abs(wire.total.mean_delta - mean).max() < 1e-5
    for name in included:
        assert wire.receipts[name].bytes == UPLOAD_BYTES
        assert wire.outcomes[name].model_out == "0" * 64, wire.outcomes[name]


@pytest.mark.parametrize(
    "at",
    [200, 9_000, 60_000, UPLOAD_BYTES // 2, UPLOAD_BYTES * 99 // 100],
    ids=["handshake", "keys", "first chunk", "half way", "99 percent"],
)
def test_a_reset_connection_is_opened_again_and_the_upload_goes_on(tmp_path, at):
    lines = Lines(honda=once(at), nec=once(at))
    wire = wired(tmp_path, lines).play(hand_out_the_result)
    all_is_exact(wire)
    assert not wire.runner.excluded
    for name in ("honda", "nec"):
        assert (lines.of[name].cuts, lines.of[name].connections) == (1, 2)
    assert lines.of["sony"].connections == 1


def test_a_line_that_breaks_all_the_time_still_carries_a_round(tmp_path):
    lines = Lines(**dict.fromkeys(NAMES, every(1_500_000)))
    wire = wired(tmp_path, lines, timeout_s=25.0).play(hand_out_the_result)
    all_is_exact(wire)
    for name in NAMES:
        assert lines.of[name].cuts >= 2
        # What was in flight is sent again, nothing else: far from a whole upload each time.
        assert lines.of[name].carried < UPLOAD_BYTES + lines.of[name].cuts * 1_500_000


@pytest.mark.parametrize("phase", [p for p in Phase if p.value not in ("done", "aborted")])
def test_everybody_is_cut_off_in_each_phase_and_the_sum_is_exact(tmp_path, phase):
    lines = Lines()
    wire = wired(tmp_path, lines)
    attended = threading.Event()

    def cut():
        soon(lambda: wire.runner._phase is phase and len(lines.of) == len(NAMES))
        lines.cut()
        attended.set()

    threading.Thread(target=cut, daemon=True).start()
    wire.play(hand_out_the_result)
    assert attended.is_set()
    all_is_exact(wire)


def test_a_half_open_connection_is_replaced_by_the_next_one(tmp_path, monkeypatch):
    """The coordinator still believes in the old stream when the new one comes."""
    lines = Lines()
    wire = wired(tmp_path, lines)
    joined = exchange.Lobby.join
    numbers = []

    def join(lobby, member, hello, taken=0):
        stream = joined(lobby, member, hello, taken)
        numbers.append((member, stream.number))
        return stream

    monkeypatch.setattr(exchange.Lobby, "join", join)

    def lose():
        soon(lambda: wire.receipts or wire.words("shared"))
        # Only the member's end is reset: the line to the coordinator stays open and silent.
        for near, _ in list(lines.of["sony"]._open):
            lines.of["sony"].cut((near,))

    threading.Thread(target=lose, daemon=True).start()
    wire.play(hand_out_the_result)
    all_is_exact(wire)
    assert sum(member == "sony" for member, _ in numbers) == 2


def test_a_partition_without_a_reset_only_takes_time(tmp_path):
    lines = Lines()
    wire = wired(tmp_path, lines, timeout_s=20.0)

    lines.part(1.5, lambda: wire.words("shared"))
    wire.play(hand_out_the_result)
    all_is_exact(wire)


@pytest.mark.slow
@pytest.mark.parametrize("phase", [p for p in Phase if p.value not in ("done", "aborted")])
def test_a_partition_of_ninety_seconds_in_each_phase_only_takes_time(tmp_path, phase):
    """Nobody is told: it is noticed by a keepalive that is not answered, on both sides (T38)."""
    lines = Lines()
    wire = wired(
        tmp_path,
        lines,
        timeout_s=240.0,
        session_s=300.0,
        resume_s=RESUME_S,
        options=(SERVER_OPTIONS, OPTIONS),
    )
    began = time.monotonic()

    lines.part(90, lambda: wire.runner._phase is phase and len(lines.of) == len(NAMES))
    wire.play(hand_out_the_result)
    assert time.monotonic() - began >= 90
    all_is_exact(wire)
    assert any(line.connections > 1 for line in lines.of.values()), "it was noticed"


def test_who_does_not_come_back_is_a_dropout_and_the_others_go_on(tmp_path):
    lines = Lines(sony=beyond(UPLOAD_BYTES // 2))
    wire = wired(tmp_path, lines, resume_s=0.5)
    wire.play(hand_out_the_result)
    all_is_exact(wire, ("honda", "nec", "softbank"))
    assert wire.runner.excluded == {"sony": "RNM-TLS-0001"}
    assert wire.outcomes["sony"].code == "RNM-TLS-0001"


def test_a_chunk_leaves_while_the_next_one_is_masked(tmp_path):
    """Masking stops before the last chunk until the coordinator has the first one: it would never come."""
    wire = wired(tmp_path, Lines())
    waited = []

    class Waiting:
        def __init__(self, name, upload):
            self.name, self.upload, self.chunks = name, upload, self
            self.digest = None

        def __len__(self):
            return len(self.upload.chunks)

        def __getitem__(self, index):
            if index == 3 and self.name not in waited:
                soon(
                    lambda: any(
                        f.WhichOneof("frame") == "masked_chunk" for f in wire.frames[self.name]
                    )
                )
                waited.append(self.name)
            return self.upload.chunks[index]

        @property
        def header(self):
            self.digest = self.upload.digest
            return self.upload.header

    for name, half in wire.members.halves.items():
        mask = half.mask
        half.mask = lambda *words, name=name, mask=mask: Waiting(name, mask(*words))
    wire.play(hand_out_the_result)
    all_is_exact(wire)
    assert sorted(waited) == list(NAMES)


class Training(Wire):
    """Members whose trainers take a while."""

    def __init__(self, root, takes_s, **options):
        super().__init__(root, **options)
        self._takes_s = takes_s

    def session(self, name, channel, trained):
        later = Future()
        threading.Timer(self._takes_s, lambda: later.set_result(trained.result())).start()
        return super().session(name, channel, later)


def test_a_stream_that_was_silent_for_longer_than_the_patience_is_opened_again(tmp_path):
    """While a member trains nothing is said: the patience is with a line that is broken."""
    lines = Lines()
    wire = Training(tmp_path, 3.0, members=Members(PARAMETERS), between=lines, resume_s=0.8)

    def cut():
        soon(lambda: wire.words("shared"))
        for _ in range(2):
            lines.cut()
            time.sleep(1.2)

    threading.Thread(target=cut, daemon=True).start()
    wire.play(hand_out_the_result)
    all_is_exact(wire)
    assert all(line.connections >= 3 for line in lines.of.values())


def test_what_is_sent_again_is_in_the_journal_again_and_says_the_same(tmp_path):
    lines = Lines(honda=once(UPLOAD_BYTES // 2))
    wire = wired(tmp_path, lines).play(hand_out_the_result)
    all_is_exact(wire)
    kinds = [line.kind for line in egress.read(tmp_path / "honda")]
    assert kinds.count("exchange.hello") == 2
    assert kinds.count("exchange.masked_chunk") >= 4
    arrived = [frame for frame in wire.frames["honda"] if frame.WhichOneof("frame") == "hello"]
    assert arrived[0].hello == arrived[1].hello
    assert arrived[1].taken > arrived[0].taken == 0
    by_index = {}
    for frame in wire.frames["honda"]:
        if frame.WhichOneof("frame") == "masked_chunk":
            chunk = frame.masked_chunk
            by_index.setdefault(chunk.index, set()).add(sha256_hex(chunk.data))
    assert sorted(by_index) == [0, 1, 2, 3]
    assert all(len(digests) == 1 for digests in by_index.values()), "one chunk, one content"
    masked = [event for event in wire.words("masked") if event.member == "honda"]
    assert len(masked) == 1


# What a member may not do.


def hello(session=bytes(SESSION_BYTES)):
    return Hello(ctx=b"c", session=session)


def said(stream):
    return (make() for make in stream.frames())


def test_nobody_goes_on_with_the_session_of_another_process():
    lobby = Hub().open(b"c", NAMES)
    lobby.join("sony", hello())
    with pytest.raises(LocalFault) as refusal:
        lobby.join("sony", hello(b"another session!"))
    assert refusal.value.code == "RNM-GOV-0003"
    assert lobby.join("sony", hello()).number == 2


@pytest.mark.parametrize("session", [b"", b"short", bytes(SESSION_BYTES + 1)])
def test_a_session_without_a_proper_name_is_refused(session):
    with pytest.raises(LocalFault) as refusal:
        Hub().open(b"c", NAMES).join("sony", hello(session))
    assert refusal.value.code == "RNM-FORM-0002"


def test_a_member_that_counts_frames_it_was_never_sent_is_refused():
    lobby = Hub().open(b"c", NAMES)
    stream = lobby.join("sony", hello())
    with pytest.raises(LocalFault) as refusal:
        lobby.join("sony", hello(), taken=1)
    assert refusal.value.code == "RNM-FORM-0002"
    stream.read(iter([MemberFrame(advertise=b"a", taken=7)]))
    assert lobby.inbox.get_nowait() == Gone("sony", "RNM-FORM-0002")
    with pytest.raises(LocalFault) as refusal:
        lobby.join("sony", hello())
    assert refusal.value.code == "RNM-ROUND-0001"


def test_what_a_member_has_taken_is_forgotten_and_never_sent_again():
    lobby = Hub().open(b"c", NAMES)
    stream = lobby.join("sony", hello())
    for number in range(3):
        lobby.send("sony", CoordinatorFrame(key_list=bytes([number])))
    sent = said(stream)
    assert next(sent).WhichOneof("frame") == "welcome"
    assert [next(sent).key_list for _ in range(3)] == [b"\0", b"\1", b"\2"]
    stream.seat.take(stream.number, MemberFrame(advertise=b"a", taken=2), lambda _: None)
    with pytest.raises(LocalFault) as refusal:
        lobby.join("sony", hello(), taken=1)
    assert refusal.value.code == "RNM-FORM-0002"
    again = said(lobby.join("sony", hello(), taken=2))
    assert (next(again).taken, next(again).key_list) == (1, b"\2")
    assert list(sent) == [], "the stream before is over"


def test_a_stream_that_was_replaced_hands_nothing_on():
    lobby = Hub().open(b"c", NAMES)
    old = lobby.join("sony", hello())
    lobby.join("sony", hello())
    old.read(iter([MemberFrame(advertise=b"a")]))
    assert lobby.inbox.empty()


def test_a_member_connects_so_often_and_no_more(monkeypatch):
    monkeypatch.setattr(exchange, "MAX_STREAMS", 5)
    lobby = Hub().open(b"c", NAMES)
    for _ in range(5):
        lobby.join("sony", hello())
    with pytest.raises(LocalFault) as refusal:
        lobby.join("sony", hello())
    assert refusal.value.code == "RNM-ROUND-0001"


def test_the_last_word_of_a_closed_attempt_is_still_heard():
    hub = Hub()
    lobby = hub.open(b"c", NAMES)
    lobby.join("sony", hello()).detach()
    lobby.dismiss("sony", LocalFault("RNM-SECAGG-0002", what="a", why="too few", mend="b"))
    hub.close(b"c")
    again = list(said(hub.find(b"c", "sony").join("sony", hello())))
    assert [frame.WhichOneof("frame") for frame in again] == ["welcome", "abort"]
    with pytest.raises(LocalFault):
        hub.find(b"c", "nec").join("nec", hello())


def test_no_frame_lies_with_a_reader_or_a_sender_once_it_is_handed_on(monkeypatch):
    """Else a chunk of 1 MiB for each member, in both directions, for as long as nobody says more."""

    class Frame:
        taken = 0

        def SerializeToString(self):  # noqa: N802  # protobuf's name
            return b"x"

    lobby = Hub(resume_s=0.01).open(b"c", NAMES)
    monkeypatch.setattr(exchange.Lobby, "tell", lambda lobby, happening: None)
    dead = []

    def frames():
        for _ in range(3):
            frame = Frame()
            seen = weakref.ref(frame)
            yield frame
            del frame
            dead.append(seen() is None)

    lobby.join("sony", hello()).read(frames())
    assert dead == [True] * 3
    stream = lobby.join("nec", hello())
    made = []

    def make():
        frame = Frame()
        made.append(weakref.ref(frame))
        return frame

    lobby.send("nec", make)
    sent = stream.frames()
    next(sent)
    kept_by_grpc = next(sent)
    assert exchange.write(kept_by_grpc) == b"x"
    assert made[0]() is None


# What a coordinator may not do.


@pytest.mark.parametrize(
    ("bend", "why"),
    [
        (lambda f: CoordinatorFrame(key_list=b"x"), "expected welcome"),
        (lambda f: CoordinatorFrame(welcome=Welcome(), taken=9), "no stream goes on at 9"),
    ],
    ids=["no welcome", "it took what was not sent"],
)
def test_a_coordinator_that_answers_hello_otherwise_is_refused(tmp_path, monkeypatch, bend, why):
    frames = exchange.Stream.frames

    def bent(stream):
        for number, make in enumerate(frames(stream)):
            yield make if number else partial(bend, make())

    monkeypatch.setattr(exchange.Stream, "frames", bent)
    wire = Wire(tmp_path, timeout_s=2.0).play()
    for name in NAMES:
        assert isinstance(wire.outcomes[name], PeerFault)
        assert why in wire.outcomes[name].why


def test_a_coordinator_that_counts_frames_it_was_never_sent_is_refused(tmp_path, monkeypatch):
    frames = exchange.Stream.frames

    def bent(stream):
        for number, make in enumerate(frames(stream)):
            frame = make()
            frame.taken = frame.taken if number == 0 else 1000
            yield partial(type(frame).FromString, frame.SerializeToString())

    monkeypatch.setattr(exchange.Stream, "frames", bent)
    wire = Wire(tmp_path, timeout_s=2.0).play()
    for name in NAMES:
        assert isinstance(wire.outcomes[name], PeerFault)
        assert "1000 frames were taken" in wire.outcomes[name].why


def test_an_answer_of_the_coordinator_is_no_broken_connection():
    from fedproto.transport import is_broken_connection, to_status

    class Failed(grpc.RpcError):
        def __init__(self, code, metadata):
            self.code, self.trailing_metadata = lambda: code, lambda: metadata

    code, _, metadata = to_status(LocalFault("RNM-TLS-0001", what="a", why="b", mend="c"))
    assert not is_broken_connection(Failed(code, metadata))
    assert is_broken_connection(Failed(grpc.StatusCode.UNAVAILABLE, ()))
    assert not is_broken_connection(Failed(grpc.StatusCode.CANCELLED, ()))
