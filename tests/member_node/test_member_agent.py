"""Four real agents against a small coordinator: real ledger, witnesses, mTLS and secure aggregation.

The trainer and Flower are stood in for: they have tests of their own, and processes of their own.
"""

import io
import json
import queue
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from node_kit import PATIENCE_S, SmallCoordinator

from audit.replay import replay
from fedproto import jcs
from fedproto.authorisation import open_authorisation, seal_authorisation
from fedproto.errors import FederationError, LocalFault
from fedproto.events.rounds import Outcome
from fedproto.ids import sha256_hex
from fedproto.party import Party
from fedproto.statements import leaf_id, open_event
from member_node import egress
from member_node import policy as policies
from member_node.agent import Agent
from member_node.ballot import Found
from member_node.log import Log
from member_node.marks import Mark, MarkBook
from member_node.ports import Task
from member_node.session import TrainedDelta
from renmei.consortium import found as found_consortium

CANARY = "canary-corpus-1b7f"
PARAMETERS = 3000
RUN = "7" * 32
INITIAL = np.zeros(PARAMETERS, np.float32)
FILE = b"weights " * 1000
MANIFEST = jcs.dumps(
    {
        "v": 1,
        "files": [{"name": "model.safetensors", "sha256": sha256_hex(FILE), "bytes": len(FILE)}],
    }
)


class Trainer:
    """Stands in for the member's trainer: knows the corpus, gives a fixed delta."""

    def __init__(self, name):
        self.name = name
        self.prepared = []
        self.trained = []
        self.personalised = []
        self.fail = None
        rng = np.random.default_rng(len(name))
        self.delta = (rng.standard_normal(PARAMETERS) * 1e-3).astype(np.float32)

    def prepare(self, plan, base_dir):
        self.prepared.append((plan.digest, (base_dir / "model.safetensors").read_bytes()))
        return Found(
            layout_sha256=sha256_hex(b"layout"),
            parameters=PARAMETERS,
            initial=INITIAL,
            dataset=sha256_hex(f"{self.name} {CANARY}".encode()),
        )

    def train(self, round_no, adapter):
        if self.fail:
            raise self.fail
        self.trained.append((round_no, adapter.copy()))
        return TrainedDelta(delta=self.delta, weight=0.5)

    def personalise(self, adapter):
        self.personalised.append(adapter.copy())
        return Path("private")


class Tasks:
    """Stands in for Flower: hands tasks to the agent, one by one."""

    def __init__(self):
        self._queue = queue.SimpleQueue()

    def serve(self, answer):
        while (item := self._queue.get()) is not None:
            task, reply = item
            reply.put(answer(task))

    def ask(self, raw):
        reply = queue.SimpleQueue()
        self._queue.put((Task(authorisation=raw, traceparent=""), reply))
        return reply.get(timeout=2 * PATIENCE_S)

    def stop(self):
        self._queue.put(None)


class Shells:
    def __init__(self, name):
        self._trainer, self._tasks = Trainer(name), Tasks()

    def trainer(self, _):
        return self._trainer

    def tasks(self, _):
        return self._tasks

    def stop(self):
        pass


class Node:
    """One member's running agent."""

    def __init__(self, root):
        self.root = root
        self.shells = Shells(root.name)
        self.trainer, self.tasks = self.shells._trainer, self.shells._tasks
        self.start()

    def start(self):
        self.agent = Agent(self.root, self.shells)
        self.output = io.StringIO()
        object.__setattr__(self.agent.log, "stream", self.output)
        ready = threading.Event()
        self.thread = threading.Thread(
            target=self.agent.run, args=(lambda _: ready.set(),), daemon=True
        )
        self.thread.start()
        assert ready.wait(PATIENCE_S)

    def stop(self):
        self.agent.stop()
        self.thread.join(PATIENCE_S)
        assert not self.thread.is_alive()

    def restart(self):
        self.stop()
        self.shells = Shells(self.root.name)
        self.trainer, self.tasks = self.shells._trainer, self.shells._tasks
        self.start()

    def kinds(self):
        return [departure.kind for departure in egress.read(self.root)]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(condition, what):
    waiting = threading.Event()
    for _ in range(PATIENCE_S * 50):
        if condition():
            return
        waiting.wait(0.02)
    raise AssertionError(f"never: {what}")


class Federation:
    def __init__(self, root, plan_of, willing):
        address = f"127.0.0.1:{free_port()}"
        self.consortium = found_consortium(
            root, consortium="test", coordinator=address, gateway=f"127.0.0.1:{free_port()}"
        )
        self.coordinator = SmallCoordinator(self.consortium, address)
        self.pretrainer = Party.load(self.consortium.party("pfn"))
        self.secretariat = Party.load(self.consortium.party("secretariat"))
        self.coordinator.artifacts[sha256_hex(FILE)] = FILE
        self.coordinator.artifacts[sha256_hex(MANIFEST)] = MANIFEST
        self.coordinator.offer_adapter(INITIAL)
        self.base = self.coordinator.approve_base(self.pretrainer, MANIFEST)
        self.policy = replace(willing, base_models=(self.base,))
        self.plan = plan_of(
            base_manifest_sha256=self.base, parameters=PARAMETERS, initial_adapter=initial_digest()
        )
        self.plan = replace(self.plan, training=replace(self.plan.training, rounds=2))
        self.nodes = {}

    def join(self, *names, policy=None):
        for name in names:
            root = self.consortium.party(name)
            policies.save(root, policy or self.policy)
            (root / "data").mkdir(exist_ok=True)
            (root / "data" / "train.jsonl").write_text(json.dumps({"text": CANARY}) + "\n")
            self.nodes[name] = Node(root)
        return self

    def propose(self, plan=None):
        self.proposal = self.coordinator.propose(self.secretariat, plan or self.plan)
        return self.proposal

    def voted(self, count):
        until(lambda: len(self.ballots()) >= count, f"{count} ballots")

    def ballots(self):
        return self.coordinator.ledger.state.ballots(self.proposal)

    def approve(self):
        self.propose()
        self.voted(4)
        return self.coordinator.mandate(self.proposal, RUN)

    def round(self, raw=None, **changes):
        """Play one round with every node; return their answers."""
        raw = raw or self.coordinator.authorise(RUN, **changes)
        self.coordinator.start_round(raw)
        return self.ask(raw)

    def ask(self, raw, names=None):
        with ThreadPoolExecutor(4) as pool:
            names = names or list(self.nodes)
            answers = pool.map(lambda name: self.nodes[name].tasks.ask(raw), names)
            return dict(zip(names, answers, strict=True))

    def stop(self):
        for node in self.nodes.values():
            node.stop()
        self.coordinator.stop()


def initial_digest():
    from fedproto.layout import vector_digest

    return vector_digest(INITIAL)


MEMBERS = ("honda", "nec", "softbank", "sony")


@pytest.fixture
def federation(tmp_path, plan_of, willing):
    made = Federation(tmp_path / "consortium", plan_of, willing)
    yield made
    made.stop()


@pytest.fixture
def running(federation):
    federation.join(*MEMBERS)
    federation.approve()
    return federation


def receipt_of(federation, answer):
    assert not answer.code, answer
    return open_event(answer.receipt, federation.coordinator.ledger.state.verify_key).event


def test_a_proposal_is_voted_on_and_trained_round_by_round_to_its_end(running):
    coordinator = running.coordinator
    expected = INITIAL
    for number in (1, 2):
        answers = running.round()
        state = coordinator.ledger.state
        attempt = state.rounds(RUN)[-1]
        for name, node in running.nodes.items():
            receipt = receipt_of(running, answers[name])
            assert (receipt.actor.member, receipt.body.round) == (name, number)
            # The receipt that went back by Flower is the very entry of the ledger.
            assert leaf_id(answers[name].receipt) in {r.leaf for r in attempt.receipts}
            assert receipt.body.upload_bytes == 4 * (PARAMETERS + 1)
            assert node.trainer.trained[-1][0] == number
            assert np.array_equal(node.trainer.trained[-1][1], expected)
        mean = np.mean([node.trainer.delta for node in running.nodes.values()], axis=0)
        assert np.abs(coordinator.attempt.sum.mean_delta - mean).max() < 1e-4
        raw = coordinator.artifacts[attempt.closed.body.model_out]
        expected = np.frombuffer(raw, "<f4")
    for node in running.nodes.values():
        until(lambda node=node: node.trainer.personalised, "the private adapter is trained")
        assert np.array_equal(node.trainer.personalised[0], expected)
    entries = coordinator.ledger.entries(0, coordinator.ledger.head.size)
    assert not replay(entries).violations


def test_a_node_remembers_over_whom_it_helped_to_open_a_sum(running):
    running.round()
    for node in running.nodes.values():
        (record,) = json.loads((node.root / "marks.json").read_bytes())["marks"]["opened"].values()
        assert record == {"round": 1, "survivors": sorted(running.nodes)}


def test_what_left_a_node_is_in_its_journal_and_only_kinds_that_may(running):
    running.round()
    for node in running.nodes.values():
        # Whether its replay has been signed by now is a matter of a second.
        # Two of the four members audit the one chunk of this sum.
        kinds = set(node.kinds()) - {"witness.validation", "exchange.read_chunk"}
        assert kinds == {
            *("ledger.read", "witness.answer", "artifact.read", "flower.reply"),
            *("governance.dataset", "governance.vote", "governance.participation"),
            *("exchange.hello", "exchange.advertise", "exchange.encrypted_shares"),
            *("exchange.upload_begin", "exchange.masked_chunk", "exchange.masked_header"),
            *("exchange.confirm", "exchange.reveal", "exchange.audited", "governance.audit"),
        }


def test_no_secret_is_in_a_log_a_journal_or_the_ledger(running):
    running.round()
    secrets = [CANARY.encode()]
    for node in running.nodes.values():
        secrets += [
            (node.root / "keys" / "acting.key").read_bytes().strip(),
            node.trainer.delta.tobytes()[:64],
        ]
    coordinator = running.coordinator
    entries = b"".join(coordinator.ledger.entries(0, coordinator.ledger.head.size))
    for node in running.nodes.values():
        seen = node.output.getvalue().encode() + (node.root / "egress.jsonl").read_bytes() + entries
        assert b"round.consented" in seen
        assert not [secret for secret in secrets if secret in seen]
        for line in node.output.getvalue().splitlines():
            assert set(json.loads(line)) == {
                *("ts", "level", "event", "code", "why", "member"),
                *("run", "round", "count", "trace_id"),
            }


def test_the_base_model_is_fetched_once_by_digest_and_verified(running):
    node = running.nodes["nec"]
    directory = node.root / "models" / running.base
    assert (directory / "model.safetensors").read_bytes() == FILE
    assert sha256_hex((directory / "manifest.json").read_bytes()) == running.base
    assert len(node.trainer.prepared) == 1


def refusal(running, name, raw):
    node = running.nodes[name]
    trained = len(node.trainer.trained)
    answer = running.ask(raw, [name])[name]
    assert not answer.receipt
    # Nothing was trained, and not even the greeting of the exchange left.
    assert len(node.trainer.trained) == trained
    return answer.code


def test_a_forged_authorisation_is_refused_before_anything_is_touched(running):
    raw = running.coordinator.authorise(RUN)
    running.coordinator.start_round(raw)
    content = open_authorisation(raw, running.coordinator.ledger.state.verify_key).content
    forged = seal_authorisation(content, running.secretariat.signing_key)
    assert refusal(running, "nec", forged) == "RNM-CONSENT-0005"
    assert refusal(running, "nec", raw[:-9] + b"A" + raw[-8:]) == "RNM-CONSENT-0005"
    assert "exchange.hello" not in running.nodes["nec"].kinds()


def test_a_round_that_the_ledger_does_not_have_is_refused(running, monkeypatch):
    monkeypatch.setattr("member_node.participation._LEDGER_PATIENCE_S", 1.0)
    raw = running.coordinator.authorise(RUN)
    assert refusal(running, "nec", raw) == "RNM-CONSENT-0001"


def test_a_run_that_no_mandate_covers_is_refused(running, monkeypatch):
    monkeypatch.setattr("member_node.participation._LEDGER_PATIENCE_S", 1.0)
    honest = running.coordinator.authorise(RUN)
    content = open_authorisation(honest, running.coordinator.ledger.state.verify_key).content
    other = replace(content, run="8" * 32)
    raw = seal_authorisation(other, running.coordinator.party.signing_key)
    assert refusal(running, "nec", raw) == "RNM-CONSENT-0001"


def test_a_replayed_authorisation_is_refused(running):
    raw = running.coordinator.authorise(RUN)
    assert all(answer.receipt for answer in running.round(raw).values())
    assert refusal(running, "nec", raw) in {"RNM-CONSENT-0003", "RNM-CONSENT-0005"}


def test_an_attempt_answered_before_a_restart_is_refused_after_it(running):
    """The mark is on the disk before the first key goes out: kill -9 changes nothing."""
    node = running.nodes["nec"]
    node.trainer.fail = LocalFault("RNM-DATA-0002", what="x", why=CANARY, mend="y")
    raw = running.coordinator.authorise(RUN)
    answers = running.round(raw)
    assert {answer.code for answer in answers.values()} >= {"RNM-DATA-0002"}
    assert CANARY not in answers["nec"].why
    assert MarkBook.open(node.root).last(RUN) == Mark(1, 1)
    node.restart()
    assert refusal(running, "nec", raw) == "RNM-CONSENT-0003"


def test_a_new_attempt_after_an_abort_goes_well(running):
    node = running.nodes["nec"]
    node.trainer.fail = LocalFault("RNM-DATA-0002", what="x", why="y", mend="z")
    running.round()
    content = running.coordinator.attempt.half
    del content
    started = running.coordinator.ledger.state.rounds(RUN)[-1].started.body
    running.coordinator.close_round(
        replace_content(running, started), Outcome.ABORTED, started.model_in
    )
    node.trainer.fail = None
    answers = running.round()
    assert all(answer.receipt for answer in answers.values()), answers
    assert MarkBook.open(node.root).last(RUN) == Mark(1, 2)


def replace_content(running, started):
    """Return what `close_round` reads of an authorisation, from the ledger's entry."""
    return type(
        "Content",
        (),
        {
            "run": started.run,
            "round": started.round,
            "attempt": started.attempt,
            "model_in": started.model_in,
            "members": started.invited,
        },
    )


def test_an_expired_authorisation_is_refused(running):
    raw = running.coordinator.authorise(RUN, not_after=1)
    running.coordinator.start_round(raw)
    assert refusal(running, "nec", raw) == "RNM-CONSENT-0002"


def test_an_adapter_made_for_one_member_alone_is_refused(running):
    running.round()
    raw = running.coordinator.authorise(RUN)
    running.coordinator.start_round(raw)
    content = open_authorisation(raw, running.coordinator.ledger.state.verify_key).content
    bait = running.coordinator.offer_adapter(INITIAL + 1)
    for changed in (replace(content, model_in=bait), replace(content, clip_milli=10**6)):
        forged = seal_authorisation(changed, running.coordinator.party.signing_key)
        assert refusal(running, "nec", forged) in {"RNM-CONSENT-0001", "RNM-CONSENT-0006"} | {
            "RNM-CONSENT-0005"
        }


def test_an_adapter_with_other_bytes_than_its_digest_is_refused(running):
    running.round()
    raw = running.coordinator.authorise(RUN)
    digest = running.coordinator.ledger.state.model_out(RUN)
    running.coordinator.artifacts[digest] = (INITIAL + 1).astype("<f4").tobytes()
    running.coordinator.start_round(raw)
    assert refusal(running, "nec", raw) == "RNM-MODEL-0001"


def test_a_policy_tightened_after_the_vote_still_has_the_last_word(running):
    policies.save(running.nodes["nec"].root, replace(running.policy, max_steps=1))
    raw = running.coordinator.authorise(RUN)
    running.coordinator.start_round(raw)
    assert refusal(running, "nec", raw) == "RNM-CONSENT-0004"


def test_a_plan_outside_the_policy_gets_a_no_without_download_or_training(federation):
    federation.join("nec", "honda", "sony")
    greedy = replace(federation.plan, training=replace(federation.plan.training, steps=10_000))
    federation.propose(greedy)
    federation.voted(3)
    assert {ballot.choice.value for ballot in federation.ballots().values()} == {"no"}
    for node in federation.nodes.values():
        assert not node.trainer.prepared
        assert "artifact.read" not in node.kinds()


def test_a_plan_with_another_layout_than_the_trainer_finds_gets_a_no(federation):
    federation.join("nec", "honda", "sony")
    federation.propose(replace(federation.plan, layout_sha256=sha256_hex(b"other")))
    federation.voted(3)
    assert {ballot.choice.value for ballot in federation.ballots().values()} == {"no"}


def test_without_auto_vote_a_person_votes_through_the_nodes_own_door(federation):
    from fedproto.party import runtime_socket
    from member_node import control

    federation.join("nec", "honda")
    federation.join("sony", policy=replace(federation.policy, auto_vote=False))
    proposal = federation.propose()
    federation.voted(2)
    door = runtime_socket(federation.nodes["sony"].root, control.NAME)
    until(lambda: control.ask(door, "status")["waiting"] == [proposal], "the proposal is shown")
    control.ask(door, "vote", proposal=proposal[:16], choice="yes")
    assert federation.ballots()["sony"].choice.value == "yes"
    with pytest.raises(FederationError):
        control.ask(door, "vote", proposal=proposal[:16], choice="no")


def test_a_person_cannot_vote_yes_to_what_the_policy_refuses(federation):
    from fedproto.party import runtime_socket
    from member_node import control

    federation.join("nec", "honda")
    strict = replace(federation.policy, auto_vote=False, max_rank=1)
    federation.join("sony", policy=strict)
    proposal = federation.propose()
    door = runtime_socket(federation.nodes["sony"].root, control.NAME)
    until(lambda: control.ask(door, "status")["waiting"] == [proposal], "the proposal is shown")
    with pytest.raises(FederationError) as refused:
        control.ask(door, "vote", proposal=proposal, choice="yes")
    assert refused.value.code == "RNM-CONSENT-0004"
    control.ask(door, "vote", proposal=proposal, choice="no")
    assert federation.ballots()["sony"].choice.value == "no"


def test_a_second_agent_in_one_directory_is_refused(federation):
    federation.join("nec")
    with pytest.raises(FederationError) as refused:
        Agent(federation.nodes["nec"].root, Shells("nec"))
    assert refused.value.code == "RNM-PROC-0003"


def test_a_node_whose_marks_vanished_does_not_start(federation):
    federation.join("nec")
    node = federation.nodes.pop("nec")
    node.stop()
    (node.root / "marks.json").unlink()
    with pytest.raises(FederationError) as refused:
        Agent(node.root, Shells("nec"))
    assert refused.value.code == "RNM-STATE-0001"


def test_a_key_file_that_others_can_read_keeps_the_node_from_starting(federation):
    root = federation.consortium.party("nec")
    (root / "keys" / "acting.key").chmod(0o644)
    with pytest.raises(FederationError) as refused:
        Agent(root, Shells("nec"))
    assert refused.value.code == "RNM-KEY-0002"


def test_a_log_line_has_no_room_for_anything_else():
    stream = io.StringIO()
    log = Log(member="nec", stream=stream)
    log.info("round.consented", run=RUN, round_no=3)
    fields = json.loads(stream.getvalue())
    assert (fields["event"], fields["run"], fields["round"]) == ("round.consented", RUN, 3)
