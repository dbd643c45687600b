"""At the start: an old backup, a fork, too few witnesses; and the way back from a member's mirror."""

import shutil
import subprocess
import sys

import pytest

from audit import misbehaviour
from audit.ledger import Ledger
from audit.mirror import Mirror
from audit.note import NoteSigner, NoteVerifier
from audit.witness import Witness, request_body
from federation.guard import EVIDENCE, StartGuard
from federation.register import Register
from federation.restoration import restore
from federation.witnesses import WitnessService
from fedproto.errors import LocalFault
from fedproto.events.oversight import IncidentReported
from fedproto.ids import sha256_hex
from fedproto.party import Party, seed_file, witness_name
from renmei.consortium import found

WITNESSES = ("honda", "nec", "softbank", "sony")


class Site:
    """A consortium on one disk: the coordinator's ledger, its witnesses, a member's mirror."""

    def __init__(self, root):
        self.root = root
        self.party = Party.load(root / "coordinator")
        profile = self.party.profile
        self.log_key = NoteSigner(profile.origin, seed_file(self.party.keys / "log.key", 32))

    def open(self):
        return Ledger.open(self.party.root / "ledger", log_key=self.log_key)

    def witness(self, name):
        party = Party.load(self.root / name)
        seed = seed_file(party.keys / "witness.key", 32)
        signer = NoteSigner(witness_name("test", name), seed, cosigner=True)
        logs = {party.profile.origin: NoteVerifier.from_vkey(party.profile.log_vkey)}
        return Witness(party.root / "witness", signer, logs)

    def latest(self, name):
        return self.witness(name).latest(self.party.profile.origin) or b""

    def mirror(self, name="honda"):
        profile = self.party.profile
        return Mirror(
            self.root / name / "mirror",
            log_vkey=profile.log_vkey,
            origin=profile.origin,
            genesis_sha256=profile.genesis_sha256,
        )

    def grow(self, ledger, count, tag=b""):
        """Append acts of the coordinator's, without a guard."""
        register = Register(ledger, self.party)
        for number in range(count):
            register.act(
                IncidentReported(
                    category="drill", severity=1, report=sha256_hex(tag + bytes([number]))
                )
            )

    def cosign(self, ledger, names=WITNESSES):
        """Have witnesses cosign the head, and a member mirror it."""
        size = ledger.head.size
        for name in names:
            witness = self.witness(name)
            known = int((self.latest(name) or b"\n0\n").split(b"\n")[1])
            proof = ledger.prove_consistency(known, size) if known else []
            status, lines = witness.add_checkpoint(
                request_body(known, proof, ledger.signed_checkpoint())
            )
            assert status == 200, lines
            ledger.add_cosignatures(size, lines)
        mirror = self.mirror()
        mirror.update(ledger.checkpoint(), ledger.entries(mirror.head.size, size))


@pytest.fixture(scope="module")
def founded(tmp_path_factory):
    root = tmp_path_factory.mktemp("guard") / "c"
    found(root, consortium="test", coordinator="127.0.0.1:1", gateway="127.0.0.1:2")
    return root


@pytest.fixture
def site(founded, tmp_path):
    shutil.copytree(founded, tmp_path / "c")
    return Site(tmp_path / "c")


@pytest.fixture
def rolled_back(site):
    """Backed up at 11 entries, gone on to 16, restored."""
    ledger_directory = site.party.root / "ledger"
    with site.open() as ledger:
        site.grow(ledger, 3)
        site.cosign(ledger)
    shutil.copytree(ledger_directory, site.root / "backup")
    with site.open() as ledger:
        site.grow(ledger, 5, b"later")
        site.cosign(ledger)
    shutil.rmtree(ledger_directory)
    shutil.copytree(site.root / "backup", ledger_directory)
    return site


def act(register):
    body = IncidentReported(category="drill", severity=1, report=sha256_hex(b"new"))
    return register.act(body)


def code_of(call, *arguments):
    with pytest.raises(LocalFault) as caught:
        call(*arguments)
    return caught.value.code


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr("federation.register._WITNESSES_S", 0.05)


@pytest.mark.usefixtures("impatient")
def test_nothing_is_signed_before_enough_witnesses_have_spoken(site):
    with site.open() as ledger:
        register = Register(ledger, site.party)
        guard = StartGuard(register, site.root)
        size = ledger.head.size
        assert code_of(act, register) == "RNM-LEDGER-0008"
        guard.report("nec", site.latest("nec"))
        assert code_of(act, register) == "RNM-LEDGER-0008"
        assert ledger.head.size == size
        guard.report("nec", site.latest("nec"))
        assert code_of(act, register) == "RNM-LEDGER-0008"
        guard.report("sony", site.latest("sony"))
        assert act(register).index == size


@pytest.mark.usefixtures("impatient")
def test_an_old_backup_is_refused_and_then_recovered_from_a_mirror(rolled_back):
    """T28: what the witnesses saw is brought back; nothing gets a second history."""
    site = rolled_back
    with site.open() as ledger:
        register = Register(ledger, site.party)
        guard = StartGuard(register, site.root)
        before = ledger.head
        assert code_of(guard.report, "nec", site.latest("nec")) == "RNM-LEDGER-0009"
        for name in WITNESSES:
            guard.report(name, site.latest(name))
        assert code_of(act, register) == "RNM-LEDGER-0009"
        assert ledger.head == before
    with site.open() as ledger:
        steps = []
        assert restore(ledger, site.mirror(), site.root, steps.append) == 5
        assert sum(steps) == 5
        assert ledger.head == site.mirror().head
        assert ledger.checkpoint(ledger.head.size) is not None
    with site.open() as ledger:
        register = Register(ledger, site.party)
        guard = StartGuard(register, site.root)
        for name in ("nec", "sony"):
            guard.report(name, site.latest(name))
        assert act(register).index == 16
        site.cosign(ledger)


def test_the_recover_command_does_it_from_a_copy_of_a_mirror(rolled_back, tmp_path):
    site, copy = rolled_back, tmp_path / "copy"
    shutil.copytree(site.root / "honda" / "mirror", copy)
    words = ["coordinator", "recover", "--dir", str(site.party.root), "--mirror", str(copy)]
    command = [sys.executable, "-m", "renmei.cli", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "5 entries recovered; the ledger has 16" in done.stdout
    again = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert again.returncode == 2
    assert "RNM-CONF-0001" in again.stderr


def forked(site):
    """A database that was copied and went on differently, behind its witnesses' backs."""
    with site.open() as ledger:
        site.grow(ledger, 4, b"other")
        return ledger.head


@pytest.mark.usefixtures("impatient")
def test_a_fork_halts_for_good_with_evidence_that_verifies_offline(rolled_back):
    site = rolled_back
    forked(site)
    with site.open() as ledger:
        site.grow(ledger, 4, b"more")
        register = Register(ledger, site.party)
        guard = StartGuard(register, site.root)
        assert code_of(guard.report, "nec", site.latest("nec")) == "RNM-LEDGER-0004"
        for name in WITNESSES:
            guard.report(name, site.latest(name))
        assert code_of(act, register) == "RNM-LEDGER-0004"
    (path,) = (site.root / EVIDENCE).iterdir()
    finding = misbehaviour.verify(path.read_bytes(), site.log_key.vkey)
    assert (finding.said.size, finding.larger.size) == (16, 19)


def test_a_fork_is_not_recovered_into_and_leaves_evidence(rolled_back):
    site = rolled_back
    head = forked(site)
    with site.open() as ledger:
        mirror = site.mirror()
        assert code_of(restore, ledger, mirror, site.root, print) == "RNM-LEDGER-0004"
        assert ledger.head == head
    (path,) = (site.root / EVIDENCE).iterdir()
    finding = misbehaviour.verify(path.read_bytes(), site.log_key.vkey)
    assert (finding.said.size, finding.larger.size) == (15, 16)


def test_witnesses_cosign_one_of_two_clones_only(rolled_back):
    site = rolled_back
    forked(site)
    with site.open() as ledger:
        site.grow(ledger, 3, b"more")
        body = request_body(16, [b"\0" * 32], ledger.signed_checkpoint())
        assert site.witness("nec").add_checkpoint(body)[0] == 422


@pytest.mark.usefixtures("impatient")
def test_a_witness_that_lies_at_the_start_is_not_counted(site):
    with site.open() as ledger:
        register = Register(ledger, site.party)
        guard = StartGuard(register, site.root)
        assert code_of(guard.report, "nec", b"noise") == "RNM-LEDGER-0001"
        guard.report("sony", b"")
        assert code_of(act, register) == "RNM-LEDGER-0008"


def test_the_first_word_of_a_stream_is_what_the_witness_knows(rolled_back):
    from fedproto.v1.witness_pb2 import WitnessAnswer

    site = rolled_back

    class Context:
        caller = "nec"

        def is_active(self):
            return True

    with site.open() as ledger:
        register = Register(ledger, site.party)
        service = WitnessService(register, StartGuard(register, site.root))
        first = iter([WitnessAnswer(id=0, body=site.latest("nec"))])
        assert code_of(next, service.Attend(first, Context())) == "RNM-LEDGER-0009"
