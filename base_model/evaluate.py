"""Evaluation in bits per byte: comparable across tokenizers, with intervals over documents.

Decides how a document is scored: each token's nats given the document's own beginning, within the
model's window. Bootstrap: Efron & Tibshirani, percentile intervals over documents.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import log
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer

from base_model.model import document_mask, token_nats
from base_model.tokenizer import BOS, EOS, PAD
from fedproto.errors import LocalFault

Figures = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, slots=True)
class DocumentScore:
    """A document's total nats and its length in bytes (of the part that was scored)."""

    nats: float
    bytes: int


def bits_per_byte(scores: Sequence[DocumentScore]) -> float:
    """Return total bits over total bytes; raise RNM-DATA-0003 where there are none."""
    if not any(s.bytes for s in scores):
        raise LocalFault(
            "RNM-DATA-0003",
            what="nothing was evaluated",
            why="there are no held-out documents, or they hold no text",
            mend="put documents into the held-out set",
        )
    return sum(s.nats for s in scores) / sum(s.bytes for s in scores) / log(2)


def score(
    model: Any, tokenizer: Tokenizer, texts: Sequence[str], *, window: int, batch: int = 16
) -> list[DocumentScore]:
    """Score each text; a text longer than `window` tokens is scored window by window.

    Args:
        model: a causal language model, or one wrapped by peft.
        tokenizer: its tokenizer.
        texts: held-out documents.
        window: tokens that the model sees at once.
        batch: windows a forward pass.
    """
    inner = token_nats(model)
    training = model.training
    model.eval()
    device = next(model.parameters()).device

    def nats(x_bt: torch.Tensor, y_bt: torch.Tensor) -> torch.Tensor:
        x_bt, y_bt = x_bt.to(device), y_bt.to(device)
        return inner(x_bt, y_bt, document_mask(x_bt)).view(y_bt.shape)

    with torch.inference_mode(), torch.autocast(device.type, dtype=torch.bfloat16):
        scores = score_by(nats, tokenizer, texts, window=window, batch=batch)
    model.train(training)
    return scores


def score_by(
    nats_of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    tokenizer: Tokenizer,
    texts: Sequence[str],
    *,
    window: int,
    batch: int = 16,
) -> list[DocumentScore]:
    """Score each text by what says the nats (B, T) of the tokens y (B, T) that follow x (B, T).

    Rows begin with BOS and are filled up with PAD at their ends; what is said of PAD is ignored.
    """
    rows = _windows(tokenizer, texts, window)
    nats = np.zeros(len(texts))
    for start in range(0, len(rows), batch):
        owners, tokens_bt = _padded(rows[start : start + batch])
        x_bt, y_bt = tokens_bt[:, :-1], tokens_bt[:, 1:]
        each_bt = nats_of(x_bt, y_bt).cpu()
        each_b = torch.where(y_bt == PAD, torch.zeros_like(each_bt), each_bt).sum(dim=1)
        np.add.at(nats, owners, each_b.double().numpy())
    sizes = [len(text.encode()) for text in texts]
    return [DocumentScore(float(n), size) for n, size in zip(nats, sizes, strict=True)]


def _windows(
    tokenizer: Tokenizer, texts: Sequence[str], window: int
) -> list[tuple[int, list[int]]]:
    """Return whose text each window is and its tokens after BOS, longest first: little padding."""
    rows: list[tuple[int, list[int]]] = []
    for owner, encoding in enumerate(tokenizer.encode_batch_fast(list(texts))):
        ids = [*encoding.ids, EOS]
        rows += [(owner, ids[start : start + window]) for start in range(0, len(ids), window)]
    return sorted(rows, key=lambda row: -len(row[1]))


def _padded(rows: Sequence[tuple[int, list[int]]]) -> tuple[list[int], torch.Tensor]:
    longest = max(len(ids) for _, ids in rows)
    tokens = [[BOS, *ids] + [PAD] * (longest - len(ids)) for _, ids in rows]
    return [owner for owner, _ in rows], torch.tensor(tokens)


Sets = Sequence[Sequence[DocumentScore]]


def bootstrap_interval(
    sets: Sets, seed: int, *, samples: int = 1000, level: float = 0.95
) -> tuple[float, float]:
    """Return the interval of the mean over `sets` of their bits per byte, documents resampled."""
    return _interval(_resampled(sets, seed, samples), level)


def bootstrap_difference(
    first: Sets, second: Sets, seed: int, *, samples: int = 1000, level: float = 0.95
) -> tuple[float, float]:
    """Return the interval of first minus second; both arms scored the same documents (paired).

    Raises:
        ValueError: the two arms were not scored on the same documents.
    """
    sizes = [[[score.bytes for score in scores] for scores in sets] for sets in (first, second)]
    if sizes[0] != sizes[1]:
        raise ValueError("a paired difference needs the same documents in both arms")
    # One seed draws the same documents for both.
    return _interval(_resampled(first, seed, samples) - _resampled(second, seed, samples), level)


def _resampled(sets: Sets, seed: int, samples: int) -> Figures:
    rng = np.random.default_rng(seed)
    total = np.zeros(samples)
    for scores in sets:
        nats = np.asarray([s.nats for s in scores])
        size = np.asarray([s.bytes for s in scores], np.float64)
        chosen = rng.integers(0, len(scores), (samples, len(scores)))
        total += nats[chosen].sum(axis=1) / size[chosen].sum(axis=1) / log(2)
    return total / len(sets)


def _interval(figures: Figures, level: float) -> tuple[float, float]:
    tail = (1 - level) / 2
    low, high = np.quantile(figures, [tail, 1 - tail])
    return float(low), float(high)
