"""Whole rounds between a real coordinator and real members, over mTLS, with members that die."""

import json
import queue
from dataclasses import replace

import federation_kit as kit
import numpy as np
import pytest
from federation_kit import INITIAL, MEMBERS, STEP, Federation, delta_of, until

from audit.replay import replay
from federation import optimiser
from federation.coordinator import Coordinator
from federation.exchange import Framed, Lobby
from federation.runs import Runs
from federation.secure_aggregation.server import SecAggServer
from fedproto.errors import LocalFault
from fedproto.events.rounds import Outcome, RoundStarted, Verdict
from fedproto.layout import vector_digest
from fedproto.party import now_ms, runtime_socket
from fedproto.secagg.audit_messages import sum_chunk_digest
from fedproto.secagg.keying_messages import EncryptedShares
from fedproto.secagg.messages import decode, encode
from fedproto.secagg.params import Params
from fedproto.secagg.quantise import Rounding, quantise
from fedproto.v1.dispatch_pb2 import NodeReply, ReportRequest


class Running:
    """A federation whose coordinator runs in this process."""

    def __init__(self, root, names=MEMBERS, **settings):
        self.federation = Federation(root, names)
        self.coordinator = Coordinator(
            self.federation.consortium.party("coordinator"), lambda *_: self.federation.flower
        )
        # A member that is killed here does not come back.
        self.coordinator.hub.resume_s = 1.0
        self.coordinator.start()
        self.federation.join(**settings)

    @property
    def state(self):
        return self.coordinator.ledger.state

    def start_run(self, **settings):
        self.federation.prepare_run(**settings)
        until(lambda: len(self.state.runs))
        self.run = next(iter(self.state.runs))
        socket = runtime_socket(self.coordinator.party.root, "dispatch")
        self.federation.follow(socket, self.run, lambda: self.state)
        self.coordinator.runs.start(self.run, now_ms())

    def finish(self):
        events = list(self.coordinator.runs.journal(self.run).follow(lambda: True))
        return events, self.state.rounds(self.run)

    def close(self):
        self.federation.close()
        self.coordinator.stop()


@pytest.fixture
def running(tmp_path):
    made = []

    def make(**settings):
        made.append(Running(tmp_path / "c", **settings))
        return made[-1]

    yield make
    for one in made:
        one.close()


def expected_adapter(included_by_round):
    """What the members' deltas come to, computed here in the clear."""
    step = optimiser.start(INITIAL)
    for round_no, included in enumerate(included_by_round, 1):
        mean = np.mean([delta_of(m, round_no) for m in included], axis=0, dtype=np.float64)
        step = optimiser.advance(step, mean.astype(np.float32), rate=1.0, decay=0.5)
    return step.adapter


def adapter_of(running, record):
    return running.coordinator.artifacts.adapter(record.body.model_out, kit.PARAMETERS)


def test_with_all_four_the_sum_is_exact_and_recorded(running):
    federation = running()
    federation.start_run()
    events, rounds = federation.finish()
    assert events[-1].state == "finished", events[-1]
    assert [r.closed.body.outcome for r in rounds] == [Outcome.AGGREGATED] * 2
    assert [r.closed.body.included for r in rounds] == [MEMBERS] * 2
    assert rounds[1].started.body.model_in == rounds[0].closed.body.model_out
    expected = expected_adapter([MEMBERS, MEMBERS])
    got = adapter_of(federation, rounds[1].closed)
    # Quantised to 22 bits: each round may differ by a step, and the outer step weighs it by 1.5.
    assert np.abs(got - expected).max() <= 4 * STEP
    assert vector_digest(got) == rounds[1].closed.body.model_out
    assert all(len(r.receipts) == 4 for r in rounds)


@pytest.mark.parametrize(
    ("phase", "included"),
    [
        ("mask", ("honda", "softbank", "sony")),
        ("confirm", MEMBERS),
        ("reveal", MEMBERS),
    ],
    ids=["after key exchange", "after upload", "before unmask"],
)
def test_the_sum_is_exact_although_one_member_is_killed(running, phase, included):
    federation = running()
    federation.federation.members["nec"].dies = {1: phase}
    federation.start_run(rounds=1)
    events, rounds = federation.finish()
    assert events[-1].state == "finished", events[-1]
    record = rounds[-1].closed.body
    assert record.included == included
    assert {e.member for e in record.excluded} == set(MEMBERS) - set(included)
    got = adapter_of(federation, rounds[-1].closed)
    assert np.abs(got - expected_adapter([included])).max() <= 3 * STEP
    assert any(e.state == "left" and e.member == "nec" for e in events)


def test_too_few_members_abort_the_attempt_and_the_next_asks_again(running):
    federation = running()
    members = federation.federation.members
    members["nec"].dies = members["sony"].dies = {1: "share_keys"}
    tries = queue.SimpleQueue()

    def recover(half):
        tries.put(half)
        if tries.qsize() >= 2:
            members["nec"].dies = members["sony"].dies = {}
        return half

    members["honda"].tampers = recover
    federation.start_run(rounds=1)
    events, rounds = federation.finish()
    assert events[-1].state == "finished", events[-1]
    first, last = rounds[0], rounds[-1]
    assert first.closed.body.outcome is Outcome.ABORTED
    assert first.closed.body.reason == "RNM-SECAGG-0002"
    assert first.closed.body.model_out == first.started.body.model_in
    assert last.closed.body.outcome is Outcome.AGGREGATED
    assert last.started.body.attempt >= 2


def test_a_run_ends_after_three_aborted_attempts(running):
    federation = running()
    for name in ("nec", "sony"):
        federation.federation.members[name].dies = {1: "share_keys"}
    federation.start_run(rounds=1)
    events, rounds = federation.finish()
    assert (events[-1].state, events[-1].code) == ("aborted", "RNM-ROUND-0001")
    assert [r.started.body.attempt for r in rounds] == [1, 2, 3]
    assert not any(r.aggregated for r in rounds)


def test_a_member_that_sends_a_wrong_message_is_out_and_the_round_goes_on(running):
    federation = running()

    class Liar:
        def __init__(self, half):
            self.half = half

        def __getattr__(self, name):
            return getattr(self.half, name)

        def share_keys(self, key_list):
            raw = bytearray(self.half.share_keys(key_list))
            raw[-20] ^= 1
            return bytes(raw)

    federation.federation.members["sony"].tampers = Liar
    federation.start_run(rounds=1)
    events, rounds = federation.finish()
    assert events[-1].state == "finished"
    record = rounds[-1].closed.body
    assert record.included == ("honda", "nec", "softbank")
    assert record.excluded[0].member == "sony"
    assert record.excluded[0].reason.startswith("RNM-SECAGG") or record.excluded[
        0
    ].reason.startswith("RNM-SIG")


class DealsBadly:
    """A member that commits, under its own signature, to another self seed than it deals."""

    def __init__(self, half):
        self.half = half

    def __getattr__(self, name):
        return getattr(self.half, name)

    def share_keys(self, key_list):
        message = decode(EncryptedShares, self.half.share_keys(key_list), peer="nec")
        header = replace(message.header, self_seed_commitment=bytes(32))
        header = header.signed_by(self.half._key)
        self.half._seen.sent = header
        return encode(replace(message, header=header))


def test_a_dealer_that_ended_an_attempt_is_named_and_left_out_of_the_next(running):
    federation = running()
    federation.federation.members["nec"].tampers = DealsBadly
    federation.start_run(rounds=1)
    events, rounds = federation.finish()
    assert events[-1].state == "finished", events[-1]
    first, last = (attempt.closed.body for attempt in rounds)
    assert (first.outcome, first.reason) == (Outcome.ABORTED, "RNM-SECAGG-0006")
    reasons = {item.member: item.reason for item in first.excluded}
    assert reasons == dict.fromkeys(MEMBERS, "RNM-ROUND-0001") | {"nec": "RNM-SECAGG-0006"}
    assert last.included == ("honda", "softbank", "sony")
    assert [(e.member, e.reason) for e in last.excluded] == [("nec", "RNM-SECAGG-0006")]
    (case,) = federation.coordinator.party.root.rglob("evidence/*.json")
    assert json.loads(case.read_bytes())["culprits"] == ["nec"]


def test_a_coordinator_that_published_another_sum_ends_the_run_on_the_record(running, monkeypatch):
    finish = SecAggServer.finish

    def lie(self):
        total = finish(self)
        # One word of the sum moved: the adapter that follows is the coordinator's own.
        digests = (sum_chunk_digest(0, b"another sum"), *self._published.sum_digests[1:])
        self._published = replace(self._published, sum_digests=digests)
        return total

    monkeypatch.setattr(SecAggServer, "finish", lie)
    federation = running()
    federation.start_run(rounds=1)
    events, rounds = federation.finish()
    assert (events[-1].state, events[-1].code) == ("aborted", "RNM-SECAGG-0007")
    (attempt,) = rounds
    assert attempt.closed.body.outcome is Outcome.ABORTED
    assert attempt.closed.body.reason == "RNM-SECAGG-0007"
    refusing = {act.member for act in attempt.audits if act.body.verdict is Verdict.REFUSED}
    assert len(refusing) == 2, "t_c + 1 members look at each chunk"
    assert attempt.disputed.member in refusing
    again = RoundStarted(
        run=federation.run,
        round=1,
        attempt=2,
        authorisation_sha256=vector_digest(INITIAL),
        model_in=attempt.started.body.model_in,
        invited=MEMBERS,
    )
    with pytest.raises(LocalFault, match="refuses the sum of round 1"):
        federation.coordinator.register.act(again)


def test_every_member_of_a_sum_has_its_audit_in_the_ledger(running):
    federation = running()
    federation.start_run(rounds=2)
    events, rounds = federation.finish()
    assert events[-1].state == "finished", events[-1]
    for attempt in rounds:
        assert sorted(attempt.auditors) == sorted(MEMBERS)
        shown = {act.body.transcript_sha256 for act in attempt.audits}
        assert shown == {attempt.closed.body.transcript_sha256}


def test_no_delta_is_in_any_frame_or_file_of_the_coordinator(running, monkeypatch):
    federation = running()
    received = []
    tell = Lobby.tell

    def listen(lobby, happening):
        if isinstance(happening, Framed):
            received.append(happening.frame.SerializeToString())
        tell(lobby, happening)

    monkeypatch.setattr(Lobby, "tell", listen)
    federation.start_run(rounds=1)
    _, rounds = federation.finish()
    assert rounds[-1].aggregated
    root = federation.coordinator.party.root
    everything = received + [p.read_bytes() for p in root.rglob("*") if p.is_file()]
    assert sum(map(len, received)) > 4 * kit.PARAMETERS * 4
    for member in MEMBERS:
        delta = delta_of(member)
        for secret in (delta.tobytes(), words_of(delta).tobytes()):
            windows = [secret[at : at + 32] for at in range(400, len(secret) - 32, 400)]
            assert not any(window in data for window in windows for data in everything), member


def words_of(delta):
    """The quantised words of a delta, as its member masks them."""
    params = Params(
        members=4, threshold=3, tolerated=1, parameters=delta.size, qmax=2**21 - 1, clip=kit.CLIP
    )
    words = np.empty(delta.size + 1, np.uint32)
    Rounding(quantise(delta, 1.0, params, kit.ROUNDING_SEED)).write(0, words)
    return words


def test_a_run_without_a_mandate_is_not_started(running):
    federation = running()
    with pytest.raises(LocalFault) as caught:
        federation.coordinator.runs.start("ab" * 16, now_ms())
    assert caught.value.code == "RNM-CONSENT-0001"
    assert federation.federation.flower.started == []


def test_a_run_is_not_started_outside_its_term_nor_twice(running):
    federation = running()
    federation.federation.prepare_run(rounds=1)
    until(lambda: len(federation.state.runs))
    run = next(iter(federation.state.runs))
    for when in (0, now_ms() + 10 * 86_400_000):
        with pytest.raises(LocalFault) as caught:
            federation.coordinator.runs.start(run, when)
        assert caught.value.code == "RNM-CONSENT-0002"
    socket = runtime_socket(federation.coordinator.party.root, "dispatch")
    federation.federation.follow(socket, run, lambda: federation.state)
    federation.coordinator.runs.start(run, now_ms())
    with pytest.raises(LocalFault) as caught:
        federation.coordinator.runs.start(run, now_ms())
    assert caught.value.code == "RNM-ROUND-0003"
    federation.run = run
    assert federation.finish()[0][-1].state == "finished"


def test_the_ledger_of_a_run_replays_without_a_violation(running):
    federation = running()
    federation.start_run(rounds=1)
    federation.finish()
    ledger = federation.coordinator.ledger
    found = replay(
        ledger.entries(0, ledger.head.size),
        genesis_sha256=federation.federation.consortium.charter.digest,
    )
    assert not found.violations


def test_what_flower_says_of_a_member_that_has_joined_does_not_count(running):
    """A courier that dies in mid-round must not throw its member's live stream out."""
    federation = running()
    orders, asked = federation.coordinator.orders, []
    member = federation.federation.members["nec"]

    def slandered(half):
        state = federation.state.rounds(federation.run)[-1].started.body
        ctx = bytes.fromhex(state.authorisation_sha256)
        until(lambda: federation.coordinator.hub.find(ctx, "nec").has_joined("nec"))
        reply = NodeReply(member="nec", code="RNM-PROC-0002", why="node unavailable")
        orders.report(ReportRequest(run=federation.run, ctx=ctx, replies=[reply]))
        asked.append(reply)

    class Slow:
        def __init__(self, half):
            self.half = half

        def __getattr__(self, name):
            if name == "share_keys":
                slandered(self.half)
            return getattr(self.half, name)

    member.tampers = Slow
    federation.start_run(rounds=1)
    events, rounds = federation.finish()
    assert asked
    assert events[-1].state == "finished"
    assert rounds[-1].closed.body.included == MEMBERS


def test_a_run_that_ended_before_a_restart_is_not_watched_for_ever(running):
    federation = running()
    federation.start_run(rounds=1)
    federation.finish()
    directory = federation.coordinator.party.root / "runs"
    restarted = Runs(directory, federation.coordinator.register, lambda run, journal: None)
    (event,) = restarted.journal(federation.run).follow(lambda: True)
    assert (event.state, event.code, event.terminal) == ("finished", "", True)
