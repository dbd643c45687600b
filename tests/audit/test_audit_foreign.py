"""What we publish is verified by libraries that others wrote: Go's golang.org/x/mod/sumdb."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from published_log import LOG_KEY, WITNESSES, PublishedLog

from audit.note import Note, parse

FOREIGN = Path(__file__).parent / "foreign"
VECTORS = Path(__file__).parents[1] / "vectors" / "ledger"
GOCODE = Path("/usr/share/gocode")
SIZES = (1, 2, 3, 255, 256, 257, 511, 512, 513, 65_535, 65_536, 65_537)


def required():
    """Whether these tests must run: always in CI."""
    return bool(os.environ.get("CI") or os.environ.get("RENMEI_REQUIRE_FOREIGN") == "1")


def missing():
    if shutil.which("go") is None:
        return "there is no `go`"
    if not (GOCODE / "src/golang.org/x/mod/sumdb").is_dir():
        return f"there is no golang.org/x/mod in {GOCODE}"
    return ""


def need_go():
    """Fail in CI, skip on a developer's machine, if the verifier cannot be built here."""
    if reason := missing():
        mend = f"{reason}: apt-get install golang-go golang-golang-x-mod-dev"
        if required():
            pytest.fail(mend)
        pytest.skip(mend)


@pytest.fixture(scope="session")
def program(tmp_path_factory):
    """The verifier, built once."""
    need_go()
    folder = tmp_path_factory.mktemp("foreign")
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "GOCACHE": str(folder / "cache"),
        "GOPATH": str(GOCODE),
        "GO111MODULE": "off",
        "GOFLAGS": "",
        "GOTOOLCHAIN": "local",
        "CGO_ENABLED": "0",
    }
    built = folder / "ledgerverify"
    subprocess.run(
        ["go", "build", "-o", built, FOREIGN / "ledgerverify.go"],
        env=environment,
        check=True,
        cwd=folder,
        timeout=250,
    )
    return built


def verify(program, *args, quorum=3, witnesses=WITNESSES, log=LOG_KEY.vkey):
    keys = [f"-log={log}", f"-quorum={quorum}", *(f"-witness={key.vkey}" for key in witnesses)]
    done = subprocess.run([program, *keys, *args], capture_output=True, text=True, check=False)
    assert done.returncode in {0, 1}, done.stderr
    assert done.stdout.startswith("refused: ") == bool(done.returncode)
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("name", "outcome"),
    [("RENMEI_REQUIRE_FOREIGN", pytest.fail.Exception), ("UNRELATED", pytest.skip.Exception)],
)
def test_without_go_these_tests_fail_in_ci_and_are_skipped_elsewhere(monkeypatch, name, outcome):
    for variable in ("CI", "RENMEI_REQUIRE_FOREIGN"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setenv(name, "1")
    with pytest.raises(outcome, match="apt-get install golang-go"):
        need_go()


class Grown:
    """One log, published at each size in turn; older checkpoints are kept aside."""

    def __init__(self, folder):
        self.folder, self.log = folder, PublishedLog(folder / "log", name="tail")
        self.older = []

    def publish(self, size):
        note = self.log.publish(size)
        kept = self.folder / f"checkpoint.{size}"
        kept.write_bytes(note)
        self.older.append(kept)


@pytest.fixture(scope="session")
def told(program, tmp_path_factory):
    """What the verifier said at each size, and the log at the last one."""
    grown = Grown(tmp_path_factory.mktemp("grown"))
    found = {}
    for size in SIZES:
        grown.publish(size)
        found[size] = (verify(program, "log", grown.log.root, *grown.older), grown.log.head.root)
        proof, entry = grown.folder / "p.tlog-proof", grown.folder / "entry"
        for index in {0, size // 2, size - 1}:
            proof.write_bytes(grown.log.proof(index, b"extra" if index else b""))
            entry.write_bytes(grown.log.entries[index])
            found[size, index] = verify(program, "proof", proof, entry)
    return found, grown


@pytest.mark.parametrize("size", SIZES)
def test_a_stranger_verifies_every_tile_entry_and_proof(told, size):
    found, _ = told
    text, root = found[size]
    # The older checkpoints, its own among them, are each proven to be a beginning of this one.
    assert text == f"log size={size} root={root} witnesses=4 older={SIZES.index(size) + 1}"
    for index in {0, size // 2, size - 1}:
        assert found[size, index] == f"proof size={size} index={index} witnesses=4"


def test_a_stranger_verifies_the_published_vectors(program, tmp_path):
    vectors = json.loads((VECTORS / "proofs.json").read_text("utf-8"))
    rows = [row.split() for row in vectors["policy"].splitlines()]
    ed25519 = [row[2] for row in rows if row[0] == "witness"][:2]
    args = [f"-log={rows[0][1]}", "-quorum=2", *(f"-witness={vkey}" for vkey in ed25519)]
    for case in vectors["cases"]:
        (tmp_path / "proof").write_text(case["proof"], "utf-8")
        (tmp_path / "entry").write_text(case["entry"], "utf-8")
        command = [program, *args, "proof", tmp_path / "proof", tmp_path / "entry"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout
        assert "size=3" in done.stdout
        assert "witnesses=2" in done.stdout


@pytest.fixture
def small(tmp_path, program):
    """A log of 257 entries of which a test may change any file."""
    log = PublishedLog(tmp_path / "log")
    log.publish(257)
    assert verify(program, "log", log.root).startswith("log size=257 ")
    return log


def flip(path, at=0):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


FILES = {
    "a full bundle": ("tile/entries/000", 70_000),
    "a partial bundle": ("tile/entries/001.p/1", -1),
    "a full tile": ("tile/0/000", 5_000),
    "a partial tile": ("tile/0/001.p/1", 0),
    "an upper tile": ("tile/1/000.p/1", 31),
}


@pytest.mark.parametrize("name", FILES)
def test_a_stranger_refuses_a_changed_file(program, small, name):
    path, at = FILES[name]
    flip(small.root / path, at)
    assert verify(program, "log", small.root).startswith("refused: ")


@pytest.mark.parametrize("name", FILES)
def test_a_stranger_refuses_a_missing_or_cut_file(program, small, name):
    path = small.root / FILES[name][0]
    path.write_bytes(path.read_bytes()[:-1])
    assert verify(program, "log", small.root).startswith("refused: ")
    path.unlink()
    assert verify(program, "log", small.root).startswith("refused: ")


def test_a_stranger_refuses_a_changed_tile_of_the_largest_log(program, told):
    _, grown = told
    path = grown.log.root / "tile/0/128"
    original = path.read_bytes()
    flip(path, 17)
    refused = verify(program, "log", grown.log.root)
    path.write_bytes(original)
    assert refused.startswith("refused: ")


def test_a_stranger_refuses_another_key_and_too_few_witnesses(program, small):
    for change in (
        {"log": WITNESSES[0].vkey},
        {"quorum": 5},
        {"witnesses": WITNESSES[:2]},
    ):
        assert verify(program, "log", small.root, **change).startswith("refused: ")
    checkpoint = small.root / "checkpoint"
    note = parse(checkpoint.read_bytes())
    checkpoint.write_bytes(Note(note.text, note.lines[1:]).encode())
    assert "the log did not sign" in verify(program, "log", small.root)
    checkpoint.write_bytes(Note(note.text, note.lines[:3]).encode())
    assert "2 of 3 witnesses" in verify(program, "log", small.root)


def test_a_stranger_refuses_a_fork(program, small, tmp_path):
    fork = PublishedLog(tmp_path / "fork", name="fork")
    (tmp_path / "older").write_bytes(fork.publish(255))
    assert verify(program, "log", fork.root).startswith("log size=255 ")
    refused = verify(program, "log", small.root, tmp_path / "older")
    assert "size 257 does not extend size 255" in refused


def test_a_stranger_refuses_a_false_proof(program, small, tmp_path):
    proof, entry = tmp_path / "proof", tmp_path / "entry"
    proof.write_bytes(small.proof(5))
    entry.write_bytes(small.entries[6])
    assert verify(program, "proof", proof, entry).startswith("refused: ")
    entry.write_bytes(small.entries[5])
    assert verify(program, "proof", proof, entry) == "proof size=257 index=5 witnesses=4"
    for old, new in ((b"index 5", b"index 4"), (b"@v1", b"@v2"), (b"\n257\n", b"\n258\n")):
        proof.write_bytes(small.proof(5).replace(old, new))
        assert verify(program, "proof", proof, entry).startswith("refused: ")
