"""Near-duplicates: documents that say almost the same, of which the first is kept.

Decides by the Jaccard similarity of five-character shingles of the folded text (NFKC, case, white
space), which suits Japanese, where words are not spaced. Candidates come from MinHash in bands (Broder
1997; Leskovec, Rajaraman & Ullman, Mining of Massive Datasets 3.4), and each is then compared exactly:
a document is removed only if it truly is as similar as asked. All hashing is our own arithmetic, so
the result is the same in every process and on every machine. Pure.
"""

import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from base_model.sources import Document

SHINGLE = 5
THRESHOLD = 0.8
# 24 bands of 5: a pair of similarity 0.8 becomes a candidate with probability 0.9999, one of 0.3
# with 0.06.
_BANDS, _ROWS = 24, 5
_U64 = np.uint64
Hashes = np.ndarray[Any, np.dtype[np.uint64]]


@dataclass(frozen=True, slots=True)
class Duplicate:
    """A document that was removed, by its place; `of` is the place of the one kept instead."""

    place: int
    of: int
    similarity: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Deduplicated:
    """The documents that are kept, in their order, and why the others are not."""

    kept: tuple[Document, ...]
    removed: tuple[Duplicate, ...]


def remove(documents: Sequence[Document], *, threshold: float = THRESHOLD) -> Deduplicated:
    """Keep the first of documents whose similarity is at least `threshold`.

    Raises:
        ValueError: the threshold is below what the bands find reliably (0.7), or above 1.
    """
    if not 0.7 <= threshold <= 1:
        raise ValueError("a threshold of near-duplicates is between 0.7 and 1")
    buckets: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
    shingled: dict[int, Hashes] = {}
    removed: list[Duplicate] = []
    for place, document in enumerate(documents):
        shingles = _shingles(document.text)
        bands = list(enumerate(_bands(shingles)))
        # In order of place, so that the first of several equals is named.
        candidates = sorted({other for band in bands for other in buckets.get(band, ())})
        twin = _first_twin(shingles, candidates, shingled, threshold)
        if twin is not None:
            removed.append(Duplicate(place, *twin))
            continue
        shingled[place] = shingles
        for band in bands:
            buckets[band].append(place)
    kept = tuple(documents[place] for place in shingled)
    return Deduplicated(kept=kept, removed=tuple(removed))


def similarity(first: str, second: str) -> float:
    """Return the Jaccard similarity of two texts' shingles, exactly."""
    return _jaccard(_shingles(first), _shingles(second))


def _first_twin(
    shingles: Hashes, candidates: Sequence[int], shingled: dict[int, Hashes], threshold: float
) -> tuple[int, float] | None:
    for other in candidates:
        # Sets whose sizes differ this much cannot be that similar: no need to compare.
        sizes = sorted((len(shingles), len(shingled[other])))
        if sizes[0] < threshold * sizes[1]:
            continue
        found = _jaccard(shingles, shingled[other])
        if found >= threshold:
            return other, found
    return None


def _jaccard(first: Hashes, second: Hashes) -> float:
    shared = len(np.intersect1d(first, second, assume_unique=True))
    return shared / (len(first) + len(second) - shared)


def _shingles(text: str) -> Hashes:
    """Return the distinct 64-bit hashes of a text's shingles, sorted."""
    folded = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    letters = np.frombuffer(folded.encode("utf-32-le", "surrogatepass"), "<u4").astype(_U64)
    # A text shorter than a shingle is one shingle by itself.
    missing = SHINGLE - len(letters)
    if missing > 0:
        letters = np.concatenate([letters, np.zeros(missing, _U64)])
    count = len(letters) - SHINGLE + 1
    mixed = np.zeros(count, _U64)
    for place in range(SHINGLE):
        mixed = _mix(mixed ^ letters[place : place + count])
    return np.unique(mixed)


def _bands(shingles: Hashes) -> list[int]:
    """Return one number a band: equal where `_ROWS` minima of two documents are equal."""
    # A minimum under h(x) = mix(x ^ key) for each of the keys; in parts, to bound memory.
    minima = np.full(_BANDS * _ROWS, np.iinfo(_U64).max, _U64)
    for start in range(0, len(shingles), 4096):
        part = shingles[start : start + 4096, None]
        minima = np.minimum(minima, _mix(part ^ _KEYS).min(axis=0))
    rows = minima.reshape(_BANDS, _ROWS)
    number = np.zeros(_BANDS, _U64)
    for place in range(_ROWS):
        number = _mix(number ^ rows[:, place])
    return [int(value) for value in number]


def _mix(numbers: Hashes) -> Hashes:
    """Return splitmix64 (Steele, Lea, Flood 2014) of each number."""
    state = numbers + _U64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> _U64(30))) * _U64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> _U64(27))) * _U64(0x94D049BB133111EB)
    return state ^ (state >> _U64(31))


_KEYS = _mix(np.arange(1, _BANDS * _ROWS + 1, dtype=_U64))
