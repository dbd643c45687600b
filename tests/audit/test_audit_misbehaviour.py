"""Evidence that a key signed two histories: it convinces anyone, and nothing else passes for it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ledger_kit import LOG_KEY, ORIGIN, T0, cosign, signed_note, witness_of

from audit import merkle, misbehaviour
from audit.checkpoint import Checkpoint, TreeHead, sign
from audit.note import NoteSigner
from fedproto.errors import LocalFault
from fedproto.ids import Digest

MINE = [b"entry %d" % i for i in range(20)]
FORKED = [*MINE[:7], b"another", *MINE[8:12]]


def root_of(leaves):
    return Digest(merkle.root_of(map(merkle.leaf_hash, leaves)).hex())


def consistency(leaves, old):
    hashes = [merkle.leaf_hash(leaf) for leaf in leaves]

    def node(height, index):
        return merkle.root_of(hashes[index << height : (index + 1) << height])

    return merkle.prove_consistency(node, old, len(leaves))


def evidence(larger=MINE, smaller=FORKED, key=LOG_KEY):
    size = len(smaller)
    return misbehaviour.pack(
        key.vkey,
        signed_note(larger),
        signed_note(smaller),
        root_of(larger[:size]),
        consistency(larger, size) if size < len(larger) else [],
    )


@pytest.mark.parametrize("size", [8, 9, 12, 16, 20])
def test_two_histories_of_any_sizes_are_proven(size):
    forked = [*MINE[:7], b"another", *MINE[8:size]]
    found = misbehaviour.verify(evidence(smaller=forked), LOG_KEY.vkey)
    assert found.origin == ORIGIN
    assert (found.said.size, found.larger.size) == (size, 20)
    assert found.said.root == root_of(forked)
    assert found.shown.root == root_of(MINE[:size])


def test_a_witness_that_cosigned_two_roots_is_proven_by_its_own_key():
    """T31."""
    witness = witness_of("nec")
    notes = [cosign(signed_note(leaves), ("nec",), T0) for leaves in (MINE[:12], FORKED)]
    data = misbehaviour.pack(witness.vkey, notes[0], notes[1], root_of(MINE[:12]), [])
    found = misbehaviour.verify(data, witness.vkey)
    assert found.key == witness.verifier


def refused(call, *words):
    with pytest.raises(LocalFault) as caught:
        call()
    assert caught.value.code in {"RNM-LEDGER-0001", "RNM-FORM-0001", "RNM-FORM-0002"}
    assert not words or any(word in caught.value.why for word in words), caught.value.why


def test_an_honest_log_is_not_accused():
    for size in (1, 7, 12, 20):
        refused(lambda size=size: evidence(smaller=MINE[:size]), "agree")


def test_a_wrong_claim_about_the_larger_tree_proves_nothing():
    honest = signed_note(MINE[:12])
    refused(
        lambda: misbehaviour.pack(
            LOG_KEY.vkey, signed_note(MINE), honest, root_of(FORKED), consistency(MINE, 12)
        )
    )


def test_notes_of_two_logs_prove_nothing():
    other = NoteSigner("other.example/log", LOG_KEY.seed)
    head = TreeHead(12, root_of(FORKED))
    foreign = sign(Checkpoint(other.name, head), other)
    refused(
        lambda: misbehaviour.pack(LOG_KEY.vkey, signed_note(MINE[:12]), foreign, head.root, []),
        "no line by",
    )


def test_a_note_that_the_key_did_not_sign_proves_nothing():
    forged = signed_note(FORKED, NoteSigner(ORIGIN, b"x" * 32))
    refused(
        lambda: misbehaviour.pack(
            LOG_KEY.vkey, signed_note(MINE[:12]), forged, root_of(MINE[:12]), []
        ),
        "no line by",
    )


def test_evidence_about_another_key_than_the_pinned_is_refused():
    refused(lambda: misbehaviour.verify(evidence(), witness_of("nec").vkey), "another key")


def test_an_unknown_format_is_refused():
    data = json.loads(evidence())
    data["format"] = "renmei/misbehaviour/v2"
    changed = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    refused(lambda: misbehaviour.verify(changed), "format")
    refused(lambda: misbehaviour.verify(b" " * (1 << 20) + b"{}"), "more than")


@given(st.data())
def test_a_changed_byte_proves_nothing_else(data):
    good = evidence()
    index = data.draw(st.integers(0, len(good) - 1))
    changed = bytearray(good)
    changed[index] ^= data.draw(st.integers(1, 255))
    try:
        found = misbehaviour.verify(bytes(changed), LOG_KEY.vkey)
    except LocalFault:
        return
    # A byte of a line by another key means nothing; the finding is the same.
    assert found == misbehaviour.verify(good, LOG_KEY.vkey)
