"""What a base model can and what it gives away: figures on held-out data, with intervals.

Decides the suite: bits per byte of each source and language, next steps of series beside two forecasts
that need no model, cloze questions in Japanese and English, exposure of planted canaries. The suite's
digest covers everything that was asked, the report's digest every answer; both go into an attestation.
Trusts the release and the data that its caller verified.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

from tokenizers import Tokenizer

from base_model import canaries, cloze, evaluate, forecast
from base_model.canaries import Canaries
from base_model.predictor import predictor
from base_model.series import Header, Values
from base_model.tokenizer import HeaderText, series_vocabulary
from fedproto import jcs
from fedproto.ids import Digest, sha256_hex
from fedproto.jcs import Json

LANGUAGES = ("en", "ja")
_SEED = 20
# An attestation holds 64 figures: with more sources than this, languages and the whole are told.
_SOURCES = 32
# Rows that a forecast sees, and how many it foretells of each series.
_CONTEXT, _ROWS = 16, 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """A report: what was asked (by digest), what it was asked of, and plain decimal figures."""

    artifact: Digest
    suite: Digest
    metrics: dict[str, str]

    def to_bytes(self) -> bytes:
        """Return the report in its one form."""
        metrics: dict[str, Json] = dict(sorted(self.metrics.items()))
        return jcs.dumps(
            {"v": 1, "artifact": self.artifact, "suite_sha256": self.suite, "metrics": metrics}
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """What is asked: held-out texts by source, held-out series, and the canaries that were planted."""

    texts: Mapping[str, Sequence[str]]
    series: Sequence[tuple[Header, Values]]
    planted: Canaries
    window: int
    questions: int = 200

    @property
    def digest(self) -> Digest:
        """SHA-256 over everything that is asked, in order."""
        texts: dict[str, Json] = {
            name: sha256_hex("\0".join(found).encode())
            for name, found in sorted(self.texts.items())
        }
        series: list[Json] = [
            sha256_hex(f"{header!r}".encode() + values.tobytes()) for header, values in self.series
        ]
        planted = self.planted
        return sha256_hex(
            jcs.dumps(
                {
                    "v": 1,
                    "texts": texts,
                    "series": series,
                    "canaries": [planted.count, planted.weight, planted.seed],
                    "window": self.window,
                    "questions": self.questions,
                }
            )
        )


Note = Callable[[str], None]


def examine(
    model: Any, words: Tokenizer, suite: Suite, artifact: Digest, note: Note = lambda text: None
) -> Examined:
    """Ask everything; `note` hears what comes next.

    Raises:
        LocalFault: RNM-DATA-0003 there is no held-out text.
    """
    metrics: dict[str, str] = {}
    metrics |= _perplexity(model, words, suite, note)
    note("cloze")
    metrics |= _cloze(model, words, suite)
    if suite.planted.count:
        note("canaries")
        metrics |= _canaries(model, words, suite)
    if suite.series:
        note("series")
        metrics |= _series(model, words, suite)
    return Examined(artifact=artifact, suite=suite.digest, metrics=metrics)


def _perplexity(model: Any, words: Tokenizer, suite: Suite, note: Note) -> dict[str, str]:
    metrics: dict[str, str] = {}
    every: list[evaluate.DocumentScore] = []
    by_language: dict[str, list[evaluate.DocumentScore]] = {name: [] for name in LANGUAGES}
    for source, texts in suite.texts.items():
        note(source)
        scores = evaluate.score(model, words, texts, window=suite.window)
        every += scores
        for text, score in zip(texts, scores, strict=True):
            by_language[cloze.language(text)].append(score)
        if len(suite.texts) <= _SOURCES:
            metrics[f"bits_per_byte.{_code(source)}"] = decimal(evaluate.bits_per_byte(scores))
    for name, scores in by_language.items():
        if scores:
            metrics |= _bits(f"bits_per_byte.language.{name}", scores)
    return metrics | _bits("bits_per_byte", every)


def _bits(name: str, scores: list[evaluate.DocumentScore]) -> dict[str, str]:
    mean = evaluate.bits_per_byte(scores)
    low, high = evaluate.bootstrap_interval([scores], _SEED)
    return {name: decimal(mean), f"{name}.low": decimal(low), f"{name}.high": decimal(high)}


def _cloze(model: Any, words: Tokenizer, suite: Suite) -> dict[str, str]:
    """Ask each language's questions; the interval is Wilson's (1927), at 95 %."""
    metrics: dict[str, str] = {}
    texts = [text for found in suite.texts.values() for text in found]
    for name in LANGUAGES:
        own = [text for text in texts if cloze.language(text) == name]
        questions = cloze.make(own, _SEED, suite.questions)
        if not questions:
            continue
        whole = [q.beginning + end for q in questions for end in q.ends]
        nats = [s.nats for s in evaluate.score(model, words, whole, window=suite.window)]
        right = 0
        for number, question in enumerate(questions):
            ends = nats[number * cloze.CHOICES : (number + 1) * cloze.CHOICES]
            right += min(range(cloze.CHOICES), key=ends.__getitem__) == question.answer
        low, high = wilson(right, len(questions))
        metrics |= {
            f"cloze.{name}": decimal(right / len(questions)),
            f"cloze.{name}.low": decimal(low),
            f"cloze.{name}.high": decimal(high),
            f"cloze.{name}.questions": str(len(questions)),
        }
    return metrics


def wilson(right: int, asked: int, z: float = 1.96) -> tuple[float, float]:
    """Return the interval of a share (Wilson 1927)."""
    share, square = right / asked, z * z / asked
    centre = (share + square / 2) / (1 + square)
    spread = z * math.sqrt(share * (1 - share) / asked + square / asked / 4) / (1 + square)
    return max(0.0, centre - spread), min(1.0, centre + spread)


def _canaries(model: Any, words: Tokenizer, suite: Suite) -> dict[str, str]:
    """Measure exposure by how often a canary was planted in each pass."""
    found: dict[int, list[float]] = {}
    for number in range(suite.planted.count):
        texts = [
            canaries.text(suite.planted.seed, number, draw)
            for draw in range(canaries.REFERENCES + 1)
        ]
        first, *others = (s.nats for s in evaluate.score(model, words, texts, window=suite.window))
        found.setdefault(canaries.copies(number), []).append(canaries.exposure(first, others))
    metrics = {f"exposure.x{times}": decimal(fmean(bits)) for times, bits in found.items()}
    every = [value for bits in found.values() for value in bits]
    return metrics | {"exposure": decimal(fmean(every)), "exposure.max": decimal(max(every))}


def _series(model: Any, words: Tokenizer, suite: Suite) -> dict[str, str]:
    vocabulary = series_vocabulary(words)
    if vocabulary is None:
        return {}
    errors = [
        error
        for header, values in suite.series
        if len(values) > _CONTEXT
        for error in forecast.compare(
            values[: _CONTEXT + _ROWS],
            header,
            predictor(model),
            vocabulary,
            HeaderText(words),
            context=_CONTEXT,
        )
    ]
    moving = [error for error in errors if error.points and error.persistence > 0]
    if not moving:
        return {}
    return {
        "series.over_persistence": decimal(median(e.model / e.persistence for e in moving)),
        "series.channels": str(len(moving)),
        "series.won": str(sum(error.best == "model" for error in moving)),
    }


def decimal(value: float) -> str:
    """Return a figure as a ledger holds it: a plain decimal text."""
    return f"{value:.4f}"


def _code(source: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in source.lower())
