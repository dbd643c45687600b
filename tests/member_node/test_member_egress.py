import os
import threading

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedproto.errors import FederationError
from fedproto.ids import sha256_hex
from fedproto.v1 import exchange_pb2_grpc, governance_pb2_grpc, rounds_pb2_grpc
from fedproto.v1.exchange_pb2 import CoordinatorFrame, Hello, MemberFrame
from fedproto.v1.governance_pb2 import ActRequest, ActResponse
from fedproto.v1.rounds_pb2 import StartRequest
from member_node import egress, gate
from member_node.egress import EgressJournal
from member_node.gate import gated, kind_of

CANARY = b"canary-4f1d-secret"


def journal(root):
    return EgressJournal(root, lambda: 1_700_000_000_000)


def test_what_was_recorded_is_read_back_and_added_up(tmp_path):
    book = journal(tmp_path)
    book.record("exchange.hello", b"abc", to="c:1", run="1" * 32, round_no=2)
    book.record("exchange.hello", b"de", to="c:1")
    book.record_stream("flower.tunnel", 1000, to="g:1")
    lines = egress.read(tmp_path)
    assert [(d.kind, d.bytes, d.sha256) for d in lines[:2]] == [
        ("exchange.hello", 3, sha256_hex(b"abc")),
        ("exchange.hello", 2, sha256_hex(b"de")),
    ]
    assert [(t.kind, t.messages, t.bytes) for t in egress.totals(lines)] == [
        ("exchange.hello", 2, 5),
        ("flower.tunnel", 1, 1000),
    ]


def test_the_chain_goes_on_after_a_restart(tmp_path):
    for _ in range(3):
        book = journal(tmp_path)
        book.record("ledger.read", b"x", to="c:1")
        book.close()
    assert [d.n for d in egress.read(tmp_path)] == [0, 1, 2]


def test_a_kind_that_is_on_no_list_stays_inside_and_leaves_no_line(tmp_path):
    book = journal(tmp_path)
    with pytest.raises(FederationError) as refusal:
        book.record("telemetry.event", CANARY, to="example.com:443")
    assert refusal.value.code == "RNM-EGRESS-0001"
    assert egress.read(tmp_path) == ()


def test_the_journal_never_holds_what_a_message_says(tmp_path):
    book = journal(tmp_path)
    book.record("governance.vote", CANARY * 20, to="c:1")
    assert CANARY not in (tmp_path / "egress.jsonl").read_bytes()
    assert (tmp_path / "egress.jsonl").stat().st_mode & 0o777 == 0o600


def test_half_a_line_left_by_a_kill_is_cut_off_since_its_message_never_left(tmp_path):
    book = journal(tmp_path)
    book.record("ledger.read", b"x", to="c:1")
    path = tmp_path / "egress.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"at":17')
    journal(tmp_path).record("ledger.read", b"y", to="c:1")
    assert path.read_bytes().startswith(whole)
    assert len(egress.read(tmp_path)) == 2


@given(st.data())
def test_a_changed_removed_or_swapped_line_is_found(tmp_path_factory, data):
    root = tmp_path_factory.mktemp("journal")
    book = journal(root)
    for size in range(5):
        book.record("ledger.read", b"z" * size, to="c:1")
    path = root / "egress.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    # The last line is protected by nothing that follows it, but for its own form.
    place = data.draw(st.integers(0, 3))
    match data.draw(st.sampled_from(["change", "remove", "swap"])):
        case "change":
            lines[place] = lines[place].replace(b'"to":"c:1"', b'"to":"c:2"')
        case "remove":
            del lines[place]
        case _:
            lines[place], lines[place + 1] = lines[place + 1], lines[place]
    path.write_bytes(b"".join(lines))
    with pytest.raises(FederationError) as refusal:
        egress.read(root)
    assert refusal.value.code == "RNM-EGRESS-0002"
    with pytest.raises(FederationError):
        journal(root)


def test_threads_write_whole_lines_in_one_chain(tmp_path):
    book = journal(tmp_path)
    workers = [
        threading.Thread(
            target=lambda: [book.record("ledger.read", b"x", to="c:1") for _ in range(20)]
        )
        for _ in range(5)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(egress.read(tmp_path)) == 100


def test_a_full_disk_keeps_the_message_back_and_the_journal_whole(tmp_path, monkeypatch):
    book = journal(tmp_path)
    book.record("ledger.read", b"x", to="c:1")

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", full)
        with pytest.raises(FederationError) as refusal:
            book.record("ledger.read", b"y", to="c:1")
    assert refusal.value.code == "RNM-DISK-0001"
    book.record("ledger.read", b"z", to="c:1")
    assert [d.sha256 for d in egress.read(tmp_path)] == [sha256_hex(b"x"), sha256_hex(b"z")]


class Coordinator:
    """Takes whatever comes, and keeps it."""

    def __init__(self):
        self.got = []
        self.journal_at_arrival = []

    def handler(self, root):
        def act(request, _):
            self.got.append(request.SerializeToString())
            self.journal_at_arrival.append(egress.read(root))
            return ActResponse(index=1)

        def session(requests, _):
            for request in requests:
                self.got.append(request.SerializeToString())
                self.journal_at_arrival.append(egress.read(root))
                yield CoordinatorFrame(key_list=b"k")

        unary = grpc.unary_unary_rpc_method_handler(
            act, ActRequest.FromString, ActResponse.SerializeToString
        )
        stream = grpc.stream_stream_rpc_method_handler(
            session, MemberFrame.FromString, CoordinatorFrame.SerializeToString
        )
        return (
            grpc.method_handlers_generic_handler(
                "fedproto.v1.Governance", dict.fromkeys(("Vote", "Propose"), unary)
            ),
            grpc.method_handlers_generic_handler("fedproto.v1.Exchange", {"Session": stream}),
        )


@pytest.fixture
def wire(tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    coordinator = Coordinator()
    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers(coordinator.handler(tmp_path))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    to = f"127.0.0.1:{port}"
    with grpc.insecure_channel(to) as channel:
        yield coordinator, gated(channel, journal(tmp_path), to)
    server.stop(0)


def test_each_message_is_in_the_journal_before_it_arrives(wire, tmp_path):
    coordinator, channel = wire
    governance_pb2_grpc.GovernanceStub(channel).Vote(ActRequest(envelope=b"ballot"), timeout=10)
    stub = exchange_pb2_grpc.ExchangeStub(channel.about("7" * 32, 3))
    frames = [MemberFrame(hello=Hello(ctx=b"c")), MemberFrame(advertise=b"a")]
    assert len(list(stub.Session(iter(frames)))) == 2
    kinds = ["governance.vote", "exchange.hello", "exchange.advertise"]
    assert [d.kind for d in egress.read(tmp_path)] == kinds
    for number, (message, seen) in enumerate(
        zip(coordinator.got, coordinator.journal_at_arrival, strict=True)
    ):
        assert seen[number].sha256 == sha256_hex(message)
        assert seen[number].bytes == len(message)
    last = egress.read(tmp_path)[-1]
    assert (last.run, last.round) == ("7" * 32, 3)


def test_a_method_that_members_have_no_use_for_is_kept_back(wire, tmp_path):
    coordinator, channel = wire
    with pytest.raises(FederationError) as refusal:
        rounds_pb2_grpc.RoundsStub(channel).Start(StartRequest(run="1" * 32), timeout=5)
    assert refusal.value.code == "RNM-EGRESS-0001"
    with pytest.raises(FederationError):
        governance_pb2_grpc.GovernanceStub(channel).Propose(ActRequest(envelope=CANARY), timeout=5)
    assert coordinator.got == []
    assert egress.read(tmp_path) == ()


def test_a_frame_that_carries_nothing_known_ends_the_stream_unsent(wire, tmp_path):
    coordinator, channel = wire
    stub = exchange_pb2_grpc.ExchangeStub(channel)
    with pytest.raises(grpc.RpcError):
        list(stub.Session(iter([MemberFrame()])))
    with pytest.raises(grpc.RpcError):
        list(stub.Session(iter([ActRequest(envelope=CANARY)])))
    assert coordinator.got == []
    assert egress.read(tmp_path) == ()


def test_every_frame_that_a_member_can_send_has_a_kind_of_its_own():
    for field in MemberFrame.DESCRIPTOR.oneofs_by_name["frame"].fields:
        frame = MemberFrame()
        if field.type == field.TYPE_MESSAGE:
            getattr(frame, field.name).SetInParent()
        else:
            setattr(frame, field.name, b"x")
        assert kind_of("/fedproto.v1.Exchange/Session", frame) in egress.KINDS


def test_every_method_that_the_gate_lets_through_is_a_kind_of_the_journal():
    """A kind that the journal does not know keeps its message inside for good."""
    assert set(gate._METHODS.values()) <= set(egress.KINDS)
