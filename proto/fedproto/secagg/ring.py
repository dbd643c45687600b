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


def mask(
    vector: QuantisedVector,
    seeds: Sequence[MaskSeed],
    keystream: type[Keystream] = GcmKeystream,
) -> MaskedVector:
    """Quantise and mask; refuse to send a vector without a mask."""
    if not seeds:
        raise ValueError("a vector without a mask has no wire form")
    words = np.empty(vector.words, vector.word)
    rounding, masks = Rounding(vector, keystream), Masks(seeds, keystream)
    for chunk, block in blocks(words):
        rounding.write(chunk, block)
        masks.apply(chunk, block)
    return MaskedVector(words)


def unmask(
    total: Words, seeds: Sequence[MaskSeed], keystream: type[Keystream] = GcmKeystream
) -> None:
    """Apply the seeds that are left in a sum, in place."""
    masks = Masks(seeds, keystream)
    for chunk, block in blocks(total):
        masks.apply(chunk, block)
