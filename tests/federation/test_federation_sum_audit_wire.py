"""The sum audited on the wire: an honest one is found right, a coordinator's other sum is refused."""

import dataclasses

import numpy as np
import pytest
from secagg_members import NAMES
from wire_kit import Wire

from fedproto.errors import LocalFault, PeerFault
from fedproto.secagg.audit_messages import SumTranscript, sum_chunk_digest
from fedproto.secagg.faults import SumDiffers
from fedproto.secagg.messages import decode
from fedproto.v1.exchange_pb2 import ChunkRequest, MemberFrame, Result
from fedproto.v1.exchange_pb2 import CoordinatorFrame as Frame


def hand_out_the_result(wire):
    for name in NAMES:
        result = Result(model_out=bytes(32), ledger_index=1, included=list(NAMES))
        wire.lobby.send(name, Frame(result=result))


def lying(wire, change):
    """Let the coordinator publish something else, under its own signature."""
    finish = wire.runner._groups[0].server.finish

    def lie():
        total = finish()
        server = wire.runner._groups[0].server
        server._published = change(server._published)
        return total

    wire.runner._groups[0].server.finish = lie
    return wire


def test_each_member_of_an_honest_sum_finds_its_slice_right(tmp_path):
    wire = Wire(tmp_path).play(hand_out_the_result)
    assert wire.error is None
    assert set(wire.findings) == set(NAMES)
    for finding in wire.findings.values():
        assert finding.fault is None
        assert finding.transcript == wire.total.transcript_sha256
    # Two auditors (t_c + 1) for the one chunk.
    assert sum(finding.chunks for finding in wire.findings.values()) == 2
    assert all(wire.outcomes[name].included == NAMES for name in NAMES)


def test_a_coordinator_that_publishes_another_sum_is_caught_with_its_signature(tmp_path):
    def other(published):
        digest = sum_chunk_digest(0, np.ones(published.words, "<u4").tobytes())
        return dataclasses.replace(published, sum_digests=(digest,))

    wire = lying(Wire(tmp_path), other).play(hand_out_the_result)
    assert isinstance(wire.error, LocalFault), "fewer than T found the sum right"
    faults = [f.fault for f in wire.findings.values() if f.fault]
    assert len(faults) == 2
    for fault in faults:
        assert isinstance(fault, SumDiffers)
        shown = decode(SumTranscript, fault.evidence[0], peer="file")
        shown.verify(wire.members.authorisation.key)


def test_a_coordinator_that_publishes_another_seed_is_caught_by_every_member(tmp_path):
    def other(published):
        first, *rest = published.self_seeds
        forged = dataclasses.replace(first, secret=bytes(32))
        return dataclasses.replace(published, self_seeds=(forged, *rest))

    wire = lying(Wire(tmp_path), other).play(hand_out_the_result)
    assert {f.fault is not None for f in wire.findings.values()} == {True}
    assert all("self seed" in f.fault.why for f in wire.findings.values())


def test_a_transcript_that_the_coordinator_did_not_sign_is_no_transcript(tmp_path):
    wire = Wire(tmp_path)
    wire.runner._key = type("Other", (), {"sign": lambda _, message: bytes(3373)})()
    wire.play(hand_out_the_result)
    assert not wire.findings
    for name in NAMES:
        assert isinstance(wire.outcomes[name], PeerFault)
        assert "not signed" in wire.outcomes[name].why


def test_a_chunk_that_was_altered_after_the_upload_is_refused_by_its_auditors(tmp_path):
    wire = Wire(tmp_path)
    read = wire.runner._groups[0].server.read_masked
    flip = lambda data: bytes([data[0] ^ 1]) + data[1:]  # noqa: E731
    wire.runner._groups[0].server.read_masked = lambda *place: flip(read(*place))
    wire.play(hand_out_the_result)
    refusing = [f for f in wire.findings.values() if f.fault]
    assert len(refusing) == 2
    assert all("not the one that" in f.fault.why for f in refusing)


class Greedy:
    """Plays an honest member up to its audit, then asks for what it must not have."""

    def __init__(self, wire, name, *requests):
        session = wire.session

        def made(member, channel, trained):
            made_session = session(member, channel, trained)
            if member == name:
                made_session._audit = lambda _: self.ask(made_session, requests)
            return made_session

        wire.session = made

    def ask(self, session, requests):
        for member, index in requests:
            session._link.put(MemberFrame(read_chunk=ChunkRequest(member=member, index=index)))


@pytest.mark.parametrize(
    "requests",
    [
        [("honda", 1)],
        [("honda", 1 << 31)],
        [("stranger", 0)],
        [("", 0)],
        [("honda", 0)] * 4,
    ],
    ids=["beyond the end", "far beyond", "of nobody", "without a name", "again and again"],
)
def test_a_member_that_asks_for_chunks_out_of_turn_is_out_and_gets_nothing(tmp_path, requests):
    wire = Wire(tmp_path, timeout_s=3)
    Greedy(wire, "sony", *requests)
    wire.play(hand_out_the_result)
    assert wire.runner.excluded == {"sony": "RNM-SECAGG-0001"}
    assert isinstance(wire.outcomes["sony"], Exception)
    assert wire.error is None, "three others audited it"
