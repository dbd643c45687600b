"""A witness answers as C2SP tlog-witness asks, persists first, and is never led back or sideways."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ledger_kit import LOG_KEY, ORIGIN, cosign, seed, signed_note, witness_of

from audit import merkle, tiles
from audit.checkpoint import Checkpoint, TreeHead, sign
from audit.note import NoteSigner, parse, parse_lines
from audit.witness import Witness, request_body
from fedproto.errors import LocalFault

LEAVES = [b"entry %d" % i for i in range(40)]
FORK = [*LEAVES[:5], b"forged", *LEAVES[6:]]
KEY = witness_of("nec")
NOW = 1_790_000_060


def nodes(leaves):
    grown = tiles.RightEdge().grow([merkle.leaf_hash(leaf) for leaf in leaves])
    return tiles.node_reader(lambda level, n: bytes(grown.tiles[level, n]))


def request(old, size, leaves=LEAVES, key=LOG_KEY):
    proof = merkle.prove_consistency(nodes(leaves), old, size) if old <= size else []
    return request_body(old, proof, signed_note(leaves[:size], key))


@pytest.fixture
def witness(tmp_path):
    return Witness(tmp_path / "witness", KEY, {ORIGIN: LOG_KEY.verifier}, clock=lambda: NOW)


def reopened(witness, tmp_path):
    return Witness(tmp_path / "witness", KEY, {ORIGIN: LOG_KEY.verifier}, clock=lambda: NOW + 1)


def accepted(answer, size, leaves=LEAVES):
    status, body = answer
    assert status == 200, body
    (line,) = parse_lines(body)
    text = parse(signed_note(leaves[:size])).text
    return KEY.verifier.verify(line, text)


def test_a_log_that_grows_is_cosigned_at_each_step(witness):
    old = 0
    for size in (1, 2, 3, 8, 17, 40):
        assert accepted(witness.add_checkpoint(request(old, size)), size) == NOW
        old = size


def test_the_same_checkpoint_again_is_cosigned_again(witness, tmp_path):
    accepted(witness.add_checkpoint(request(0, 7)), 7)
    assert accepted(reopened(witness, tmp_path).add_checkpoint(request(7, 7)), 7) == NOW + 1


def test_what_is_kept_proves_what_the_log_signed(witness):
    witness.add_checkpoint(request(0, 7))
    kept = witness.latest(ORIGIN)
    assert parse(kept).text == parse(signed_note(LEAVES[:7])).text
    assert parse(kept).lines[0] == parse(signed_note(LEAVES[:7])).lines[0]
    KEY.verifier.verify(parse(kept).lines[1], parse(kept).text)


def test_a_witness_that_was_killed_and_started_again_goes_on_where_it_was(witness, tmp_path):
    witness.add_checkpoint(request(0, 7))
    again = reopened(witness, tmp_path)
    assert again.add_checkpoint(request(0, 9)) == (409, b"7\n")
    accepted(again.add_checkpoint(request(7, 9)), 9)


def test_a_rolled_back_log_is_refused(witness):
    witness.add_checkpoint(request(0, 9))
    assert witness.add_checkpoint(request(5, 5)) == (409, b"9\n")
    assert witness.add_checkpoint(request(0, 5)) == (409, b"9\n")
    status, _ = witness.add_checkpoint(request_body(9, [], signed_note(LEAVES[:5])))
    assert status == 400


def test_a_fork_of_the_same_size_is_refused_and_kept_as_evidence(witness, tmp_path):
    witness.add_checkpoint(request(0, 9))
    assert witness.add_checkpoint(request_body(9, [], signed_note(FORK[:9])))[0] == 422
    (kept,) = (tmp_path / "witness").glob("*.conflict-*")
    assert kept.read_bytes() == signed_note(FORK[:9])
    assert witness.add_checkpoint(request(9, 9))[0] == 200


def test_a_fork_that_went_on_is_refused(witness):
    witness.add_checkpoint(request(0, 9))
    assert witness.add_checkpoint(request(9, 20, FORK))[0] == 422
    assert witness.latest(ORIGIN) is not None
    accepted(witness.add_checkpoint(request(9, 20)), 20)


def test_a_proof_that_is_cut_changed_or_not_asked_for_is_refused(witness):
    witness.add_checkpoint(request(0, 5))
    proof = merkle.prove_consistency(nodes(LEAVES), 5, 9)
    note = signed_note(LEAVES[:9])
    for bad in (proof[:-1], [*proof, bytes(32)], [bytes(32), *proof[1:]], proof[::-1], []):
        assert witness.add_checkpoint(request_body(5, bad, note))[0] == 422
    assert witness.add_checkpoint(request_body(5, [bytes(32)], signed_note(LEAVES[:5])))[0] == 422
    accepted(witness.add_checkpoint(request_body(5, proof, note)), 9)


def test_a_proof_from_nothing_is_refused(witness):
    assert witness.add_checkpoint(request_body(0, [bytes(32)], signed_note(LEAVES[:3])))[0] == 422


def test_an_empty_log_has_the_empty_root(witness):
    good = sign(Checkpoint(ORIGIN, TreeHead(0, merkle.EMPTY_ROOT.hex())), LOG_KEY)
    bad = sign(Checkpoint(ORIGIN, TreeHead(0, "00" * 32)), LOG_KEY)
    assert witness.add_checkpoint(request_body(0, [], bad))[0] == 422
    assert witness.add_checkpoint(request_body(0, [], good))[0] == 200


def test_an_unknown_log_is_not_found(witness):
    other = NoteSigner("other.example/log", seed("other"))
    note = sign(Checkpoint("other.example/log", TreeHead(1, "00" * 32)), other)
    assert witness.add_checkpoint(request_body(0, [], note))[0] == 404


def test_a_checkpoint_that_the_log_did_not_sign_is_forbidden(witness):
    forger = NoteSigner(ORIGIN, seed("forger"))
    assert witness.add_checkpoint(request(0, 3, key=forger))[0] == 403
    good = signed_note(LEAVES[:3])
    assert witness.add_checkpoint(request_body(0, [], good.replace(b"\n3\n", b"\n4\n")))[0] == 403
    assert witness.latest(ORIGIN) is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"old 0\n",
        b"old\n\n" + signed_note(LEAVES[:3]),
        b"old -1\n\n" + signed_note(LEAVES[:3]),
        b"old 00\n\n" + signed_note(LEAVES[:3]),
        b"new 0\n\n" + signed_note(LEAVES[:3]),
        b"old 0\nnot base64!\n\n" + signed_note(LEAVES[:3]),
        b"old 0\nAAAA\n\n" + signed_note(LEAVES[:3]),
        b"old 0\n" + b"A" * 43 + b"=\n\n" + b"garbage",
        b"old 0\n" + (b"A" * 43 + b"=\n") * 64 + b"\n" + signed_note(LEAVES[:3]),
        request_body(0, [], signed_note(LEAVES[:3])).replace(b"\n", b"\r\n"),
    ],
)
def test_a_malformed_request_is_bad(witness, body):
    assert witness.add_checkpoint(body)[0] == 400


@given(st.binary(max_size=400))
def test_no_bytes_make_a_witness_cosign_or_fall_over(tmp_path_factory, body):
    fresh = Witness(
        tmp_path_factory.mktemp("w"), KEY, {ORIGIN: LOG_KEY.verifier}, clock=lambda: NOW
    )
    assert fresh.add_checkpoint(body)[0] == 400
    assert fresh.add_checkpoint(b"old 0\n\n" + body)[0] == 400


def test_a_witness_state_that_was_tampered_with_is_not_a_new_start(witness, tmp_path):
    witness.add_checkpoint(request(0, 9))
    (path,) = (tmp_path / "witness").glob("*.checkpoint")
    good = path.read_bytes()
    for bad in (
        b"",
        good.replace(b"\n9\n", b"\n8\n"),
        signed_note(LEAVES[:5]),
        cosign(signed_note(LEAVES[:5]), ("sony",)),
    ):
        path.write_bytes(bad)
        with pytest.raises(LocalFault, match="RNM-LEDGER-0001"):
            reopened(witness, tmp_path).add_checkpoint(request(0, 3))
    path.write_bytes(good)
    accepted(reopened(witness, tmp_path).add_checkpoint(request(9, 10)), 10)


def test_nothing_is_cosigned_that_could_not_be_kept(witness, tmp_path, monkeypatch):
    import os

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(LocalFault, match="RNM-DISK-0001"):
        witness.add_checkpoint(request(0, 3))
    monkeypatch.undo()
    assert witness.latest(ORIGIN) is None
    accepted(witness.add_checkpoint(request(0, 3)), 3)


def test_of_two_checkpoints_at_once_one_wins(witness):
    """Two histories are offered from many threads; only one may ever be cosigned."""
    bodies = [request_body(0, [], signed_note(leaves[:9])) for leaves in (LEAVES, FORK)] * 8
    answers = []
    threads = [
        threading.Thread(target=lambda b=body: answers.append((b, witness.add_checkpoint(b)[0])))
        for body in bodies
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [status for _, status in answers].count(200) == 1
    assert {status for _, status in answers} == {200, 409}


def test_what_a_log_cannot_show_to_extend_is_kept_whole_and_bounded(witness, tmp_path):
    witness.add_checkpoint(request(0, 4))
    for number in range(20):
        other = [*LEAVES[:2], b"fork %d" % number, *LEAVES[3:6]]
        assert witness.add_checkpoint(request_body(4, [bytes(32)], signed_note(other)))[0] == 422
    kept = sorted((tmp_path / "witness").glob("*.conflict-*"))
    assert len(kept) == 16
    # Together with what was cosigned and the larger tree, each is proof of misbehaviour.
    note = parse(kept[0].read_bytes())
    assert note.find(LOG_KEY.verifier) is not None
    assert note.text.startswith(f"{ORIGIN}\n6\n".encode())
