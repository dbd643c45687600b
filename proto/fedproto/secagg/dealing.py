"""Dealing: a member's two secrets become shares, one sealed pair for each holder.

Decides what a dealer commits to and what a holder accepts: a pair that opens with the holder's channel
key and fits both commitments of the entry that the dealer signed. The two shares have commitments of
their own, so that one is opened later and the other stays closed. Implements SA-1 (ShareKeys) and
RFC 9180 with MLKEM768-X25519, HKDF-SHA256, AES-256-GCM. Pure.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)

from fedproto.ids import MemberId, tagged_hash
from fedproto.secagg.agreement import (
    PAIR_BYTES,
    SALT_BYTES,
    KemSecret,
    KeyPair,
    PublicKeys,
    wrap,
)
from fedproto.secagg.dispute_messages import UNFIT, UNOPENED
from fedproto.secagg.keying_messages import SealedShare, kem_commitment, share_commitment
from fedproto.secagg.shamir import SHARE_BYTES, deal, share_value
from fedproto.secagg.stages import RoundSeeds, SharePair

_SUITE = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


class UnusableShareError(ValueError):
    """What a dealer signed for a holder cannot be used; `reason` is that of a complaint."""

    def __init__(self, reason: str, why: str) -> None:
        super().__init__(why)
        self.reason = reason


def share_point(members: Sequence[MemberId], member: MemberId) -> int:
    """Return where a member's shares stand: its place in the authorisation, counted from 1."""
    return members.index(member) + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """From which dealer to which holder, in which attempt."""

    ctx: bytes
    h1: bytes
    dealer: MemberId
    holder: MemberId

    @property
    def channel_info(self) -> bytes:
        """The HPKE info: a sealed pair opens at this place only."""
        return self._info("renmei/v1/sa/channel")

    @property
    def wrap_info(self) -> bytes:
        """The derivation input of this edge's wrapping key."""
        return self._info("renmei/v1/sa/wrap")

    def commitments(self, pair: SharePair) -> tuple[bytes, bytes]:
        """Return the commitments of the mask share and of the self share."""
        return (
            self.commitment("mask", pair.mask_share, pair.mask_salt),
            self.commitment("self", pair.self_share, pair.self_salt),
        )

    def commitment(self, kind: str, share: bytes, salt: bytes) -> bytes:
        """Return the commitment of one share."""
        return share_commitment(kind, self.h1, self.dealer, self.holder, share, salt)

    def kem_commitment(self, secret: bytes) -> bytes:
        """Return the commitment of this edge's KEM secret."""
        return kem_commitment(self.ctx, self.h1, self.dealer, self.holder, secret)

    def _info(self, tag: str) -> bytes:
        return tagged_hash(tag, self.ctx, self.h1, self.dealer.encode(), self.holder.encode())


def deal_pairs(
    seeds: RoundSeeds, threshold: int, points: Sequence[int], entropy: Callable[[int], bytes]
) -> dict[int, SharePair]:
    """Return what each point gets of both secrets."""
    masks = deal(seeds.mask_secret, threshold, points, entropy)
    selves = deal(seeds.self_seed, threshold, points, entropy)
    return {
        point: SharePair(
            mask_share=masks[point],
            self_share=selves[point],
            mask_salt=entropy(SALT_BYTES),
            self_salt=entropy(SALT_BYTES),
        )
        for point in points
    }


def seal_entry(
    pair: SharePair,
    edge: Edge,
    channel: PublicKeys | None,
    kem: KemSecret | None,
    mask_secret: bytes,
) -> SealedShare:
    """Return the entry for one holder; without a channel it is the dealer's own."""
    mask_commitment, self_commitment = edge.commitments(pair)
    return SealedShare(
        ciphertext=b"" if channel is None else _seal(pair, channel, edge.channel_info),
        kem_ciphertext=b"" if kem is None else kem.ciphertext,
        kem_wrapped=b"" if kem is None else wrap(kem.secret, mask_secret, edge.wrap_info),
        kem_commitment=b"" if kem is None else edge.kem_commitment(kem.secret),
        mask_commitment=mask_commitment,
        self_commitment=self_commitment,
    )


def open_entry(entry: SealedShare, edge: Edge, channel: KeyPair) -> SharePair:
    """Open what a dealer sealed; raise UnusableShareError if it does not open or fit."""
    key = MLKEM768X25519PrivateKey(channel.mlkem, channel.x25519)
    try:
        plain = _SUITE.decrypt(entry.ciphertext, key, info=edge.channel_info)
    except InvalidTag:
        why = "its share does not open with the holder's channel key"
        raise UnusableShareError(UNOPENED, why) from None
    if len(plain) != PAIR_BYTES:
        raise UnusableShareError(UNOPENED, f"its sealed pair has not {PAIR_BYTES} bytes")
    salts = 2 * SHARE_BYTES
    pair = SharePair(
        mask_share=plain[:SHARE_BYTES],
        self_share=plain[SHARE_BYTES:salts],
        mask_salt=plain[salts : salts + SALT_BYTES],
        self_salt=plain[salts + SALT_BYTES :],
    )
    try:
        share_value(pair.mask_share)
        share_value(pair.self_share)
    except ValueError as error:
        raise UnusableShareError(UNFIT, str(error)) from None
    if edge.commitments(pair) != (entry.mask_commitment, entry.self_commitment):
        raise UnusableShareError(UNFIT, "its share is not the one that it committed to")
    return pair


def _seal(pair: SharePair, channel: PublicKeys, info: bytes) -> bytes:
    plain = pair.mask_share + pair.self_share + pair.mask_salt + pair.self_salt
    key = MLKEM768X25519PublicKey(
        MLKEM768PublicKey.from_public_bytes(channel.mlkem),
        X25519PublicKey.from_public_bytes(channel.x25519),
    )
    return _SUITE.encrypt(plain, key, info=info)
