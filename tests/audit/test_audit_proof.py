"""tlog-proof files: one spelling, and everything they claim is verified against a pinned policy."""

import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit import merkle, note, proof
from audit.checkpoint import Checkpoint, TreeHead, sign
from audit.note import Note, NoteSigner, parse
from audit.policy import WitnessPolicy
from audit.tiles import RightEdge, node_reader
from fedproto.errors import LocalFault
from fedproto.ids import Digest

ORIGIN = "ledger.consortium.example/fl-gov"
LOG = NoteSigner(ORIGIN, hashlib.sha256(b"lab-seed:log").digest())
WITNESSES = {
    name: NoteSigner(f"w.example/{name}", hashlib.sha256(name.encode()).digest(), cosigner=True)
    for name in ("a", "b", "c")
}
POLICY = WitnessPolicy.from_text(
    f"log {LOG.vkey}\n"
    + "".join(f"witness {name} {key.vkey}\n" for name, key in WITNESSES.items())
    + "group g 2 a b c\nquorum g\n"
)
ENTRIES = (b"alpha", b"beta", b"gamma")


def cosigned(entries, who="abc"):
    root = merkle.root_of(map(merkle.leaf_hash, entries))
    checkpoint = Checkpoint(ORIGIN, TreeHead(len(entries), Digest(root.hex())))
    signed = parse(sign(checkpoint, LOG))
    lines = tuple(WITNESSES[name].cosign(signed.text, 1_790_000_060) for name in who)
    return Note(signed.text, (*signed.lines, *lines)).encode()


def prove(entries, index, **changes):
    grown = RightEdge().grow([merkle.leaf_hash(entry) for entry in entries])
    nodes = node_reader(lambda level, n: bytes(grown.tiles[level, n]))
    hashes = merkle.prove_inclusion(nodes, index, len(entries))
    return proof.make(
        index, hashes, changes.get("note", cosigned(entries)), changes.get("extra", b"")
    )


GOOD = prove(ENTRIES, 1)
L0 = base64.b64encode(merkle.leaf_hash(b"alpha"))
L2 = base64.b64encode(merkle.leaf_hash(b"gamma"))


def refused(data, code="RNM-LEDGER-0001", entry=b"beta"):
    with pytest.raises(LocalFault) as caught:
        proof.verify(data, entry, POLICY)
    assert caught.value.code == code


def test_a_proof_has_the_bytes_of_the_specification():
    head = b"c2sp.org/tlog-proof@v1\nindex 1\n" + L0 + b"\n" + L2 + b"\n\n"
    assert head + cosigned(ENTRIES) == GOOD
    head = b"c2sp.org/tlog-proof@v1\nextra aGk=\nindex 1\n" + L0 + b"\n" + L2 + b"\n\n"
    assert head + cosigned(ENTRIES) == prove(ENTRIES, 1, extra=b"hi")


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 256, 257, 300])
def test_each_entry_is_proven(size):
    entries = [b"entry %d" % i for i in range(size)]
    for index in {0, size // 2, size - 1}:
        data = prove(entries, index)
        found = proof.verify(data, entries[index], POLICY)
        assert found.signed.head.size == size
        assert [item.member for item in found.cosignatures] == ["a", "b", "c"]
        refused(data, entry=b"another")


def test_a_proof_without_the_witness_quorum_is_refused():
    refused(prove(ENTRIES, 1, note=cosigned(ENTRIES, "a")), "RNM-LEDGER-0006")
    assert proof.verify(prove(ENTRIES, 1, note=cosigned(ENTRIES, "ac")), b"beta", POLICY)


def test_a_proof_of_another_log_is_refused():
    other = NoteSigner(ORIGIN, b"\x01" * 32)
    root = merkle.root_of(map(merkle.leaf_hash, ENTRIES))
    forged = sign(Checkpoint(ORIGIN, TreeHead(3, Digest(root.hex()))), other)
    refused(prove(ENTRIES, 1, note=forged))


def test_the_extra_data_are_carried_and_prove_nothing():
    data = prove(ENTRIES, 1, extra=b"trust me")
    assert proof.parse(data).extra == b"trust me"
    changed = data.replace(base64.b64encode(b"trust me"), base64.b64encode(b"trust us"))
    assert proof.verify(changed, b"beta", POLICY)


HEADER = b"c2sp.org/tlog-proof@v1\n"
BAD = {
    "empty": b"",
    "another version": GOOD.replace(b"@v1", b"@v2"),
    "CRLF": GOOD.replace(b"\n", b"\r\n"),
    "a byte order mark": b"\xef\xbb\xbf" + GOOD,
    "no index": GOOD.replace(b"index 1\n", b""),
    "a leading zero": GOOD.replace(b"index 1\n", b"index 01\n"),
    "a sign": GOOD.replace(b"index 1\n", b"index +1\n"),
    "a negative index": GOOD.replace(b"index 1\n", b"index -1\n"),
    "another index": GOOD.replace(b"index 1\n", b"index 0\n"),
    "an index beyond the tree": GOOD.replace(b"index 1\n", b"index 3\n"),
    "an index of nineteen digits": GOOD.replace(b"index 1\n", b"index " + b"9" * 19 + b"\n"),
    "an index twice": GOOD.replace(b"index 1\n", b"index 1\nindex 1\n"),
    "an empty extra": GOOD.replace(b"index 1\n", b"extra \nindex 1\n"),
    "an extra that is not base64": GOOD.replace(b"index 1\n", b"extra !!\nindex 1\n"),
    "an extra in a second spelling": GOOD.replace(b"index 1\n", b"extra aGl=\nindex 1\n"),
    "an extra twice": GOOD.replace(b"index 1\n", b"extra aGk=\nextra aGk=\nindex 1\n"),
    "an extra after the index": GOOD.replace(b"index 1\n", b"index 1\nextra aGk=\n"),
    "a cut hash": GOOD.replace(L0, L0[:-4]),
    "a longer hash": GOOD.replace(L0, b"AAAA" + L0),
    "a hash without padding": GOOD.replace(L0, L0[:-1]),
    "a hash with spare bits": GOOD.replace(L0, L0[:-2] + b"t="),
    "swapped hashes": GOOD.replace(L0 + b"\n" + L2, L2 + b"\n" + L0),
    "a cut proof": GOOD.replace(L2 + b"\n", b""),
    "no hashes": GOOD.replace(L0 + b"\n" + L2 + b"\n", b""),
    "an extended proof": GOOD.replace(L2 + b"\n", L2 + b"\n" + L2 + b"\n"),
    "sixty-four hashes": GOOD.replace(L2 + b"\n", (L2 + b"\n") * 63),
    "a space at the end of a line": GOOD.replace(b"index 1\n", b"index 1 \n"),
    "no empty line": GOOD.replace(b"\n\n" + ORIGIN.encode(), b"\n" + ORIGIN.encode()),
    "two empty lines": GOOD.replace(b"\n\n" + ORIGIN.encode(), b"\n\n\n" + ORIGIN.encode()),
    "a byte after the end": GOOD + b"\n",
    "nothing but the header": HEADER + b"\n" + cosigned(ENTRIES),
    "nothing but an extra": HEADER + b"extra aGk=\n\n" + cosigned(ENTRIES),
    "no checkpoint": GOOD.partition(b"\n\n")[0] + b"\n\n",
    "too long": HEADER + b"extra " + b"A" * proof.MAX_PROOF,
    "not ASCII before the checkpoint": GOOD.replace(b"index 1\n", "index １\n".encode()),
}


@pytest.mark.parametrize("name", BAD)
def test_a_malformed_or_false_proof_is_refused(name):
    assert BAD[name] != GOOD
    refused(BAD[name])


def test_no_proof_is_made_that_would_not_be_read():
    for index, hashes, data, extra in (
        (-1, [], cosigned(ENTRIES), b""),
        (1, [bytes(31)], cosigned(ENTRIES), b""),
        (1, [bytes(32)] * 64, cosigned(ENTRIES), b""),
        (1, [], b"no note", b""),
        (1, [], cosigned(ENTRIES), bytes(65_537)),
    ):
        with pytest.raises(LocalFault) as caught:
            proof.make(index, hashes, data, extra)
        assert caught.value.code == "RNM-LEDGER-0001"


def test_the_largest_proof_is_read():
    text = Checkpoint("o" * 255, TreeHead(10**17, Digest("ab" * 32))).text
    filler = tuple(note.SignatureLine(f"{i:03d}", b"mlds", bytes(2428)) for i in range(64))
    data = Note(text, filler).encode()
    made = proof.make(10**17 - 1, [bytes(32)] * 63, data, bytes(65_536))
    assert proof.parse(made).encode() == made


def outcome(call, *args):
    """Return what a call returns, or the code of its refusal; any other exception is a failure."""
    try:
        return call(*args)
    except LocalFault as fault:
        return fault.code


def refused_or_canonical(data):
    found = outcome(proof.parse, data)
    assert found == "RNM-LEDGER-0001" or found.encode() == data


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_refused_by_name(data):
    refused_or_canonical(data)
    refused_or_canonical(HEADER + data)
    refused_or_canonical(HEADER + b"index 1\n" + data)
    refused_or_canonical(GOOD.partition(b"\n\n")[0] + b"\n\n" + data)


LINES = st.sampled_from(
    [HEADER, b"index 1\n", b"extra aGk=\n", L0 + b"\n", L2 + b"\n", b"\n", cosigned(ENTRIES), b" "]
)


@given(st.lists(LINES, max_size=8).map(b"".join))
def test_any_order_of_lines_is_refused_or_canonical_and_only_the_true_one_verifies(data):
    refused_or_canonical(data)
    if not isinstance(outcome(proof.verify, data, b"beta", POLICY), str):
        assert proof.parse(data).hashes == proof.parse(GOOD).hashes


@given(st.integers(0, len(GOOD) - 1), st.integers(0, 7))
def test_every_flipped_bit_of_a_proof_is_refused_by_name(at, bit):
    data = bytearray(GOOD)
    data[at] ^= 1 << bit
    found = outcome(proof.verify, bytes(data), b"beta", POLICY)
    # A changed name or id makes a line a stranger's; two of three witnesses are still enough.
    assert found == "RNM-LEDGER-0001" or len(found.cosignatures) == 2


@given(st.integers(0, len(GOOD) - 1), st.integers(0, 60))
def test_a_proof_with_a_piece_cut_out_is_refused_or_has_lost_a_witness(start, length):
    data = GOOD[:start] + GOOD[start + length + 1 :]
    found = outcome(proof.verify, data, b"beta", POLICY)
    assert found in {"RNM-LEDGER-0001", "RNM-LEDGER-0006"} or len(found.cosignatures) == 2
