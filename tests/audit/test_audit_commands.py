"""`renmei audit` as an auditor runs it: one command for each question, with `cryptography` alone."""

import json
import re
import subprocess
from pathlib import Path

import ledger_kit as kit
import pytest
import question_kit as cases

from audit import proof
from audit.exports.in_toto import ADAPTER as ADAPTER_DIGEST
from audit.exports.in_toto import PAYLOAD_TYPE
from audit.policy import policy_of
from fedproto import envelope, jcs
from fedproto.durable import write_atomic
from fedproto.party import Profile
from fedproto.schema import to_json
from renmei.cli import main

YEAR = cases.year()
AT = YEAR.at
ADAPTER = kit.digest("adapter:2")
NEC = kit.digest("dataset:nec")
RUN = ("--run", kit.RUN)

# Each question of an auditor, its command after the log, and what its answer must cite.
QUESTIONS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "who approved round 2 and under which clause": (
        ("why", *RUN, "--round", "2"),
        ("mandate", "started:2.2"),
    ),
    "which dataset commitments fed an adapter": (
        ("lineage", ADAPTER),
        ("receipt:1:honda", "receipt:2:nec", "closed:2", "withdrawn"),
    ),
    "which adapters did a dataset feed": (("lineage", NEC), ("closed:1", "closed:2")),
    "was a member present": (
        ("present", *RUN, "--round", "2", "--member", "honda"),
        ("receipt:2:honda", "closed:2"),
    ),
    "who got weights": (("weights",), ("release", "access", "export", "revoked")),
    "what is spent on a dataset": (("budget", NEC), ("spent:1", "spent:2")),
    "all refusals": (
        ("refusals",),
        ("refused", "no:nec", "closed:rejected", "aborted", "closed:2"),
    ),
    "what changed between two sizes": (
        ("diff", "60", str(len(YEAR.leaves))),
        ("withdrawn", "left"),
    ),
    "has the log ever been rewritten": (("replay",), ("anchor:founded", "left")),
    "what happened in a round": (("log", *RUN, "--round", "1"), ("started:1", "closed:1")),
    "why was this allowed": (
        ("show", str(AT["release"]), "--why"),
        ("release", "release:proposed"),
    ),
}


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return YEAR.bundle(tmp_path_factory.mktemp("commands") / "year.bundle")


def ask(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, object]:
    """Run a command in this process and return its envelope."""
    status = main(["audit", *map(str, words), "--json", "--lang", "en"])
    envelope = json.loads(capsys.readouterr().out)
    return {**envelope, "exit": status}


def words(question: str, log: Path) -> tuple[str, ...]:
    verb, *rest = QUESTIONS[question][0]
    return (verb, str(log), *rest, *cases.PINS)


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_question_is_one_command_whose_answer_cites_its_entries_with_proofs(
    log: Path, question: str, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = ask(capsys, *words(question, log))
    assert (answer["exit"], answer["status"], answer["warnings"]) == (0, "ok", [])
    data = answer["data"]
    cited = {entry["index"]: entry for entry in data["entries"]}
    for name in QUESTIONS[question][1]:
        assert AT[name] in cited, name
    # Each hit is checked alone: its proof leads to a checkpoint that the pinned witnesses cosigned.
    policy = policy_of(YEAR.history.state.charter)
    note = data["log"]["note"].encode()
    for index, entry in cited.items():
        assert entry["leaf"] == YEAR.history.leaves[index]
        assert entry["state"] == "verified"
        hashes = [bytes.fromhex(item) for item in entry["inclusion"]]
        proof.verify(proof.make(index, hashes, note), YEAR.leaves[index], policy)


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("language", ["en", "ja"])
def test_a_question_is_answered_in_both_languages(
    log: Path, question: str, language: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["audit", *words(question, log), "--lang", language]) == 0
    out = capsys.readouterr().out
    word = "検証済" if language == "ja" else "verified"
    assert word in out


ALONE = {
    **{question: asked for question, (asked, _) in QUESTIONS.items()},
    "verify": ("verify",),
    "head": ("head",),
    "charter": ("charter",),
    "state": ("state", "--at", "20"),
    "prove": ("prove", "12"),
    "jsonl": ("export", "--format", "jsonl"),
    "csv": ("export", "--format", "csv"),
    "in-toto": ("export", "--format", "in-toto"),
    "cyclonedx": ("export", "--format", "cyclonedx", "--artifact", ADAPTER),
    "R1": ("report", "--template", "round", *RUN),
    "R2": ("report", "--template", "lineage", "--artifact", ADAPTER),
    "R10": ("report", "--template", "integrity"),
}


@pytest.mark.parametrize("name", ALONE)
def test_every_command_needs_cryptography_alone(log: Path, name: str) -> None:
    verb, *rest = ALONE[name]
    result = cases.bare(verb, log, *rest, *cases.PINS)
    assert result.returncode == 0, result.stderr
    assert result.stdout


def test_proofs_are_written_beside_their_entries_and_verify_by_command(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "proofs"
    ask(capsys, "log", log, "--type", "round.closed", "--proofs", folder, *cases.PINS)
    assert len(list(folder.glob("*.tlog-proof"))) == 3
    index = AT["closed:2"]
    files = (folder / f"{index}.tlog-proof", "--entry", folder / f"{index}.entry")
    answer = ask(capsys, "verify", *files, "--policy", folder / "policy")
    assert answer["data"]["index"] == index
    other = (folder / f"{index}.tlog-proof", "--entry", folder / f"{AT['closed:1']}.entry")
    assert ask(capsys, "verify", *other, "--policy", folder / "policy")["exit"] == 5


def test_a_proof_is_written_where_it_is_asked_for(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "one.tlog-proof"
    leaf = YEAR.history.leaves[AT["release"]]
    data = ask(capsys, "prove", log, leaf[:16], "-o", target, *cases.PINS)["data"]
    assert data["index"] == AT["release"]
    assert target.read_text() == data["proof"]
    assert (tmp_path / "one.tlog-proof.entry").read_bytes() == YEAR.leaves[AT["release"]]


def test_an_answer_without_a_quorum_says_so_and_verify_refuses_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = cases.published(list(YEAR.leaves), tmp_path / "log", witnesses=("nec",))
    answer = ask(capsys, "log", folder, "--type", "member.status", *cases.PINS)
    assert [entry["state"] for entry in answer["data"]["entries"]] == ["pending witness"]
    assert "not yet cosigned" in answer["warnings"][0]
    assert ask(capsys, "verify", folder, *cases.PINS)["exit"] == 6


def test_a_violation_is_listed_with_its_entry_and_exits_5(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    story = kit.copy_of(kit.full_story(1))
    forged = [story.leaf("coordinator", kit.started(story.state, n)) for n in (3, 4)]
    folder = cases.published([*story.leaves, *forged], tmp_path / "log")
    answer = ask(capsys, "replay", folder, *cases.PINS)
    assert answer["exit"] == 5
    size = len(story.leaves)
    assert [item["index"] for item in answer["data"]["violations"]] == [size, size + 1]
    # No other command answers from such a log.
    for verb in ("log", "head", "refusals"):
        assert ask(capsys, verb, folder, *cases.PINS)["exit"] == 5


def rewritten(tmp_path: Path) -> Path:
    """A checkpoint that the log signed over another history, as a witness keeps it."""
    other = list(YEAR.leaves[:30])
    other[12] = b"another act"
    folder = tmp_path / "witness"
    folder.mkdir()
    (folder / "ab.checkpoint").write_bytes(kit.cosigned_note(list(YEAR.leaves[:20])))
    (folder / "ab.checkpoint.conflict-00").write_bytes(kit.signed_note(other))
    return folder


def test_a_conflict_that_a_witness_kept_proves_a_rewritten_log_and_exits_5(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = rewritten(tmp_path)
    answer = ask(capsys, "replay", log, "--checkpoint", folder, *cases.PINS)
    assert (answer["exit"], answer["data"]["code"]) == (5, "RNM-LEDGER-0004")
    (folder / "ab.checkpoint.conflict-00").unlink()
    answer = ask(capsys, "replay", log, "--checkpoint", folder, *cases.PINS)
    assert answer["exit"] == 0
    assert [kept["verdict"] for kept in answer["data"]["integrity"]["kept"]] == ["agrees"]


@pytest.mark.parametrize(
    "asked",
    [
        ("show", "69"),
        ("show", "-1"),
        ("why", "--round", "9"),
        ("why", "--run", "00" * 16),
        ("why", "abcdefgh"),
        ("lineage", "00" * 32),
        ("budget", "ff" * 32),
        ("present", *RUN, "--round", "9"),
        ("state", "--at", "70"),
        ("diff", "0", "70"),
        ("log", "--since", "yesterday"),
        ("log", "--since", "2026-09-21T09:00:00"),
        ("log", "--artifact", "zz"),
        ("export", "--format", "pdf"),
        ("export", "--format", "in-toto", "--identity", "/nonexistent"),
        ("report", "--template", "round", "--round", "9"),
        ("log", "--run", "00"),
        ("report", "--template", "R99"),
        ("prove", "3", "-o", "/nonexistent/x"),
        ("verify", "--entry", "x"),
        ("head", "--genesis", "xyz"),
    ],
    ids=" ".join,
)
def test_a_question_about_what_is_not_there_exits_2_with_a_named_error(
    log: Path, asked: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    verb, *rest = asked
    pins = () if "--genesis" in asked else cases.PINS
    answer = ask(capsys, verb, log, *rest, *pins)
    assert answer["exit"] == 2
    assert re.fullmatch(r"RNM-CONF-000\d", answer["data"]["code"])
    assert answer["data"]["mend"]


def test_every_command_refuses_a_changed_log_and_says_nothing_else(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = bytearray(log.read_bytes())
    data[data.index(b"tile/entries") + 5_000] ^= 1
    copy = tmp_path / "changed.bundle"
    copy.write_bytes(data)
    for verb, *rest in ALONE.values():
        assert main(["audit", verb, str(copy), *rest, *cases.PINS]) == 5, verb
        assert capsys.readouterr().out == "", verb


def test_a_document_is_written_to_its_file_with_its_digest(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "report.html"
    asked = ("report", log, "--template", "integrity", "-o", target)
    data = ask(capsys, *asked, *cases.PINS)["data"]
    digest = subprocess.run(["sha256sum", target], capture_output=True, text=True, check=True)
    assert digest.stdout.split()[0] == data["sha256"]
    assert "document" not in data


def test_a_report_in_json_brings_the_proof_of_each_entry(
    log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("report", log, "--template", "round", *RUN, "--format", "json")
    report = json.loads(ask(capsys, *asked, *cases.PINS)["data"]["document"])
    assert report["code"] == "R1"
    for entry in report["entries"]:
        assert entry["inclusion"]
        assert entry["row"]["leaf"] == YEAR.history.leaves[entry["row"]["index"]]


def party(folder: Path, name: str, key: str) -> Path:
    """A party's directory, as `renmei` makes it."""
    profile = Profile(
        id=name,
        consortium="lab",
        origin=kit.ORIGIN,
        coordinator="",
        gateway="",
        log_vkey=kit.LOG_KEY.vkey,
        genesis_sha256=kit.charter_of().digest,
    )
    (folder / "keys").mkdir(parents=True)
    (folder / "party.json").write_bytes(jcs.dumps(to_json(profile)))
    write_atomic(folder / "keys/acting.key", kit.key_of(key).seed.hex().encode(), mode=0o600)
    return folder


def test_statements_are_signed_by_a_member_of_this_log_and_by_nobody_else(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("export", log, "--format", "in-toto", *cases.PINS, "--identity")
    document = ask(capsys, *asked, party(tmp_path / "meti", "meti", "meti"))["data"]["document"]
    key = YEAR.history.state.verify_key
    for line in document.splitlines():
        opened = envelope.open_envelope(line.encode(), PAYLOAD_TYPE, key)
        assert opened.signers == (kit.key_of("meti").verify_key.key_id,)
        assert opened.payload["subject"][0]["digest"] == {ADAPTER_DIGEST: ADAPTER}
    stranger = party(tmp_path / "stranger", "meti", "stranger")
    assert ask(capsys, *asked, stranger)["exit"] == 2
    other = party(tmp_path / "other", "meti", "nec")
    assert ask(capsys, *asked, other)["exit"] == 2


def test_a_run_is_named_by_its_first_digits_or_not_at_all_where_there_is_one(
    log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (("--round", "2"), ("--run", "ab", "--round", "2")):
        assert ask(capsys, "why", log, *words, *cases.PINS)["data"]["why"]["index"] == 30
    rows = ask(capsys, "log", log, "--run", "abab", "--round", "1", *cases.PINS)["data"]["entries"]
    assert [row["index"] for row in rows] == list(range(AT["started:1"], AT["closed:1"] + 1))


def test_a_lineage_is_a_graph_from_the_adapter_down_to_datasets_and_base(
    log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    graph = ask(capsys, "lineage", log, ADAPTER[:12], *cases.PINS)["data"]["graph"]
    ids = [node["id"] for node in graph["nodes"]]
    assert len(set(ids)) == len(ids)
    down: dict[str, set[str]] = {}
    for edge in graph["edges"]:
        assert {edge["subject"], edge["object"]} <= set(ids)
        assert edge["entries"]
        down.setdefault(edge["subject"], set()).add(edge["object"])
    reached, todo = set(), [f"adapter:{ADAPTER}"]
    while todo:
        node = todo.pop()
        reached.add(node)
        todo += down.get(node, set()) - reached
    assert f"base:{kit.digest('base')}" in reached
    assert {f"dataset:{kit.digest(f'dataset:{m}')}" for m in kit.TRAINERS} <= reached
    # What excluded honda signed for in the second round is no source of that round.
    second = next(node["id"] for node in graph["nodes"] if node["label"] == "2.2")
    assert f"dataset:{kit.digest('dataset:honda')}" not in down[second]
