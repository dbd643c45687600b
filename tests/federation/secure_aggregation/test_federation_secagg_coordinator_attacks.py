"""What an active coordinator tries, and how an honest member answers: nothing of it opens a delta."""

import base64
import copy
import dataclasses
import hashlib

import numpy as np
import pytest

from fedproto import envelope, jcs
from fedproto.authorisation import Authorisation, open_authorisation, seal_authorisation
from fedproto.errors import FederationError, LocalFault, PeerFault
from fedproto.identity import SigningKey
from fedproto.ids import MemberId
from fedproto.schema import to_json
from fedproto.secagg.faults import COORDINATOR, Equivocation
from fedproto.secagg.keying_messages import (
    Advertise,
    DealtShare,
    EncryptedShares,
    KeyList,
    ShareHeader,
    ShareList,
)
from fedproto.secagg.masking_messages import (
    Confirm,
    Confirmations,
    MaskedHeader,
    Reveal,
    SurvivorList,
)
from fedproto.secagg.messages import decode, encode
from fedproto.secagg.params import Params
from fedproto.secagg.stages import MaskedVector

STRANGER = SigningKey(hashlib.sha512(b"stranger").digest())


def parse(cls, raw):
    return decode(cls, raw, peer="test")


def refused(call, code="RNM-SECAGG-0001", peer=COORDINATOR):
    with pytest.raises(PeerFault) as caught:
        call()
    assert (caught.value.code, caught.value.peer) == (code, peer), str(caught.value)
    return caught.value


def at(attempt, phase, n=5, **changes):
    """Return an attempt all of whose phases before `phase` are done."""
    run = attempt(n, **changes)
    for step in ("advertise", "share", "mask", "confirm"):
        if step == phase:
            break
        getattr(run, step)()
    return run


def rekeyed(advertise, **changes):
    return dataclasses.replace(advertise, mask_x25519=b"\x09" * 32, **changes)


def test_a_substituted_key_without_its_members_signature_is_refused(attempt):
    run = at(attempt, "share")
    keys = list(parse(KeyList, run.key_list).keys)
    keys[2] = rekeyed(keys[2])
    refused(lambda: run.clients["m00"].share_keys(encode(KeyList(keys=tuple(keys)))))


def test_a_substituted_key_signed_by_another_identity_is_refused(attempt):
    run = at(attempt, "share")
    keys = list(parse(KeyList, run.key_list).keys)
    keys[2] = rekeyed(keys[2]).signed_by(STRANGER)
    refused(lambda: run.clients["m00"].share_keys(encode(KeyList(keys=tuple(keys)))))


def test_a_key_list_that_alters_the_readers_own_keys_is_refused(attempt):
    run = at(attempt, "share")
    keys = list(parse(KeyList, run.key_list).keys)
    other = run.client("m00", entropy=lambda count: b"\x07" * count).advertise()
    keys[0] = parse(Advertise, other)
    refused(lambda: run.clients["m00"].share_keys(encode(KeyList(keys=tuple(keys)))))


def test_a_key_that_two_members_advertise_is_refused(attempt):
    run = at(attempt, "share")
    keys = list(parse(KeyList, run.key_list).keys)
    twin = dataclasses.replace(keys[1], mask_mlkem=keys[2].mask_mlkem).signed_by(run.keys["m01"])
    keys[1] = twin
    refused(lambda: run.clients["m00"].share_keys(encode(KeyList(keys=tuple(keys)))))


def test_a_key_list_below_the_threshold_is_refused(attempt):
    run = at(attempt, "share")
    keys = parse(KeyList, run.key_list).keys[:3]
    refused(lambda: run.clients["m00"].share_keys(encode(KeyList(keys=keys))), "RNM-SECAGG-0003")


def test_a_sybil_outside_the_authorisation_is_refused(attempt):
    run = at(attempt, "share")
    keys = parse(KeyList, run.key_list).keys
    sybil = dataclasses.replace(rekeyed(keys[0]), member=MemberId("zz")).signed_by(STRANGER)
    refused(lambda: run.clients["m00"].share_keys(encode(KeyList(keys=(*keys, sybil)))))


def test_keys_of_another_attempt_are_refused(attempt):
    run, old = at(attempt, "share"), at(attempt, "share", round=2)
    keys = list(parse(KeyList, run.key_list).keys)
    keys[2] = parse(KeyList, old.key_list).keys[2]
    refused(lambda: run.clients["m00"].share_keys(encode(KeyList(keys=tuple(keys)))))


def test_a_key_that_gives_a_known_secret_is_refused_and_its_signer_named(attempt):
    run = at(attempt, "share")
    keys = list(parse(KeyList, run.key_list).keys)
    # The point zero has small order: any exchange with it gives zero.
    keys[2] = dataclasses.replace(keys[2], mask_x25519=bytes(32)).signed_by(run.keys["m02"])
    refused(lambda: run.clients["m00"].share_keys(encode(KeyList(keys=tuple(keys)))), peer="m02")


def test_a_lowered_threshold_has_no_authorisation(attempt):
    content = attempt(5).content
    with pytest.raises(ValueError, match="threshold"):
        dataclasses.replace(content, recovery_threshold=2)


def test_an_authorisation_that_could_wrap_the_ring_is_refused():
    with pytest.raises(LocalFault) as caught:
        Params(members=257, threshold=200, tolerated=1, parameters=1, qmax=2**23 - 1, clip=1.0)
    assert caught.value.code == "RNM-SECAGG-0004"
    Params(members=256, threshold=200, tolerated=1, parameters=1, qmax=2**23 - 1, clip=1.0)


def test_a_key_or_roster_that_does_not_fit_is_refused_before_anything_is_sent(attempt):
    run = attempt(5)
    for changes in ({"key": STRANGER}, {"roster": {}}, {"member": MemberId("zz")}):
        with pytest.raises(LocalFault) as caught:
            run.client("m00", **changes)
        assert caught.value.code == "RNM-SIG-0002"


def test_two_key_lists_are_shown_up_by_the_next_header_and_blamed_on_the_coordinator(attempt):
    run = at(attempt, "share", n=7)
    whole = parse(KeyList, run.key_list).keys
    short = encode(KeyList(keys=whole[:6]))
    # m00 sees all seven keys, the others six; the coordinator fits what they dealt together.
    mine = parse(EncryptedShares, run.clients["m00"].share_keys(run.key_list))
    dealt = [DealtShare(header=mine.header, entry=mine.entries[0])]
    for name in run.names[1:6]:
        theirs = parse(EncryptedShares, run.clients[name].share_keys(short))
        dealt.append(DealtShare(header=theirs.header, entry=theirs.entries[0]))
    share_list = encode(ShareList(dealt=tuple(dealt)))
    fault = refused(
        lambda: run.clients["m00"].mask(share_list, run.deltas["m00"], 1.0, bytes(32)),
        "RNM-SECAGG-0003",
    )
    assert isinstance(fault, Equivocation)
    # The evidence convinces a third party: a genuine signature over another h1.
    header = parse(ShareHeader, fault.evidence[0])
    run.roster[header.member].verify(header.signature, header.statement())
    assert header.h1 != mine.header.h1


def test_two_share_lists_are_shown_up_by_the_uploads(attempt):
    run = at(attempt, "mask", n=7)
    headers = []
    for name in run.names[1:]:
        dealt = parse(ShareList, run.share_lists[name]).dealt
        shown = dealt if name < "m04" else dealt[1:]
        upload = run.clients[name].mask(
            encode(ShareList(dealt=shown)), run.deltas[name], 1.0, bytes(32)
        )
        headers.append(parse(MaskedHeader, upload.header).header)
    survivors = encode(SurvivorList(headers=tuple(headers)))
    fault = refused(lambda: run.clients["m01"].confirm(survivors), "RNM-SECAGG-0003")
    assert isinstance(fault, Equivocation)


def test_two_survivor_sets_open_nothing_to_either_half(attempt):
    run = at(attempt, "confirm", n=7)
    headers = parse(SurvivorList, run.survivor_list).headers
    without_m00 = encode(SurvivorList(headers=headers[1:]))
    confirms = [
        parse(Confirm, run.clients[name].confirm(run.survivor_list if i < 4 else without_m00))
        for i, name in enumerate(run.names)
    ]
    both = encode(Confirmations(confirms=tuple(confirms)))
    for name in ("m01", "m05"):
        fault = refused(lambda name=name: run.clients[name].reveal(both), "RNM-SECAGG-0003")
        assert isinstance(fault, Equivocation)
    # Each half alone is below the threshold of five.
    halves = at(attempt, "confirm", n=7)
    headers = parse(SurvivorList, halves.survivor_list).headers
    confirms = [
        parse(Confirm, halves.clients[name].confirm(halves.survivor_list))
        for name in halves.names[:4]
    ]
    half = encode(Confirmations(confirms=tuple(confirms)))
    refused(lambda: halves.clients["m01"].reveal(half), "RNM-SECAGG-0003")


def test_a_member_confirms_one_survivor_set_only(attempt):
    run = at(attempt, "reveal")
    headers = parse(SurvivorList, run.survivor_list).headers
    other = encode(SurvivorList(headers=headers[1:]))
    refused(lambda: run.clients["m01"].confirm(other), "RNM-SECAGG-0003")


def test_a_survivor_set_below_the_threshold_is_refused(attempt):
    run = at(attempt, "confirm")
    headers = parse(SurvivorList, run.survivor_list).headers
    short = encode(SurvivorList(headers=headers[:3]))
    refused(lambda: run.clients["m00"].confirm(short), "RNM-SECAGG-0003")


def test_a_survivor_outside_the_share_list_is_refused(attempt):
    run = attempt(7)
    run.advertise()
    run.share(without=["m06"])
    run.mask()
    headers = parse(SurvivorList, run.survivor_list).headers
    stray = dataclasses.replace(headers[0], member=MemberId("m06")).signed_by(run.keys["m06"])
    grown = encode(SurvivorList(headers=(*headers, stray)))
    refused(lambda: run.clients["m00"].confirm(grown))


def test_a_list_that_leaves_its_reader_out_is_refused(attempt):
    run = at(attempt, "confirm")
    headers = parse(SurvivorList, run.survivor_list).headers
    refused(lambda: run.clients["m00"].confirm(encode(SurvivorList(headers=headers[1:]))))


def test_an_upload_header_of_the_coordinators_making_is_refused(attempt):
    run = at(attempt, "confirm")
    headers = list(parse(SurvivorList, run.survivor_list).headers)
    headers[1] = dataclasses.replace(headers[1], root=bytes(32))
    refused(lambda: run.clients["m00"].confirm(encode(SurvivorList(headers=tuple(headers)))))


def test_an_attempt_made_again_over_one_member_less_is_confirmed_by_nobody(attempt):
    """The coordinator opens a sum, says that it crashed, and asks for the same deltas without one."""
    first = attempt(4)
    first.advertise()
    first.share()
    first.mask()
    first.confirm()
    first.reveal()
    whole = first.server.finish()
    again = attempt(4, attempt=2)
    again.clients = {
        name: again.client(name, opened=tuple(first.survivors)) for name in again.names
    }
    again.advertise()
    again.share()
    again.mask(without=("m03",))
    for name in again.survivors:
        with pytest.raises(PeerFault) as caught:
            again.clients[name].confirm(again.survivor_list)
        assert (caught.value.code, caught.value.peer) == ("RNM-SECAGG-0003", "coordinator")
        assert "may be open already" in caught.value.why
    # Without the rule the difference would be what m03 sent.
    three, _ = again.expected(again.survivors)
    weights = [first.weights[name] for name in again.survivors]
    delta = (whole.mean_delta * sum(first.weights.values()) - three * sum(weights)) / first.weights[
        "m03"
    ]
    assert np.abs(delta - first.deltas["m03"]).max() < 1e-3
    # Over the same members it is the same sum, and may be opened.
    same = attempt(4, attempt=3)
    same.clients = {name: same.client(name, opened=tuple(first.survivors)) for name in same.names}
    same.advertise()
    same.share()
    same.mask()
    same.confirm()
    same.reveal()
    assert np.array_equal(same.server.finish().mean_delta, whole.mean_delta)


def test_unmasking_is_answered_once(attempt):
    run = at(attempt, "reveal")
    run.clients["m00"].reveal(run.confirmations)
    refused(lambda: run.clients["m00"].reveal(run.confirmations), "RNM-SECAGG-0003")


def test_confirmations_below_the_threshold_open_nothing(attempt):
    run = at(attempt, "reveal")
    confirms = parse(Confirmations, run.confirmations).confirms
    short = encode(Confirmations(confirms=confirms[:3]))
    refused(lambda: run.clients["m00"].reveal(short), "RNM-SECAGG-0003")
    # And the refusal is final: the shares are gone.
    refused(lambda: run.clients["m00"].reveal(run.confirmations), "RNM-SECAGG-0003")
    assert run.clients["m00"]._held == {}


def test_confirmations_by_strangers_do_not_count(attempt):
    run = at(attempt, "reveal")
    confirms = list(parse(Confirmations, run.confirmations).confirms)
    confirms[-1] = confirms[-1].signed_by(STRANGER)
    refused(lambda: run.clients["m00"].reveal(encode(Confirmations(confirms=tuple(confirms)))))


def test_one_reveal_never_holds_both_shares_of_a_member(attempt):
    run = attempt(7)
    run.advertise()
    run.share()
    run.mask(without=["m01", "m04"])
    run.confirm()
    reveal = parse(Reveal, run.clients["m00"].reveal(run.confirmations))
    selves = {item.member for item in reveal.self_shares}
    masks = {item.member for item in reveal.mask_shares}
    assert selves == {"m00", "m02", "m03", "m05", "m06"}
    assert masks == {"m01", "m04"}


@pytest.mark.parametrize("place", [0, 600, -1])
def test_a_share_ciphertext_altered_on_the_way_is_blamed_on_the_coordinator(attempt, place):
    run = at(attempt, "mask")
    dealt = list(parse(ShareList, run.share_lists["m00"]).dealt)
    sealed = bytearray(dealt[3].entry.ciphertext)
    sealed[place] ^= 1
    entry = dataclasses.replace(dealt[3].entry, ciphertext=bytes(sealed))
    dealt[3] = dataclasses.replace(dealt[3], entry=entry)
    bent = encode(ShareList(dealt=tuple(dealt)))
    refused(lambda: run.clients["m00"].mask(bent, run.deltas["m00"], 1.0, bytes(32)))


def test_kem_ciphertexts_swapped_between_edges_are_refused(attempt):
    run = at(attempt, "mask")
    dealt = list(parse(ShareList, run.share_lists["m04"]).dealt)
    first, second = dealt[0].entry, dealt[1].entry
    swap = {"kem_ciphertext": second.kem_ciphertext, "kem_wrapped": second.kem_wrapped}
    dealt[0] = dataclasses.replace(dealt[0], entry=dataclasses.replace(first, **swap))
    bent = encode(ShareList(dealt=tuple(dealt)))
    refused(lambda: run.clients["m04"].mask(bent, run.deltas["m04"], 1.0, bytes(32)))


def test_what_was_dealt_to_another_member_is_refused(attempt):
    run = at(attempt, "mask")
    refused(
        lambda: run.clients["m00"].mask(run.share_lists["m01"], run.deltas["m00"], 1.0, bytes(32))
    )


def test_phases_are_asked_for_in_order_and_once(attempt):
    run = at(attempt, "mask")
    client = run.clients["m00"]
    refused(client.advertise, "RNM-SECAGG-0003")
    refused(lambda: client.share_keys(run.key_list), "RNM-SECAGG-0003")
    refused(lambda: client.confirm(b""), "RNM-SECAGG-0003")
    refused(lambda: client.reveal(b""), "RNM-SECAGG-0003")
    run.mask()
    refused(
        lambda: client.mask(run.share_lists["m00"], run.deltas["m00"], 1.0, bytes(32)),
        "RNM-SECAGG-0003",
    )


def test_a_phase_that_failed_cannot_be_tried_again(attempt):
    run = at(attempt, "mask")
    client = run.clients["m00"]
    refused(lambda: client.mask(b"\xff", run.deltas["m00"], 1.0, bytes(32)))
    refused(
        lambda: client.mask(run.share_lists["m00"], run.deltas["m00"], 1.0, bytes(32)),
        "RNM-SECAGG-0003",
    )
    assert client._keys is None


def poison(kind):
    delta = np.full(300, 0.01, np.float32)
    match kind:
        case "nan":
            delta[7] = np.nan
        case "inf":
            delta[299] = -np.inf
        case "huge":
            delta *= np.float32(1e30)
        case "long":
            delta = np.zeros(301, np.float32)
        case "short":
            delta = np.zeros(299, np.float32)
        case "double":
            delta = delta.astype(np.float64)
        case "square":
            delta = delta.reshape(30, 10)
    return delta


@pytest.mark.parametrize("kind", ["nan", "inf", "huge", "long", "short", "double", "square"])
def test_a_delta_that_is_not_sound_is_refused_before_masking(attempt, kind):
    run = at(attempt, "mask")
    with pytest.raises(LocalFault) as caught:
        run.clients["m00"].mask(run.share_lists["m00"], poison(kind), 1.0, bytes(32))
    assert caught.value.code == "RNM-SECAGG-0004"


@pytest.mark.parametrize("weight", [0.0, -0.5, 1.0001, float("nan"), float("inf")])
def test_a_weight_outside_its_range_is_refused_before_masking(attempt, weight):
    run = at(attempt, "mask")
    with pytest.raises(LocalFault) as caught:
        run.clients["m00"].mask(run.share_lists["m00"], run.deltas["m00"], weight, bytes(32))
    assert caught.value.code == "RNM-SECAGG-0004"


def test_no_secret_shows_in_a_repr_or_an_error(attempt):
    run = at(attempt, "mask")
    client = run.clients["m00"]
    keys = client._keys
    secrets = [keys.seeds.mask_secret, keys.seeds.self_seed, keys.pairs["m00"].self_share]
    texts = [repr(client), repr(keys), repr(keys.seeds), repr(keys.pairs), repr(keys.mask)]
    run.mask()
    texts += [repr(run.uploads["m00"]), repr(client._held)]
    with pytest.raises(FederationError) as caught:
        client.reveal(b"")
    texts += [str(caught.value), repr(vars(caught.value))]
    for secret in secrets:
        for text in texts:
            assert secret.hex() not in text
            assert repr(secret)[2:-1] not in text


def test_secrets_have_no_wire_form(attempt):
    run = at(attempt, "mask")
    keys = run.clients["m00"]._keys
    for secret in (keys.seeds, keys.pairs["m00"], keys.mask):
        with pytest.raises(TypeError, match="secret"):
            copy.copy(secret)
    run.mask()
    assert isinstance(run.uploads["m00"].chunks, MaskedVector)


def test_own_secrets_are_dropped_after_masking_and_all_shares_after_the_reveal(attempt):
    run = at(attempt, "confirm")
    assert run.clients["m00"]._keys is None
    assert len(run.clients["m00"]._held) == 5
    run.confirm()
    run.reveal()
    assert all(client._held == {} for client in run.clients.values())


def test_two_attempts_with_the_same_entropy_share_no_mask(attempt):
    first, second = at(attempt, "confirm"), at(attempt, "confirm", nonce="01" * 32)
    one = np.frombuffer(first.uploads["m00"].chunks[0], "<u4")
    two = np.frombuffer(second.uploads["m00"].chunks[0], "<u4")
    assert np.array_equal(first.words_of("m00"), second.words_of("m00"))
    # Equal masks would cancel and leave a run of zeros.
    assert np.count_nonzero(one == two) == 0


def test_the_authorisation_is_bound_in_every_field(attempt):
    """A coordinator that changes a field of the authorisation makes another ctx."""
    base = attempt(5)
    seen = {base.authorisation.ctx}
    for changes in ({"round": 2}, {"attempt": 2}, {"model_in": "00" * 32}, {"clip_milli": 2001}):
        seen.add(attempt(5, **changes).authorisation.ctx)
    assert len(seen) == 5
    assert isinstance(base.content, Authorisation)


def test_an_authorisation_signed_by_a_stranger_is_not_opened(attempt):
    content = attempt(5).content
    known = SigningKey(hashlib.sha512(b"coordinator").digest()).verify_key
    with pytest.raises(LocalFault) as caught:
        open_authorisation(seal_authorisation(content, STRANGER), {known.key_id: known}.get)
    assert caught.value.code == "RNM-SIG-0002"


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        (b'"recovery_threshold":4', b'"recovery_threshold":2', "RNM-FORM-0002"),
        (b'"tolerated":1', b'"tolerated":1,"tolerated":1', "RNM-FORM-0001"),
        (b'"tolerated":1', b'"tolerated": 1', "RNM-FORM-0001"),
        (b'"tolerated":1', b'"tolerated":1,"unknown":1', "RNM-FORM-0002"),
    ],
    ids=["lowered threshold", "a name twice", "a space", "an unknown field"],
)
def test_an_authorisation_is_taken_in_its_one_form_only(attempt, old, new, code):
    """Even with the coordinator's genuine signature over the bent bytes."""
    body = jcs.dumps(to_json(attempt(5).content))
    assert old in body
    bent = body.replace(old, new)
    key = SigningKey(hashlib.sha512(b"coordinator").digest())
    kind = envelope.AUTHORISATION_TYPE.encode()
    signature = key.sign(b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(bent), bent))
    raw = jcs.dumps(
        {
            "payload": base64.b64encode(bent).decode(),
            "payloadType": envelope.AUTHORISATION_TYPE,
            "signatures": [
                {"keyid": key.verify_key.key_id, "sig": base64.b64encode(signature).decode()}
            ],
        }
    )
    with pytest.raises(LocalFault) as caught:
        open_authorisation(raw, {key.verify_key.key_id: key.verify_key}.get)
    assert caught.value.code == code
