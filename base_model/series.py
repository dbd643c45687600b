"""Series as tokens: trajectories, CAN signals and sensor readings beside text, in one vocabulary.

Decides how a series is written: a header in text (origin, time step, each channel's unit and scale),
then one token a value, row by row. A scale is cut into equal bins, so a value comes back within half
a bin. What lies outside the scale, or is missing, has tokens of its own: it is never rounded in
silence. Trusts no sequence of tokens: what a model wrote is read strictly. Pure.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Protocol

import numpy as np

from fedproto.errors import LocalFault

Values = np.ndarray[Any, np.dtype[np.float64]]
Levels = np.ndarray[Any, np.dtype[np.int64]]

# Levels that are not bins.
GAP, BELOW, ABOVE = -1, -2, -3
BINS = 256
MAX_CHANNELS = 64
MAX_ROWS = 10_000_000
_MARKS = ("<series>", "<values>", "</series>", "<gap>", "<below>", "<above>")
_NAME = re.compile(r"[\w.\[\]-]{1,64}")
_UNIT = re.compile(r"[^\t\n\r\x00-\x1f\x7f-\x9f]{0,32}")
_LINE = re.compile(r"([^\t]+)\t([^\t]*)\t([^\t]+)\t([^\t]+)")


class Origin(Enum):
    """Whether a series was measured or computed; the header says it, so that none passes as real."""

    RECORDED = "recorded"
    SYNTHETIC = "synthetic"


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """A signal: its name, its unit, and the scale from `low` to `high`; equal ends are a constant."""

    name: str
    unit: str
    low: float
    high: float

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or not _UNIT.fullmatch(self.unit):
            raise ValueError("a channel has a plain name, and a unit on one line")
        if not -1e300 < self.low <= self.high < 1e300:
            raise ValueError(f"the scale of {self.name} is not a finite range")

    def width(self, bins: int) -> float:
        """Return the width of a bin, in the channel's unit."""
        return (self.high - self.low) / bins


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What the values of a series mean."""

    origin: Origin
    step_us: int
    channels: tuple[Channel, ...]

    def __post_init__(self) -> None:
        names = {channel.name for channel in self.channels}
        if len(names) != len(self.channels) or not 1 <= len(names) <= MAX_CHANNELS:
            raise ValueError(f"a series has 1 to {MAX_CHANNELS} channels, each named once")
        if self.step_us < 1:
            raise ValueError("a time step is at least a microsecond")

    def to_text(self) -> str:
        """Return the header as the text that is tokenised."""
        lines = [f"{self.origin.value} {self.step_us} us"]
        lines += [f"{c.name}\t{c.unit}\t{c.low!r}\t{c.high!r}" for c in self.channels]
        return "\n".join(lines)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantised:
    """A series as levels (rows, channels): bins from 0, or GAP, BELOW, ABOVE."""

    header: Header
    bins: int
    levels: Levels

    @property
    def values(self) -> Values:
        """The middle of each bin, NaN for a gap, the end of the scale for what lay beyond it."""
        columns = []
        for channel, level in zip(self.header.channels, self.levels.T, strict=True):
            middle = channel.low + (level + 0.5) * channel.width(self.bins)
            ends = np.where(level == BELOW, channel.low, channel.high)
            columns.append(np.where(level >= 0, middle, np.where(level == GAP, np.nan, ends)))
        return np.stack(columns, axis=1)

    @property
    def clipped(self) -> dict[str, int]:
        """How many values of each channel lay outside its scale: to be said with every figure."""
        return self._count(BELOW, ABOVE)

    @property
    def gaps(self) -> dict[str, int]:
        """How many values of each channel are missing."""
        return self._count(GAP)

    def _count(self, *kinds: int) -> dict[str, int]:
        counts = np.isin(self.levels, kinds).sum(axis=0)
        return {c.name: int(n) for c, n in zip(self.header.channels, counts, strict=True)}


class Text(Protocol):
    """How a header's text becomes tokens, and back without loss: the tokenizer's part."""

    def ids(self, text: str) -> list[int]:
        """Return the tokens of a text."""

    def text(self, ids: Sequence[int]) -> str:
        """Return the text of tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """Where the tokens of series stand: `first` comes after the last token of text."""

    first: int
    bins: int = BINS

    @property
    def size(self) -> int:
        """How many tokens there are."""
        return len(_MARKS) + self.bins

    @property
    def words(self) -> tuple[str, ...]:
        """The special words of a tokenizer, in the order of their tokens."""
        return (*_MARKS, *(f"<bin {number}>" for number in range(self.bins)))

    def mark(self, word: str) -> int:
        """Return the token of a mark, for example `<series>`."""
        return self.first + _MARKS.index(word)

    def tokens(self, levels: Levels) -> list[int]:
        """Return the token of each level, row by row."""
        # GAP, BELOW and ABOVE are the last three marks: -1 -> gap, -2 -> below, -3 -> above.
        marks = self.mark("<gap>") - 1 - levels
        flat = np.where(levels >= 0, self.first + len(_MARKS) + levels, marks)
        return [int(token) for token in flat.ravel()]

    def levels(self, tokens: Sequence[int]) -> Levels:
        """Return the level of each token; raise RNM-DATA-0004 if one stands for no value."""
        found = np.asarray(tokens, np.int64) - self.first - len(_MARKS)
        if np.any((found < ABOVE) | (found >= self.bins)):
            raise _malformed("a token among the values stands for no value")
        # The marks end with gap, below, above: offsets -3, -2, -1.
        return np.where(found >= 0, found, -4 - found)


def quantise(values: Values, header: Header, *, bins: int = BINS) -> Quantised:
    """Return values (rows, channels) as levels; NaN is a gap, what lies off the scale is marked so.

    Raises:
        LocalFault: RNM-DATA-0004 the values are of another shape, or a scale is too fine for bins.
    """
    if values.ndim != 2 or values.shape[1] != len(header.channels) or not len(values):
        raise _malformed(
            f"values of shape {values.shape} are no rows of {len(header.channels)} channels"
        )
    columns = [_column(c, v, bins) for c, v in zip(header.channels, values.T, strict=True)]
    return Quantised(header=header, bins=bins, levels=np.stack(columns, axis=1))


def _column(channel: Channel, values: Values, bins: int) -> Levels:
    width = channel.width(bins)
    _require_width(channel, width)
    gap = np.isnan(values)
    below, above = values < channel.low, values > channel.high
    inside = np.where(gap | below | above, channel.low, values)
    level = np.floor((inside - channel.low) / width) if width else np.zeros(len(values))
    level = np.clip(level, 0, bins - 1).astype(np.int64)
    level = np.where(below, BELOW, np.where(above, ABOVE, level))
    return np.where(gap, GAP, level)


def _require_width(channel: Channel, width: float) -> None:
    # Bins must be told apart in float64, or a value would not come back into its own.
    if width and width < 16 * math.ulp(max(abs(channel.low), abs(channel.high))):
        raise _malformed(f"the scale of {channel.name} is too narrow to be cut into bins")


def cut(series: Quantised, rows: int) -> list[Quantised]:
    """Return pieces of at most `rows` rows, each with the header: what fits a window is whole."""
    if rows < 1:
        raise ValueError("a piece has a row at least")
    starts = range(0, len(series.levels), rows)
    return [replace(series, levels=series.levels[start : start + rows]) for start in starts]


def to_tokens(series: Quantised, vocabulary: Vocabulary, text: Text) -> list[int]:
    """Return a series as tokens: `<series>` header `<values>` a token a value `</series>`."""
    if series.bins != vocabulary.bins:
        raise _malformed(f"it has {series.bins} bins, the vocabulary {vocabulary.bins}")
    return [
        vocabulary.mark("<series>"),
        *text.ids(series.header.to_text()),
        vocabulary.mark("<values>"),
        *vocabulary.tokens(series.levels),
        vocabulary.mark("</series>"),
    ]


def from_tokens(tokens: Sequence[int], vocabulary: Vocabulary, text: Text) -> Quantised:
    """Read tokens strictly: what is accepted is written again as the same tokens.

    Raises:
        LocalFault: RNM-DATA-0004, with what is wrong.
    """
    if not tokens or tokens[0] != vocabulary.mark("<series>"):
        raise _malformed("it does not begin with <series>")
    if tokens[-1] != vocabulary.mark("</series>"):
        raise _malformed("it does not end with </series>: it is cut off, or something follows")
    if vocabulary.mark("<values>") not in tokens:
        raise _malformed("it has no <values>")
    at = list(tokens).index(vocabulary.mark("<values>"))
    words = list(tokens[1:at])
    if any(word >= vocabulary.first for word in words):
        raise _malformed("its header holds a token that is not text")
    said = text.text(words)
    header = parse_header(said)
    if text.ids(said) != words:
        raise _malformed("its header is not in the tokens of its text")
    levels = vocabulary.levels(tokens[at + 1 : -1])
    channels = header.channels
    if not levels.size or levels.size % len(channels):
        raise _malformed(f"{levels.size} values are not whole rows of {len(channels)} channels")
    levels = levels.reshape(-1, len(channels))
    for channel, level in zip(channels, levels.T, strict=True):
        _require_width(channel, channel.width(vocabulary.bins))
        if channel.low == channel.high and level.max() > 0:
            raise _malformed(f"the constant {channel.name} has a value in a second bin")
    return Quantised(header=header, bins=vocabulary.bins, levels=levels)


def parse_header(said: str) -> Header:
    """Read a header; raise RNM-DATA-0004 unless it is in the one form that `to_text` gives."""
    first, *lines = said.split("\n")
    parts = first.split(" ")
    fields = [_LINE.fullmatch(line) for line in lines]
    try:
        header = Header(
            origin=Origin(parts[0]),
            step_us=int(parts[1]),
            channels=tuple(
                Channel(name=f[1], unit=f[2], low=float(f[3]), high=float(f[4]))
                for f in fields
                if f
            ),
        )
    except (ValueError, IndexError) as error:
        raise _malformed(f"its header cannot be read: {error}") from None
    if header.to_text() != said:
        raise _malformed("its header is not in its one form")
    return header


def fitted(name: str, unit: str, values: Values, *, tail: float = 0.0) -> Channel:
    """Return a channel whose scale spans the values seen; `tail` of them lie beyond each end.

    Raises:
        LocalFault: RNM-DATA-0004 no value was seen.
    """
    seen = values[np.isfinite(values)]
    if not seen.size:
        raise _malformed(f"{name} has no value to take a scale from")
    low, high = np.quantile(seen, [tail, 1 - tail])
    return Channel(name=name, unit=unit, low=float(low), high=float(high))


def on_grid(times_us: Levels, values: Values, step_us: int) -> Values:
    """Return samples (n, channels) taken at any time as rows a step apart, from the first sample on.

    A row holds the last value that came within its step; a step without one is a gap, and is not
    filled in.
    """
    if not len(times_us) or np.any(np.diff(times_us) < 0) or len(times_us) != len(values):
        raise _malformed("its samples are not in the order of their times")
    rows = (times_us - times_us[0]) // step_us
    if rows[-1] >= MAX_ROWS:
        raise _malformed(f"it spans {int(rows[-1])} steps: cut it where nothing was recorded")
    grid = np.full((int(rows[-1]) + 1, values.shape[1]), np.nan)
    for row, sample in zip(rows, values, strict=True):
        grid[row] = np.where(np.isnan(sample), grid[row], sample)
    return grid


def _malformed(why: str) -> LocalFault:
    return LocalFault(
        "RNM-DATA-0004",
        what="a series was refused",
        why=why,
        mend="write it with the same version of Renmei, vocabulary and tokenizer that read it",
    )
