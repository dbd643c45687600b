"""Real gRPC on loopback, the real two halves of secure aggregation, and every byte that crossed."""

import hashlib
import json
import os
import threading
from concurrent.futures import Future, ThreadPoolExecutor

import grpc
import numpy as np
import pytest
from node_kit import MODEL_OUT, PATIENCE_S, ExchangeHalf

from fedproto.errors import FederationError, LocalFault, PeerFault
from fedproto.evidence import EvidenceStore
from fedproto.ids import MemberId, sha256_hex
from fedproto.outbox import SESSION_BYTES
from fedproto.party import utc_now
from fedproto.secagg.params import Params
from fedproto.secagg.quantise import Rounding, quantise
from fedproto.secagg.ring import blocks
from fedproto.v1.exchange_pb2 import Abort, CoordinatorFrame, MemberFrame, Welcome
from member_node import egress
from member_node.consent import authenticate
from member_node.egress import EgressJournal
from member_node.gate import gated
from member_node.secagg_client import SecAggClient
from member_node.session import ExchangeSession, TrainedDelta


@pytest.fixture
def attempt(approved, key_of, plan_of, make_world, tmp_path):
    return Attempt(make_world, plan_of, key_of, tmp_path)


class Attempt:
    def __init__(self, make_world, plan_of, key_of, root, parameters=500_000):
        world = make_world()
        world.propose(plan_of(parameters=parameters))
        world.approve()
        self.authorisation = authenticate(world.sign(world.authorisation()), world.state)
        self.names = [MemberId(name) for name in world.mandate.members]
        self.roster = {name: key_of(name).verify_key for name in self.names}
        self.key_of = key_of
        self.root = root
        self.coordinator = ExchangeHalf(self.authorisation, self.roster, key_of("coordinator"))
        rng = np.random.default_rng(7)
        shape = (len(self.names), parameters)
        scale = 0.5 / np.sqrt(parameters)
        values = (rng.standard_normal(shape) * scale).astype(np.float32)
        self.deltas = dict(zip(self.names, values, strict=True))
        self.seeds = {name: hashlib.sha256(name.encode()).digest() for name in self.names}
        self.receipts, self.findings, self.opened = {}, {}, {}
        self.sessions = {}
        self.patience_s = 1.0

    def run(self, trained=None):
        """Run all members at once; return what each ended with: a result or an error."""
        servers, outcomes = [], {}
        with ThreadPoolExecutor(len(self.names)) as pool:
            futures = {}
            for name in self.names:
                server, port = _serve(self.coordinator.session(name))
                servers.append(server)
                future = (trained or {}).get(name) or self.ready(name)
                futures[name] = pool.submit(self._member, name, port, future)
            for name, future in futures.items():
                error = future.exception(PATIENCE_S)
                outcomes[name] = error if error is not None else future.result()
        for server in servers:
            server.stop(0)
        return outcomes

    def ready(self, name):
        future = Future()
        future.set_result(TrainedDelta(delta=self.deltas[name], weight=0.5))
        return future

    def _member(self, name, port, trained):
        (self.root / name).mkdir()
        journal = EgressJournal(self.root / name, lambda: 1)
        to = f"127.0.0.1:{port}"
        with grpc.insecure_channel(to) as channel:
            session = self.sessions[name] = ExchangeSession(
                channel=gated(channel, journal, to),
                authorisation=self.authorisation,
                half=SecAggClient(
                    authorisation=self.authorisation,
                    member=name,
                    key=self.key_of(name),
                    roster=self.roster,
                    entropy=os.urandom,
                ),
                trained=trained,
                rounding_seed=self.seeds[name],
                me=name,
                sign_receipt=lambda upload: self.receipts.setdefault(name, upload),
                sign_audit=lambda finding: self.findings.setdefault(name, finding),
                note_opened=lambda survivors: self.opened.setdefault(name, survivors),
                timeout_s=PATIENCE_S,
                patience_s=self.patience_s,
            )
            return session.run()


def _serve(session):
    server = grpc.server(ThreadPoolExecutor(2))
    handler = grpc.stream_stream_rpc_method_handler(
        session, MemberFrame.FromString, CoordinatorFrame.SerializeToString
    )
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("fedproto.v1.Exchange", {"Session": handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, port


def test_four_members_over_grpc_give_the_exact_mean(attempt):
    outcomes = attempt.run()
    for name in attempt.names:
        assert outcomes[name].model_out == MODEL_OUT.hex(), outcomes[name]
        assert outcomes[name].included == tuple(attempt.names)
        assert attempt.receipts[name] == outcomes[name].upload
        assert outcomes[name].upload.bytes == 4 * (500_000 + 1)
    mean = np.mean(list(attempt.deltas.values()), axis=0)
    assert np.abs(attempt.coordinator.sum.mean_delta - mean).max() < 1e-4


def test_no_window_of_a_delta_ever_leaves_a_member_unmasked(attempt):
    """Neither as floats nor quantised, at any offset, in anything that crossed the wire."""
    attempt.run()
    for name in attempt.names[:2]:
        wire = b"".join(attempt.coordinator.received[name])
        assert len(wire) > 2_000_000
        params = Params.of(attempt.authorisation.content)
        vector = quantise(attempt.deltas[name], 0.5, params, attempt.seeds[name])
        words = np.empty(vector.words, np.uint32)
        rounding = Rounding(vector)
        for chunk, block in blocks(words):
            rounding.write(chunk, block)
        for secret in (attempt.deltas[name].tobytes(), words.tobytes()):
            assert not _shares_a_window(wire, secret)
    # The search itself finds what it looks for.
    assert _shares_a_window(
        b"x" + attempt.deltas[name].tobytes()[4096:4200], attempt.deltas[name].tobytes()
    )


def _shares_a_window(haystack, secret, width=16):
    """Say whether any aligned window of the secret occurs in the haystack at any offset."""
    windows = {secret[i : i + width] for i in range(0, len(secret) - width + 1, 4)}
    # A window of 16 bytes at a multiple of 4: every run of 19 bytes that left holds one.
    raw = np.frombuffer(haystack, np.uint8)
    for shift in range(4):
        usable = (len(raw) - shift) // 4 * 4
        words = raw[shift : shift + usable].tobytes()
        seen = {words[i : i + width] for i in range(0, len(words) - width + 1, 4)}
        if seen & windows:
            return True
    return False


def test_the_journal_names_every_message_that_arrived_in_order_and_no_other(attempt):
    attempt.run()
    for name in attempt.names:
        lines = egress.read(attempt.root / name)
        arrived = attempt.coordinator.received[name]
        assert [d.sha256 for d in lines] == [sha256_hex(message) for message in arrived]
        assert [d.bytes for d in lines] == [len(message) for message in arrived]
        kinds = [d.kind.removeprefix("exchange.") for d in lines]
        assert kinds == [
            "hello",
            "advertise",
            "encrypted_shares",
            "upload_begin",
            "masked_chunk",
            "masked_chunk",
            "masked_header",
            "confirm",
            "reveal",
            *["read_chunk"] * (4 * attempt.findings[name].chunks),
            "audited",
        ]
        assert {(d.run, d.round) for d in lines} == {("7" * 32, 1)}


def test_keys_are_exchanged_while_the_trainer_still_works(attempt):
    late = {name: Future() for name in attempt.names}

    def finish_training():
        # Every member has shared its keys before anybody's training is done.
        for name in attempt.names:
            _until(lambda name=name: len(attempt.coordinator.received[name]) >= 3)
        for name in attempt.names:
            late[name].set_result(TrainedDelta(delta=attempt.deltas[name], weight=1.0))

    threading.Thread(target=finish_training, daemon=True).start()
    outcomes = attempt.run(late)
    assert all(outcome.model_out for outcome in outcomes.values())


def _until(condition):
    waiting = threading.Event()
    for _ in range(3000):
        if condition():
            return
        waiting.wait(0.01)
    raise AssertionError("it never came to this")


def test_a_trainer_that_fails_ends_the_attempt_and_its_words_stay_at_home(attempt):
    canary = "canary-path-/secret/corpus.jsonl"
    failed = Future()
    failed.set_exception(LocalFault("RNM-DATA-0002", what="x", why=canary, mend="y"))
    outcomes = attempt.run({attempt.names[0]: failed})
    assert outcomes[attempt.names[0]].code == "RNM-DATA-0002"
    last = MemberFrame.FromString(attempt.coordinator.received[attempt.names[0]][-1])
    assert last.abort.code == "RNM-DATA-0002"
    for messages in attempt.coordinator.received.values():
        assert canary.encode() not in b"".join(messages)


@pytest.mark.parametrize("kind", ["key_list", "share_list", "survivor_list", "confirmations"])
def test_a_list_that_is_not_genuine_is_refused_and_the_coordinator_named(attempt, kind):
    attempt.coordinator.bend[kind] = CoordinatorFrame(**{kind: b"\x0a\x03bad"})
    for outcome in attempt.run().values():
        assert isinstance(outcome, PeerFault), outcome
        assert outcome.peer == "coordinator"
    for name in attempt.names:
        frames = [MemberFrame.FromString(m) for m in attempt.coordinator.received[name]]
        assert all(frame.WhichOneof("frame") != "reveal" for frame in frames)


def test_a_frame_out_of_order_is_refused(attempt):
    attempt.coordinator.bend["key_list"] = CoordinatorFrame(confirmations=b"too early")
    for outcome in attempt.run().values():
        assert isinstance(outcome, PeerFault)
        assert outcome.code == "RNM-SECAGG-0001"
        assert "expected key_list, got confirmations" in outcome.why


@pytest.mark.parametrize("credit", [0, 3, 1 << 31])
def test_a_credit_for_more_than_there_is_is_refused(attempt, credit):
    attempt.coordinator.bend["credit"] = CoordinatorFrame(credit=credit)
    for outcome in attempt.run().values():
        assert isinstance(outcome, PeerFault)
        assert f"one for {credit}" in outcome.why


def test_nothing_of_an_upload_leaves_without_a_credit(attempt):
    """The coordinator asks for the confirmation at once: its list cannot hold a whole upload."""
    attempt.coordinator.bend["credit"] = CoordinatorFrame(survivor_list=b"")
    for outcome in attempt.run().values():
        assert isinstance(outcome, PeerFault)
    for messages in attempt.coordinator.received.values():
        frames = [MemberFrame.FromString(message) for message in messages]
        assert all(frame.WhichOneof("frame") != "masked_chunk" for frame in frames)


def test_a_refused_message_is_kept_as_evidence(attempt):
    attempt.coordinator.bend["survivor_list"] = CoordinatorFrame(survivor_list=b"\x0a\x03bad")
    outcomes = attempt.run()
    name = attempt.names[0]
    fault, received = outcomes[name], attempt.sessions[name].last_received
    store = EvidenceStore(root=attempt.root / name)
    path = store.keep(fault, received, attempt.authorisation.raw, utc_now())
    case = json.loads(path.read_bytes())
    kept = path.with_suffix(".received").read_bytes()
    assert kept == CoordinatorFrame(survivor_list=b"\x0a\x03bad").SerializeToString()
    assert case["received_sha256"] == sha256_hex(kept)
    assert case["peer"] == "coordinator"
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_receipt_that_the_ledger_refuses_keeps_the_member_out_of_the_sum(attempt):
    def refuse(_):
        raise LocalFault("RNM-GOV-0001", what="no", why="no", mend="no")

    attempt.receipts = type("Refusing", (), {"setdefault": lambda _, name, upload: refuse(name)})()
    outcomes = attempt.run()
    assert {outcome.code for outcome in outcomes.values()} == {"RNM-GOV-0001"}
    for name in attempt.names:
        frames = [MemberFrame.FromString(m) for m in attempt.coordinator.received[name]]
        assert [f.WhichOneof("frame") for f in frames][-1] == "abort"
        assert all(frame.WhichOneof("frame") != "confirm" for frame in frames)


@pytest.mark.parametrize(
    ("abort", "code"),
    [
        (Abort(code="RNM-SECAGG-0002", why="too few"), "RNM-SECAGG-0002"),
        (Abort(code="made up", why="\x1b[31mred"), "RNM-ROUND-0001"),
    ],
)
def test_an_abort_of_the_coordinator_becomes_a_named_error(attempt, abort, code):
    attempt.coordinator.bend["share_list"] = CoordinatorFrame(abort=abort)
    for outcome in attempt.run().values():
        assert isinstance(outcome, FederationError)
        assert outcome.code == code
        assert "\x1b" not in outcome.why


def test_an_abort_is_noticed_while_the_trainer_still_works(attempt):

    never = {name: Future() for name in attempt.names}

    def serve_two(requests, _):
        next(requests)
        yield CoordinatorFrame(welcome=Welcome())
        next(requests)
        yield CoordinatorFrame(abort=Abort(code="RNM-ROUND-0002", why="time is up"))

    server, port = _serve(serve_two)
    with pytest.raises(FederationError) as refusal:
        attempt._member(attempt.names[0], port, never[attempt.names[0]])
    server.stop(0)
    assert refusal.value.code == "RNM-ROUND-0002"


def test_a_coordinator_that_vanishes_is_named(attempt):
    server, port = _serve(lambda requests, _: iter(()))
    with pytest.raises(FederationError) as refusal:
        attempt._member(attempt.names[0], port, Future())
    server.stop(0)
    assert refusal.value.code == "RNM-ROUND-0001"
    with pytest.raises(FederationError) as refusal:
        attempt._member(attempt.names[1], 1, Future())
    assert refusal.value.code == "RNM-TLS-0001"


def test_a_trained_delta_has_no_words_for_a_log(attempt):
    shown = repr(TrainedDelta(delta=attempt.deltas[attempt.names[0]], weight=0.25))
    assert "0.25" not in shown
    assert "array" not in shown


def test_hello_names_the_authorisation_that_was_consented_to(attempt):
    attempt.run()
    first = MemberFrame.FromString(attempt.coordinator.received[attempt.names[0]][0])
    assert first.hello.ctx == attempt.authorisation.ctx
    assert len(first.hello.session) == SESSION_BYTES
