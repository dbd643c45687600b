"""`renmei ledger`, by an auditor against a real coordinator: what is written was verified."""

import json
import shutil

import pytest
from federation_kit import Federation, until

from audit import bundle, receipt
from audit.bundle import Pinned
from audit.note import NoteVerifier
from audit.static_log import serve_log
from federation.coordinator import Coordinator
from renmei.cli import main


@pytest.fixture(scope="module")
def federation(tmp_path_factory):
    made = Federation(tmp_path_factory.mktemp("ledger") / "c")
    coordinator = Coordinator(made.consortium.party("coordinator"), lambda *_: made.flower)
    coordinator.start()
    made.join()
    coordinator.register.await_cosigned(8, 30)
    yield made, coordinator
    made.close()
    coordinator.stop()


def renmei(capsys, *words):
    status = main([*map(str, words), "--json"])
    shown = capsys.readouterr()
    return status, json.loads(shown.out) if shown.out else {}, shown.err


def test_an_auditor_syncs_its_mirror(federation, capsys):
    made, coordinator = federation
    status, reply, _ = renmei(capsys, "ledger", "sync", "--dir", made.consortium.party("meti"))
    assert status == 0
    assert reply["data"]["size"] >= 8
    state = coordinator.ledger.state
    assert reply["data"]["root"] == state.root_at(reply["data"]["size"])


def test_a_bundle_is_fetched_verified_and_its_export_recorded(federation, capsys, tmp_path):
    made, coordinator = federation
    path = tmp_path / "log.zip"
    auditor = made.consortium.party("meti")
    status, reply, _ = renmei(capsys, "ledger", "export", "--dir", auditor, "-o", path)
    assert status == 0
    profile = made.party("meti").profile
    pins = Pinned(log_vkey=profile.log_vkey, genesis_sha256=profile.genesis_sha256)
    assert bundle.verify(path, pinned=pins).checkpoint.head.size == reply["data"]["size"]
    assert coordinator.ledger.find_entries(kind="export.issued")
    assert [item.name for item in tmp_path.iterdir()] == ["log.zip"]


def test_a_receipt_is_fetched_and_verifies_alone(federation, capsys, tmp_path):
    made, _ = federation
    path = tmp_path / "three.cose"
    auditor = made.consortium.party("meti")
    status, _, _ = renmei(capsys, "ledger", "receipt", 3, "--dir", auditor, "-o", path)
    assert status == 0
    log = NoteVerifier.from_vkey(made.party("meti").profile.log_vkey)
    entry = path.with_suffix(".entry").read_bytes()
    assert receipt.verify(path.read_bytes(), entry, log).index == 3


def test_an_entry_that_is_not_there_has_no_receipt(federation, capsys, tmp_path):
    made, _ = federation
    path = tmp_path / "none.cose"
    auditor = made.consortium.party("meti")
    status, _, error = renmei(capsys, "ledger", "receipt", 9999, "--dir", auditor, "-o", path)
    assert status == 5
    assert "RNM-FORM-0002" in error
    assert not path.exists()


def test_a_mirror_is_brought_up_to_date_from_a_static_copy(federation, capsys):
    made, coordinator = federation
    size = coordinator.ledger.head.size
    public = made.consortium.party("coordinator") / "ledger/public"
    # Published after it is cosigned, which the fixture does not wait for.
    until((public / "checkpoint").exists)
    with serve_log(public) as server:
        auditor = made.consortium.party("meti")
        shutil.rmtree(auditor / "mirror", ignore_errors=True)
        words = ("ledger", "sync", "--dir", auditor, "--from", server.url)
        status, reply, error = renmei(capsys, *words)
    assert status == 0, error
    assert 8 <= reply["data"]["size"] <= size
    assert (auditor / "mirror/checkpoint").exists()
