"""The rings Z/2^32 and Z/2^16: masking and unmasking vectors in one pass over cache-sized blocks.

A block is rounded, masked and left behind before the next one is touched, so the quantised delta
never exists whole. Trusts its seeds. Implements SA-1 (phases 2 and 4). Pure.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from fedproto.secagg.params import Words
from fedproto.secagg.prg import CHUNK_BYTES, GcmKeystream, Keystream, Masks
from fedproto.secagg.quantise import Rounding
from fedproto.secagg.stages import MaskedVector, MaskSeed, QuantisedVector


def blocks(words: Words) -> Iterator[tuple[int, Words]]:
    """Cut a vector into keystream chunks: number and view."""
    size = CHUNK_BYTES // words.itemsize
    for chunk, start in enumerate(range(0, words.size, size)):
        yield chunk, words[start : start + size]


class Masking(MaskedVector):
    """A vector that is masked as its chunks are asked for, in order: one is sent while the next is made.

    Holds the delta and the seeds until the last block is masked. Not to be shared between threads.
    """

    __slots__ = ("_left", "_masked", "_masks", "_rounding")

    def __init__(
        self, vector: QuantisedVector, seeds: Sequence[MaskSeed], keystream: type[Keystream]
    ) -> None:
        words = np.empty(vector.words, vector.word)
        super().__init__(words)
        self._left = blocks(words)
        self._masked = 0
        self._rounding: Rounding | None = Rounding(vector, keystream)
        self._masks: Masks | None = Masks(seeds, keystream)

    def _require(self, words: int) -> None:
        while self._masked < min(words, self._words.size):
            assert self._rounding is not None  # noqa: S101  # dropped with the last block
            assert self._masks is not None  # noqa: S101
            chunk, block = next(self._left)
            self._rounding.write(chunk, block)
            self._masks.apply(chunk, block)
            self._masked += block.size
        if self._masked == self._words.size:
            self._rounding = self._masks = None


def mask(
    vector: QuantisedVector,
    seeds: Sequence[MaskSeed],
    keystream: type[Keystream] = GcmKeystream,
) -> MaskedVector:
    """Quantise and mask, as the chunks are read; refuse to send a vector without a mask."""
    if not seeds:
        raise ValueError("a vector without a mask has no wire form")
    return Masking(vector, seeds, keystream)


def unmask(
    total: Words, seeds: Sequence[MaskSeed], keystream: type[Keystream] = GcmKeystream
) -> None:
    """Apply the seeds that are left in a sum, in place."""
    masks = Masks(seeds, keystream)
    for chunk, block in blocks(total):
        masks.apply(chunk, block)
