"""What a member signed and the charter refused is an entry, once, and never so many as to fill the log."""

import asyncio
import shutil

import pytest

from audit.ledger import Ledger
from audit.note import NoteSigner
from federation import services
from federation.calls import Call
from federation.clerk import Clerk
from federation.register import Register
from federation.services import GovernanceService
from fedproto import envelope
from fedproto.errors import LocalFault
from fedproto.events.oversight import Method as Remedy
from fedproto.events.oversight import RemediationDone, StateSnapshot
from fedproto.ids import sha256_hex
from fedproto.party import Party, seed_file
from fedproto.statements import Head, Trace, event_from_json, leaf_id, seal_event
from fedproto.v1.governance_pb2 import ActRequest
from renmei.consortium import found

TRACE = Trace(trace_id="0" * 32, span_id="0" * 16)


@pytest.fixture(scope="module")
def founded(tmp_path_factory):
    root = tmp_path_factory.mktemp("refusals") / "c"
    found(root, consortium="test", coordinator="127.0.0.1:1", gateway="127.0.0.1:2")
    return root


class Counter:
    """The service over a real ledger, called as a member calls it."""

    def __init__(self, root):
        self.root = root
        party = Party.load(root / "coordinator")
        key = NoteSigner(party.profile.origin, seed_file(party.keys / "log.key", 32))
        self.ledger = Ledger.open(party.root / "ledger", log_key=key)
        register = Register(self.ledger, party)
        self.service = GovernanceService(register, Clerk(register))

    def sealed(self, name, body):
        party = Party.load(self.root / name)
        head = self.ledger.head
        event = party.event(
            body,
            charter=self.ledger.state.charter.digest,
            head=Head(size=head.size, root=head.root),
            trace=TRACE,
        )
        return seal_event(event, (party.signing_key,))

    def submit(self, name, leaf):
        return asyncio.run(self.service.Submit(ActRequest(envelope=leaf), Call(name)))

    def refused(self):
        indices = self.ledger.find_entries(kind="act.refused")
        leaves = [self.ledger.entries(index, index + 1)[0] for index in indices]
        return [event_from_json(envelope.peek(leaf, envelope.EVENT_TYPE)).body for leaf in leaves]


@pytest.fixture
def counter(founded, tmp_path):
    shutil.copytree(founded, tmp_path / "c")
    made = Counter(tmp_path / "c")
    yield made
    made.ledger.close()


def overreach(number=0):
    """What only the operator may say."""
    return StateSnapshot(size=8, state_sha256=sha256_hex(bytes([number])))


def test_an_act_beyond_ones_role_is_refused_and_recorded_with_its_rule(counter):
    leaf = counter.sealed("nec", overreach())
    with pytest.raises(LocalFault) as caught:
        counter.submit("nec", leaf)
    (body,) = counter.refused()
    assert (body.member, body.kind, body.code) == ("nec", "state.snapshot", caught.value.code)
    assert body.sha256 == leaf_id(leaf)


def test_the_same_refusal_is_recorded_once(counter):
    leaf = counter.sealed("nec", overreach())
    for _ in range(3):
        with pytest.raises(LocalFault):
            counter.submit("nec", leaf)
    assert len(counter.refused()) == 1


def test_an_act_in_anothers_name_is_refused_without_an_entry(counter):
    """The caller is not who signed: whose refusal would it be?"""
    leaf = counter.sealed("nec", overreach())
    with pytest.raises(LocalFault) as caught:
        counter.submit("sony", leaf)
    assert caught.value.code == "RNM-AUTH-0001"
    assert counter.refused() == []


def test_noise_and_strangers_leave_no_entry(counter):
    with pytest.raises(LocalFault):
        counter.submit("nec", b"noise")
    assert counter.refused() == []


def test_refusals_of_one_member_do_not_fill_the_ledger(counter, monkeypatch):
    monkeypatch.setattr(services, "_MOST_REFUSALS", 3)
    for number in range(6):
        with pytest.raises(LocalFault):
            counter.submit("nec", counter.sealed("nec", overreach(number)))
    assert len(counter.refused()) == 3
    wrong = RemediationDone(
        cause=sha256_hex(b"none"), method=Remedy.ACCEPTED, evidence=sha256_hex(b"e")
    )
    with pytest.raises(LocalFault):
        counter.submit("sony", counter.sealed("sony", wrong))
    assert len(counter.refused()) == 4
