"""What a node believes: a real mirror over gRPC, against a coordinator that forces an entry in."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import grpc
import pytest

from audit import merkle
from audit.checkpoint import Checkpoint, TreeHead, sign
from audit.mirror import Mirror
from audit.note import Note, NoteSigner, parse
from fedproto.errors import FederationError
from fedproto.events.governance import Choice
from fedproto.events.rounds import Outcome, RunApproved
from fedproto.statements import leaf_id
from fedproto.v1 import ledger_pb2_grpc
from fedproto.v1.ledger_pb2 import EntriesChunk, GetCheckpointResponse
from member_node.consent import authenticate, check, grounds_of
from member_node.egress import EgressJournal
from member_node.gate import gated
from member_node.ledger_client import LedgerClient

TRAINERS = ("honda", "nec", "softbank", "sony")
RUN = "7" * 32
NOW = 1_800_000_000_000
ORIGIN = "test.example/ledger"
LOG_KEY = NoteSigner(ORIGIN, hashlib.sha256(b"log").digest())


class Rogue(ledger_pb2_grpc.LedgerServicer):
    """Serves whatever leaves it was given, with a checkpoint that its witnesses all cosigned.

    Witnesses check that the log grows, not that its entries are allowed: that is each node's part.
    """

    def __init__(self):
        self.leaves = []
        self.witnesses = TRAINERS
        self.short = 0

    def note(self, size=None):
        leaves = self.leaves[: len(self.leaves) if size is None else size]
        root = merkle.root_of([merkle.leaf_hash(leaf) for leaf in leaves])
        checkpoint = Checkpoint(origin=ORIGIN, head=TreeHead(len(leaves), root.hex()))
        signed = parse(sign(checkpoint, LOG_KEY))
        lines = [
            NoteSigner(f"{name}.test/w1", hashlib.sha256(name.encode()).digest(), cosigner=True)
            for name in self.witnesses
        ]
        cosigned = tuple(witness.cosign(signed.text, NOW // 1000) for witness in lines)
        return Note(signed.text, (*signed.lines, *cosigned)).encode()

    def GetCheckpoint(self, request, context):  # noqa: N802  # named by the proto
        return GetCheckpointResponse(note=self.note())

    def GetEntries(self, request, context):  # noqa: N802  # named by the proto
        end = request.end - self.short
        yield EntriesChunk(start=request.start, entries=self.leaves[request.start : end])


@pytest.fixture
def rogue():
    return Rogue()


@pytest.fixture
def client(tmp_path, rogue, world):
    server = grpc.server(ThreadPoolExecutor(4))
    ledger_pb2_grpc.add_LedgerServicer_to_server(rogue, server)
    to = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    rogue.leaves = world.leaves
    with grpc.insecure_channel(to) as channel:
        mirror = Mirror(
            tmp_path / "mirror",
            log_vkey=LOG_KEY.vkey,
            origin=ORIGIN,
            genesis_sha256=world.charter.digest,
        )
        yield LedgerClient(gated(channel, EgressJournal(tmp_path, lambda: 1), to), mirror)
    server.stop(0)


def refused(code, call, *arguments, **named):
    with pytest.raises(FederationError) as refusal:
        call(*arguments, **named)
    assert refusal.value.code == code, refusal.value
    return refusal.value


def test_a_node_consents_from_what_it_verified_itself(client, world, site):
    world.propose()
    world.approve()
    content = world.authorisation()
    world.start(authenticate(world.sign(content), world.state))
    state = client.sync()
    assert client.head.size == len(world.leaves)
    authorisation = authenticate(world.sign(content), state)
    assert check(authorisation, grounds_of(state, RUN), site, NOW).content == content


def sub_quorum(world):
    """Return a mandate that two of four voted for, signed by the genuine operator."""
    world.propose()
    votes = [world.vote("nec"), world.vote("honda"), world.vote("sony", Choice.NO)]
    return RunApproved(
        run=RUN,
        proposal=world.proposal,
        votes=tuple(sorted(votes[:2])),
        members=("honda", "nec"),
        plan=world.plan,
        plan_sha256=world.plan.digest,
        not_before=NOW,
        not_after=NOW + 3_600_000,
    )


def test_a_mandate_below_the_quorum_that_is_forced_into_the_log_is_not_believed(client, world):
    """Signed by the operator, in the tree, in a checkpoint that every witness cosigned."""
    leaf = world.seal("coordinator", sub_quorum(world))
    client.sync()
    before = client.head
    world.leaves.append(leaf)
    fault = refused("RNM-LEDGER-0001", client.sync)
    assert "RNM-GOV-0002" in fault.why
    assert client.head == before
    assert grounds_of(client.state, RUN) is None


def test_a_mandate_signed_by_somebody_else_is_not_believed(client, world):
    mandate = sub_quorum(world)
    client.sync()
    world.leaves.append(world.seal("secretariat", mandate))
    refused("RNM-LEDGER-0001", client.sync)
    assert grounds_of(client.state, RUN) is None


def test_a_duplicated_ballot_counts_once(client, world):
    """T13: one vote short, made up by the same member's ballot again."""
    mandate = sub_quorum(world)
    client.sync()
    again = world.seal("nec", world_vote(world))
    world.leaves.append(again)
    refused("RNM-LEDGER-0001", client.sync)
    world.leaves.pop()
    twice = replace(mandate, votes=tuple(sorted((*mandate.votes, leaf_id(again)))))
    world.leaves.append(world.seal("coordinator", twice))
    refused("RNM-LEDGER-0001", client.sync)


def world_vote(world):
    from fedproto.events.governance import VoteCast

    return VoteCast(
        proposal=world.proposal, terms_sha256=world.plan.digest, choice=Choice.YES, reason=""
    )


def test_a_checkpoint_with_too_few_witnesses_is_not_believed(client, world, rogue):
    rogue.witnesses = TRAINERS[:2]
    refused("RNM-LEDGER-0006", client.sync)
    assert client.head.size == 0


def test_a_log_that_goes_back_is_refused(client, world, rogue):
    world.propose()
    client.sync()
    full, rogue.leaves = rogue.leaves, rogue.leaves[:-1]
    refused("RNM-LEDGER-0001", client.sync)
    rogue.leaves = full
    client.sync()


def test_a_second_history_of_the_same_size_is_refused(client, world, rogue):
    world.propose()
    client.sync()
    rogue.leaves = [*world.leaves[:-1], world.seal("secretariat", world_other(world))]
    refused("RNM-LEDGER-0004", client.sync)


def world_other(world):
    from fedproto.events.models import BaseModel, BaseModelApproved

    return BaseModelApproved(
        model=BaseModel(
            name="other",
            manifest_sha256="a" * 64,
            corpus_sha256="b" * 64,
            licence="MIT",
            parameters=1,
        ),
        proposal="",
        votes=(),
    )


def test_entries_that_are_kept_back_are_missed(client, world, rogue):
    rogue.short = 1
    refused("RNM-LEDGER-0001", client.sync)


def test_waiting_for_an_entry_that_does_not_come_ends_by_name(client, world):
    fault = refused("RNM-CONSENT-0001", client.wait_for, lambda _: False, patience_s=0.3)
    assert "no entry" in fault.why


def test_an_aborted_round_moves_prev_but_not_the_model(client, world, site):
    world.propose()
    world.approve()
    first = world.authorisation()
    world.start(authenticate(world.sign(first), world.state))
    closed = world.close(Outcome.ABORTED)
    second = world.authorisation()
    assert (second.prev, second.model_in) == (closed, first.model_in)
    world.start(authenticate(world.sign(second), world.state))
    state = client.sync()
    authorisation = authenticate(world.sign(second), state)
    assert check(authorisation, grounds_of(state, RUN), site, NOW).content.attempt == 2
