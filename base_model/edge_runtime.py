"""Runs an exported model in ONNX Runtime, as a device would, and compares it with the original.

Decides what is compared: bits per byte on held-out text (paired, with an interval), tokens a second of a
whole prompt and token by token, one thread each, interleaved in one process. Trusts files whose digests
its caller verified.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer

from base_model import edge
from base_model.evaluate import DocumentScore, score_by

# (tokens (B, T), past) → (logits (B, T, V), present), as `edge.Step`.
Runner = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
_ROUNDS = 5


def load(path: Path, *, threads: int = 1) -> Runner:
    """Load a graph on this machine's processor."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(tokens_bt: torch.Tensor, past: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        given = dict(zip(edge.INPUTS, (tokens_bt.numpy(), past.numpy()), strict=True))
        logits, present = session.run(list(edge.OUTPUTS), given)
        return torch.from_numpy(logits), torch.from_numpy(present)

    return run


def original(model: Any) -> Runner:
    """Return the model itself in the same form, in float32."""
    step = edge.Step(model.eval())

    def run(tokens_bt: torch.Tensor, past: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.inference_mode():
            logits, present = step(tokens_bt, past)
        return logits, present

    return run


def score(
    runner: Runner, config: Any, words: Tokenizer, texts: Sequence[str], *, window: int
) -> list[DocumentScore]:
    """Score each text as `base_model.evaluate.score` does."""

    def nats(x_bt: torch.Tensor, y_bt: torch.Tensor) -> torch.Tensor:
        logits, _ = runner(x_bt, edge.no_past(config, batch=len(x_bt)))
        return torch.nn.functional.cross_entropy(
            logits.float().transpose(1, 2), y_bt, reduction="none"
        )

    return score_by(nats, words, texts, window=window, batch=4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """Tokens a second of one thread: a whole prompt at once, and one token after the other."""

    prompt: float
    decode: float


def speeds(runners: Mapping[str, Runner], config: Any, *, window: int) -> dict[str, Speed]:
    """Time each in turn, over and over, so that all meet the same machine; return the medians."""
    tokens = torch.from_numpy(
        np.random.default_rng(1).integers(5, config.vocab_size, (1, window), dtype=np.int64)
    )
    steps = min(32, window)
    prompt: dict[str, list[float]] = {name: [] for name in runners}
    decode: dict[str, list[float]] = {name: [] for name in runners}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        # The first round warms caches up and is not counted.
        for number in range(_ROUNDS + 1):
            for name, run in runners.items():
                start = perf_counter()
                run(tokens, edge.no_past(config))
                middle = perf_counter()
                past = edge.no_past(config)
                for place in range(steps):
                    _, past = run(tokens[:, place : place + 1], past)
                end = perf_counter()
                if number:
                    prompt[name].append(window / (middle - start))
                    decode[name].append(steps / (end - middle))
    finally:
        torch.set_num_threads(threads)
    return {n: Speed(prompt=median(prompt[n]), decode=median(decode[n])) for n in runners}
