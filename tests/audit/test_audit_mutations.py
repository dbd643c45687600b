"""Whatever is changed in a published log, a proof, a mirror or a bundle is refused, by a named error."""

import shutil
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledger_kit import LOG_KEY as KIT_LOG_KEY
from ledger_kit import ORIGIN as KIT_ORIGIN
from ledger_kit import charter_of, cosigned_note, full_story, signed_note
from published_log import ORIGIN, POLICY, WITNESSES, PublishedLog

from audit import archive, bundle, merkle, proof, tiles
from audit.mirror import Mirror
from audit.note import Note, NoteSigner, SignatureLine, parse
from audit.policy import policy_of
from audit.tree_check import check_tree
from fedproto.errors import Exit, LocalFault

SIZE = 600
UNVERIFIED, CHANGED, FORK, TOO_FEW = (f"RNM-LEDGER-000{number}" for number in (1, 3, 4, 6))


def outcome(call, *args):
    """Return the code of a refusal, or nothing; any other exception is a failure of the test."""
    try:
        call(*args)
    except LocalFault as fault:
        return fault.code
    return None


def flipped(data, at, bit=0):
    changed = bytearray(data)
    changed[at] ^= 1 << bit
    return bytes(changed)


# --- a log of plain entries, as its files


class Reader:
    """An auditor of published files: the policy is pinned, and the newest head is remembered."""

    def __init__(self, root):
        self.root, self.seen = root, None

    def read(self, name):
        path = self.root / name
        return path.read_bytes() if path.is_file() else b""

    def audit(self):
        signed = POLICY.open(self.read("checkpoint")).signed
        size = signed.head.size

        def tile(level, n):
            width = min(tiles.WIDTH, size // tiles.WIDTH**level - n * tiles.WIDTH)
            return self.read(tiles.tile_path(level, n, width))

        entries = check_tree(
            signed.head, tile, lambda n, width: self.read(tiles.bundle_path(n, width))
        )
        if self.seen is not None:
            node = tiles.node_reader(tile)
            hashes = merkle.prove_consistency(node, min(self.seen.size, size), size)
            merkle.verify_consistency(
                self.seen.size, size, self.seen.root_bytes, signed.head.root_bytes, hashes
            )
        self.seen = signed.head
        return entries


@pytest.fixture(scope="session")
def published(tmp_path_factory):
    log = PublishedLog(tmp_path_factory.mktemp("published") / "log")
    log.publish(SIZE)
    return log


@pytest.fixture
def reader(published, tmp_path):
    shutil.copytree(published.root, tmp_path / "copy")
    found = Reader(tmp_path / "copy")
    assert found.audit() == published.entries
    return found


# file, where a bit is flipped, the refusal
FLIPS = {
    "a leaf": ("tile/entries/001", 200, CHANGED),
    "the last leaf": ("tile/entries/002.p/88", -1, CHANGED),
    "the length of an entry": ("tile/entries/000", 0, CHANGED),
    "a hash of a full tile": ("tile/0/001", 77, UNVERIFIED),
    "a hash of a partial tile": ("tile/0/002.p/88", -1, UNVERIFIED),
    "a hash of an upper tile": ("tile/1/000.p/2", 40, UNVERIFIED),
    "the origin": ("checkpoint", 3, UNVERIFIED),
    "the size": ("checkpoint", len(ORIGIN) + 1, UNVERIFIED),
    "the root": ("checkpoint", len(ORIGIN) + 9, UNVERIFIED),
}


@pytest.mark.parametrize("bit", [0, 7])
@pytest.mark.parametrize("name", FLIPS)
def test_a_flipped_bit_in_a_file_is_refused(reader, name, bit):
    path, at, code = FLIPS[name]
    (reader.root / path).write_bytes(flipped(reader.read(path), at, bit))
    assert outcome(reader.audit) == code


FILES = [
    "tile/entries/000",
    "tile/entries/002.p/88",
    "tile/0/000",
    "tile/0/002.p/88",
    "tile/1/000.p/2",
    "checkpoint",
]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    "change",
    [
        lambda _: b"",
        lambda data: data[:-1],
        lambda data: data[1:],
        lambda data: data[: len(data) // 2],
        lambda data: b"\x00" + data,
        lambda data: data.replace(b"\n", b"\r\n") + b"\r\n",
        lambda data: data[::-1],
    ],
    ids=["empty", "cut", "cut in front", "halved", "shifted", "CRLF", "reversed"],
)
def test_a_damaged_file_is_refused(reader, name, change):
    (reader.root / name).write_bytes(change(reader.read(name)))
    assert outcome(reader.audit) in {UNVERIFIED, CHANGED}


@pytest.mark.parametrize("name", FILES)
def test_a_file_with_bytes_after_its_end_is_refused(reader, name):
    (reader.root / name).write_bytes(reader.read(name) + b"\x00" * 32)
    assert outcome(reader.audit) in {UNVERIFIED, CHANGED}


def test_swapped_files_are_refused(reader):
    for folder in ("tile/entries", "tile/0"):
        one, two = f"{folder}/000", f"{folder}/001"
        first, second = reader.read(one), reader.read(two)
        (reader.root / one).write_bytes(second)
        (reader.root / two).write_bytes(first)
        assert outcome(reader.audit) in {UNVERIFIED, CHANGED}
        (reader.root / one).write_bytes(first)
        (reader.root / two).write_bytes(second)
    assert outcome(reader.audit) is None


def test_a_leaf_changed_with_its_tiles_is_refused(reader, published):
    changed = PublishedLog(reader.root)
    changed.grow(SIZE)
    changed.entries[5] = b"changed"
    leaves = [merkle.leaf_hash(entry) for entry in changed.entries]
    grown = tiles.RightEdge().grow(leaves)
    for tile in tiles.hash_tiles(SIZE):
        (reader.root / tile.path).write_bytes(grown.tiles[tile.level, tile.n])
    (reader.root / "tile/entries/000").write_bytes(tiles.encode_bundle(changed.entries[:256]))
    assert outcome(reader.audit) == UNVERIFIED


# --- signatures


def relined(note, change):
    parsed = parse(note)
    return Note(parsed.text, tuple(change(parsed.lines))).encode()


def resigned(at, number):
    """Flip a bit of one line's signature field."""

    def change(lines):
        line = lines[number]
        forged = SignatureLine(line.name, line.key_id, flipped(line.signature, at))
        return (*lines[:number], forged, *lines[number + 1 :])

    return change


def swapped(one, two):
    def change(lines):
        kept = list(lines)
        kept[one] = SignatureLine(lines[one].name, lines[one].key_id, lines[two].signature)
        kept[two] = SignatureLine(lines[two].name, lines[two].key_id, lines[one].signature)
        return kept

    return change


ALIAS = NoteSigner("alias.example/w1", WITNESSES[0].seed, cosigner=True)
# Lines: the log, four Ed25519 witnesses, one ML-DSA witness; three witnesses are enough.
SIGNATURES = {
    "the log's signature": (resigned(0, 0), UNVERIFIED),
    "a cosignature": (resigned(70, 1), UNVERIFIED),
    "an ML-DSA cosignature": (resigned(2_000, 5), UNVERIFIED),
    "a timestamp": (resigned(7, 2), UNVERIFIED),
    "a timestamp beyond its range": (resigned(0, 2), UNVERIFIED),
    "the timestamp of an ML-DSA cosignature": (resigned(7, 5), UNVERIFIED),
    "no log signature": (lambda lines: lines[1:], UNVERIFIED),
    "no witness": (lambda lines: lines[:1], TOO_FEW),
    "stripped witnesses": (lambda lines: lines[:3], TOO_FEW),
    "stripped Ed25519 witnesses": (lambda lines: (lines[0], lines[5]), TOO_FEW),
    "a witness twice": (lambda lines: (*lines, lines[1]), UNVERIFIED),
    "a witness twice instead of another": (lambda lines: (*lines[:3], lines[2]), UNVERIFIED),
    "the log twice": (lambda lines: (lines[0], *lines), UNVERIFIED),
    "a witness under two names": (
        lambda lines: (*lines[:3], SignatureLine(ALIAS.name, ALIAS.verifier.key_id, lines[1].signature)),
        TOO_FEW,
    ),
    "swapped witnesses": (swapped(1, 2), UNVERIFIED),
    "swapped kinds of witness": (swapped(1, 5), UNVERIFIED),
    "the log as a witness": (swapped(0, 1), UNVERIFIED),
    "a cut signature": (
        lambda lines: (*lines[:5], replace(lines[5], signature=lines[5].signature[:-1])),
        UNVERIFIED,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SIGNATURES)
def test_a_changed_signature_is_refused_in_a_log_and_in_a_proof(reader, published, name):
    change, code = SIGNATURES[name]
    parsed = parse(published.note())
    rows = b"".join(line.encode() for line in change(parsed.lines))
    checkpoint = parsed.text + b"\n" + rows
    (reader.root / "checkpoint").write_bytes(checkpoint)
    assert outcome(reader.audit) == code
    made = proof.TlogProof(index=5, hashes=tuple(published.hashes(5)), checkpoint=checkpoint)
    assert outcome(proof.verify, made.encode(), published.entries[5], POLICY) == code


def test_only_lines_that_nobody_counts_may_change(published):
    good = published.note()
    assert POLICY.open(relined(good, lambda lines: lines[:4])).cosignatures
    assert POLICY.open(relined(good, lambda lines: (lines[0], *reversed(lines[1:])))).cosignatures


def test_every_flipped_bit_of_a_checkpoint_with_a_bare_quorum_is_refused(published):
    good = published.note(WITNESSES[:3])
    assert POLICY.open(good)
    for at in range(len(good)):
        for bit in range(8):
            found = outcome(POLICY.open, flipped(good, at, bit))
            assert found in {UNVERIFIED, TOO_FEW}, (at, bit)


# --- forks and older states


def test_a_fork_of_equal_size_is_refused_by_who_has_seen_the_other(reader, tmp_path):
    fork = PublishedLog(tmp_path / "fork", name="fork")
    fork.publish(SIZE)
    honest = reader.root
    reader.root = fork.root
    assert outcome(Reader(fork.root).audit) is None  # alone it looks whole
    assert outcome(reader.audit) == UNVERIFIED
    reader.root = honest
    assert outcome(reader.audit) is None


@pytest.mark.parametrize("size", [1, 255, 256, 257, SIZE - 1])
def test_an_older_log_is_refused_by_who_has_seen_the_newer(reader, tmp_path, size):
    older = PublishedLog(tmp_path / "older")
    older.publish(size)
    reader.root = older.root
    assert outcome(reader.audit) == UNVERIFIED


@pytest.mark.parametrize("size", [1, 255, 256, 257, SIZE - 1])
def test_a_log_that_forks_below_what_was_seen_is_refused(tmp_path, published, size):
    fork = PublishedLog(tmp_path / "fork", name="fork")
    fork.publish(size)
    reader = Reader(fork.root)
    assert outcome(reader.audit) is None
    reader.root = published.root
    assert outcome(reader.audit) == UNVERIFIED


# --- inclusion proofs


TREES = {}


def tree(size):
    """The leaves and the nodes of a tree, built once a size."""
    if size not in TREES:
        log = PublishedLog(None)
        log.grow(size)
        TREES[size] = (log, [merkle.leaf_hash(entry) for entry in log.entries])
    return TREES[size]


@dataclass(frozen=True)
class Inclusion:
    """What `verify_inclusion` is asked."""

    leaf: bytes
    index: int
    size: int
    hashes: list[bytes]
    root: bytes

    def code(self):
        return outcome(
            merkle.verify_inclusion, self.leaf, self.index, self.size, self.hashes, self.root
        )


@st.composite
def inclusions(draw):
    size = draw(st.sampled_from([1, 2, 3, 5, 8, 255, 256, 257, 300]))
    index = draw(st.integers(0, size - 1))
    log, leaves = tree(size)
    return Inclusion(leaves[index], index, size, log.hashes(index), log.head.root_bytes)


def flip_anywhere(data, draw):
    return flipped(data, draw(st.integers(0, len(data) - 1)), draw(st.integers(0, 7)))


@given(inclusions(), st.data())
def test_a_fuzzed_inclusion_proof_is_always_refused(true, data):
    draw = data.draw
    assert true.code() is None
    assert replace(true, leaf=flip_anywhere(true.leaf, draw)).code() == UNVERIFIED
    assert replace(true, root=flip_anywhere(true.root, draw)).code() == UNVERIFIED
    other = draw(st.integers(-2, true.size + 2).filter(lambda index: index != true.index))
    assert replace(true, index=other).code() == UNVERIFIED
    more = draw(st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=70))
    assert replace(true, hashes=[*true.hashes, *more]).code() == UNVERIFIED
    assert replace(true, hashes=[*more, *true.hashes]).code() == UNVERIFIED
    for number, item in enumerate(true.hashes):
        rest = [*true.hashes[:number], *true.hashes[number + 1 :]]
        assert replace(true, hashes=rest).code() == UNVERIFIED
        bent = [*true.hashes[:number], flip_anywhere(item, draw), *true.hashes[number + 1 :]]
        assert replace(true, hashes=bent).code() == UNVERIFIED
        short = [*true.hashes[:number], item[:-1], *true.hashes[number + 1 :]]
        assert replace(true, hashes=short).code() == UNVERIFIED


@given(
    st.binary(max_size=40),
    st.integers(-(2**70), 2**70),
    st.integers(-(2**70), 2**70),
    st.lists(st.binary(max_size=40), max_size=70),
    st.binary(max_size=40),
)
def test_nonsense_for_an_inclusion_proof_is_refused_by_name(leaf, index, size, hashes, root):
    assert Inclusion(leaf, index, size, hashes, root).code() == UNVERIFIED
    assert outcome(merkle.verify_consistency, index, size, leaf, root, hashes) in {UNVERIFIED, None}


@given(inclusions(), st.integers(1, 2**65))
def test_another_size_is_refused_since_the_log_signed_it(true, size):
    log, _ = tree(true.size)
    good = log.proof(true.index)
    entry = log.entries[true.index]
    assert outcome(proof.verify, good, entry, POLICY) is None
    text = b"\n%d\n" % true.size
    changed = good.replace(text, b"\n%d\n" % size, 1)
    assert outcome(proof.verify, changed, entry, POLICY) == (
        None if changed == good else UNVERIFIED
    )


def test_a_proof_is_of_one_entry_only(published):
    for index in (0, 255, 256, SIZE - 1):
        data = published.proof(index)
        assert outcome(proof.verify, data, published.entries[index], POLICY) is None
        for other in (0, 1, 255, 256, SIZE - 2, SIZE - 1):
            if other != index:
                found = outcome(proof.verify, data, published.entries[other], POLICY)
                assert found == UNVERIFIED
        # Nor is an inner node a leaf.
        assert outcome(proof.verify, data, published.tile(0, 0)[:64], POLICY) == UNVERIFIED


# --- the mirror and the bundle, which replay the entries as well


STORY = full_story()
LEAVES = STORY.leaves
GENESIS = charter_of().digest
PINNED = bundle.Pinned(log_vkey=KIT_LOG_KEY.vkey, genesis_sha256=GENESIS)


def open_mirror(directory):
    return Mirror(directory, log_vkey=KIT_LOG_KEY.vkey, origin=KIT_ORIGIN, genesis_sha256=GENESIS)


@pytest.fixture
def mirror(tmp_path):
    found = open_mirror(tmp_path / "mirror")
    found.update(cosigned_note(LEAVES), LEAVES)
    return tmp_path / "mirror"


WIDTH = len(LEAVES)
assert WIDTH < tiles.WIDTH


@pytest.mark.parametrize(
    "name", [f"tile/entries/000.p/{WIDTH}", f"tile/0/000.p/{WIDTH}", "checkpoint"]
)
@settings(max_examples=25)
@given(data=st.data())
def test_a_mirror_whose_file_was_changed_is_not_opened(tmp_path_factory, name, data):
    directory = tmp_path_factory.mktemp("mirror")
    open_mirror(directory).update(cosigned_note(LEAVES), LEAVES)
    path = directory / name
    good = path.read_bytes()
    at = data.draw(st.integers(0, len(good) - 1))
    kind = data.draw(st.sampled_from(["flip", "cut", "remove", "add"]))
    changed = {
        "flip": flipped(good, at, data.draw(st.integers(0, 7))),
        "cut": good[:at],
        "remove": good[:at] + good[at + 1 :],
        "add": good[:at] + b"\x00" + good[at:],
    }[kind]
    path.write_bytes(changed)
    if name == "checkpoint" and kind == "cut" and at == 0:
        return  # an empty checkpoint is a mirror that never accepted anything
    found = outcome(open_mirror, directory)
    if name == "checkpoint" and found is None:
        # One witness's line became a stranger's: three of four are still enough.
        policy = policy_of(charter_of())
        assert len(policy.open(changed).cosignatures) == 3
        return
    assert found in {UNVERIFIED, CHANGED, TOO_FEW}


def test_a_mirror_refuses_a_fork_an_older_log_and_a_stripped_one(mirror):
    opened = open_mirror(mirror)
    fork = [*LEAVES[:-1], LEAVES[0]]
    assert outcome(opened.update, cosigned_note(fork), []) == FORK
    assert outcome(opened.update, cosigned_note(fork[:-3] + LEAVES[:1]), []) == FORK
    assert outcome(opened.update, cosigned_note(LEAVES[:-1]), []) == UNVERIFIED
    assert outcome(opened.update, signed_note(LEAVES), []) == TOO_FEW
    assert outcome(opened.update, cosigned_note(LEAVES).replace(b"\n", b"\r\n"), []) == UNVERIFIED
    assert opened.head.size == WIDTH


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    path = tmp_path_factory.mktemp("packed") / "good.zip"
    policy = policy_of(charter_of())
    bundle.write(path, note=cosigned_note(LEAVES), entries=LEAVES, policy=policy)
    return path.read_bytes()


def verify_bundle(path, data):
    path.write_bytes(data)
    try:
        bundle.verify(path, pinned=PINNED)
    except LocalFault as fault:
        return fault
    return None


def repacked(packed, **changes):
    """A bundle with changed members whose own list of digests was put right."""
    members = archive.unpack(packed)
    members |= {name: change(members[name]) for name, change in changes.items()}
    rest = {name: data for name, data in members.items() if name != bundle.SUMS}
    return archive.pack({bundle.SUMS: bundle._sums(rest), **rest})


@given(data=st.data())
def test_every_flipped_bit_of_a_bundle_is_refused(packed, tmp_path_factory, data):
    at = data.draw(st.integers(0, len(packed) - 1))
    path = tmp_path_factory.getbasetemp() / "flipped.zip"
    fault = verify_bundle(path, flipped(packed, at, data.draw(st.integers(0, 7))))
    assert fault is not None
    assert fault.exit in {Exit.VERIFY, Exit.POLICY}


MEMBERS = (
    "checkpoint",
    "log.vkey",
    "policy",
    f"tile/0/000.p/{WIDTH}",
    f"tile/entries/000.p/{WIDTH}",
)


@pytest.mark.parametrize("name", MEMBERS)
@pytest.mark.parametrize("change", ["flip", "cut", "extend", "empty"])
def test_a_bundle_whose_digests_were_put_right_is_still_refused(packed, tmp_path, name, change):
    changes = {
        "flip": lambda data: flipped(data, len(data) // 3),
        "cut": lambda data: data[:-1],
        "extend": lambda data: data + b"\x00" * 32,
        "empty": lambda _: b"",
    }
    assert verify_bundle(tmp_path / "same.zip", repacked(packed)) is None
    fault = verify_bundle(tmp_path / "bad.zip", repacked(packed, **{name: changes[change]}))
    assert fault is not None
    assert fault.exit in {Exit.VERIFY, Exit.POLICY}
