"""Messages of phases 2 to 4: uploads, confirmed survivors, revealed shares, and the digest h3.

Decides what each signature covers. Implements SA-1 (MaskedInput, Confirm, Unmask). Pure.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from fedproto.ids import MemberId, tagged_hash
from fedproto.secagg.agreement import SALT_BYTES
from fedproto.secagg.messages import (
    DIGEST_BYTES,
    Signed,
    require_length,
    require_member,
    require_sorted,
)
from fedproto.secagg.shamir import SHARE_BYTES
from fedproto.secagg.stages import upload_root


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadHeader(Signed):
    """Phase 2: a member's signature over its whole masked vector."""

    h1: bytes
    h2: bytes
    root: bytes

    def __post_init__(self) -> None:
        Signed.__post_init__(self)
        for digest in (self.h1, self.h2, self.root):
            require_length("a digest", digest, DIGEST_BYTES)

    def statement(self) -> bytes:
        """Return the tagged hash that is signed."""
        return tagged_hash(
            "renmei/v1/sa/upload", self.ctx, self.h1, self.h2, self.member.encode(), self.root
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskedHeader:
    """Phase 2: the upload's header with the digest of each chunk."""

    header: UploadHeader
    words: int
    chunk_digests: tuple[bytes, ...]

    def __post_init__(self) -> None:
        for digest in self.chunk_digests:
            require_length("a chunk digest", digest, DIGEST_BYTES)
        if upload_root(self.words, self.chunk_digests) != self.header.root:
            raise ValueError("the chunk digests are not those that the header signs")


@dataclass(frozen=True, slots=True, kw_only=True)
class SurvivorList:
    """Phase 3: U3, as the signed headers of its uploads."""

    headers: tuple[UploadHeader, ...]

    def __post_init__(self) -> None:
        require_sorted(self.headers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirm(Signed):
    """Phase 3: a member's one confirmation of a survivor set."""

    h1: bytes
    h2: bytes
    h3: bytes

    def __post_init__(self) -> None:
        Signed.__post_init__(self)
        for digest in (self.h1, self.h2, self.h3):
            require_length("a digest", digest, DIGEST_BYTES)

    def statement(self) -> bytes:
        """Return the tagged hash that is signed."""
        digests = (self.ctx, self.h1, self.h2, self.h3)
        return tagged_hash("renmei/v1/sa/confirm", *digests, self.member.encode())


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmations:
    """Phase 4: the confirmations of one h3."""

    confirms: tuple[Confirm, ...]

    def __post_init__(self) -> None:
        require_sorted(self.confirms)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class RevealedShare:
    """Phase 4: one share of a dealer's secret, with its commitment's salt."""

    member: MemberId
    share: bytes
    salt: bytes

    def __post_init__(self) -> None:
        require_member(self.member)
        require_length("a share", self.share, SHARE_BYTES)
        require_length("a salt", self.salt, SALT_BYTES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reveal(Signed):
    """Phase 4: self shares of U3 and mask shares of U2 without U3."""

    h1: bytes
    h2: bytes
    h3: bytes
    self_shares: tuple[RevealedShare, ...]
    mask_shares: tuple[RevealedShare, ...]

    def __post_init__(self) -> None:
        Signed.__post_init__(self)
        for digest in (self.h1, self.h2, self.h3):
            require_length("a digest", digest, DIGEST_BYTES)
        require_sorted(self.self_shares)
        require_sorted(self.mask_shares)

    def statement(self) -> bytes:
        """Return the tagged hash that is signed."""
        digests = (self.ctx, self.h1, self.h2, self.h3)
        return tagged_hash(
            "renmei/v1/sa/reveal",
            *digests,
            self.member.encode(),
            _shares_digest(self.self_shares),
            _shares_digest(self.mask_shares),
        )


def survivor_list_digest(ctx: bytes, h2: bytes, headers: Sequence[UploadHeader]) -> bytes:
    """Return h3: whose uploads are in the sum."""
    return tagged_hash("renmei/v1/sa/h3", ctx, h2, *(header.statement() for header in headers))


def transcript_digest(
    ctx: bytes, digests: tuple[bytes, bytes, bytes], signed: Sequence[Signed]
) -> bytes:
    """Return the digest over every signed message of an attempt, in the order of the phases."""
    parts = [part for item in signed for part in (item.statement(), item.signature)]
    return tagged_hash("renmei/v1/sa/transcript", ctx, *digests, *parts)


def _shares_digest(shares: Sequence[RevealedShare]) -> bytes:
    parts = [part for item in shares for part in (item.member.encode(), item.share, item.salt)]
    return tagged_hash("renmei/v1/sa/revealed", *parts)
