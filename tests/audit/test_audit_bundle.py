"""The bundle and its offline verifier: whatever byte was changed, it is refused, and named."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ledger_kit import (
    FOUNDED,
    LOG_KEY,
    ORIGIN,
    TRAINERS,
    Story,
    base_model,
    charter_of,
    cosign,
    cosigned_note,
    digest,
    full_story,
    seed,
    signed_note,
    witness_of,
)

from audit import archive, bundle
from audit.bundle import Pinned
from audit.note import NoteSigner, parse
from audit.policy import policy_of
from audit.verifier.page import page
from fedproto.errors import Exit, LocalFault

STORY = full_story()
SIZE = len(STORY.leaves)
POLICY = policy_of(charter_of())
PINNED = Pinned(log_vkey=LOG_KEY.vkey, genesis_sha256=charter_of().digest)


def write(path, leaves=STORY.leaves, note=None, **more):
    bundle.write(path, note=note or cosigned_note(leaves), entries=leaves, policy=POLICY, **more)
    return path


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return write(tmp_path_factory.mktemp("bundle") / "good.zip").read_bytes()


def refused(path, data, pinned=PINNED):
    path.write_bytes(data)
    with pytest.raises(LocalFault) as caught:
        bundle.verify(path, pinned=pinned)
    assert caught.value.exit in {Exit.VERIFY, Exit.POLICY}
    return caught.value


def spans(data):
    """Return where each file's bytes lie in the archive, by name."""
    found, offset = {}, 0
    for name, content in archive.unpack(data).items():
        start = offset + 30 + len(name)
        found[name] = range(start, start + len(content))
        offset = start + len(content)
    return found


def entry_spans(data):
    """Return where each entry lies in the archive, with its length prefix."""
    (start, *_), result = spans(data)[f"tile/entries/000.p/{SIZE}"], []
    for leaf in STORY.leaves:
        result.append(range(start, start + 2 + len(leaf)))
        start += 2 + len(leaf)
    return result


def test_an_untouched_bundle_is_verified_with_everything_pinned(tmp_path):
    findings = bundle.verify(write(tmp_path / "b.zip"), pinned=PINNED)
    assert findings.unpinned == ()
    assert findings.checkpoint.head == STORY.state.head
    assert findings.entries == tuple(STORY.leaves)
    assert [item.member for item in findings.cosignatures] == list(TRAINERS)
    (run,) = findings.runs
    # The base model, four datasets and the proposal stand before the ballots.
    assert run.votes == tuple(range(FOUNDED + 6, FOUNDED + 10))
    assert [(r.round, r.included, r.receipts) for r in run.rounds] == [
        (1, TRAINERS, TRAINERS),
        (2, TRAINERS, TRAINERS),
    ]
    assert run.model_out == digest("adapter:2")


def test_what_was_not_pinned_is_said(tmp_path):
    path = write(tmp_path / "b.zip")
    assert bundle.verify(path, pinned=Pinned()).unpinned == ("log_vkey", "genesis_sha256")


def test_the_same_log_gives_the_same_file(tmp_path, good):
    assert write(tmp_path / "again.zip").read_bytes() == good


def test_a_bundle_is_an_ordinary_zip_and_a_static_log(tmp_path, good):
    path = tmp_path / "b.zip"
    path.write_bytes(good)
    with zipfile.ZipFile(path) as opened:
        assert opened.testzip() is None
        assert opened.namelist() == list(archive.unpack(good))
        assert opened.read("checkpoint") == cosigned_note(STORY.leaves)
        opened.extractall(tmp_path / "out")
    check = subprocess.run(
        ["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"],
        cwd=tmp_path / "out",
        check=False,
    )
    assert check.returncode == 0


def test_attachments_are_carried_and_listed(tmp_path):
    path = write(tmp_path / "b.zip", attachments={"report.ja.txt": b"x" * 100, "a.txt": b""})
    bundle.verify(path, pinned=PINNED)
    data = path.read_bytes()
    at = spans(data)["attachments/report.ja.txt"][50]
    fault = refused(path, data[:at] + b"y" + data[at + 1 :])
    assert fault.code == "RNM-LEDGER-0001"


def test_every_331st_byte_changed_is_refused(tmp_path, good):
    places = entry_spans(good)
    for at in [*range(0, len(good), 331), *range(0, 2000, 97)]:
        data = good[:at] + bytes([good[at] ^ 0x20]) + good[at + 1 :]
        fault = refused(tmp_path / "x.zip", data)
        touched = [index for index, span in enumerate(places) if at in span]
        if touched:
            assert fault.code == "RNM-LEDGER-0003", (at, fault)
            assert fault.what == f"entry {touched[0]} was changed"
            assert fault.exit is Exit.VERIFY
        else:
            assert fault.code == "RNM-LEDGER-0001", (at, fault)


def test_bytes_outside_the_entries_changed_are_refused(tmp_path, good):
    inside = entry_spans(good)
    start = good.index(page())
    shown = range(start, start + len(page()))
    outside = [
        at
        for at in range(len(good))
        if not inside[0][0] <= at <= inside[-1][-1] and at not in shown
    ]
    # The page is long, and one comparison judges all of it.
    for at in [*outside[::7], *shown[::997]]:
        data = good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :]
        assert refused(tmp_path / "x.zip", data).code == "RNM-LEDGER-0001"


@given(st.integers(0, SIZE - 1), st.data())
def test_a_changed_byte_of_an_entry_names_it(tmp_path_factory, good, index, data):
    span = entry_spans(good)[index]
    at, bit = data.draw(st.sampled_from(span)), data.draw(st.integers(0, 7))
    changed = good[:at] + bytes([good[at] ^ (1 << bit)]) + good[at + 1 :]
    fault = refused(tmp_path_factory.mktemp("x") / "x.zip", changed)
    assert (fault.code, fault.what) == ("RNM-LEDGER-0003", f"entry {index} was changed")


def test_a_changed_tile_or_checkpoint_is_named_as_such(tmp_path, good):
    for name, words in (
        (f"tile/0/000.p/{SIZE}", "item 3 of tile/0/000"),
        ("checkpoint", "checkpoint"),
        ("policy", "charter in force"),
        ("log.vkey", "pinned"),
        ("SHA256SUMS", "a file differs"),
    ):
        at = spans(good)[name][100 if name != "log.vkey" else 50]
        fault = refused(tmp_path / "x.zip", good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        assert words in fault.why + fault.what, name
        assert fault.code == "RNM-LEDGER-0001"


@pytest.mark.parametrize("cut", [0, 1, 100, 10_000, -1, -22, -300])
def test_a_cut_bundle_is_refused(tmp_path, good, cut):
    assert refused(tmp_path / "x.zip", good[:cut]).code in {"RNM-LEDGER-0001", "RNM-LEDGER-0003"}


def test_bytes_before_and_after_a_bundle_are_refused(tmp_path, good):
    for data in (good + b"x", b"x" + good, good + good):
        assert refused(tmp_path / "x.zip", data).code == "RNM-LEDGER-0001"


def rebuilt(members):
    rest = {name: data for name, data in members.items() if name != bundle.SUMS}
    return archive.pack({bundle.SUMS: bundle._sums(rest), **rest})


def test_files_too_many_too_few_or_in_another_order_are_refused(tmp_path, good):
    members = archive.unpack(good)
    assert rebuilt(members) == good
    stray = {**members, "tile/9/000": b"x"}
    swapped = dict(reversed(members.items()))
    for changed in (stray, swapped):
        assert refused(tmp_path / "x.zip", rebuilt(changed)).code == "RNM-LEDGER-0001"
    for name in members:
        fewer = {key: value for key, value in members.items() if key != name}
        if name != bundle.SUMS:
            assert refused(tmp_path / "x.zip", rebuilt(fewer)).code == "RNM-LEDGER-0001"


def test_a_bundle_repacked_by_another_program_is_refused(tmp_path, good):
    with zipfile.ZipFile(tmp_path / "z.zip", "w", zipfile.ZIP_DEFLATED) as repacked:
        for name, data in archive.unpack(good).items():
            repacked.writestr(name, data)
    assert refused(tmp_path / "x.zip", (tmp_path / "z.zip").read_bytes()).exit is Exit.VERIFY


def test_another_log_key_or_charter_than_the_pinned_is_refused(tmp_path, good):
    other = NoteSigner(ORIGIN, seed("other")).vkey
    fault = refused(tmp_path / "x.zip", good, Pinned(log_vkey=other))
    assert "another log key" in fault.why
    fault = refused(tmp_path / "x.zip", good, Pinned(genesis_sha256=digest("other")))
    assert "pinned" in fault.why


def test_a_whole_bundle_forged_under_another_log_key_is_refused(tmp_path):
    """The forger re-signs everything it can, and swaps the keys in the bundle to match."""
    forger = NoteSigner(ORIGIN, seed("forger"))
    members = archive.unpack(write(tmp_path / "b.zip").read_bytes())
    members["checkpoint"] = cosign(signed_note(STORY.leaves, forger))
    members["log.vkey"] = f"{forger.vkey}\n".encode()
    members["policy"] = members["policy"].replace(LOG_KEY.vkey.encode(), forger.vkey.encode())
    assert refused(tmp_path / "x.zip", rebuilt(members)).code == "RNM-LEDGER-0001"
    fault = refused(tmp_path / "x.zip", rebuilt(members), Pinned())
    assert "its charter names another log key" in fault.why


@pytest.mark.parametrize("who", [(), TRAINERS[:2]])
def test_too_few_witnesses_are_refused(tmp_path, who):
    path = write(tmp_path / "b.zip", note=cosigned_note(STORY.leaves, who))
    assert refused(path, path.read_bytes()).code == "RNM-LEDGER-0006"


def test_a_line_of_a_stranger_under_the_checkpoint_is_refused(tmp_path):
    note = cosigned_note(STORY.leaves)
    stranger = NoteSigner("stranger/w1", seed("stranger"), cosigner=True)
    path = write(tmp_path / "b.zip", note=note + stranger.cosign(parse(note).text, 1).encode())
    assert "neither the log's nor a witness's" in refused(path, path.read_bytes()).why


def test_a_log_that_shrank_or_was_reordered_is_refused(tmp_path):
    leaves = STORY.leaves
    for forged in (leaves[:-1], [*leaves[:5], leaves[6], leaves[5], *leaves[7:]]):
        path = write(tmp_path / "b.zip", leaves=forged, note=cosigned_note(leaves))
        assert refused(path, path.read_bytes()).exit is Exit.VERIFY


def test_an_entry_that_the_charter_does_not_allow_is_refused_though_all_signed(tmp_path):
    story = Story()
    story.genesis()
    leaves = [*story.leaves, story.leaf("meti", base_model())]
    path = write(tmp_path / "b.zip", leaves=leaves)
    fault = refused(path, path.read_bytes())
    assert f"entry {FOUNDED} does not follow: RNM-GOV-0001" in fault.why


def test_a_forged_signature_in_an_entry_is_refused_though_all_signed(tmp_path):
    story = Story()
    story.genesis()
    honest, other = story.leaf("pfn", base_model()), story.leaf("pfn", base_model())
    payload = honest.split(b'"')[3]
    leaves = [*story.leaves, honest.replace(payload, other.split(b'"')[3])]
    path = write(tmp_path / "b.zip", leaves=leaves)
    fault = refused(path, path.read_bytes())
    assert f"entry {FOUNDED} does not follow: RNM-SIG-0001" in fault.why


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(LocalFault, match="RNM-CONF-0001"):
        bundle.verify(tmp_path / "absent.zip", pinned=PINNED)


def test_a_full_disk_leaves_no_bundle(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(LocalFault, match="RNM-DISK-0001"):
        write(tmp_path / "b.zip")
    assert list(tmp_path.iterdir()) == []


def test_a_large_log_is_bundled_over_several_tiles(tmp_path):
    story = Story()
    story.genesis()
    while len(story.leaves) < 301:
        story.act("pfn", base_model(f"base {len(story.leaves)}"))
    path = write(tmp_path / "b.zip", leaves=story.leaves)
    assert bundle.verify(path, pinned=PINNED).checkpoint.head.size == 301
    data = path.read_bytes()
    assert list(archive.unpack(data))[5:] == [
        "tile/0/000",
        "tile/0/001.p/45",
        "tile/1/000.p/1",
        "tile/entries/000",
        "tile/entries/001.p/45",
    ]
    at = spans(data)["tile/1/000.p/1"][5]
    fault = refused(path, data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    assert "tile/1/000.p/1" in fault.why


OFFLINE = """
import sys
BLOCKED = {"torch", "flwr", "grpc", "sqlmodel", "sqlalchemy", "numpy", "google", "opentelemetry",
           "transformers", "rich", "pydantic"}
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ImportError(f"{name} is blocked")
sys.meta_path.insert(0, Block())
from pathlib import Path
from audit.bundle import Pinned, verify
from audit.mirror import Mirror
from audit.witness import Witness
from fedproto.errors import FederationError
try:
    findings = verify(Path(sys.argv[1]), pinned=Pinned(log_vkey=sys.argv[2], genesis_sha256=sys.argv[3]))
except FederationError as error:
    print(error.code, error.what)
    sys.exit(int(error.exit))
assert not BLOCKED & {name.partition(".")[0] for name in sys.modules}
print(len(findings.entries), len(findings.cosignatures))
"""


def offline(path):
    return subprocess.run(
        [sys.executable, "-c", OFFLINE, str(path), LOG_KEY.vkey, charter_of().digest],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


def test_a_bundle_is_verified_where_nothing_but_cryptography_is_installed(tmp_path, good):
    path = Path(tmp_path / "b.zip")
    path.write_bytes(good)
    run = offline(path)
    assert (run.returncode, run.stdout) == (0, f"{SIZE} {len(TRAINERS)}\n"), run.stderr
    at = entry_spans(good)[13][1000]
    path.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
    run = offline(path)
    assert run.returncode == Exit.VERIFY, run.stderr
    assert run.stdout == "RNM-LEDGER-0003 entry 13 was changed\n"
    assert witness_of("nec").name
