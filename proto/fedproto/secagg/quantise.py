"""From a delta of floats to words of the ring, and from their sum back to a mean of floats.

Decides: clip the delta's L2 norm to the authorised bound, times the weight, stochastic rounding. The
rounding takes its randomness from the AES keystream of a seed: the same seed gives the same words,
and the expectation of a rounded value is the value. Refuses what is not finite, of another length or
far beyond the clip before anything of it is masked. Implements SA-1 (quantisation). Pure.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from fedproto.layout import FlatVector
from fedproto.secagg.faults import out_of_range
from fedproto.secagg.params import Params, Words, signed
from fedproto.secagg.prg import CHUNK_BYTES, CHUNK_WORDS, GcmKeystream, Keystream, KeystreamBuffer
from fedproto.secagg.stages import QuantisedVector

# A norm a million times the clip is training that diverged, not an update to be clipped.
_DIVERGED = 1e6


def quantise(
    delta: FlatVector, weight: float, params: Params, rounding_seed: bytes
) -> QuantisedVector:
    """Check a delta and prepare its quantisation.

    Raises:
        LocalFault: RNM-SECAGG-0004 for a wrong length or type, a value that is not finite, a norm
            that shows diverged training, or a weight outside (0, 1].
    """
    if len(rounding_seed) != 32:
        raise ValueError("a rounding seed has 32 bytes")
    if delta.shape != (params.parameters,) or delta.dtype != np.float32:
        raise _refused(f"it is {delta.dtype}{delta.shape}, not float32({params.parameters},)")
    weight_word = params.weight_word(weight)
    norm = norm_l2(delta)
    if not math.isfinite(norm):
        raise _refused("it holds a value that is not finite")
    if norm > _DIVERGED * params.clip:
        raise _refused("its norm is a million times the clip: training diverged")
    shrink = 1.0 if norm <= params.clip else params.clip / norm
    return QuantisedVector(
        delta=delta,
        factor=shrink * weight_word / params.peak,
        word=params.word,
        weight_word=weight_word,
        rounding_seed=rounding_seed,
    )


def norm_l2(delta: FlatVector) -> float:
    """Return the L2 norm, summed in float64; NaN or infinite exactly where a value is."""
    total = 0.0
    for start in range(0, delta.size, CHUNK_WORDS):
        block = delta[start : start + CHUNK_WORDS].astype(np.float64)
        # Not np.dot: its library would start threads, and spin in them, for a sum that memory bounds.
        total += float(np.einsum("i,i->", block, block))
    return math.sqrt(total)


class Rounding:
    """Writes the words of one QuantisedVector, a keystream chunk at a time."""

    __slots__ = ("_buffer", "_floors", "_size", "_stream", "_values", "_vector")

    def __init__(self, vector: QuantisedVector, keystream: type[Keystream] = GcmKeystream) -> None:
        self._vector = vector
        self._stream = keystream(vector.rounding_seed)
        self._buffer = KeystreamBuffer()
        self._size = CHUNK_BYTES // vector.word.itemsize
        self._values = np.empty(self._size, np.float32)
        self._floors = np.empty(self._size, np.float32)

    def write(self, chunk: int, out: Words) -> None:
        """Write chunk `chunk`, whose length is that of `out`."""
        start = chunk * self._size
        part = self._vector.delta[start : start + out.size]
        self._round(chunk, part, out[: part.size].view(signed(self._vector.word)))
        if part.size < out.size:
            out[-1] = self._vector.weight_word

    def _round(self, chunk: int, part: FlatVector, out: npt.NDArray[Any]) -> None:
        values, floors = self._values[: part.size], self._floors[: part.size]
        bound = np.float32(self._vector.weight_word)
        np.multiply(part, np.float32(self._vector.factor), out=values)
        # In the large ring only rounding errors of float32 are cut here: the norm is within the clip.
        np.clip(values, -bound, bound, out=values)
        np.floor(values, out=floors)
        np.subtract(values, floors, out=values)
        np.copyto(out, floors, casting="unsafe")
        self._stream.write(chunk, 2 * part.size, self._buffer.view)
        # A 16-bit number r stands for (r + 1/2) / 2^16: up with the fraction's own probability.
        np.multiply(self._buffer.halves(part.size), np.float32(2.0**-16), out=floors)
        np.add(floors, np.float32(2.0**-17), out=floors)
        np.add(out, np.less(floors, values), out=out)


def dequantise(total: Words, params: Params, included: int) -> tuple[FlatVector, float]:
    """Return the weighted mean delta and the sum of weights; refuse a sum out of range."""
    numbers = total.view(params.signed_word)
    weight = params.require_sum_in_range(numbers, included)
    mean = np.empty(params.parameters, np.float32)
    np.multiply(numbers[:-1], params.peak / weight, out=mean, casting="unsafe")
    return mean, weight / params.qmax


def _refused(why: str) -> Exception:
    return out_of_range(
        "the delta was refused before masking",
        why,
        "nothing was sent; look at the training of this round",
    )
