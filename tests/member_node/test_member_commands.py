import json
import subprocess
import sys

import pytest

from fedproto.errors import Exit
from fedproto.party import Party, Profile, create
from member_node import egress, setup
from member_node import policy as policies
from member_node.egress import EgressJournal
from member_node.marks import Mark, MarkBook
from renmei.cli import main


@pytest.fixture
def party(tmp_path) -> Party:
    blank = Profile(
        id="nec",
        consortium="test",
        origin="test.example/ledger",
        coordinator="127.0.0.1:1",
        gateway="127.0.0.1:2",
        log_vkey="",
        genesis_sha256="",
    )
    return create(tmp_path / "nec", blank, extra_seeds=("witness.key",))


def renmei(capsys, *words):
    """Run a command; return its status, its data and what it wrote to stderr."""
    status = main([*words, "--json"])
    out, err = capsys.readouterr()
    return status, json.loads(out) if out else {}, err


def test_init_makes_what_is_missing_and_allows_nothing(capsys, party):
    status, answer, _ = renmei(capsys, "node", "init", "--dir", str(party.root))
    assert status == Exit.OK
    assert set(answer["data"]["made"]) == {
        *("adapters/", "data/", "models/", "policy.json", "marks.json", "keys/flower.pub"),
    }
    assert policies.load(party.root) == policies.Policy()
    assert answer["warnings"]
    status, answer, _ = renmei(capsys, "node", "init", "--dir", str(party.root))
    assert answer["data"]["made"] == []


def test_init_never_puts_an_empty_book_of_marks_in_the_place_of_a_lost_one(capsys, party):
    setup.equip(party)
    MarkBook.open(party.root).advance("7" * 32, Mark(3, 1))
    EgressJournal(party.root, lambda: 1).record("ledger.read", b"x", to="c:1")
    (party.root / "marks.json").unlink()
    status, _, err = renmei(capsys, "node", "init", "--dir", str(party.root))
    assert status == Exit.VERIFY
    assert "RNM-STATE-0001" in err
    assert not (party.root / "marks.json").exists()


def test_policy_shows_what_is_in_force_and_its_digest(capsys, party, willing):
    policies.save(party.root, willing)
    status, answer, _ = renmei(capsys, "node", "policy", "--dir", str(party.root))
    assert status == Exit.OK
    assert answer["data"]["sha256"] == willing.digest
    assert answer["data"]["policy"]["max_rank"] == willing.max_rank


def test_a_misspelt_policy_is_a_usage_error_with_a_suggestion(capsys, party):
    (party.root / "policy.json").write_text('{"auto_voet": true}')
    (party.root / "policy.json").chmod(0o600)
    status, _, err = renmei(capsys, "node", "policy", "--dir", str(party.root))
    assert status == Exit.USAGE
    assert "auto_vote" in err


def test_egress_adds_up_and_lists(capsys, party):
    book = EgressJournal(party.root, lambda: 1)
    book.record("governance.vote", b"12345", to="c:1")
    book.record("governance.vote", b"123", to="c:1")
    words = ("node", "egress", "--dir", str(party.root))
    status, answer, _ = renmei(capsys, *words)
    assert (status, answer["data"]) == (
        Exit.OK,
        [{"kind": "governance.vote", "messages": 2, "bytes": 8}],
    )
    assert len(renmei(capsys, *words, "--all")[1]["data"]) == 2


def test_a_journal_that_was_changed_is_an_alarm(capsys, party):
    book = EgressJournal(party.root, lambda: 1)
    for _ in range(3):
        book.record("governance.vote", b"12345", to="c:1")
    path = party.root / egress.FILE
    path.write_bytes(path.read_bytes().replace(b'"bytes":5', b'"bytes":4', 1))
    status, _, err = renmei(capsys, "node", "egress", "--dir", str(party.root))
    assert status == Exit.VERIFY
    assert "RNM-EGRESS-0002" in err


def test_status_and_vote_need_a_running_node(capsys, party):
    root = str(party.root)
    assert renmei(capsys, "node", "status", "--dir", root)[0] == Exit.FAILED
    status, _, err = renmei(capsys, "node", "vote", "a" * 16, "yes", "--dir", root)
    assert status == Exit.FAILED
    assert "RNM-PROC-0001" in err


@pytest.mark.parametrize("proposal", ["", "abc", "xyz12345", "--"])
def test_a_proposal_is_named_by_digits_of_its_digest(capsys, party, proposal):
    words = ("node", "vote", proposal, "yes", "--dir", str(party.root))
    assert renmei(capsys, *words)[0] == Exit.USAGE


def test_a_directory_without_a_party_is_named(capsys, tmp_path):
    status, _, err = renmei(capsys, "node", "init", "--dir", str(tmp_path))
    assert status == Exit.USAGE
    assert "party.json" in err


def test_declaring_the_verbs_imports_neither_torch_nor_flwr_nor_grpc():
    program = (
        "import sys; from renmei.cli import main; main(['node', '--help']);"
        "print(sorted({'torch', 'flwr', 'grpc', 'numpy'} & set(sys.modules)))"
    )
    wrapped = f"import contextlib\nwith contextlib.suppress(SystemExit):\n    {program}\n"
    wrapped += "import sys; print(sorted({'torch', 'flwr', 'grpc', 'numpy'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", wrapped], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip().endswith("[]")
