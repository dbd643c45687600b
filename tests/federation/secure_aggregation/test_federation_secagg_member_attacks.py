"""What a member tries against the sum, and how the coordinator answers: refused, and who is named."""

import dataclasses
import hashlib

import numpy as np
import pytest

from fedproto.errors import LocalFault, PeerFault
from fedproto.identity import SigningKey
from fedproto.secagg.agreement import PAIR_BYTES
from fedproto.secagg.dealing import Edge, deal_pairs, seal_entry
from fedproto.secagg.faults import Equivocation
from fedproto.secagg.keying_messages import Advertise, EncryptedShares, KeyList
from fedproto.secagg.masking_messages import Confirm, MaskedHeader, Reveal
from fedproto.secagg.messages import decode, encode
from fedproto.secagg.params import UPLOAD_CHUNK_WORDS
from fedproto.secagg.shamir import PRIME
from fedproto.secagg.stages import MaskedVector, RoundSeeds, upload_root

STRANGER = SigningKey(hashlib.sha512(b"stranger").digest())


def parse(cls, raw):
    return decode(cls, raw, peer="test")


def refused(call, peer, code="RNM-SECAGG-0001"):
    with pytest.raises(PeerFault) as caught:
        call()
    assert (caught.value.code, caught.value.peer) == (code, peer), str(caught.value)
    return caught.value


def at(attempt, phase, n=5, **changes):
    run = attempt(n, **changes)
    for step in ("advertise", "share", "mask", "confirm"):
        if step == phase:
            break
        getattr(run, step)()
    return run


def test_keys_signed_by_another_are_refused(attempt):
    run = attempt(5)
    message = parse(Advertise, run.clients["m00"].advertise()).signed_by(STRANGER)
    refused(lambda: run.server.receive_advertise("m00", encode(message)), "m00")


def test_a_member_cannot_speak_for_another(attempt):
    run = attempt(5)
    raw = run.clients["m00"].advertise()
    refused(lambda: run.server.receive_advertise("m01", raw), "m01")


def test_a_stranger_is_refused(attempt):
    run = attempt(5)
    refused(lambda: run.server.receive_advertise("zz", run.clients["m00"].advertise()), "zz")


def test_keys_of_another_attempt_are_refused(attempt):
    run, old = attempt(5), attempt(5, round=2)
    raw = old.clients["m00"].advertise()
    refused(lambda: run.server.receive_advertise("m00", raw), "m00")


def test_a_copied_key_is_refused(attempt):
    run = attempt(5)
    first = parse(Advertise, run.clients["m00"].advertise())
    run.server.receive_advertise("m00", encode(first))
    copy = dataclasses.replace(
        parse(Advertise, run.clients["m01"].advertise()), channel_x25519=first.mask_x25519
    ).signed_by(run.keys["m01"])
    refused(lambda: run.server.receive_advertise("m01", encode(copy)), "m01")


@pytest.mark.parametrize(
    "bad", [{"mask_x25519": bytes(32)}, {"mask_mlkem": b"\xff" * 1184}], ids=["point", "lattice"]
)
def test_a_key_that_cannot_be_used_is_refused(attempt, bad):
    run = attempt(5)
    message = parse(Advertise, run.clients["m00"].advertise())
    bent = dataclasses.replace(message, **bad).signed_by(run.keys["m00"])
    refused(lambda: run.server.receive_advertise("m00", encode(bent)), "m00")


def test_the_same_bytes_may_come_again_but_not_others(attempt):
    run = attempt(5)
    raw = run.clients["m00"].advertise()
    run.server.receive_advertise("m00", raw)
    run.server.receive_advertise("m00", raw)
    other = run.client("m00", entropy=lambda count: b"\x05" * count).advertise()
    refused(lambda: run.server.receive_advertise("m00", other), "m00")


def test_a_message_before_or_after_its_phase_is_refused(attempt):
    run = at(attempt, "mask")
    late = attempt(5).clients["m00"].advertise()
    refused(lambda: run.server.receive_advertise("m00", late + b"x"), "m00", "RNM-SECAGG-0005")
    refused(lambda: run.server.receive_confirm("m00", b""), "m00")


def test_closing_out_of_turn_is_our_own_fault(attempt):
    run = attempt(5)
    with pytest.raises(LocalFault) as caught:
        run.server.close_uploads()
    assert caught.value.code == "RNM-BUG-0001"


def test_entries_that_their_header_does_not_sign_are_refused(attempt):
    run = at(attempt, "share")
    message = parse(EncryptedShares, run.clients["m00"].share_keys(run.key_list))
    raw = encode(message)
    entry = message.entries[1].ciphertext
    refused(lambda: run.server.receive_shares("m00", raw.replace(entry, bytes(len(entry)))), "m00")


def test_a_dealer_that_leaves_a_holder_or_an_edge_out_is_refused(attempt):
    run = at(attempt, "share")
    message = parse(EncryptedShares, run.clients["m00"].share_keys(run.key_list))
    bare = dataclasses.replace(
        message.entries[2], kem_ciphertext=b"", kem_wrapped=b"", kem_commitment=b""
    )
    for entries in (
        message.entries[:-1],
        (*message.entries[:2], bare, *message.entries[3:]),
        (*message.entries[:1], message.entries[0], *message.entries[2:]),
    ):
        digests = tuple(entry.digest for entry in entries)
        header = dataclasses.replace(message.header, entry_digests=digests).signed_by(
            run.keys["m00"]
        )
        raw = encode(EncryptedShares(header=header, entries=entries))
        refused(lambda raw=raw: run.server.receive_shares("m00", raw), "m00")


def test_a_signature_over_another_key_list_is_kept_as_evidence_and_not_blamed_on_its_signer(
    attempt,
):
    run = at(attempt, "share", n=7)
    keys = parse(KeyList, run.key_list).keys
    raw = run.clients["m00"].share_keys(encode(KeyList(keys=keys[:6])))
    fault = refused(lambda: run.server.receive_shares("m00", raw), "coordinator", "RNM-SECAGG-0003")
    assert isinstance(fault, Equivocation)
    assert fault.evidence


def bent_dealer(run, *, of_secret):
    """Let m01 deal, with genuine commitments, shares of secrets that are not its own."""
    client = run.clients["m01"]
    client.share_keys(run.key_list)
    seeds = client._keys.seeds
    lie = {of_secret: bytes(32)}
    false = RoundSeeds(**{"mask_secret": seeds.mask_secret, "self_seed": seeds.self_seed, **lie})
    honest = client._seen.sent
    keys = parse(KeyList, run.key_list).keys
    points = [run.names.index(item.member) + 1 for item in keys]
    pairs = deal_pairs(false, run.params.threshold, points, client._entropy)
    client._keys.pairs = dict(zip(client._seen.listed, pairs.values(), strict=True))
    entries = tuple(
        seal_entry(
            pairs[point],
            Edge(ctx=client._seen.ctx, h1=client._seen.h1, dealer="m01", holder=item.member),
            None if item.member == "m01" else item.channel,
            client._keys.kem.get(item.member),
            seeds.mask_secret,
        )
        for point, item in zip(points, keys, strict=True)
    )
    header = dataclasses.replace(
        honest, entry_digests=tuple(entry.digest for entry in entries)
    ).signed_by(run.keys["m01"])
    client._seen.sent = header
    return encode(EncryptedShares(header=header, entries=entries))


@pytest.mark.parametrize(("secret", "dropped"), [("self_seed", ()), ("mask_secret", ("m01",))])
def test_a_dealer_of_shares_of_another_secret_is_named(attempt, secret, dropped):
    run = at(attempt, "share")
    for name in run.names:
        raw = (
            bent_dealer(run, of_secret=secret)
            if name == "m01"
            else run.clients[name].share_keys(run.key_list)
        )
        run.server.receive_shares(name, raw)
    run.share_lists = run.server.close_shares()
    run.mask(without=dropped)
    run.confirm()
    run.reveal()
    fault = refused(run.server.finish, "m01", "RNM-SECAGG-0006")
    assert f"another {secret.replace('_', ' ')}" in fault.why


def test_a_holder_names_the_dealer_whose_share_does_not_fit_its_commitment(attempt):
    run = at(attempt, "share")
    for name in run.names[1:]:
        run.server.receive_shares(name, run.clients[name].share_keys(run.key_list))
    message = parse(EncryptedShares, run.clients["m00"].share_keys(run.key_list))
    entries = list(message.entries)
    entries[3] = dataclasses.replace(entries[3], self_commitment=bytes(32))
    header = dataclasses.replace(
        message.header, entry_digests=tuple(entry.digest for entry in entries)
    ).signed_by(run.keys["m00"])
    run.server.receive_shares("m00", encode(EncryptedShares(header=header, entries=tuple(entries))))
    lists = run.server.close_shares()
    refused(lambda: run.clients["m03"].mask(lists["m03"], run.deltas["m03"], 1.0, bytes(32)), "m00")


def test_an_upload_of_another_length_is_refused(attempt):
    run = at(attempt, "mask")
    message = parse(MaskedHeader, run.mask_of("m00").header)
    for words, digests in ((300, message.chunk_digests), (301, message.chunk_digests * 2)):
        header = dataclasses.replace(message.header, root=upload_root(words, digests)).signed_by(
            run.keys["m00"]
        )
        raw = encode(MaskedHeader(header=header, words=words, chunk_digests=digests))
        refused(lambda raw=raw: run.server.receive_header("m00", raw), "m00")


def test_a_damaged_chunk_is_refused_at_once_and_can_be_sent_again(attempt):
    run = at(attempt, "mask", n=4, d=UPLOAD_CHUNK_WORDS + 9)
    upload = run.mask_of("m00")
    run.server.receive_header("m00", upload.header)
    bent = bytearray(upload.chunks[0])
    bent[5] ^= 0x40
    refused(lambda: run.server.receive_chunk("m00", 0, bytes(bent)), "m00")
    refused(lambda: run.server.receive_chunk("m00", 0, upload.chunks[0][:-4]), "m00")
    refused(lambda: run.server.receive_chunk("m00", 1, upload.chunks[0]), "m00")
    refused(lambda: run.server.receive_chunk("m00", 2, upload.chunks[0]), "m00")
    refused(lambda: run.server.receive_chunk("m00", -1, upload.chunks[0]), "m00")
    assert not run.server.receive_chunk("m00", 0, upload.chunks[0])
    assert run.server.receive_chunk("m00", 1, upload.chunks[1])


def test_a_chunk_without_a_header_is_refused(attempt):
    run = at(attempt, "mask")
    refused(lambda: run.server.receive_chunk("m00", 0, b""), "m00")


def test_an_upload_that_comes_after_the_survivors_are_fixed_is_refused_and_not_opened(attempt):
    run = at(attempt, "mask")
    late = run.mask_of("m04")
    run.server.receive_header("m04", late.header)
    for name in run.names[:4]:
        run.send(name, run.mask_of(name))
    run.survivor_list, run.survivors = run.server.close_uploads(), tuple(run.names[:4])
    refused(lambda: run.server.receive_chunk("m04", 0, late.chunks[0]), "m04", "RNM-SECAGG-0005")
    refused(lambda: run.server.receive_confirm("m04", b""), "m04")
    run.confirm()
    reveal = parse(Reveal, run.clients["m00"].reveal(run.confirmations))
    # No share of its self seed leaves a member, so its late vector stays masked.
    assert "m04" not in {item.member for item in reveal.self_shares}


def test_a_confirmation_of_another_set_is_evidence(attempt):
    run = at(attempt, "confirm")
    confirm = parse(Confirm, run.clients["m00"].confirm(run.survivor_list))
    other = dataclasses.replace(confirm, h3=bytes(32)).signed_by(run.keys["m00"])
    refused(
        lambda: run.server.receive_confirm("m00", encode(other)), "coordinator", "RNM-SECAGG-0003"
    )
    run.server.receive_confirm("m00", encode(confirm))


def resigned(run, name, reveal, **changes):
    return encode(dataclasses.replace(reveal, **changes).signed_by(run.keys[name]))


@pytest.mark.parametrize("value", [bytes(33), (PRIME - 1).to_bytes(33, "big"), b"\xff" * 33])
def test_a_wrong_share_names_the_holder_that_sent_it(attempt, value):
    run = at(attempt, "reveal")
    reveal = parse(Reveal, run.clients["m02"].reveal(run.confirmations))
    shares = list(reveal.self_shares)
    shares[1] = dataclasses.replace(shares[1], share=value)
    raw = resigned(run, "m02", reveal, self_shares=tuple(shares))
    refused(lambda: run.server.receive_reveal("m02", raw), "m02")
    # The honest rest is still enough.
    for name in ("m00", "m01", "m03", "m04"):
        run.server.receive_reveal(name, run.clients[name].reveal(run.confirmations))
    mean, _ = run.expected(run.survivors)
    assert np.array_equal(run.server.finish().mean_delta, mean)


def test_withheld_shares_are_refused(attempt):
    run = at(attempt, "reveal")
    reveal = parse(Reveal, run.clients["m02"].reveal(run.confirmations))
    raw = resigned(run, "m02", reveal, self_shares=reveal.self_shares[1:])
    refused(lambda: run.server.receive_reveal("m02", raw), "m02")


def test_a_mask_share_of_a_survivor_is_not_even_taken(attempt):
    run = at(attempt, "reveal")
    reveal = parse(Reveal, run.clients["m02"].reveal(run.confirmations))
    raw = resigned(run, "m02", reveal, mask_shares=reveal.self_shares[:1])
    refused(lambda: run.server.receive_reveal("m02", raw), "m02")


def upload_words(run, name, words):
    """Sign and send a vector of the member's own making under its genuine masks."""
    genuine = np.frombuffer(b"".join(run.mask_of(name).chunks), "<u4")
    masks = genuine - run.words_of(name)
    vector = MaskedVector(words + masks)
    digests = vector.chunk_digests()
    header = dataclasses.replace(
        parse(MaskedHeader, run.uploads[name].header).header,
        root=upload_root(vector.words, digests),
    ).signed_by(run.keys[name])
    run.clients[name]._seen.sent = header
    raw = encode(MaskedHeader(header=header, words=vector.words, chunk_digests=digests))
    run.server.receive_header(name, raw)
    for index, data in enumerate(vector):
        run.server.receive_chunk(name, index, data)


@pytest.mark.parametrize("case", ["coordinate", "negative", "weight", "no weight", "above weight"])
def test_a_sum_out_of_range_is_refused_after_unmasking(attempt, case):
    run = at(attempt, "mask")
    words = run.words_of("m00").copy()
    qmax = run.params.qmax
    match case:
        case "coordinate":
            words[3] = 6 * qmax
        case "negative":
            words[3] = (1 << 32) - 6 * qmax
        case "weight":
            words[-1] = 6 * qmax
        case "no weight":
            words[-1] = (1 << 32) - 5 * qmax
        case "above weight":
            # In the ring's range, yet more than the cohort's weights allow.
            for name in run.names:
                run.weights[name] = 0.1
            words = run.words_of("m00").copy()
            words[3] = qmax
    for name in run.names[1:]:
        run.send(name, run.mask_of(name))
    upload_words(run, "m00", words)
    run.survivor_list, run.survivors = run.server.close_uploads(), tuple(run.names)
    run.confirm()
    run.reveal()
    with pytest.raises(LocalFault) as caught:
        run.server.finish()
    assert caught.value.code == "RNM-SECAGG-0004"


def test_the_coordinator_holds_no_unmasked_upload(attempt):
    """Search all that the coordinator received for one member's quantised delta."""
    run = at(attempt, "confirm", n=4, d=4096)
    seen = b"".join(b"".join(upload.chunks) for upload in run.uploads.values())
    held = np.frombuffer(seen, "<u4")
    for name in run.names:
        words = run.words_of(name)
        assert words[:16].tobytes() not in seen
        # Nor with one word in common at its place more often than chance has it.
        for upload in run.uploads.values():
            same = np.frombuffer(b"".join(upload.chunks), "<u4") == words
            assert np.count_nonzero(same) <= 2
    assert held.size == 4 * 4097
    assert PAIR_BYTES == 98
