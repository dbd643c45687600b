"""The audit of a sum: which member looks at which chunk, what it adds up again, and what it finds.

Decides that every chunk has t_c + 1 auditors, so that one of them is honest, in an order that h3 fixes
and nobody picks. Trusts `Witnessed`, the lists that the member itself checked in phases 0 to 3, and
nothing that is published: each secret is held to what its owner signed. What is published opens no
upload. A survivor's self mask comes off, its pair masks with other survivors stay; a dropout's pair
masks come off, but its upload is in no sum and is never served. So the masks here are applied to the
sum of all survivors only, never to one upload. Implements SA-1 (verifiable sum). Pure.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fedproto.ids import MemberId, tagged_hash
from fedproto.secagg.agreement import (
    KemSecret,
    KeyPair,
    decapsulate,
    exchange,
    mask_keys,
    pair_info,
    pair_mask,
    self_mask,
    unwrap,
)
from fedproto.secagg.audit_messages import SumTranscript, sum_chunk_digest
from fedproto.secagg.dealing import Edge
from fedproto.secagg.faults import COORDINATOR, not_genuine
from fedproto.secagg.graph import neighbours
from fedproto.secagg.keying_messages import (
    Advertise,
    SealedShare,
    ShareHeader,
    self_seed_commitment,
)
from fedproto.secagg.masking_messages import UploadHeader
from fedproto.secagg.params import UPLOAD_CHUNK_BYTES, Params, Words
from fedproto.secagg.prg import CHUNK_BYTES, Masks
from fedproto.secagg.ring import blocks
from fedproto.secagg.stages import MaskSeed, chunk_digest

ReadChunk = Callable[[MemberId, int], bytes]
_BLOCKS = UPLOAD_CHUNK_BYTES // CHUNK_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Witnessed:
    """What one member saw and checked of an attempt before the sum: U1, U2, U3 and their digests."""

    ctx: bytes
    h1: bytes
    h2: bytes
    h3: bytes
    params: Params
    keys: Mapping[MemberId, Advertise]
    shares: Mapping[MemberId, ShareHeader]
    uploads: Mapping[MemberId, UploadHeader]

    @property
    def dropped(self) -> tuple[MemberId, ...]:
        """U2 without U3: whose pair masks are left in the sum."""
        return tuple(sorted(set(self.shares) - set(self.uploads)))

    def near(self, member: MemberId) -> tuple[MemberId, ...]:
        """Return the survivors with whom a dropout shares a mask."""
        near = neighbours(
            tuple(self.keys),
            member,
            tolerated=self.params.tolerated,
            threshold=self.params.threshold,
        )
        return tuple(peer for peer in near if peer in self.uploads)


def auditors(
    chunk: int, survivors: Sequence[MemberId], tolerated: int, h3: bytes
) -> tuple[MemberId, ...]:
    """Return the t_c + 1 members of U3 that audit a chunk."""
    ordered, seats = sorted(survivors), tolerated + 1
    if len(ordered) < seats:
        raise ValueError("fewer survivors than auditors of one chunk")
    start = int.from_bytes(tagged_hash("renmei/v1/sa/audit-order", h3)) + chunk * seats
    return tuple(ordered[(start + seat) % len(ordered)] for seat in range(seats))


def assigned(member: MemberId, seen: Witnessed) -> tuple[int, ...]:
    """Return the chunks that a member audits."""
    names = tuple(seen.uploads)
    return tuple(
        chunk
        for chunk in range(seen.params.upload_chunks)
        if member in auditors(chunk, names, seen.params.tolerated, seen.h3)
    )


def uncertified(
    matched: Mapping[MemberId, Iterable[int]],
    chunks: int,
    survivors: Sequence[MemberId],
    tolerated: int,
    h3: bytes,
) -> tuple[int, ...]:
    """Return the chunks that not all of their auditors found right: fewer may all be liars."""
    found = {member: set(items) for member, items in matched.items()}
    return tuple(
        chunk
        for chunk in range(chunks)
        if not all(
            chunk in found.get(name, ()) for name in auditors(chunk, survivors, tolerated, h3)
        )
    )


class SumAudit:
    """One member's audit of one published sum."""

    def __init__(self, seen: Witnessed, published: SumTranscript) -> None:
        self._seen, self._published = seen, published
        self._require_lists()
        self._masks = Masks([*self._self_masks(), *self._pair_masks()])

    def matches(self, chunk: int, read_chunk: ReadChunk) -> bool:
        """Add a chunk up again and say whether it is that of the published sum.

        Raises:
            PeerFault: RNM-SECAGG-0001, a chunk that was served is not the one its member signed.
        """
        params = self._seen.params
        total: Words = np.zeros(params.chunk_words(chunk), params.word)
        for upload in self._published.uploads:
            name = upload.header.member
            data = read_chunk(name, chunk)
            if chunk_digest(chunk, data) != upload.chunk_digests[chunk]:
                raise _wrong(f"chunk {chunk} of {name} is not the one that {name} signed")
            total += np.frombuffer(data, params.word)
        for place, block in blocks(total):
            self._masks.apply(chunk * _BLOCKS + place, block)
        expected = self._published.sum_digests[chunk]
        return sum_chunk_digest(chunk, total.tobytes()) == expected

    def _require_lists(self) -> None:
        seen, shown = self._seen, self._published
        if (shown.ctx, shown.h3) != (seen.ctx, seen.h3):
            raise _wrong("what it published is of another attempt or survivor set")
        if tuple(item.header for item in shown.uploads) != tuple(seen.uploads.values()):
            raise _wrong("the uploads it published are not those of the confirmed survivors")
        words = {item.words for item in shown.uploads} | {shown.words}
        counts = {len(item.chunk_digests) for item in shown.uploads} | {len(shown.sum_digests)}
        if words != {seen.params.words} or counts != {seen.params.upload_chunks}:
            raise _wrong("a vector that it published has another length than authorised")
        if tuple(item.member for item in shown.self_seeds) != tuple(seen.uploads):
            raise _wrong("the self seeds it published are not those of the survivors")
        if tuple(item.member for item in shown.mask_secrets) != seen.dropped:
            raise _wrong("the mask secrets it published are not those of the dropouts")

    def _self_masks(self) -> list[MaskSeed]:
        seen, masks = self._seen, []
        for item in self._published.self_seeds:
            committed = seen.shares[item.member].self_seed_commitment
            if self_seed_commitment(seen.ctx, item.member, item.secret) != committed:
                raise _wrong(f"the self seed of {item.member} is not the one it committed to")
            masks.append(self_mask(item.secret, seen.ctx, seen.h2, item.member, add=False))
        return masks

    def _pair_masks(self) -> list[MaskSeed]:
        seen, masks = self._seen, []
        entries = {(item.dealer, item.holder): item.entry for item in self._published.edges}
        for item in self._published.mask_secrets:
            name, keys = item.member, mask_keys(item.secret, seen.ctx, item.member)
            if keys.public != seen.keys[name].mask:
                raise _wrong(f"the mask secret of {name} is not that of its advertised keys")
            for peer in seen.near(name):
                low, high = sorted((name, peer))
                kem = self._kem_secret(low, high, entries, item.secret, keys, opens=low == peer)
                classic = exchange(keys, seen.keys[peer].mask_x25519)
                info = pair_info(seen.ctx, seen.h2, name, peer)
                masks.append(pair_mask(name, peer, classic, kem, info))
        return masks

    def _kem_secret(
        self,
        low: MemberId,
        high: MemberId,
        entries: Mapping[tuple[MemberId, MemberId], SealedShare],
        mask_secret: bytes,
        keys: KeyPair,
        *,
        opens: bool,
    ) -> KemSecret:
        seen, entry = self._seen, entries.get((low, high))
        place = tuple(seen.keys).index(high)
        if entry is None or entry.digest != seen.shares[low].entry_digests[place]:
            raise _wrong(f"what {low} dealt {high} is missing or not what {low} signed")
        edge = Edge(ctx=seen.ctx, h1=seen.h1, dealer=low, holder=high)
        if opens:
            kem = decapsulate(keys, entry.kem_ciphertext)
        else:
            secret = unwrap(entry.kem_wrapped, mask_secret, edge.wrap_info)
            kem = KemSecret(secret=secret, ciphertext=entry.kem_ciphertext)
        if edge.kem_commitment(kem.secret) != entry.kem_commitment:
            raise _wrong(f"the KEM secret of {low} and {high} is not the one committed to")
        return kem


def _wrong(why: str) -> Exception:
    return not_genuine(COORDINATOR, why)
