"""Real agents against the real coordinator; Flower alone is stood in for by a direct hand-over."""

import json
import queue
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from test_member_agent import FILE, INITIAL, MANIFEST, MEMBERS, PARAMETERS, Node, free_port, until

from audit.replay import replay
from federation.coordinator import Coordinator
from fedproto import jcs
from fedproto.errors import LocalFault
from fedproto.events.governance import ProposalOpened
from fedproto.events.models import BaseModel, BaseModelApproved
from fedproto.governance.charter import Action
from fedproto.ids import sha256_hex
from fedproto.layout import vector_digest
from fedproto.party import Party, now_ms
from fedproto.statements import Head, Trace
from fedproto.v1.dispatch_pb2 import NodeReply, ReportRequest
from member_node import egress
from member_node import policy as policies
from renmei.consortium import found as found_consortium

NO_TRACE = Trace(trace_id="0" * 32, span_id="0" * 16)


class Hand:
    """Carries orders from the coordinator to the nodes and replies back, as Flower would."""

    def __init__(self):
        self.nodes = {}
        self.coordinator = None
        self.answers = queue.SimpleQueue()

    def start(self):
        """There is nothing to start."""

    stop = check = start

    def register_node(self, member, key):
        """Every node is known."""

    def node_key(self, key):
        return key

    def start_run(self, run):
        threading.Thread(target=self._carry, args=(run,), daemon=True).start()
        return 1

    def stop_run(self, flower_run):
        """It ends with the orders."""

    def status(self, flower_run):
        return "running"

    def _carry(self, run):
        with ThreadPoolExecutor(4) as pool:
            while not (order := self.coordinator.orders.take(run, Active())).finished:
                pool.map(lambda name, order=order: self._ask(name, order, run), self.nodes)

    def _ask(self, name, order, run):
        answer = self.nodes[name].tasks.ask(order.authorisation)
        self.answers.put((name, answer))
        reply = NodeReply(member=name, receipt=answer.receipt, code=answer.code, why=answer.why)
        self.coordinator.orders.report(ReportRequest(run=run, ctx=order.ctx, replies=[reply]))


class Active:
    def is_active(self):
        return True


class Federation:
    def __init__(self, root, plan_of, willing):
        self.consortium = found_consortium(
            root,
            consortium="test",
            coordinator=f"127.0.0.1:{free_port()}",
            gateway=f"127.0.0.1:{free_port()}",
        )
        self.hand = Hand()
        self.coordinator = self.hand.coordinator = Coordinator(
            self.consortium.party("coordinator"), lambda *_: self.hand
        )
        self.coordinator.start()
        # Acts are put in before any node runs; a real coordinator waits for its witnesses first.
        self.coordinator.ledger.release()
        base = self._offer(plan_of)
        self.nodes = self.hand.nodes
        for name in MEMBERS:
            party = self.consortium.party(name)
            policies.save(party, replace(willing, base_models=(base,)))
            (party / "data" / "train.jsonl").write_text(json.dumps({"text": "x"}) + "\n")
            self.nodes[name] = Node(party)

    def _offer(self, plan_of):
        store = self.coordinator.artifacts
        base = sha256_hex(MANIFEST)
        store.put(sha256_hex(FILE), iter([FILE]), vector=False)
        store.put(base, iter([MANIFEST]), vector=False)
        store.put(vector_digest(INITIAL), iter([INITIAL.tobytes()]), vector=True)
        plan = plan_of(
            base_manifest_sha256=base,
            parameters=PARAMETERS,
            initial_adapter=vector_digest(INITIAL),
        )
        training = replace(plan.training, rounds=2)
        aggregation = replace(plan.aggregation, momentum_milli=0)
        self.plan = replace(plan, training=training, aggregation=aggregation, phase_timeout_s=30)
        self.act(
            "pfn",
            BaseModelApproved(
                model=BaseModel(
                    name="base",
                    manifest_sha256=base,
                    corpus_sha256=sha256_hex(b"corpus"),
                    licence="Apache-2.0",
                    parameters=1000,
                ),
                proposal="",
                votes=(),
            ),
        )
        return base

    def act(self, member, body):
        from fedproto.statements import seal_event

        party = Party.load(self.consortium.party(member))
        ledger = self.coordinator.ledger
        head = Head(size=ledger.head.size, root=ledger.head.root)
        charter = ledger.state.charter.digest
        event = party.event(body, charter=charter, head=head, trace=NO_TRACE)
        return self.coordinator.register.admit(seal_event(event, (party.signing_key,)))

    def start_run(self):
        self.act(
            "secretariat",
            ProposalOpened(
                action=Action.APPROVE_RUN,
                terms=self.plan,
                terms_sha256=self.plan.digest,
                closes_at=now_ms() + 60_000,
            ),
        )
        ledger = self.coordinator.ledger
        until(lambda: self.coordinator.tick() or ledger.state.runs, "a mandate")
        run = next(iter(ledger.state.runs))
        until(lambda: ledger.checkpoint(ledger.head.size), "a cosigned mandate")
        self.coordinator.runs.start(run, now_ms())
        return run

    def rounds(self, run):
        return self.coordinator.ledger.state.rounds(run)

    def stop(self):
        # The coordinator first: it waits for its witnesses, which the nodes are.
        self.coordinator.stop()
        for node in self.nodes.values():
            node.stop()


@pytest.fixture
def federation(tmp_path, plan_of, willing):
    made = Federation(tmp_path / "consortium", plan_of, willing)
    yield made
    made.stop()


def test_a_run_of_two_rounds_from_proposal_to_private_adapters(federation):
    run = federation.start_run()
    nodes = federation.nodes.values()
    until(lambda: all(node.trainer.personalised for node in nodes), "every private adapter")
    assert [attempt.aggregated for attempt in federation.rounds(run)] == [True, True]
    mean = np.mean([node.trainer.delta for node in nodes], axis=0)
    for node in nodes:
        # Two rounds of the same deltas at an outer rate of one.
        assert np.abs(node.trainer.personalised[0] - 2 * mean).max() < 1e-3
        assert {"exchange.reveal", "flower.reply"} <= set(node.kinds())
    for attempt in federation.rounds(run):
        assert {receipt.member for receipt in attempt.receipts} == set(MEMBERS)
    ledger = federation.coordinator.ledger
    assert not replay(ledger.entries(0, ledger.head.size)).violations


def test_a_round_goes_on_without_a_member_whose_trainer_fails(federation):
    broken = federation.nodes["nec"]
    broken.trainer.fail = LocalFault("RNM-DATA-0002", what="x", why="y", mend="z")
    run = federation.start_run()
    until(lambda: sum(a.aggregated for a in federation.rounds(run)) == 2, "two rounds")
    for attempt in federation.rounds(run):
        if attempt.aggregated:
            assert "nec" not in attempt.closed.body.included
            reasons = {e.member: e.reason for e in attempt.closed.body.excluded}
            assert reasons == {"nec": "RNM-DATA-0002"}
    others = [n.trainer.delta for name, n in federation.nodes.items() if name != "nec"]
    closed = federation.rounds(run)[-1].closed.body
    adapter = federation.coordinator.artifacts.adapter(closed.model_out, PARAMETERS)
    assert np.abs(adapter - 2 * np.mean(others, axis=0)).max() < 1e-3


def test_a_member_that_refuses_by_policy_is_left_out_and_says_no_more_than_that(federation):
    strict = federation.nodes["sony"]
    run_policy = policies.load(strict.root)
    until(lambda: egress.read(strict.root), "the node speaks")
    original = federation.coordinator.runs.start

    def tighten_then_start(run, now):
        policies.save(strict.root, replace(run_policy, max_steps=1))
        original(run, now)

    federation.coordinator.runs.start = tighten_then_start
    run = federation.start_run()
    until(lambda: sum(a.aggregated for a in federation.rounds(run)) == 2, "two rounds")
    first = federation.rounds(run)[0].closed.body
    assert {e.member: e.reason for e in first.excluded} == {"sony": "RNM-CONSENT-0004"}
    assert not strict.trainer.trained
    assert "exchange.hello" not in strict.kinds()


def test_a_node_that_is_started_again_knows_what_it_answered(federation):
    node = federation.nodes["honda"]
    gate = threading.Event()
    trained = node.trainer.train

    def slow(round_no, adapter):
        if round_no == 2:
            gate.wait(20)
        return trained(round_no, adapter)

    for other in federation.nodes.values():
        other.trainer.train = slow if other is node else other.trainer.train
    run = federation.start_run()
    until(lambda: len(federation.rounds(run)) == 2, "the second round is open")
    gate.set()
    until(lambda: sum(a.aggregated for a in federation.rounds(run)) == 2, "two rounds")
    federation.nodes["honda"].restart()
    restarted = federation.nodes["honda"]
    assert jcs.loads((restarted.root / "marks.json").read_bytes())["marks"]["runs"][run] == {
        "attempt": 1,
        "pass_no": 1,
        "round": 2,
    }
