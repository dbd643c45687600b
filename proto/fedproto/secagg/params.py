"""Quantisation of one attempt, and the proof that its sum cannot wrap.

Decides: the step, the bound qmax = 2^(bits-1) - 1 of one quantised value, and that n * qmax <
2^(word_bits-1), so that a sum over every member keeps its sign in a word of 32 or 16 bits. In the large
ring one coordinate may hold the whole clip norm: lossless in practice. The small ring has no bits to
spare for that, so there a coordinate is cut at PEAK times the root mean square that the clip allows
(1/sqrt(d) of it), which is public, the same for all, and keeps many steps for a usual value. The weight w in (0, 1] is the integer
q_w = round(w * qmax) >= 1; each coordinate of the weighted delta stays within q_w, so weighting can
only shrink it. All of it follows from the round authorisation: no member and no coordinator chooses.
Implements SA-1 (quantisation, range checks). Pure.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from fedproto.authorisation import LEAST_HONEST, Authorisation, recovery_threshold
from fedproto.secagg.faults import out_of_range

WORD = np.dtype("<u4")
SIGNED_WORD = np.dtype("<i4")
_WORDS: dict[int, np.dtype[Any]] = {32: WORD, 16: np.dtype("<u2")}
_SIGNED: dict[int, np.dtype[Any]] = {32: SIGNED_WORD, 16: np.dtype("<i2")}
PEAK = 8.0

UPLOAD_CHUNK_BYTES = 1 << 20
UPLOAD_CHUNK_WORDS = UPLOAD_CHUNK_BYTES // WORD.itemsize

Words = npt.NDArray[np.unsignedinteger[Any]]


def signed(word: np.dtype[Any]) -> np.dtype[Any]:
    """Return the signed type of a word."""
    return _SIGNED[8 * word.itemsize]


@dataclass(frozen=True, slots=True, kw_only=True)
class Params:
    """`parameters` is d, the length of a delta; a vector has d + 1 words, the weight last."""

    members: int
    threshold: int
    tolerated: int
    parameters: int
    qmax: int
    clip: float
    word_bits: int = 32

    def __post_init__(self) -> None:
        if self.members * self.qmax >= 1 << (self.word_bits - 1):
            raise out_of_range(
                "the authorisation was refused",
                f"{self.members} members with values up to {self.qmax} could wrap "
                f"a {self.word_bits}-bit sum",
                "authorise fewer bits or a smaller cohort",
            )

    @classmethod
    def of(cls, content: Authorisation) -> "Params":
        """Return the parameters that an authorisation fixes; refuse a cohort that could wrap."""
        return cls(
            members=len(content.members),
            threshold=content.recovery_threshold,
            tolerated=content.tolerated,
            parameters=content.parameters,
            qmax=(1 << (content.bits - 1)) - 1,
            clip=content.clip_milli / 1000,
            word_bits=content.word_bits,
        )

    def of_group(self, members: int) -> "Params":
        """Return the parameters of a group of so many; ValueError if its sum would hide too few."""
        if members < self.tolerated + LEAST_HONEST:
            raise ValueError(f"a group of {members} is too small for {self.tolerated} colluders")
        threshold = recovery_threshold(members, self.tolerated)
        return replace(self, members=members, threshold=threshold)

    @property
    def word(self) -> np.dtype[Any]:
        """The type of a word, little-endian."""
        return _WORDS[self.word_bits]

    @property
    def signed_word(self) -> np.dtype[Any]:
        """The same word, read as a number with a sign."""
        return _SIGNED[self.word_bits]

    @property
    def peak(self) -> float:
        """The largest coordinate of a delta that is sent; qmax stands for it."""
        if self.word_bits == 32:
            return self.clip
        return min(self.clip, PEAK * self.clip / math.sqrt(self.parameters))

    @property
    def chunk_size(self) -> int:
        """How many words a whole upload chunk of 1 MiB holds."""
        return UPLOAD_CHUNK_BYTES // self.word.itemsize

    @property
    def words(self) -> int:
        """The length of a masked vector."""
        return self.parameters + 1

    @property
    def upload_chunks(self) -> int:
        """How many chunks one upload has."""
        return -(-self.words // self.chunk_size)

    def chunk_words(self, index: int) -> int:
        """How many words chunk `index` of an upload holds; the last one may be shorter."""
        return min(self.chunk_size, self.words - index * self.chunk_size)

    def weight_word(self, weight: float) -> int:
        """Return q_w; refuse a weight outside (0, 1]."""
        if not 0.0 < weight <= 1.0:
            raise out_of_range(
                "the weight was refused",
                "it is not in (0, 1]",
                "divide the member's example count by the largest one of the cohort",
            )
        return max(1, round(weight * self.qmax))

    def require_sum_in_range(self, total: npt.NDArray[np.signedinteger[Any]], included: int) -> int:
        """Refuse an unmasked sum that honest members cannot make; return its weight coordinate."""
        weight = int(total[-1])
        low, high = int(total[:-1].min()), int(total[:-1].max())
        # |q_j| <= q_w holds for each member, so the weight bounds every coordinate of the sum.
        if not 0 < weight <= included * self.qmax or max(-low, high) > weight:
            raise out_of_range(
                "the aggregate sum was refused",
                f"a coordinate of the sum over {included} members is beyond what they may add up to",
                "a member sent values out of range, or masks did not cancel: abort the round",
            )
        return weight
