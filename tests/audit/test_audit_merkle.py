"""RFC 6962 trees, against a second implementation written straight from the RFC's recursion."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit import merkle, tiles
from fedproto.errors import LocalFault

SIZES = (1, 2, 3, 7, 8, 255, 256, 257, 511, 512, 513)


def leaf(i):
    return merkle.leaf_hash(b"entry %d" % i)


def mth(hashes):
    """MTH of RFC 6962 section 2.1."""
    if not hashes:
        return hashlib.sha256(b"").digest()
    if len(hashes) == 1:
        return hashes[0]
    k = 1
    while k * 2 < len(hashes):
        k *= 2
    return hashlib.sha256(b"\x01" + mth(hashes[:k]) + mth(hashes[k:])).digest()


LEAVES = [leaf(i) for i in range(600)]


def nodes_of(size):
    edge = tiles.RightEdge()
    grown = edge.grow(LEAVES[:size])
    return tiles.node_reader(lambda level, n: bytes(grown.tiles[level, n]))


NODES = nodes_of(600)


@pytest.mark.parametrize("size", [0, *SIZES])
def test_the_root_is_that_of_the_rfc(size):
    assert merkle.root_of(LEAVES[:size]) == mth(LEAVES[:size])
    assert merkle.subtree_root(NODES, 0, size) == mth(LEAVES[:size])


@pytest.mark.parametrize("size", SIZES)
def test_every_entry_of_a_tree_is_proven(size):
    root = mth(LEAVES[:size])
    for index in range(size):
        proof = merkle.prove_inclusion(NODES, index, size)
        merkle.verify_inclusion(LEAVES[index], index, size, proof, root)


@pytest.mark.parametrize("size", SIZES)
def test_every_older_tree_is_proven_to_be_a_prefix(size):
    root = mth(LEAVES[:size])
    for old in range(size + 1):
        proof = merkle.prove_consistency(NODES, old, size)
        merkle.verify_consistency(old, size, mth(LEAVES[:old]), root, proof)


def test_the_worked_example_is_reproduced():
    entries = [b"alpha", b"beta", b"gamma"]
    hashes = [merkle.leaf_hash(entry) for entry in entries]
    assert [value.hex() for value in hashes] == [
        "2a158d8afd48e3f88cb4195dfdb2a9e4817d95fa57fd34440d93f9aae5c4f82b",
        "e23537b050e84af2cbaab46f2f83d8d3b5febc8e5ac6200d306284f687d46924",
        "4c79d0d62f7cf5ca8874155f2d3b875f2625da2bb3abc86bbd6833f25ba90e51",
    ]
    node = merkle.node_hash(hashes[0], hashes[1])
    assert node.hex() == "983cb57c04cddd52634edab38a7bef85708a974f114bbd9aa9ec5d4ce6656b4b"
    root = merkle.root_of(hashes)
    assert root.hex() == "385da30f3917282c8939dff851957e519ab1846b1351a14c0adb3b11632742aa"
    assert tiles.encode_bundle(entries).hex() == "0005616c706861000462657461000567616d6d61"
    grown = tiles.RightEdge().grow(hashes)
    reader = tiles.node_reader(lambda level, n: bytes(grown.tiles[level, n]))
    assert merkle.prove_inclusion(reader, 1, 3) == [hashes[0], hashes[2]]
    assert merkle.prove_consistency(reader, 2, 3) == [hashes[2]]


def refused(call, *args):
    with pytest.raises(LocalFault) as caught:
        call(*args)
    assert caught.value.code == "RNM-LEDGER-0001"


@st.composite
def pair(draw):
    size = draw(st.integers(2, 600))
    return draw(st.integers(0, size - 1)), size


def mutate(draw, proof):
    """Return the proof flipped, cut, extended or with two hashes swapped; never the same."""
    kind = draw(st.sampled_from(["flip", "cut", "extend", "front", "short"]))
    proof = list(proof)
    if kind == "flip" and proof:
        at, bit = draw(st.integers(0, len(proof) - 1)), draw(st.integers(0, 255))
        value = bytearray(proof[at])
        value[bit // 8] ^= 1 << (bit % 8)
        proof[at] = bytes(value)
    elif kind == "cut" and proof:
        del proof[draw(st.integers(0, len(proof) - 1))]
    elif kind == "short" and proof:
        proof[-1] = proof[-1][:-1]
    elif kind == "front":
        proof.insert(0, bytes(32))
    else:
        proof.append(bytes(32))
    return proof


@given(st.data(), pair())
def test_a_changed_inclusion_proof_is_refused(data, place):
    index, size = place
    root, proof = mth(LEAVES[:size]), merkle.prove_inclusion(NODES, index, size)
    changed = mutate(data.draw, proof)
    refused(merkle.verify_inclusion, LEAVES[index], index, size, changed, root)


@given(st.data(), pair())
def test_a_changed_consistency_proof_is_refused(data, place):
    old, size = place
    roots, proof = (
        (mth(LEAVES[:old]), mth(LEAVES[:size])),
        merkle.prove_consistency(NODES, old, size),
    )
    refused(merkle.verify_consistency, old, size, *roots, mutate(data.draw, proof))


@given(pair(), st.integers(0, 599))
def test_a_proof_holds_for_no_other_place(place, other):
    index, size = place
    root, proof = mth(LEAVES[:size]), merkle.prove_inclusion(NODES, index, size)
    if other != index:
        refused(merkle.verify_inclusion, LEAVES[index], other, size, proof, root)
        refused(merkle.verify_inclusion, LEAVES[other], index, size, proof, root)


@pytest.mark.parametrize(
    ("old", "size"), [(0, 5), (5, 5), (4, 8), (6, 8)], ids=["empty", "same", "complete", "ragged"]
)
def test_two_roots_for_one_size_are_refused(old, size):
    proof = merkle.prove_consistency(NODES, old, size)
    refused(merkle.verify_consistency, old, size, b"\x01" * 32, mth(LEAVES[:size]), proof)
    if old:
        refused(merkle.verify_consistency, old, size, mth(LEAVES[:old]), b"\x01" * 32, proof)


def test_an_empty_tree_has_one_root():
    merkle.verify_consistency(0, 0, merkle.EMPTY_ROOT, merkle.EMPTY_ROOT, [])
    refused(merkle.verify_consistency, 0, 0, merkle.EMPTY_ROOT, bytes(32), [])
    refused(merkle.verify_consistency, 0, 3, merkle.EMPTY_ROOT, mth(LEAVES[:3]), [bytes(32)])


def test_a_shrunken_tree_is_refused():
    refused(merkle.verify_consistency, 5, 4, mth(LEAVES[:5]), mth(LEAVES[:4]), [])


def test_proofs_beyond_the_tree_are_not_made():
    with pytest.raises(ValueError, match="no leaf"):
        merkle.prove_inclusion(NODES, 5, 5)
    with pytest.raises(ValueError, match="does not extend"):
        merkle.prove_consistency(NODES, 6, 5)
