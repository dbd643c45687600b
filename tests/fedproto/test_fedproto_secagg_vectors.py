"""The published vectors of secure aggregation, good and bad."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from fedproto.errors import LocalFault, PeerFault
from fedproto.identity import VerifyKey
from fedproto.ids import MemberId
from fedproto.secagg import agreement, dispute_messages, keying_messages, masking_messages, shamir
from fedproto.secagg.dealing import Edge, open_entry
from fedproto.secagg.keying_messages import EncryptedShares, KeyList
from fedproto.secagg.messages import Signed, decode, encode
from fedproto.secagg.params import WORD, Params
from fedproto.secagg.prg import SLACK, CtrKeystream, GcmKeystream
from fedproto.secagg.quantise import Rounding, dequantise, quantise
from fedproto.secagg.ring import mask, unmask
from fedproto.secagg.stages import MaskSeed, chunk_digest, upload_root

VECTORS = Path(__file__).parents[1] / "vectors"


def load(name):
    return json.loads((VECTORS / f"secagg_{name}.json").read_text(encoding="utf-8"))


def kind(name):
    modules = (keying_messages, masking_messages, dispute_messages)
    return next(getattr(module, name) for module in modules if hasattr(module, name))


@pytest.mark.parametrize("keystream", [GcmKeystream, CtrKeystream])
@pytest.mark.parametrize("row", load("keystream"), ids=lambda row: f"{row['chunk']}")
def test_the_keystream_is_the_published_one(keystream, row):
    out = memoryview(bytearray(row["bytes"] + SLACK))
    keystream(bytes.fromhex(row["seed"])).write(row["chunk"], row["bytes"], out)
    assert bytes(out[:32]).hex() == row["first"]
    assert hashlib.sha256(out[: row["bytes"]]).hexdigest() == row["sha256"]


def test_the_shares_are_the_published_ones():
    vector = load("shares")
    drawn = iter(bytes.fromhex(text) for text in vector["coefficients"])
    shares = shamir.deal(
        bytes.fromhex(vector["secret"]),
        vector["threshold"],
        [int(point) for point in sorted(vector["shares"], key=int)],
        lambda _count: next(drawn),
    )
    assert {str(point): share.hex() for point, share in shares.items()} == vector["shares"]
    chosen = {x: shares[x] for x in (2, 5, 64)}
    assert shamir.recover(chosen, shamir.lagrange([2, 5, 64])).hex() == vector["secret"]


@pytest.mark.parametrize("row", load("bad_shares"), ids=lambda row: row["why"])
def test_bad_shares_are_refused(row):
    shares = {int(point): bytes.fromhex(text) for point, text in row["shares"].items()}
    with pytest.raises(ValueError, match=r"share|points"):
        shamir.recover(shares, shamir.lagrange(list(shares)))


@pytest.mark.parametrize("case", range(3))
def test_the_words_are_the_published_ones(case):
    vector = load("quantise")
    row = vector["cases"][case]
    delta = np.array([float.fromhex(text) for text in row["delta"]], np.float32)
    params = Params(
        members=4,
        threshold=3,
        tolerated=1,
        parameters=delta.size,
        qmax=2 ** (vector["bits"] - 1) - 1,
        clip=vector["clip_milli"] / 1000,
    )
    seed = bytes.fromhex(vector["rounding_seed"])
    words = np.empty(delta.size + 1, WORD)
    Rounding(quantise(delta, row["weight"], params, seed)).write(0, words)
    assert words.tolist() == row["words"]
    mean, weight = dequantise(words, params, 1)
    assert [float(x).hex() for x in mean] == row["mean"]
    assert weight.hex() == row["sum_of_weights"]


def test_the_key_schedule_is_the_published_one():
    keys, good = load("keys"), load("messages")
    ctx, h1, h2 = (bytes.fromhex(keys[name]) for name in ("ctx", "h1", "h2"))
    ann, bob = MemberId("ann"), MemberId("bob")
    advertised = decode(KeyList, bytes.fromhex(good["KeyList"]), peer="p").keys
    dealt = decode(EncryptedShares, bytes.fromhex(good["EncryptedShares"]), peer="p")
    assert keying_messages.key_list_digest(ctx, advertised) == h1
    assert keying_messages.share_list_digest(ctx, h1, [dealt.header]) == h2
    mask = {
        name: agreement.mask_keys(bytes.fromhex(keys["mask_secret"][name]), ctx, name)
        for name in (ann, bob)
    }
    for place, name in enumerate((ann, bob)):
        assert mask[name].public == advertised[place].mask
        assert mask[name].public.x25519.hex() == keys["mask_x25519"][name]
    edge = Edge(ctx=ctx, h1=h1, dealer=ann, holder=bob)
    info = agreement.pair_info(ctx, h2, bob, ann)
    entry = dealt.entries[1]
    # Bob from his own key, and whoever recovers ann's mask secret, come to the same seed.
    received = agreement.decapsulate(mask[bob], entry.kem_ciphertext)
    at_bob = agreement.pair_mask(
        bob, ann, agreement.exchange(mask[bob], mask[ann].public.x25519), received, info
    )
    z = bytes.fromhex(keys["mask_secret"][ann])
    sent = agreement.KemSecret(
        secret=agreement.unwrap(entry.kem_wrapped, z, edge.wrap_info),
        ciphertext=entry.kem_ciphertext,
    )
    at_ann = agreement.pair_mask(
        ann, bob, agreement.exchange(mask[ann], mask[bob].public.x25519), sent, info
    )
    assert at_bob.seed.hex() == at_ann.seed.hex() == keys["pair_mask"]
    assert (at_ann.add, at_bob.add) == (True, False)
    assert received.secret.hex() == keys["kem_secret"]
    own = agreement.self_mask(bytes.fromhex(keys["self_seed"][ann]), ctx, h2, ann, add=True)
    assert own.seed.hex() == keys["self_mask_ann"]


def test_a_published_share_opens_at_its_holder_and_nowhere_else():
    keys, good = load("keys"), load("messages")
    ctx, h1 = bytes.fromhex(keys["ctx"]), bytes.fromhex(keys["h1"])
    dealt = decode(EncryptedShares, bytes.fromhex(good["EncryptedShares"]), peer="p")
    channel = {
        name: agreement.KeyPair.from_seed(bytes.fromhex(seed))
        for name, seed in keys["channel_seed"].items()
    }
    edge = Edge(ctx=ctx, h1=h1, dealer=MemberId("ann"), holder=MemberId("bob"))
    pair = open_entry(dealt.entries[1], edge, channel["bob"])
    for part, text in keys["pair_to_bob"].items():
        assert getattr(pair, part).hex() == text
    other = Edge(ctx=ctx, h1=bytes(32), dealer=MemberId("ann"), holder=MemberId("bob"))
    for wrong_edge, wrong_key in ((other, channel["bob"]), (edge, channel["ann"])):
        with pytest.raises(ValueError, match="open"):
            open_entry(dealt.entries[1], wrong_edge, wrong_key)


@pytest.mark.parametrize(
    "name",
    [
        *("Advertise", "KeyList", "EncryptedShares", "MaskedHeader"),
        *("Confirm", "Reveal", "Complaint", "Opening"),
    ],
)
def test_the_published_messages_decode_and_carry_their_signatures(name):
    good = load("messages")
    raw = bytes.fromhex(good[name])
    message = decode(kind(name), raw, peer="p")
    assert encode(message) == raw
    signed = message if isinstance(message, Signed) else getattr(message, "header", None)
    if signed is not None:
        signed.verify(VerifyKey(bytes.fromhex(good["verify_key_ann"])), "p")


@pytest.mark.parametrize("row", load("bad_messages"), ids=lambda row: row["why"])
def test_bad_messages_are_refused(row):
    with pytest.raises(PeerFault) as caught:
        decode(kind(row["message"]), bytes.fromhex(row["bytes"]), peer="p")
    assert caught.value.code == "RNM-SECAGG-0001"


def of_ring(row):
    return Params(
        members=4,
        threshold=3,
        tolerated=1,
        parameters=6,
        qmax=2 ** (row["bits"] - 1) - 1,
        clip=2.0,
        word_bits=row["word_bits"],
    )


def pair_masks(ring, name, others):
    return [
        MaskSeed(
            seed=bytes.fromhex(ring["pair_seeds"][" ".join(sorted((name, other)))]),
            add=name < other,
        )
        for other in others
        if other != name
    ]


@pytest.mark.parametrize("keystream", [GcmKeystream, CtrKeystream])
@pytest.mark.parametrize("ring", load("masking"), ids=lambda ring: f"{ring['word_bits']} bits")
def test_a_whole_round_is_masked_summed_and_unmasked_as_published(ring, keystream):
    params = of_ring(ring)
    total = np.zeros(params.words, params.word)
    for row in ring["uploads"]:
        own = MaskSeed(seed=bytes.fromhex(ring["self_seeds"][row["member"]]), add=True)
        delta = np.array([float.fromhex(text) for text in row["delta"]], np.float32)
        vector = mask(
            quantise(delta, row["weight"], params, bytes.fromhex(row["rounding_seed"])),
            [own, *pair_masks(ring, row["member"], ring["members"])],
            keystream,
        )
        assert vector[0].hex() == row["upload"]
        assert upload_root(params.words, [chunk_digest(0, vector[0])]).hex() == row["root"]
        total += np.frombuffer(vector[0], params.word)
    assert total.tobytes().hex() == ring["masked_sum"]
    uploaded = [row["member"] for row in ring["uploads"]]
    selves = [
        MaskSeed(seed=bytes.fromhex(ring["self_seeds"][name]), add=False) for name in uploaded
    ]
    unmask(total, selves + pair_masks(ring, ring["lost"], uploaded), keystream)
    assert total.tobytes().hex() == ring["sum"]
    mean, weight = dequantise(total, params, len(uploaded))
    assert [float(x).hex() for x in mean] == ring["mean"]
    assert weight.hex() == ring["sum_of_weights"]


@pytest.mark.parametrize(
    "row", load("bad_sums"), ids=lambda row: f"{row['word_bits']} bits: {row['why']}"
)
def test_bad_sums_are_refused(row):
    params = of_ring(row)
    with pytest.raises(LocalFault) as refusal:
        dequantise(np.frombuffer(bytes.fromhex(row["sum"]), params.word), params, 3)
    assert refusal.value.code == "RNM-SECAGG-0004"
