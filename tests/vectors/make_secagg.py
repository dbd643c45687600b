"""Write the test vectors of secure aggregation: `python tests/vectors/make_secagg.py`.

Good vectors pin bytes that another implementation must produce; bad ones (`secagg_bad_*`) pin what it
must refuse. HPKE, ML-KEM encapsulation and ML-DSA signing are randomised, so a new run writes other
ciphertexts and signatures; everything else repeats.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from fedproto.identity import SigningKey
from fedproto.ids import MemberId
from fedproto.secagg import agreement, shamir
from fedproto.secagg.dealing import Edge, seal_entry
from fedproto.secagg.dispute_messages import UNFIT, Complaint, Opening
from fedproto.secagg.keying_messages import (
    Advertise,
    EncryptedShares,
    KeyList,
    ShareHeader,
    key_list_digest,
    self_seed_commitment,
    share_list_digest,
)
from fedproto.secagg.masking_messages import (
    Confirm,
    MaskedHeader,
    Reveal,
    RevealedShare,
    UploadHeader,
    survivor_list_digest,
    transcript_digest,
)
from fedproto.secagg.messages import encode
from fedproto.secagg.params import WORD, Params, Words
from fedproto.secagg.prg import CHUNK_BYTES, SLACK, CtrKeystream
from fedproto.secagg.quantise import Rounding, dequantise, quantise
from fedproto.secagg.ring import mask, unmask
from fedproto.secagg.stages import (
    MaskedVector,
    MaskSeed,
    SharePair,
    chunk_digest,
    upload_root,
)

HERE = Path(__file__).parent


def fixed(label: str, count: int = 32) -> bytes:
    """Return `count` bytes that stand for a secret."""
    return hashlib.shake_256(b"renmei vector " + label.encode()).digest(count)


def write(name: str, value: object) -> None:
    """Write one file of vectors."""
    path = HERE / f"secagg_{name}.json"
    path.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def keystream() -> object:
    """Return keystreams: seed, chunk, length, first bytes, digest of the whole."""
    rows = []
    for label, chunk, count in (
        ("a", 0, 64),
        ("a", 1, 64),
        ("b", 0, CHUNK_BYTES),
        ("b", 2**40, 48),
    ):
        buffer = memoryview(bytearray(count + SLACK))
        CtrKeystream(fixed(label)).write(chunk, count, buffer)
        rows.append(
            {
                "seed": fixed(label).hex(),
                "chunk": chunk,
                "bytes": count,
                "first": bytes(buffer[:32]).hex(),
                "sha256": hashlib.sha256(buffer[:count]).hexdigest(),
            }
        )
    return rows


def sharing() -> object:
    """Return a secret, the coefficients' entropy, and its shares at five points."""
    calls = iter(fixed(f"coefficient {i}", 64) for i in range(2))
    shares = shamir.deal(fixed("secret"), 3, [1, 2, 3, 5, 64], lambda _count: next(calls))
    return {
        "secret": fixed("secret").hex(),
        "threshold": 3,
        "coefficients": [fixed(f"coefficient {i}", 64).hex() for i in range(2)],
        "shares": {str(point): share.hex() for point, share in shares.items()},
    }


def bad_shares() -> object:
    """Return lists of shares that no recovery may accept."""
    good = sharing()["shares"]  # type: ignore[index]
    over = shamir.PRIME.to_bytes(33, "big").hex()
    return [
        {"why": "a share is the prime itself", "shares": {**good, "1": over}},
        {"why": "a share has 32 bytes", "shares": {**good, "1": good["1"][2:]}},
        {"why": "a share has 34 bytes", "shares": {**good, "1": "00" + good["1"]}},
        {"why": "a share stands at point 0", "shares": {"0": good["1"], "2": good["2"]}},
        {
            "why": "the shares are of a number of 2^256 or more",
            "shares": {point: (2**256 + 5).to_bytes(33, "big").hex() for point in ("1", "2", "3")},
        },
    ]


def quantisation() -> object:
    """Return a delta, its words and what they mean alone in a sum."""
    params = Params(members=4, threshold=3, tolerated=1, parameters=6, qmax=2**19 - 1, clip=2.0)
    delta = np.array([0.5, -0.25, 1e-6, -1e-6, 0.0, 1.75], np.float32)
    rows = []
    for scale, weight in ((1.0, 1.0), (1.0, 0.3), (100.0, 1.0)):
        vector = quantise(delta * np.float32(scale), weight, params, fixed("rounding"))
        words = np.empty(vector.words, WORD)
        Rounding(vector).write(0, words)
        mean, total = dequantise(words, params, 1)
        rows.append(
            {
                "delta": [float(x).hex() for x in delta * np.float32(scale)],
                "weight": weight,
                "words": [int(x) for x in words],
                "mean": [float(x).hex() for x in mean],
                "sum_of_weights": total.hex(),
            }
        )
    return {
        "bits": 20,
        "clip_milli": 2000,
        "rounding_seed": fixed("rounding").hex(),
        "cases": rows,
    }


# ann, bob and cid upload; dan is lost after the seeds were agreed, so its pair masks are taken off.
LOST, UPLOADED, DELTA = "dan", ("ann", "bob", "cid"), 6
RINGS = {32: 22, 16: 14}


def _seeds(name: str, others: tuple[str, ...]) -> list[MaskSeed]:
    """Return the pair masks that a member adds or takes off, by the order of the names."""
    return [
        MaskSeed(seed=fixed(f"pair {min(name, other)} {max(name, other)}"), add=name < other)
        for other in others
        if other != name
    ]


def masking(word_bits: int) -> dict[str, Any]:
    """Return a whole round of one ring: deltas, uploads, the seeds that are left, and the sum."""
    bits, everyone = RINGS[word_bits], (*UPLOADED, LOST)
    params = Params(
        members=len(everyone),
        threshold=3,
        tolerated=1,
        parameters=DELTA,
        qmax=2 ** (bits - 1) - 1,
        clip=2.0,
        word_bits=word_bits,
    )
    total, rows = np.zeros(params.words, params.word), []
    for number, name in enumerate(UPLOADED, 1):
        delta = np.array([0.5, -0.25, 1e-3, -0.125, 0.0, 0.75], np.float32) * np.float32(number)
        weight, rounding = number / 4, fixed(f"rounding {name}")
        masks = [MaskSeed(seed=fixed(f"self {name}"), add=True), *_seeds(name, everyone)]
        vector = mask(quantise(delta, weight, params, rounding), masks)
        words = np.frombuffer(vector[0], params.word)
        total += words
        rows.append(
            {
                "member": name,
                "delta": [float(x).hex() for x in delta],
                "weight": weight,
                "rounding_seed": rounding.hex(),
                "upload": vector[0].hex(),
                "root": upload_root(params.words, [chunk_digest(0, vector[0])]).hex(),
            }
        )
    masked = total.copy()
    # The lost member's own pair masks, as if it had uploaded, cancel those of the others.
    left = [MaskSeed(seed=fixed(f"self {name}"), add=False) for name in UPLOADED]
    unmask(total, left + _seeds(LOST, UPLOADED))
    mean, weight = dequantise(total, params, len(UPLOADED))
    return {
        "word_bits": word_bits,
        "bits": bits,
        "clip_milli": 2000,
        "members": list(everyone),
        "lost": LOST,
        "self_seeds": {name: fixed(f"self {name}").hex() for name in everyone},
        "pair_seeds": {
            f"{one} {other}": fixed(f"pair {one} {other}").hex()
            for one in everyone
            for other in everyone
            if one < other
        },
        "uploads": rows,
        "masked_sum": masked.tobytes().hex(),
        "sum": total.tobytes().hex(),
        "mean": [float(x).hex() for x in mean],
        "sum_of_weights": weight.hex(),
    }


def bad_sums(good: list[dict[str, Any]]) -> object:
    """Return unmasked sums that honest members cannot have made."""
    rows = []
    for ring in good:
        word = np.dtype(f"<u{ring['word_bits'] // 8}")
        total = np.frombuffer(bytes.fromhex(ring["sum"]), word)
        weight = int(total[-1])

        def changed(place: int, value: int, total: Words = total) -> Words:
            words = total.copy()
            words[place] = np.array(value).astype(words.dtype)
            return words

        kept = np.frombuffer(bytes.fromhex(ring["masked_sum"]), word).copy()
        unmask(kept, [MaskSeed(seed=fixed(f"self {name}"), add=False) for name in UPLOADED])
        qmax = 2 ** (ring["bits"] - 1) - 1
        for words, why in (
            (kept, "the lost member's pair masks are still in it"),
            (changed(0, weight + 1), "a coordinate above the sum of weights"),
            (changed(0, -weight - 1), "a coordinate below minus the sum of weights"),
            (changed(-1, 0), "no weight"),
            (changed(-1, len(UPLOADED) * qmax + 1), "more weight than the members have"),
            (changed(-1, -1), "a weight below nothing"),
        ):
            row = {"word_bits": ring["word_bits"], "bits": ring["bits"], "why": why}
            rows.append({**row, "sum": words.tobytes().hex()})
    return rows


ANN, BOB = MemberId("ann"), MemberId("bob")


class _Pair:
    """Two members in one attempt, with fixed secrets."""

    def __init__(self) -> None:
        self.ctx = fixed("ctx")
        self.keys = {name: SigningKey(fixed(f"key {name}", 64)) for name in (ANN, BOB)}
        self.z = {name: fixed(f"z {name}") for name in (ANN, BOB)}
        self.b = {name: fixed(f"b {name}") for name in (ANN, BOB)}
        self.mask = {name: agreement.mask_keys(self.z[name], self.ctx, name) for name in (ANN, BOB)}
        self.channel_seed = {name: fixed(f"channel {name}", 96) for name in (ANN, BOB)}
        self.channel = {
            name: agreement.KeyPair.from_seed(self.channel_seed[name]) for name in (ANN, BOB)
        }
        self.advertised = tuple(self._advertise(name) for name in (ANN, BOB))
        self.h1 = key_list_digest(self.ctx, self.advertised)
        self.kem = agreement.encapsulate(self.mask[BOB].public.mlkem)
        self.pairs = {
            name: SharePair(
                mask_share=b"\0" + fixed(f"mask share {name}"),
                self_share=b"\0" + fixed(f"self share {name}"),
                mask_salt=fixed(f"mask salt {name}", 16),
                self_salt=fixed(f"self salt {name}", 16),
            )
            for name in (ANN, BOB)
        }
        self.shares = self._shares()
        self.h2 = share_list_digest(self.ctx, self.h1, [self.shares.header])

    def _advertise(self, name: MemberId) -> Advertise:
        mask, channel = self.mask[name].public, self.channel[name].public
        return Advertise(
            ctx=self.ctx,
            member=name,
            mask_x25519=mask.x25519,
            mask_mlkem=mask.mlkem,
            channel_x25519=channel.x25519,
            channel_mlkem=channel.mlkem,
        ).signed_by(self.keys[name])

    def edge(self, holder: MemberId) -> Edge:
        """Return the edge from ann to `holder`."""
        return Edge(ctx=self.ctx, h1=self.h1, dealer=ANN, holder=holder)

    def _shares(self) -> EncryptedShares:
        own = seal_entry(self.pairs[ANN], self.edge(ANN), None, None, self.z[ANN])
        sealed = seal_entry(
            self.pairs[BOB], self.edge(BOB), self.channel[BOB].public, self.kem, self.z[ANN]
        )
        header = ShareHeader(
            ctx=self.ctx,
            member=ANN,
            h1=self.h1,
            self_seed_commitment=self_seed_commitment(self.ctx, ANN, self.b[ANN]),
            entry_digests=(own.digest, sealed.digest),
        ).signed_by(self.keys[ANN])
        return EncryptedShares(header=header, entries=(own, sealed))

    def mask_seed(self) -> MaskSeed:
        """Return the mask that ann applies for bob."""
        return agreement.pair_mask(
            ANN,
            BOB,
            agreement.exchange(self.mask[ANN], self.mask[BOB].public.x25519),
            self.kem,
            agreement.pair_info(self.ctx, self.h2, ANN, BOB),
        )


def key_schedule(two: _Pair) -> object:
    """Return all that derives from two members' secrets."""
    return {
        "ctx": two.ctx.hex(),
        "h1": two.h1.hex(),
        "h2": two.h2.hex(),
        "mask_secret": {name: two.z[name].hex() for name in two.z},
        "self_seed": {name: two.b[name].hex() for name in two.b},
        "channel_seed": {name: two.channel_seed[name].hex() for name in two.channel_seed},
        "mask_x25519": {name: two.mask[name].public.x25519.hex() for name in two.mask},
        "mask_mlkem_sha256": {
            name: hashlib.sha256(two.mask[name].public.mlkem).hexdigest() for name in two.mask
        },
        "kem_secret": two.kem.secret.hex(),
        "self_mask_ann": agreement.self_mask(two.b[ANN], two.ctx, two.h2, ANN, add=True).seed.hex(),
        "pair_mask": two.mask_seed().seed.hex(),
        "pair_to_bob": {
            part: getattr(two.pairs[BOB], part).hex()
            for part in ("mask_share", "self_share", "mask_salt", "self_salt")
        },
    }


def messages(two: _Pair) -> dict[str, str]:
    """Return one encoding of each signed message."""
    vector = MaskedVector(np.arange(3, dtype=WORD))
    digests = vector.chunk_digests()
    upload = UploadHeader(
        ctx=two.ctx, member=ANN, h1=two.h1, h2=two.h2, root=upload_root(3, digests)
    ).signed_by(two.keys[ANN])
    h3 = survivor_list_digest(two.ctx, two.h2, [upload])
    confirm = Confirm(ctx=two.ctx, member=ANN, h1=two.h1, h2=two.h2, h3=h3).signed_by(two.keys[ANN])
    pair = two.pairs[ANN]
    reveal = Reveal(
        ctx=two.ctx,
        member=ANN,
        h1=two.h1,
        h2=two.h2,
        h3=h3,
        self_shares=(RevealedShare(member=ANN, share=pair.self_share, salt=pair.self_salt),),
        mask_shares=(RevealedShare(member=BOB, share=pair.mask_share, salt=pair.mask_salt),),
    ).signed_by(two.keys[ANN])
    signed = [*two.advertised, two.shares.header, upload, confirm, reveal]
    masked = MaskedHeader(header=upload, words=3, chunk_digests=digests)
    place = {"ctx": two.ctx, "member": ANN, "h1": two.h1, "h2": two.h2}
    complaint = Complaint(**place, dealer=BOB, reason=UNFIT).signed_by(two.keys[ANN])
    shown = two.pairs[BOB]
    opening = Opening(
        **place,
        holder=BOB,
        mask_share=shown.mask_share,
        self_share=shown.self_share,
        mask_salt=shown.mask_salt,
        self_salt=shown.self_salt,
    ).signed_by(two.keys[ANN])
    return {
        "verify_key_ann": two.keys[ANN].verify_key.raw.hex(),
        "h3": h3.hex(),
        "transcript": transcript_digest(two.ctx, (two.h1, two.h2, h3), signed).hex(),
        "Advertise": encode(two.advertised[0]).hex(),
        "KeyList": encode(KeyList(keys=two.advertised)).hex(),
        "EncryptedShares": encode(two.shares).hex(),
        "MaskedHeader": encode(masked).hex(),
        "Confirm": encode(confirm).hex(),
        "Reveal": encode(reveal).hex(),
        "Complaint": encode(complaint).hex(),
        "Opening": encode(opening).hex(),
    }


def bad_messages(good: dict[str, str]) -> object:
    """Return encodings that say what a good one says, or nearly so, and must be refused."""
    confirm = bytes.fromhex(good["Confirm"])
    ctx, rest = confirm[:34], confirm[34:]
    keys = bytes.fromhex(good["KeyList"])
    first = bytes.fromhex(good["Advertise"])
    complaint, opening = (bytes.fromhex(good[name]) for name in ("Complaint", "Opening"))
    share = b"\x32\x21\x00"
    second = keys[len(first) + 3 :]
    rows = [
        ("Confirm", confirm + b"\x00", "a trailing byte"),
        ("Confirm", confirm + b"\x3a\x00", "an unknown field"),
        ("Confirm", rest + ctx, "fields in another order"),
        ("Confirm", ctx + confirm, "a field twice"),
        ("Confirm", b"\x0a\xa0\x00" + confirm[2:], "a length that is not minimal"),
        ("Confirm", rest, "a missing digest"),
        ("Confirm", confirm[:-1], "a cut message"),
        ("Confirm", b"", "an empty message"),
        ("Confirm", confirm.replace(b"ann", b"Ann"), "a member id in capitals"),
        ("Confirm", confirm.replace(b"ann", b"a\xffn"), "a member id that is not UTF-8"),
        ("KeyList", second + keys[: len(first) + 3], "members out of order"),
        ("KeyList", keys[: len(first) + 3] * 2, "a member twice"),
        (
            "MaskedHeader",
            bytes.fromhex(good["MaskedHeader"]).replace(b"\x10\x03", b"\x10\x04"),
            "another length than the root signs",
        ),
        ("Advertise", bytes.fromhex(good["Confirm"]), "a message of another kind"),
        ("Complaint", complaint.replace(b"unfit", b"UNFIT"), "a reason that there is not"),
        ("Complaint", complaint.replace(b"bob", b"ann"), "a member that complains of itself"),
        ("Complaint", complaint + b"\x40\x01", "an unknown field of a complaint"),
        ("Opening", opening.replace(share, b"\x32\x21\xff"), "an opened share above the prime"),
        ("Opening", opening[:-1], "a cut opening"),
    ]
    return [{"message": kind, "bytes": raw.hex(), "why": why} for kind, raw, why in rows]


def main() -> None:
    """Write every file."""
    two = _Pair()
    good = messages(two)
    write("keystream", keystream())
    write("shares", sharing())
    write("bad_shares", bad_shares())
    write("quantise", quantisation())
    rounds = [masking(word_bits) for word_bits in RINGS]
    write("masking", rounds)
    write("bad_sums", bad_sums(rounds))
    write("keys", key_schedule(two))
    write("messages", good)
    write("bad_messages", bad_messages(good))


if __name__ == "__main__":
    main()
