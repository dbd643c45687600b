"""One attempt, frame by frame: what a member may send, and what each frame does to the phase."""

import numpy as np
import pytest
from secagg_members import NAMES, Members, signing_key

from federation.exchange import Gone, Lobby
from federation.journal import RunJournal
from federation.rounds.attempt import AttemptRunner
from federation.rounds.phases import Command, Phase, decide
from federation.secure_aggregation.uploads import ChunksInMemory
from fedproto.errors import FederationError, LocalFault
from fedproto.outbox import SESSION_BYTES
from fedproto.v1.exchange_pb2 import Abort, Hello, MemberFrame, UploadBegin, UploadChunk


class Stage:
    """A runner whose inbox the test fills; members answer what it sends to them."""

    def __init__(self, *, cohort=3, timeout_s=5.0, spool=None, members=None):
        self.members = members or Members()
        self.lobby = Lobby(frozenset(NAMES))
        hello = Hello(session=bytes(SESSION_BYTES))
        seats = {name: self.lobby.join(name, hello) for name in NAMES}
        self.outboxes = {
            name: (s.seat.outbox, s.seat.outbox.items(s.number)) for name, s in seats.items()
        }
        self.journal = RunJournal()
        self.stopping = False
        self.runner = AttemptRunner(
            authorisation=self.members.authorisation,
            roster=self.members.roster,
            cohort=cohort,
            phase_timeout_s=timeout_s,
            lobby=self.lobby,
            journal=self.journal,
            stopping=lambda: self.stopping,
            key=signing_key("coordinator"),
            spool=spool or ChunksInMemory(),
        )

    def send(self, name, **frame):
        self.runner._receive(name, MemberFrame(**frame))

    def received(self, name):
        """Return what was sent to a member since the last call; None marks the stream's end."""
        outbox, items = self.outboxes[name]
        frames = [next(items) for _ in range(outbox.untaken)]
        frames = [frame() if callable(frame) else frame for frame in frames]
        return [*frames, None] if outbox.ended else frames

    def upload(self, name, share_list):
        header, chunks = self.members.mask(name, share_list)
        self.send(name, upload_begin=UploadBegin())
        for index, data in enumerate(chunks):
            self.send(name, masked_chunk=UploadChunk(index=index, data=data))
        self.send(name, masked_header=header)

    def play_to(self, phase, names=NAMES):
        """Play honest members up to the beginning of a phase; return each one's last frames."""
        last = {}
        for at in (Phase.ADVERTISE, Phase.SHARE, Phase.UPLOAD, Phase.CONFIRM, Phase.REVEAL):
            if at is phase:
                break
            for name in names:
                self.answer(at, name, last.get(name))
            self.runner._close()
            last = {name: self.received(name) for name in names}
        return last

    def answer(self, phase, name, last):
        half = self.members.halves[name]
        match phase:
            case Phase.ADVERTISE:
                self.send(name, advertise=self.members.advertised[name])
            case Phase.SHARE:
                self.send(name, encrypted_shares=half.share_keys(last[-1].key_list))
            case Phase.UPLOAD:
                self.upload(name, last[-1].share_list)
            case Phase.CONFIRM:
                self.send(name, confirm=half.confirm(last[-1].survivor_list))
            case Phase.REVEAL:
                self.send(name, reveal=half.reveal(last[-1].confirmations))

    @property
    def attempt(self):
        return self.runner._groups[0].attempt

    def words(self, state):
        return [e for e in self.journal._events if e.state == state]


def test_a_frame_of_an_earlier_phase_sent_again_is_no_answer_in_this_one():
    stage = Stage()
    stage.play_to(Phase.SHARE)
    for name in NAMES:
        stage.send(name, advertise=stage.members.advertised[name])
    assert stage.attempt.phase is Phase.SHARE
    assert not stage.attempt.answered
    assert decide(stage.attempt, late=False) is Command.WAIT


def test_a_confirmation_sent_again_is_not_a_revelation():
    stage = Stage()
    last = stage.play_to(Phase.CONFIRM)
    frames = {}
    for name in NAMES:
        frames[name] = stage.members.halves[name].confirm(last[name][-1].survivor_list)
        stage.send(name, confirm=frames[name])
    stage.runner._close()
    for name in NAMES:
        stage.send(name, confirm=frames[name])
    assert stage.attempt.phase is Phase.REVEAL
    assert not stage.attempt.answered


def test_frames_sent_again_a_thousand_times_are_noted_once():
    stage = Stage()
    for _ in range(1000):
        stage.send("honda", advertise=stage.members.advertised["honda"])
    assert len(stage.words("joined")) == 1
    assert stage.attempt.answered == {"honda"}


def test_an_honest_attempt_gives_the_mean_and_says_how_many_bytes_came():
    stage = Stage()
    last = stage.play_to(Phase.REVEAL)
    for name in NAMES:
        stage.answer(Phase.REVEAL, name, last[name])
    (total,) = stage.runner._close()
    expected = np.mean([stage.members.delta(name) for name in NAMES], axis=0)
    assert np.abs(total.mean_delta - expected).max() < 1e-4
    masked = {e.member: e.bytes for e in stage.words("masked")}
    assert set(masked) == set(NAMES)
    assert all(
        size > 4 * stage.members.authorisation.content.parameters for size in masked.values()
    )


@pytest.mark.parametrize(
    "frame",
    [
        {"reveal": b"x"},
        {"confirm": b""},
        {"masked_chunk": UploadChunk(index=0, data=bytes(64))},
        {"advertise": b"\xff" * 100},
        {"hello": {}},
    ],
    ids=["reveal too early", "empty confirm", "chunk without header", "noise", "second hello"],
)
def test_a_frame_out_of_place_puts_its_sender_out_and_nobody_else(frame):
    stage = Stage()
    stage.send("sony", **frame)
    assert stage.runner.excluded.keys() == {"sony"}
    abort, end = stage.received("sony")
    assert abort.abort.code == stage.runner.excluded["sony"]
    assert end is None
    assert stage.attempt.waiting == set(NAMES) - {"sony"}


def test_an_upload_longer_than_the_plan_says_is_cut_off():
    stage = Stage()
    last = stage.play_to(Phase.UPLOAD)
    _, chunks = stage.members.mask("nec", last["nec"][-1].share_list)
    stage.send("nec", upload_begin=UploadBegin())
    stage.send("nec", masked_chunk=UploadChunk(index=len(chunks), data=chunks[0]))
    assert stage.runner.excluded.keys() == {"nec"}
    assert stage.received("nec")[-1] is None


def test_what_a_member_sends_after_it_is_out_is_not_read():
    stage = Stage()
    stage.send("sony", reveal=b"x")
    stage.send("sony", advertise=stage.members.advertised["sony"])
    assert "sony" not in stage.attempt.answered
    assert "sony" not in stage.runner._groups[0].server._keying.keys


def test_a_member_that_says_why_it_leaves_stands_in_the_record_with_that_code():
    stage = Stage()
    stage.send("honda", abort=Abort(code="RNM-DATA-0002", why="x"))
    assert stage.runner.excluded == {"honda": "RNM-DATA-0002"}


def test_an_attempt_that_fails_ends_aborted_and_says_so():
    stage = Stage(timeout_s=0.05)
    stage.lobby.inbox.put(Gone("nec", "RNM-TLS-0001"))
    stage.lobby.inbox.put(Gone("sony", "RNM-CONSENT-0004"))
    with pytest.raises(LocalFault) as caught:
        stage.runner.run()
    assert caught.value.code == "RNM-SECAGG-0002"
    # Those who said nothing are named by their absence.
    reasons = "honda: no answer, nec: RNM-TLS-0001, softbank: no answer, sony: RNM-CONSENT-0004"
    assert reasons in caught.value.why
    assert stage.attempt.phase is Phase.ABORTED
    assert [(e.phase, e.code) for e in stage.words("aborted")] == [("advertise", "RNM-SECAGG-0002")]


def test_silent_members_run_out_of_time():
    stage = Stage(timeout_s=0.05)
    with pytest.raises(LocalFault) as caught:
        stage.runner.run()
    assert caught.value.code == "RNM-SECAGG-0002"


def test_a_coordinator_that_stops_gives_the_attempt_up():
    stage = Stage()
    stage.stopping = True
    with pytest.raises(LocalFault) as caught:
        stage.runner.run()
    assert caught.value.code == "RNM-ROUND-0001"


def test_a_dealer_that_lied_is_named_in_the_record():
    """Shares that were committed to, but of another seed: seen only when the sum is opened."""
    stage = Stage()
    stage.members.lie_about_self_seed("softbank")
    last = stage.play_to(Phase.REVEAL)
    for name in NAMES:
        frame = stage.members.halves[name].reveal(last[name][-1].confirmations)
        stage.lobby.inbox.put(_framed(name, reveal=frame))
    with pytest.raises(FederationError) as caught:
        stage.runner.run()
    assert caught.value.code == "RNM-SECAGG-0006"
    assert stage.runner.excluded == {"softbank": "RNM-SECAGG-0006"}
    assert stage.attempt.phase is Phase.ABORTED


def _framed(name, **frame):
    from federation.exchange import Framed

    return Framed(name, MemberFrame(**frame))
