"""What the coordinator publishes after unmasking, so that members can add the sum up again.

Decides what the digest of the publication covers. The self seeds are of survivors and the mask secrets
of dropouts, never both of one member: two of them together would open an upload. Pure.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

from fedproto.errors import LocalFault
from fedproto.identity import SIGNATURE_BYTES, SigningKey, VerifyKey
from fedproto.ids import MemberId, tagged_hash
from fedproto.secagg.chunk_hash import chunk_hash
from fedproto.secagg.faults import COORDINATOR, not_genuine
from fedproto.secagg.keying_messages import SealedShare
from fedproto.secagg.masking_messages import MaskedHeader
from fedproto.secagg.messages import (
    DIGEST_BYTES,
    UNSIGNED,
    require_length,
    require_member,
    require_sorted,
)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class RecoveredSecret:
    """A self seed of a survivor, or a mask secret of a dropout."""

    member: MemberId
    secret: bytes

    def __post_init__(self) -> None:
        require_member(self.member)


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeEntry:
    """What was dealt on the edge of a dropout and a survivor: it carries the KEM secret."""

    dealer: MemberId
    holder: MemberId
    entry: SealedShare

    def __post_init__(self) -> None:
        require_member(self.dealer)
        require_member(self.holder)


@dataclass(frozen=True, slots=True, kw_only=True)
class SumTranscript:
    """One attempt's sum, by the digests of its chunks, and all that leads from the uploads to it.

    `messages` is the digest over every signed message of the attempt (`transcript_digest`). The
    signature is the coordinator's, over `digest`: a transcript that does not add up is evidence.
    """

    ctx: bytes
    h3: bytes
    messages: bytes
    uploads: tuple[MaskedHeader, ...]
    self_seeds: tuple[RecoveredSecret, ...]
    mask_secrets: tuple[RecoveredSecret, ...]
    edges: tuple[EdgeEntry, ...]
    words: int
    sum_digests: tuple[bytes, ...]
    signature: bytes = UNSIGNED

    def __post_init__(self) -> None:
        for digest in (self.ctx, self.h3, self.messages, *self.sum_digests):
            require_length("a digest", digest, DIGEST_BYTES)
        require_length("signature", self.signature, SIGNATURE_BYTES)
        require_sorted(self.self_seeds)
        require_sorted(self.mask_secrets)
        selves = {item.member for item in self.self_seeds}
        if selves & {item.member for item in self.mask_secrets}:
            raise ValueError("both secrets of one member are never published")

    @property
    def sum_root(self) -> bytes:
        """The digest of the whole sum."""
        return sum_root(self.words, self.sum_digests)

    @property
    def digest(self) -> bytes:
        """The digest of all that is published, the sum's root included."""
        secrets = (*self.self_seeds, *self.mask_secrets)
        named = [part for item in secrets for part in (item.member.encode(), item.secret)]
        edges = [
            part
            for item in self.edges
            for part in (item.dealer.encode(), item.holder.encode(), item.entry.digest)
        ]
        signed = [part for item in self.uploads for part in _signed(item)]
        return tagged_hash(
            "renmei/v1/sa/published",
            self.ctx,
            self.h3,
            self.messages,
            self.sum_root,
            *(tagged_hash("renmei/v1/sa/published-part", *part) for part in (signed, named, edges)),
        )

    def signed_by(self, key: SigningKey) -> Self:
        """Return this transcript with the coordinator's signature."""
        return replace(self, signature=key.sign(self.digest))

    def verify(self, key: VerifyKey) -> None:
        """Raise RNM-SECAGG-0001 unless the coordinator's signature verifies."""
        try:
            key.verify(self.signature, self.digest)
        except LocalFault:
            raise not_genuine(COORDINATOR, "the transcript is not signed by it") from None


def sum_chunk_digest(index: int, data: bytes) -> bytes:
    """Return the digest by which the coordinator names one chunk of the sum."""
    return chunk_hash("renmei/v1/sa/sum-chunk", index, data)


def sum_root(words: int, chunk_digests: Sequence[bytes]) -> bytes:
    """Return the digest of a whole sum, flat over its chunks."""
    return tagged_hash("renmei/v1/sa/sum-root", words, *chunk_digests)


def _signed(upload: MaskedHeader) -> tuple[bytes, bytes]:
    return upload.header.statement(), upload.header.signature
