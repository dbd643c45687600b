"""`renmei audit`: real processes over a real bundle, with only `cryptography` to import."""

import json
from pathlib import Path

import pytest
from bare_kit import audit

from audit.ledger import Ledger
from audit.note import NoteSigner, NoteVerifier
from audit.witness import Witness, request_body
from fedproto.events.models import BaseModel, BaseModelApproved
from fedproto.ids import Digest, sha256_hex
from fedproto.party import Party, seed_file
from fedproto.statements import Head, Trace, seal_event
from renmei.consortium import LOG_KEY, OPERATOR, WITNESS_KEY, found, witness_name

# The charter, seven seats, a base model.
SIZE = 9


class Case:
    """A bundle of a consortium, its founding and one entry more, and what its members published."""

    def __init__(self, folder: Path) -> None:
        consortium = found(folder / "c", consortium="demo", coordinator="a:1", gateway="a:2")
        operator = Party.load(consortium.party(OPERATOR))
        log_key = NoteSigner(operator.profile.origin, seed_file(operator.keys / LOG_KEY, 32))
        self.path = folder / "demo.bundle"
        self.vkey, self.genesis = log_key.vkey, consortium.charter.digest
        logs = {operator.profile.origin: NoteVerifier.from_vkey(log_key.vkey)}
        with Ledger.open(operator.root / "ledger", log_key=log_key) as ledger:
            self._approve_model(Party.load(consortium.party("pfn")), ledger)
            for member in ("honda", "nec", "sony"):
                party = Party.load(consortium.party(member))
                seed = seed_file(party.keys / WITNESS_KEY, 32)
                name = witness_name("demo", party.profile.id)
                witness = Witness(
                    party.root / "witness", NoteSigner(name, seed, cosigner=True), logs
                )
                status, lines = witness.add_checkpoint(
                    request_body(0, [], ledger.signed_checkpoint())
                )
                assert status == 200, lines
                ledger.add_cosignatures(ledger.head.size, lines)
            ledger.export(self.path)

    def _approve_model(self, party: Party, ledger: Ledger) -> None:
        body = BaseModelApproved(
            model=BaseModel(
                name="renmei-tiny",
                manifest_sha256=sha256_hex(b"m"),
                corpus_sha256=sha256_hex(b"c"),
                licence="Apache-2.0",
                parameters=1,
            ),
            proposal="",
            votes=(),
        )
        event = party.event(
            body,
            charter=self.genesis,
            head=Head(size=ledger.head.size, root=ledger.head.root),
            trace=Trace(trace_id="ab" * 16, span_id="cd" * 8),
        )
        ledger.append(seal_event(event, (party.signing_key,)))

    def pins(self) -> tuple[str, ...]:
        return ("--log-key", self.vkey, "--genesis", self.genesis)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case(tmp_path_factory.mktemp("audit"))


def test_a_bundle_verifies_offline_with_one_library(case: Case) -> None:
    result = audit("verify", case.path, *case.pins(), "--json")
    assert result.returncode == 0, result.stderr
    envelope = json.loads(result.stdout)
    assert envelope["schema"] == "renmei.audit.verify/v1"
    assert envelope["data"]["size"] == SIZE
    assert envelope["data"]["witnesses"] == ["honda", "nec", "sony"]
    assert envelope["data"]["unpinned"] == []
    assert envelope["warnings"] == []


def test_without_pins_the_answer_says_what_it_does_not_prove(case: Case) -> None:
    result = audit("verify", case.path)
    assert result.returncode == 0
    assert "--log-key, --genesis" in result.stderr


def test_a_log_key_may_be_pinned_by_a_file(case: Case, tmp_path: Path) -> None:
    (tmp_path / "log.vkey").write_text(case.vkey + "\n")
    assert audit("verify", case.path, "--log-key", tmp_path / "log.vkey").returncode == 0


@pytest.mark.parametrize("pin", ["log-key", "genesis"])
def test_another_pin_than_the_bundles_exits_5(case: Case, pin: str) -> None:
    other = {
        "log-key": NoteSigner("demo.example/ledger", bytes(32)).vkey,
        "genesis": Digest("0" * 64),
    }
    result = audit("verify", case.path, f"--{pin}", other[pin])
    assert result.returncode == 5
    assert "RNM-LEDGER-0001" in result.stderr


@pytest.mark.parametrize(
    "words",
    [("--genesis", "xyz"), ("--log-key", "no-such-file"), ("--log-key", "a+b+c")],
    ids=" ".join,
)
def test_a_pin_that_is_none_exits_2(case: Case, words: tuple[str, str]) -> None:
    assert audit("verify", case.path, *words).returncode == 2


def test_one_changed_byte_of_an_entry_exits_5_and_names_the_entry(
    case: Case, tmp_path: Path
) -> None:
    data = bytearray(case.path.read_bytes())
    mark = b'"payloadType":"application/vnd.renmei.event'
    position = data.index(mark, data.index(mark) + 1)
    data[position] ^= 1
    copy = tmp_path / "changed.bundle"
    copy.write_bytes(data)
    for verb in (("verify",), ("log",), ("head",), ("charter",)):
        result = audit(verb[0], copy, *case.pins())
        assert result.returncode == 5
        assert result.stdout == ""
        assert "RNM-LEDGER-0003" in result.stderr
        assert "entry 1" in result.stderr


def test_any_changed_byte_exits_5(case: Case, tmp_path: Path) -> None:
    """In this process, at places spread over the whole file."""
    from audit.bundle import Pinned, verify
    from fedproto.errors import Exit, LocalFault

    whole = case.path.read_bytes()
    pinned = Pinned(log_vkey=case.vkey, genesis_sha256=case.genesis)
    copy = tmp_path / "changed.bundle"
    for position in range(0, len(whole), max(1, len(whole) // 60)):
        data = bytearray(whole)
        data[position] ^= 0x20
        copy.write_bytes(data)
        with pytest.raises(LocalFault) as caught:
            verify(copy, pinned=pinned)
        assert caught.value.exit is Exit.VERIFY, position


@pytest.mark.parametrize("content", [b"", b"PK\x05\x06", b"not a bundle" * 100], ids=len)
def test_a_file_that_is_no_bundle_exits_5(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    result = audit("verify", tmp_path / "x")
    assert result.returncode == 5
    assert "RNM-LEDGER-0001" in result.stderr


def test_a_file_that_is_not_there_exits_2(tmp_path: Path) -> None:
    assert audit("verify", tmp_path / "absent").returncode == 2


def entries(case: Case, *words: str) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(audit("log", case.path, *words, "--json").stdout)[
        "data"
    ]["entries"]
    return found


def test_the_log_lists_entries_and_filters_them(case: Case) -> None:
    rows = entries(case)
    assert [(row["index"], row["type"]) for row in rows] == [
        (0, "charter.adopted"),
        *((index, "member.admitted") for index in range(1, SIZE - 1)),
        (SIZE - 1, "base_model.approved"),
    ]
    only = entries(case, "--member", "pfn")
    assert [row["type"] for row in only] == ["member.admitted", "base_model.approved"]
    assert only[-1]["trace_id"] == "ab" * 16
    assert entries(case, "--type", "vote.cast") == []


def test_an_entry_is_shown_whole_with_its_trace(case: Case) -> None:
    data = json.loads(audit("show", case.path, SIZE - 1, "--json").stdout)["data"]
    assert data["event"]["body"]["model"]["name"] == "renmei-tiny"
    assert data["event"]["trace"]["trace_id"] == "ab" * 16
    assert len(data["signers"]) == 1


@pytest.mark.parametrize("index", [SIZE, 99])
def test_an_entry_that_is_not_there_exits_2(case: Case, index: int) -> None:
    assert audit("show", case.path, index).returncode == 2


def test_the_head_is_the_signed_note_itself(case: Case) -> None:
    data = json.loads(audit("head", case.path, "--json").stdout)["data"]
    assert data["note"].startswith(f"{data['origin']}\n{SIZE}\n")
    assert [c["member"] for c in data["cosignatures"]] == ["honda", "nec", "sony"]


def test_the_charter_is_shown_with_the_digest_that_is_pinned(case: Case) -> None:
    data = json.loads(audit("charter", case.path, "--json").stdout)["data"]
    assert data["sha256"] == case.genesis
    assert "demo" in audit("charter", case.path).stdout


def test_the_answer_is_japanese_for_a_japanese_reader(case: Case) -> None:
    result = audit("verify", case.path, *case.pins(), "--lang", "ja")
    assert "証人の連署" in result.stdout
