"""Messages of phases 0 and 1: advertised keys, dealt shares, and their transcript digests h1, h2.

Decides what each signature covers. Implements SA-1 (Advertise, ShareKeys). Pure.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from fedproto.ids import MemberId, tagged_hash
from fedproto.secagg import agreement
from fedproto.secagg.agreement import PublicKeys
from fedproto.secagg.messages import DIGEST_BYTES, Signed, require_length, require_sorted


@dataclass(frozen=True, slots=True, kw_only=True)
class Advertise(Signed):
    """Phase 0: a member's fresh public keys."""

    mask_x25519: bytes
    mask_mlkem: bytes
    channel_x25519: bytes
    channel_mlkem: bytes

    def __post_init__(self) -> None:
        Signed.__post_init__(self)
        require_length("mask_x25519", self.mask_x25519, agreement.X25519_BYTES)
        require_length("mask_mlkem", self.mask_mlkem, agreement.MLKEM_BYTES)
        require_length("channel_x25519", self.channel_x25519, agreement.X25519_BYTES)
        require_length("channel_mlkem", self.channel_mlkem, agreement.MLKEM_BYTES)

    @property
    def mask(self) -> PublicKeys:
        """The mask keys."""
        return PublicKeys(x25519=self.mask_x25519, mlkem=self.mask_mlkem)

    @property
    def channel(self) -> PublicKeys:
        """The share channel's keys."""
        return PublicKeys(x25519=self.channel_x25519, mlkem=self.channel_mlkem)

    @property
    def raw_keys(self) -> tuple[bytes, bytes, bytes, bytes]:
        """All four keys; no two members may have one in common."""
        return self.mask_x25519, self.mask_mlkem, self.channel_x25519, self.channel_mlkem

    def statement(self) -> bytes:
        """Return the tagged hash that is signed."""
        member = self.member.encode()
        return tagged_hash("renmei/v1/sa/advertise", self.ctx, member, *self.raw_keys)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyList:
    """Phase 0: U1 with its keys."""

    keys: tuple[Advertise, ...]

    def __post_init__(self) -> None:
        require_sorted(self.keys)


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedShare:
    """Phase 1: what a dealer gives one holder."""

    ciphertext: bytes
    kem_ciphertext: bytes
    kem_wrapped: bytes
    kem_commitment: bytes
    mask_commitment: bytes
    self_commitment: bytes

    def __post_init__(self) -> None:
        require_length("ciphertext", self.ciphertext, 0, agreement.SEALED_BYTES)
        require_length("kem_ciphertext", self.kem_ciphertext, 0, agreement.KEM_CIPHERTEXT_BYTES)
        require_length("kem_wrapped", self.kem_wrapped, 0, agreement.WRAPPED_BYTES)
        require_length("kem_commitment", self.kem_commitment, 0, DIGEST_BYTES)
        require_length("mask_commitment", self.mask_commitment, DIGEST_BYTES)
        require_length("self_commitment", self.self_commitment, DIGEST_BYTES)

    @property
    def digest(self) -> bytes:
        """The digest by which the dealer's header names this entry."""
        return tagged_hash(
            "renmei/v1/sa/entry",
            self.ciphertext,
            self.kem_ciphertext,
            self.kem_wrapped,
            self.kem_commitment,
            self.mask_commitment,
            self.self_commitment,
        )

    def has_parts(self, *, sealed: bool, edge: bool) -> bool:
        """Say whether exactly the parts are there that this place in the graph calls for."""
        of_edge = (self.kem_ciphertext, self.kem_wrapped, self.kem_commitment)
        return bool(self.ciphertext) == sealed and all(bool(part) == edge for part in of_edge)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareHeader(Signed):
    """Phase 1: the dealer's signature over all that it dealt."""

    h1: bytes
    self_seed_commitment: bytes
    entry_digests: tuple[bytes, ...]

    def __post_init__(self) -> None:
        Signed.__post_init__(self)
        for digest in (self.h1, self.self_seed_commitment, *self.entry_digests):
            require_length("a digest", digest, DIGEST_BYTES)

    def statement(self) -> bytes:
        """Return the tagged hash that is signed."""
        return tagged_hash(
            "renmei/v1/sa/shares",
            self.ctx,
            self.h1,
            self.member.encode(),
            self.self_seed_commitment,
            *self.entry_digests,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EncryptedShares:
    """Phase 1: one entry for each member of U1, in order."""

    header: ShareHeader
    entries: tuple[SealedShare, ...]

    def __post_init__(self) -> None:
        if tuple(entry.digest for entry in self.entries) != self.header.entry_digests:
            raise ValueError("the entries are not those that the header names")


@dataclass(frozen=True, slots=True, kw_only=True)
class DealtShare:
    """Phase 1: one dealer's header and its entry for the reader."""

    header: ShareHeader
    entry: SealedShare

    @property
    def member(self) -> MemberId:
        """The dealer."""
        return self.header.member


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareList:
    """Phase 1: what each member of U2 dealt to the reader."""

    dealt: tuple[DealtShare, ...]

    def __post_init__(self) -> None:
        require_sorted(self.dealt)


def key_list_digest(ctx: bytes, keys: Sequence[Advertise]) -> bytes:
    """Return h1: which keys of which members this attempt is about."""
    return tagged_hash("renmei/v1/sa/h1", ctx, *(advertise.statement() for advertise in keys))


def share_list_digest(ctx: bytes, h1: bytes, headers: Sequence[ShareHeader]) -> bytes:
    """Return h2: who dealt what."""
    return tagged_hash("renmei/v1/sa/h2", ctx, h1, *(header.statement() for header in headers))


def self_seed_commitment(ctx: bytes, member: MemberId, self_secret: bytes) -> bytes:
    """Return H(b_u), against which a recovered self seed is checked."""
    return tagged_hash("renmei/v1/sa/self-commitment", ctx, member.encode(), self_secret)


def kem_commitment(
    ctx: bytes, h1: bytes, dealer: MemberId, holder: MemberId, secret: bytes
) -> bytes:
    """Return the commitment of an edge's KEM secret, which has 256 bits and needs no salt.

    The holder checks it against what it decapsulates, the coordinator against what it unwraps when
    the dealer has dropped out: a dealer cannot give one secret to its neighbour and leave another.
    """
    return tagged_hash("renmei/v1/sa/kem-secret", ctx, h1, dealer.encode(), holder.encode(), secret)


def share_commitment(
    kind: str, h1: bytes, dealer: MemberId, holder: MemberId, share: bytes, salt: bytes
) -> bytes:
    """Return the salted commitment of one share of `kind` "mask" or "self"."""
    names = (dealer.encode(), holder.encode())
    return tagged_hash(f"renmei/v1/sa/{kind}-share", h1, *names, share, salt)
