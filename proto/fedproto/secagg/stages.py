"""One type for each stage of secret data; only MaskedVector has bytes.

A delta becomes a QuantisedVector, a MaskedVector, part of a masked sum, and at last part of the
AggregateSum. What is secret has no repr and cannot be pickled or copied, so it does not reach a log
or a wire by accident. CPython gives no way to wipe memory: erasing means dropping the last reference.
Pure.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, SupportsIndex, overload

import numpy as np

from fedproto.ids import Digest, MemberId, tagged_hash
from fedproto.layout import FlatVector
from fedproto.secagg.chunk_hash import chunk_hash
from fedproto.secagg.params import UPLOAD_CHUNK_BYTES, WORD, Words


class Secret:
    """What must not be shown, stored or sent."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: secret>"

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        """Refuse to be copied or serialised."""
        raise TypeError(f"{type(self).__name__} is secret and has no wire form")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class RoundSeeds(Secret):
    """A member's two secrets of one attempt: its mask secret z_u and its self seed b_u."""

    mask_secret: bytes
    self_seed: bytes


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class MaskSeed(Secret):
    """One seed of a mask, and whether its keystream is added or subtracted."""

    seed: bytes
    add: bool

    def __post_init__(self) -> None:
        if len(self.seed) != 32:
            raise ValueError("a mask seed has 32 bytes")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class SharePair(Secret):
    """What a dealer gives one holder: a share of each of its secrets, and the commitments' salts."""

    mask_share: bytes
    self_share: bytes
    mask_salt: bytes
    self_salt: bytes


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class QuantisedVector(Secret):
    """A checked delta with all that its rounding needs; its words exist a cache block at a time."""

    delta: FlatVector
    factor: float
    weight_word: int
    rounding_seed: bytes
    word: np.dtype[Any] = WORD

    @property
    def words(self) -> int:
        """The length of the vector, the weight's word included."""
        return self.delta.size + 1


class MaskedVector(Sequence[bytes]):
    """What may leave the premises: the masked words, as a sequence of upload chunks."""

    __slots__ = ("_digests", "_words")

    def __init__(self, words: Words) -> None:
        self._words = words
        self._digests: list[bytes] = []

    def _require(self, words: int) -> None:
        """Have the first so many words masked; here they all are."""

    def __len__(self) -> int:
        return (self._words.nbytes + UPLOAD_CHUNK_BYTES - 1) // UPLOAD_CHUNK_BYTES

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> list[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | list[bytes]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        size = UPLOAD_CHUNK_BYTES // self._words.itemsize
        self._require((index + 1) * size)
        return self._words[index * size : (index + 1) * size].tobytes()

    @property
    def words(self) -> int:
        """The length of the vector, the weight's word included."""
        return int(self._words.size)

    def chunk_digests(self) -> tuple[bytes, ...]:
        """Return the digest of each chunk."""
        size = UPLOAD_CHUNK_BYTES // self._words.itemsize
        raw = self._words.data.cast("B")
        for index in range(len(self._digests), len(self)):
            # Hashed while it is in the cache.
            self._require((index + 1) * size)
            start = index * UPLOAD_CHUNK_BYTES
            self._digests.append(chunk_digest(index, raw[start : start + UPLOAD_CHUNK_BYTES]))
        return tuple(self._digests)


def chunk_digest(index: int, data: bytes | memoryview) -> bytes:
    """Return the digest by which a header names one chunk of an upload."""
    return chunk_hash("renmei/v1/sa/chunk", index, data)


def upload_root(words: int, chunk_digests: Sequence[bytes]) -> bytes:
    """Return the digest of a whole upload, flat over its chunks."""
    return tagged_hash("renmei/v1/sa/root", words, *chunk_digests)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AggregateSum:
    """What the coordinator learns of a round, and nothing else: the weighted mean over `included`."""

    mean_delta: FlatVector
    weight: float
    included: tuple[MemberId, ...]
    transcript_sha256: Digest
