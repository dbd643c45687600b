"""Next-step forecasts of a series by a model, beside two that need none: honest by construction.

Decides how a forecast is judged: mean absolute error in the channel's own unit, against the values as
they were before quantisation, at the same points for all three. Persistence says the last value again;
the line goes on through the last two. A model must beat both to have learnt anything. The model sees
rows before the one that it forecasts and nothing of that row itself. Pure.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from base_model.series import (
    Header,
    Levels,
    Quantised,
    Text,
    Values,
    Vocabulary,
    quantise,
    to_tokens,
)

# From tokens (N, L) to the logits (N, V) of the token after them.
Predict = Callable[[Levels], "np.ndarray[Any, np.dtype[np.floating[Any]]]"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelError:
    """Mean absolute errors of one channel, in its unit, over `points` forecasts.

    `resolution` is what quantisation alone costs on average: a quarter of a bin. `clipped` and `gaps`
    count what the model saw off its scale or not at all.
    """

    name: str
    unit: str
    points: int
    model: float
    persistence: float
    line: float
    resolution: float
    clipped: int
    gaps: int

    @property
    def best(self) -> str:
        """Who errs least; the model must win, a draw is a baseline's."""
        figures = {"persistence": self.persistence, "line": self.line, "model": self.model}
        return min(figures, key=lambda name: figures[name])

    def to_text(self) -> str:
        """Return one line for people: all three figures, whoever wins."""
        unit = f" {self.unit}" if self.unit else ""
        return (
            f"{self.name}: model {self.model:.4g}, persistence {self.persistence:.4g}, "
            f"line {self.line:.4g}{unit} (best: {self.best}; {self.points} points, "
            f"{self.clipped} clipped, {self.gaps} missing, resolution {self.resolution:.2g})"
        )


def compare(
    values: Values,
    header: Header,
    predict: Predict,
    vocabulary: Vocabulary,
    text: Text,
    *,
    context: int,
) -> tuple[ChannelError, ...]:
    """Return the errors of each channel on a held-out series, forecast from `context` rows a time.

    Raises:
        LocalFault: RNM-DATA-0004 the values are not of the header's channels.
        ValueError: the context is below two rows, or the series is no longer than it.
    """
    if context < 2 or len(values) <= context:
        raise ValueError("a forecast needs two rows of context and a row to foretell")
    series = quantise(values, header, bins=vocabulary.bins)
    forecasts = next_rows(series, predict, vocabulary, text, context=context)
    truth = values[context:]
    last, before = values[context - 1 : -1], values[context - 2 : -2]
    errors = np.stack(
        [np.abs(forecasts - truth), np.abs(last - truth), np.abs(2 * last - before - truth)]
    )
    # One set of points for all three: where neither truth nor what the baselines need is missing.
    usable = np.isfinite(errors).all(axis=0)
    rows = []
    for place, channel in enumerate(header.channels):
        chosen = usable[:, place]
        means = errors[:, chosen, place].mean(axis=1) if chosen.any() else np.full(3, np.nan)
        rows.append(
            ChannelError(
                name=channel.name,
                unit=channel.unit,
                points=int(chosen.sum()),
                model=float(means[0]),
                persistence=float(means[1]),
                line=float(means[2]),
                resolution=channel.width(vocabulary.bins) / 4,
                clipped=series.clipped[channel.name],
                gaps=series.gaps[channel.name],
            )
        )
    return tuple(rows)


def next_rows(
    series: Quantised,
    predict: Predict,
    vocabulary: Vocabulary,
    text: Text,
    *,
    context: int,
    batch: int = 64,
) -> Values:
    """Return the model's forecast of each row from number `context` on, given the rows before it."""
    opening = to_tokens(series, vocabulary, text)[: -1 - series.levels.size]
    channels = len(series.header.channels)
    count = len(series.levels) - context
    found = np.zeros((count, channels), np.int64)
    for start in range(0, count, batch):
        ends = range(start, min(start + batch, count))
        prompts = np.asarray(
            [[*opening, *vocabulary.tokens(series.levels[at : at + context])] for at in ends]
        )
        for place in range(channels):
            bins = _medians(predict(prompts), vocabulary)
            found[ends.start : ends.stop, place] = bins
            # The model goes on from its own forecast of this row, never from the truth.
            told = np.asarray(vocabulary.tokens(bins))[:, None]
            prompts = np.concatenate([prompts, told], axis=1)
    return Quantised(header=series.header, bins=series.bins, levels=found).values


def _medians(
    logits: "np.ndarray[Any, np.dtype[np.floating[Any]]]", vocabulary: Vocabulary
) -> Levels:
    """Return the median bin of each row of logits: what makes the mean absolute error least."""
    last = vocabulary.first + vocabulary.size
    of_bins = logits[:, last - vocabulary.bins : last].astype(np.float64)
    weights = np.exp(of_bins - of_bins.max(axis=1, keepdims=True))
    reached = np.cumsum(weights, axis=1) >= weights.sum(axis=1, keepdims=True) / 2
    return np.asarray(reached.argmax(axis=1), np.int64)
