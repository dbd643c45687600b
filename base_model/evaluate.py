"""Evaluation in bits per byte: comparable across tokenizers, with intervals over documents.

Decides how a document is scored: each token's nats given the document's own beginning, within the
model's window. Bootstrap: Efron & Tibshirani, percentile intervals over documents.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer

from base_model.model import document_mask, token_nats
from base_model.tokenizer import BOS, EOS, PAD


@dataclass(frozen=True, slots=True)
class DocumentScore:
    """A document's total nats and its length in bytes (of the part that was scored)."""

    nats: float
    bytes: int


def bits_per_byte(scores: Sequence[DocumentScore]) -> float:
    """Return total bits over total bytes."""
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
    rows, owners = _windows(tokenizer, texts, window)
    nats = np.zeros(len(texts))
    inner = token_nats(model)
    training = model.training
    model.eval()
    device = next(model.parameters()).device
    with torch.inference_mode(), torch.autocast(device.type, dtype=torch.bfloat16):
        for start in range(0, len(rows), batch):
            tokens = torch.from_numpy(rows[start : start + batch]).to(device)
            x_bt, y_bt = tokens[:, :-1], tokens[:, 1:]
            each = inner(x_bt, y_bt, document_mask(x_bt)).view(y_bt.shape)
            each = torch.where(y_bt == PAD, torch.zeros_like(each), each).sum(dim=1)
            np.add.at(nats, owners[start : start + batch], each.double().cpu().numpy())
    model.train(training)
    sizes = [len(text.encode()) for text in texts]
    return [DocumentScore(float(n), size) for n, size in zip(nats, sizes, strict=True)]


def _windows(
    tokenizer: Tokenizer, texts: Sequence[str], window: int
) -> tuple["np.ndarray[Any, np.dtype[np.int64]]", "np.ndarray[Any, np.dtype[np.int64]]"]:
    """Return padded rows of window + 1 tokens that begin with BOS, and whose text each is."""
    rows: list[list[int]] = []
    owners: list[int] = []
    for owner, encoding in enumerate(tokenizer.encode_batch_fast(list(texts))):
        ids = [*encoding.ids, EOS]
        for start in range(0, len(ids), window):
            row = [BOS, *ids[start : start + window]]
            rows.append(row + [PAD] * (window + 1 - len(row)))
            owners.append(owner)
    return np.asarray(rows, np.int64), np.asarray(owners, np.int64)


def bootstrap_interval(
    sets: Sequence[Sequence[DocumentScore]], seed: int, *, samples: int = 1000, level: float = 0.95
) -> tuple[float, float]:
    """Return the interval of the mean over `sets` of their bits per byte, documents resampled."""
    rng = np.random.default_rng(seed)
    total = np.zeros(samples)
    for scores in sets:
        nats = np.asarray([s.nats for s in scores])
        size = np.asarray([s.bytes for s in scores], np.float64)
        chosen = rng.integers(0, len(scores), (samples, len(scores)))
        total += nats[chosen].sum(axis=1) / size[chosen].sum(axis=1) / log(2)
    tail = (1 - level) / 2
    low, high = np.quantile(total / len(sets), [tail, 1 - tail])
    return float(low), float(high)
