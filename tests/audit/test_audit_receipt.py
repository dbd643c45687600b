"""COSE receipts: the bytes of RFC 9942, one spelling, and a place that is signed although it need not be."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit import cbor, merkle, receipt
from audit.checkpoint import Checkpoint, TreeHead, open_checkpoint, sign
from audit.note import NoteSigner
from audit.tiles import RightEdge, node_reader
from fedproto.errors import LocalFault
from fedproto.ids import Digest

ORIGIN = "ledger.consortium.example/fl-gov"
LOG = NoteSigner(ORIGIN, hashlib.sha256(b"lab-seed:log").digest())
ENTRIES = (b"alpha", b"beta", b"gamma")
L0, L1, L2 = map(merkle.leaf_hash, ENTRIES)
ROOT = bytes.fromhex("385da30f3917282c8939dff851957e519ab1846b1351a14c0adb3b11632742aa")


def signed(entries, key=LOG):
    root = Digest(merkle.root_of(map(merkle.leaf_hash, entries)).hex())
    data = sign(Checkpoint(ORIGIN, TreeHead(len(entries), root)), key)
    return open_checkpoint(data, key.verifier, ORIGIN)


def issue(entries, index):
    grown = RightEdge().grow([merkle.leaf_hash(entry) for entry in entries])
    nodes = node_reader(lambda level, n: bytes(grown.tiles[level, n]))
    hashes = merkle.prove_inclusion(nodes, index, len(entries))
    return receipt.issue(entries[index], index, hashes, signed(entries), LOG)


GOOD = issue(ENTRIES, 1)


def refused(data, entry=b"beta", log=LOG.verifier):
    with pytest.raises(LocalFault) as caught:
        receipt.verify(data, entry, log)
    assert caught.value.code == "RNM-LEDGER-0001"
    return caught.value.why


def by_hand(size=3, index=1, path=(L0, L2), subject=None, key=LOG, root=ROOT):
    """The bytes of RFC 9942, put together without the encoder under test."""
    subject = (subject or f"{L1.hex()}/1/3").encode()
    protected = (
        b"\xa4"
        + bytes.fromhex("01 27")  # 1: -8, EdDSA
        + bytes.fromhex("04 44")  # 4: kid
        + key.verifier.key_id
        + bytes.fromhex("0f a2 01 78")  # 15: {1: issuer, 2: subject}
        + bytes([len(ORIGIN)])
        + ORIGIN.encode()
        + bytes.fromhex("02 78")
        + bytes([len(subject)])
        + subject
        + bytes.fromhex("19 018b 01")  # 395: 1, RFC9162_SHA256
    )
    to_sign = (
        b"\x84\x6aSignature1\x58"
        + bytes([len(protected)])
        + protected
        + b"\x40\x58\x20"
        + root  # the detached payload
    )
    hashes = b"".join(b"\x58\x20" + item for item in path)
    inclusion = bytes([0x83, size, index, 0x80 | len(path)]) + hashes
    return (
        b"\xd2\x84\x58"
        + bytes([len(protected)])
        + protected
        + bytes.fromhex("a1 19 018c a1 20 81 58")  # {396: {-1: [
        + bytes([len(inclusion)])
        + inclusion
        + b"\xf6\x58\x40"
        + key.sign(to_sign).signature
    )


def test_a_receipt_has_the_bytes_of_the_specification():
    assert by_hand() == GOOD
    assert receipt.verify(by_hand(), b"beta", LOG.verifier) == receipt.Inclusion(
        index=1, size=3, root=Digest(ROOT.hex())
    )


@pytest.mark.parametrize("size", [1, 2, 3, 8, 257])
def test_each_entry_gets_a_receipt(size):
    entries = [b"entry %d" % i for i in range(size)]
    for index in {0, size // 2, size - 1}:
        found = receipt.verify(issue(entries, index), entries[index], LOG.verifier)
        assert (found.index, found.size) == (index, size)
        refused(issue(entries, index), b"another")


def test_another_log_key_verifies_nothing():
    stranger = NoteSigner(ORIGIN, b"\x01" * 32)
    refused(GOOD, log=stranger.verifier)
    refused(by_hand(key=stranger))
    refused(GOOD, log=NoteSigner(ORIGIN, LOG.seed, cosigner=True).verifier)
    refused(GOOD, log=NoteSigner("other.example/log", LOG.seed).verifier)


def test_a_place_that_leads_to_the_same_root_is_refused():
    # RFC 9942 signs the root alone: the last of three leaves and the last of two fold alike.
    entries = (b"alpha", b"beta", b"gamma")
    true = issue(entries, 2)
    assert receipt.verify(true, b"gamma", LOG.verifier).size == 3
    folded = merkle.node_hash(L0, L1)
    moved = true.replace(b"\x83\x03\x02\x81", b"\x83\x02\x01\x81")
    assert moved != true
    assert merkle.root_from_inclusion(L2, 1, 2, [folded]) == ROOT
    refused(moved, b"gamma")


def test_no_receipt_is_issued_for_what_is_not_in_the_tree():
    with pytest.raises(LocalFault) as caught:
        receipt.issue(b"delta", 1, [L0, L2], signed(ENTRIES), LOG)
    assert caught.value.code == "RNM-LEDGER-0001"
    with pytest.raises(LocalFault, match="another key"):
        receipt.issue(b"beta", 1, [L0, L2], signed(ENTRIES), NoteSigner(ORIGIN, b"\x01" * 32))


def reshaped(change):
    value = cbor.decode(GOOD)
    change(value.value)
    return cbor.encode(value)


def _set(index, item):
    return lambda parts: parts.__setitem__(index, item)


PROTECTED, UNPROTECTED, _, SIGNATURE = cbor.decode(GOOD).value
INCLUSION = UNPROTECTED[396][-1][0]
BAD = {
    "empty": b"",
    "no tag": GOOD[1:],
    "another tag": b"\xd1" + GOOD[1:],
    "an attached payload": reshaped(_set(2, ROOT)),
    "an empty signature": reshaped(_set(3, b"")),
    "no proofs": reshaped(_set(1, {})),
    "an empty list of proofs": reshaped(_set(1, {396: {-1: []}})),
    "two proofs": reshaped(_set(1, {396: {-1: [INCLUSION, INCLUSION]}})),
    "a consistency proof as well": reshaped(_set(1, {396: {-1: [INCLUSION], -2: [b""]}})),
    "an unsigned header": reshaped(_set(1, {4: b"x", 396: {-1: [INCLUSION]}})),
    "the structure unprotected": reshaped(_set(1, {395: 1, 396: {-1: [INCLUSION]}})),
    "a proof that is a number": reshaped(_set(1, {396: {-1: [2**62]}})),
    "a proof of four": reshaped(_set(1, {396: {-1: [cbor.encode([3, 1, [L0, L2], 0])]}})),
    "a negative index": reshaped(_set(1, {396: {-1: [cbor.encode([3, -1, [L0, L2]])]}})),
    "a hash that is text": reshaped(_set(1, {396: {-1: [cbor.encode([3, 1, [L0, "x"]])]}})),
    "a cut path": reshaped(_set(1, {396: {-1: [cbor.encode([3, 1, [L0]])]}})),
    "a longer path": reshaped(_set(1, {396: {-1: [cbor.encode([3, 1, [L0, L2, L2]])]}})),
    "swapped hashes": reshaped(_set(1, {396: {-1: [cbor.encode([3, 1, [L2, L0]])]}})),
    "a short hash": reshaped(_set(1, {396: {-1: [cbor.encode([3, 1, [L0, L2[:31]]])]}})),
    "no protected header": reshaped(_set(0, b"")),
    "another algorithm": reshaped(_set(0, PROTECTED.replace(b"\x01\x27", b"\x01\x26"))),
    "another structure": reshaped(_set(0, PROTECTED[:-1] + b"\x02")),
    "another subject": by_hand(subject=f"{L2.hex()}/1/3"),
    "another root": by_hand(root=L0),
    "five parts": reshaped(lambda parts: parts.append(None)),
    "a byte after the end": GOOD + b"\x00",
    "a long length": b"\xd8\x12" + GOOD[1:],
    "an endless array": b"\xd2\x9f" + GOOD[2:] + b"\xff",
    "nested without end": b"\x81" * 5_000,
    "a length beyond the end": b"\xd2\x84\x5b" + b"\xff" * 8,
    "a count beyond the end": b"\x9b" + b"\xff" * 8,
    "a true": b"\xf5",
    "a float": b"\xfb" + bytes(8),
    "text that is not UTF-8": b"\x61\xff",
    "a text key": b"\xa1\x61a\x00",
    "a key twice": b"\xa2\x01\x00\x01\x00",
    "too long": GOOD + bytes(receipt.MAX_RECEIPT),
}


@pytest.mark.parametrize("name", BAD)
def test_a_malformed_or_false_receipt_is_refused(name):
    assert BAD[name] != GOOD
    assert refused(BAD[name])


@given(st.integers(0, len(GOOD) - 1), st.integers(0, 7))
def test_every_flipped_bit_of_a_receipt_is_refused(at, bit):
    data = bytearray(GOOD)
    data[at] ^= 1 << bit
    refused(bytes(data))


@given(st.integers(0, len(GOOD) - 1))
def test_every_cut_receipt_is_refused(length):
    refused(GOOD[:length])


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused_by_name(data):
    refused(data)
    refused(b"\xd2\x84" + data)


VALUES = st.recursive(
    st.integers(-(2**64), 2**64 - 1) | st.binary(max_size=300) | st.text(max_size=40) | st.none(),
    lambda inner: (
        st.lists(inner, max_size=30) | st.dictionaries(st.integers(-500, 500), inner, max_size=30)
    ),
    max_leaves=8,
)


@given(VALUES)
def test_what_is_encoded_is_decoded_as_it_was(value):
    try:
        assert cbor.decode(cbor.encode(value)) == value
    except ValueError as error:
        assert "deep" in str(error)  # noqa: PT017


@given(st.binary(max_size=40))
def test_what_is_decoded_has_one_encoding(data):
    try:
        value = cbor.decode(data)
    except ValueError:
        return
    assert cbor.encode(value) == data


@pytest.mark.parametrize(
    ("value", "data"),
    # Appendix A of RFC 8949.
    [
        (0, "00"),
        (23, "17"),
        (24, "1818"),
        (255, "18ff"),
        (256, "190100"),
        (65_536, "1a00010000"),
        (1_000_000_000_000, "1b000000e8d4a51000"),
        (18_446_744_073_709_551_615, "1bffffffffffffffff"),
        (-1, "20"),
        (-1000, "3903e7"),
        (-18_446_744_073_709_551_616, "3bffffffffffffffff"),
        (b"", "40"),
        (bytes([1, 2, 3, 4]), "4401020304"),
        ("IETF", "6449455446"),
        ("水", "63e6b0b4"),
        ([1, [2, 3], [4, 5]], "8301820203820405"),
        ({1: 2, 3: 4}, "a201020304"),
        (None, "f6"),
    ],
)
def test_values_are_encoded_as_the_specification_shows(value, data):
    assert cbor.encode(value).hex() == data
    assert cbor.decode(bytes.fromhex(data)) == value


def test_an_integer_of_65_bits_is_not_encoded():
    with pytest.raises(ValueError, match="64 bits"):
        cbor.encode(2**64)
