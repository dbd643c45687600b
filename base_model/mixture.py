"""A mixture of token streams by weight, in an order that follows from (seed, step, i) alone.

Decides which window is sample i of a step: the same for any number of processes and after any restart,
found without reading what came before, so a position is two numbers. Each block of 10,000 samples
holds every source in exact proportion, spread evenly; each source is read in a permuted order, one
epoch after another. A window never mixes sources; documents in it are told apart by their BOS. Pure.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Protocol

import numpy as np
import torch

from fedproto import jcs
from fedproto.errors import LocalFault
from fedproto.ids import Digest, sha256_hex
from fedproto.jcs import Json

BLOCK = 10_000
_ROUNDS = 4
_U64 = np.uint64

Numbers = np.ndarray[Any, np.dtype[np.uint64]]


class Windows(Protocol):
    """A token stream that gives any of its windows: packed documents, in memory or in shards."""

    @property
    def size(self) -> int:
        """How many tokens it has."""

    @property
    def digest(self) -> Digest:
        """SHA-256 of what it holds."""

    def window(self, start: int, length: int) -> "np.ndarray[Any, np.dtype[Any]]":
        """Return `length` tokens from `start` on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Which window a sample is: of which source, in which epoch of it, at which place."""

    source: str
    epoch: int
    window: int


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """Streams with integer weights; `sequence` tokens a window, and one more as its last target."""

    sources: Mapping[str, Windows]
    weights: Mapping[str, int]
    sequence: int
    seed: int

    def __post_init__(self) -> None:
        if set(self.sources) != set(self.weights) or not self.sources:
            raise _unusable("its sources and its weights do not name the same things")
        if any(weight < 1 for weight in self.weights.values()):
            raise _unusable("a weight is a whole number from 1 up; leave a source out instead")
        if min(self._quotas) < 1:
            raise _unusable(f"a weight is below 1 in {BLOCK} of their sum")
        for name in self._names:
            if self._windows_of(name) < 1:
                raise _unusable(f"{name} has fewer tokens than one window of {self.sequence}")

    @cached_property
    def digest(self) -> Digest:
        """What a snapshot remembers: which tokens, cut, weighed and ordered how."""
        streams: Json = {name: self.sources[name].digest for name in self._names}
        weights: Json = dict(self.weights)
        return sha256_hex(jcs.dumps(["mixture/1", streams, weights, self.sequence, self.seed]))

    def sample(self, number: int) -> Sample:
        """Return sample `number` of the whole training, counted from 0."""
        block, place = divmod(number, BLOCK)
        owners, turns = _block(self._quotas, self.seed, block)
        owner = int(owners[place])
        windows = self._windows_of(self._names[owner])
        epoch, position = divmod(block * self._quotas[owner] + int(turns[place]), windows)
        window = _permuted(position, windows, _mixed(self.seed, 1 + owner, epoch))
        return Sample(source=self._names[owner], epoch=epoch, window=window)

    def batch(self, step: int, size: int, *, rank: int = 0, ranks: int = 1) -> torch.Tensor:
        """Return the int64 tokens (size / ranks, sequence + 1) of a step, counted from 0.

        Rank r takes every `ranks`-th sample of the step, from r on.
        """
        rows = []
        for number in range(step * size + rank, (step + 1) * size, ranks):
            sample = self.sample(number)
            start = sample.window * self.sequence
            rows.append(self.sources[sample.source].window(start, self.sequence + 1))
        return torch.from_numpy(np.stack(rows).astype(np.int64))

    def position(self, step: int, size: int) -> dict[str, Json]:
        """Return where a training stands before `step`: small JSON, from which `resume` goes on."""
        samples = step * size
        block, place = divmod(samples, BLOCK)
        owners = _block(self._quotas, self.seed, block)[0][:place]
        read: dict[str, Json] = {}
        for owner, name in enumerate(self._names):
            taken = block * self._quotas[owner] + int((owners == owner).sum())
            epoch, window = divmod(taken, self._windows_of(name))
            read[name] = {"samples": taken, "epoch": epoch, "window": window}
        return {"v": 1, "mixture": self.digest, "step": step, "batch": size, "sources": read}

    def resume(self, position: Json, size: int) -> int:
        """Return the step to go on with, in batches of `size` as before.

        Raises:
            LocalFault: RNM-DATA-0005 the position is of another mixture or batch, or damaged.
        """
        if not isinstance(position, dict) or type(position.get("step")) is not int:
            raise _elsewhere("it is damaged")
        if position.get("mixture") != self.digest:
            raise _elsewhere("it is of other tokens, weights, window or seed")
        if position.get("batch") != size:
            raise _elsewhere(f"its batches are of {position.get('batch')} samples, not of {size}")
        step = int(str(position["step"]))
        if step < 0 or position != self.position(step, size):
            raise _elsewhere("it is damaged")
        return step

    @cached_property
    def _names(self) -> tuple[str, ...]:
        return tuple(sorted(self.sources))

    @cached_property
    def _quotas(self) -> tuple[int, ...]:
        """How many samples of a block each source gets: largest remainders, so that they add up."""
        total = sum(self.weights.values())
        shares = [divmod(BLOCK * self.weights[name], total) for name in self._names]
        left = BLOCK - sum(whole for whole, _ in shares)
        first = sorted(range(len(shares)), key=lambda at: (-shares[at][1], at))[:left]
        return tuple(whole + (at in first) for at, (whole, _) in enumerate(shares))

    def _windows_of(self, name: str) -> int:
        return (self.sources[name].size - 1) // self.sequence


@lru_cache(maxsize=4)
def _block(
    quotas: tuple[int, ...], seed: int, block: int
) -> tuple["np.ndarray[Any, np.dtype[np.int64]]", "np.ndarray[Any, np.dtype[np.int64]]"]:
    """Return the source of each sample of a block, and its turn among those of that source.

    The k-th of a source's q samples stands at random in the k-th q-th part of the block: any stretch
    holds each source in proportion.
    """
    owners = np.repeat(np.arange(len(quotas)), quotas)
    turns = np.concatenate([np.arange(quota) for quota in quotas])
    jitter = _hashed(np.arange(BLOCK, dtype=_U64) ^ _U64(_mixed(seed, 0, block)))
    within = (jitter >> _U64(11)).astype(np.float64) / 2.0**53
    order = np.argsort((turns + within) / np.repeat(quotas, quotas), kind="stable")
    # Within a source the order of turns is kept: turn k is the k-th to be read.
    return owners[order], turns[order]


def _permuted(position: int, count: int, key: int) -> int:
    """Return where a keyed permutation of range(count) takes `position`.

    A Feistel network walked until it falls inside: no table, so a source may have any size. Not for
    secrecy. Written out, since numpy's own permutation may differ between versions.
    """
    half = max((count - 1).bit_length() + 1, 2) // 2
    mask = (1 << half) - 1
    while True:
        left, right = position >> half, position & mask
        for turn in range(_ROUNDS):
            left, right = right, left ^ (_mixed(key, turn, right) & mask)
        position = (left << half) | right
        if position < count:
            return position


def _mixed(seed: int, first: int, second: int) -> int:
    """Return 64 bits that follow from three numbers."""
    state = _split(seed & 0xFFFF_FFFF_FFFF_FFFF)
    return _split(_split(state ^ first) ^ second)


def _split(number: int) -> int:
    """Return the output of splitmix64 (Steele, Lea, Flood 2014) for a state."""
    number = (number + 0x9E3779B97F4A7C15) & 0xFFFF_FFFF_FFFF_FFFF
    number = ((number ^ (number >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFF_FFFF_FFFF_FFFF
    number = ((number ^ (number >> 27)) * 0x94D049BB133111EB) & 0xFFFF_FFFF_FFFF_FFFF
    return number ^ (number >> 31)


def _hashed(numbers: Numbers) -> Numbers:
    """Return splitmix64 of each number."""
    state = numbers + _U64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> _U64(30))) * _U64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> _U64(27))) * _U64(0x94D049BB133111EB)
    return state ^ (state >> _U64(31))


def _unusable(why: str) -> LocalFault:
    return LocalFault(
        "RNM-DATA-0003",
        what="the mixture was not used",
        why=why,
        mend="correct the recipe's sources and weights, or add documents",
    )


def _elsewhere(why: str) -> LocalFault:
    return LocalFault(
        "RNM-DATA-0005",
        what="the training does not go on from this position in its data",
        why=why,
        mend="go on with the data, weights and seed that made it, or begin anew",
    )
