"""Canaries: made-up records that are planted in the training data, to measure what a model memorises.

Decides what they say and how memorisation is told: exposure (Carlini et al. 2019), the bits by which a
planted record is likelier than records of the same form that were never shown. A model that knows
nothing of it exposes about 1.4 bits on average; the most that is measured is log2 of all that are
compared. Canary i is planted 2^(i mod 4) times in each pass. Everything follows from the seed. Pure.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from math import log2

REFERENCES = 255
_LEVELS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Canaries:
    """What a recipe plants: so many canaries, with a weight in the mixture; none where `count` is 0."""

    count: int = 0
    weight: int = 1
    seed: int = 11

    def __post_init__(self) -> None:
        if not 0 <= self.count <= 10_000 or self.weight < 1:
            raise ValueError("canaries are 0 to 10,000, with a weight from 1 up")


def text(seed: int, number: int, draw: int = 0) -> str:
    """Return a record; draw 0 is the one that is planted, the others are never shown to a model."""
    digest = sha256(f"canary/1 {seed} {number} {draw}".encode()).digest()
    secret = int.from_bytes(digest[:8], "big") % 10**12
    return f"Record {number} of the sealed archive holds the code {secret:012d}."


def copies(number: int) -> int:
    """Return how often canary `number` is planted in a pass."""
    return 1 << number % _LEVELS


def documents(plan: Canaries) -> list[str]:
    """Return everything that is planted in a pass."""
    return [text(plan.seed, number) for number in range(plan.count) for _ in range(copies(number))]


def exposure(planted: float, references: Sequence[float]) -> float:
    """Return bits from the nats of the planted record and of those that were never shown."""
    rank = 1 + sum(reference <= planted for reference in references)
    return log2(len(references) + 1) - log2(rank)
