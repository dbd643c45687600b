"""What a training tells of itself: one JSON line a step, a span, and a curve of the loss.

Decides the conventions. FLOPs of a token = 6 x the parameters that it passes (embedding rows are looked
up, not multiplied; a tied head is) + 6 x layers x width x sequence (attention, causal), forward and
backward; recomputation is not counted. MFU is against the machine's own measured matmul rate in the
precision used. Energy is an estimate: the watts that the caller states, times the time. A shell module.
"""

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import torch

from base_model.engine.recipe import Recipe
from fedproto import telemetry
from fedproto.durable import disk_fault

FILE = "metrics.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One step; `cursor` is the number of the batch, `mfu_percent` is 0 where no peak was measured."""

    step: int
    steps: int
    cursor: int
    loss: float
    gradient_norm: float
    rate: float
    tokens_per_s: float
    mfu_percent: float
    joules: float
    eta_s: float


def active_parameters(model: Any) -> int:
    """Return how many parameters a token is multiplied with."""
    config = model.config
    experts = int(getattr(config, "num_experts", 0) or 0)
    share = config.num_experts_per_tok / experts if experts else 1.0
    total = 0
    for name, parameter in model.named_parameters():
        if "embed_tokens" in name and not config.tie_word_embeddings:
            continue
        total += int(parameter.numel() * (share if ".experts." in name else 1.0))
    return total


def flops_of_token(model: Any, sequence: int) -> float:
    """Return the FLOPs of training on one token (see the module's convention)."""
    config = model.config
    width = int(config.num_attention_heads * config.head_dim)
    return 6.0 * active_parameters(model) + 6.0 * int(config.num_hidden_layers) * width * sequence


# Sides of a product that keeps a core, or a card, busy.
_SIDE = {"cpu": 1024, "cuda": 8192}


def matmul_peak(device: str, dtype: torch.dtype) -> float:
    """Return FLOP/s of square matrix products here, the best of some."""
    size = _SIDE[device]
    a = torch.randn(size, size, device=device).to(dtype)
    best = 0.0
    for _ in range(5):
        began = time.perf_counter()
        a @ a
        if device == "cuda":
            torch.cuda.synchronize()
        best = max(best, 2.0 * size**3 / (time.perf_counter() - began))
    return best


class Meter:
    """Writes the lines of rank 0; a restart appends, and a step taken again stands again."""

    def __init__(
        self, out: Path, recipe: Recipe, flops: float, *, peak: float, watts: float, first: int
    ) -> None:
        self._recipe, self._flops, self._peak, self._watts = recipe, flops, peak, watts
        self._began, self._first, self._taken = time.perf_counter(), first, 0
        try:
            out.mkdir(parents=True, exist_ok=True)
            self._file = (out / FILE).open("a", buffering=1)
        except OSError as error:
            raise disk_fault(out, error) from None

    def step(self, *, step: int, cursor: int, loss: float, norm: float, rate: float) -> Line:
        """Record a step that was taken, counted from 1."""
        plan = self._recipe.train
        self._taken += 1
        took = time.perf_counter() - self._began
        speed = self._taken * plan.batch * plan.sequence / took
        line = Line(
            step=step,
            steps=plan.steps,
            cursor=cursor,
            loss=loss,
            gradient_norm=norm,
            rate=rate,
            tokens_per_s=round(speed, 1),
            mfu_percent=round(100 * speed * self._flops / self._peak, 2) if self._peak else 0.0,
            joules=round(self._watts * took, 1),
            eta_s=round((plan.steps - step) * took / self._taken, 1),
        )
        self.event(**asdict(line))
        with telemetry.tracer().start_as_current_span("pretrain.step") as span:
            for name, value in asdict(line).items():
                span.set_attribute(f"pretrain.{name}", value)
        return line

    def event(self, **what: object) -> None:
        """Record what is not a step: a rollback, a snapshot that was left aside."""
        try:
            self._file.write(json.dumps(what) + "\n")
        except OSError as error:
            raise disk_fault(Path(self._file.name), error) from None

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a training; a last line that was cut off is left out."""
    lines = path.read_text().splitlines() if path.exists() else []
    found = []
    for number, line in enumerate(lines):
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            if number != len(lines) - 1:
                continue
    return found


def curve(lines: list[dict[str, Any]], title: str) -> str:
    """Return the loss over the steps as SVG; a step that was taken again shows its last value."""
    points = {int(line["step"]): float(line["loss"]) for line in lines if "loss" in line}
    width, height, left, top = 640, 320, 56, 36
    if not points:
        points = {0: 0.0}
    low, high = min(points.values()), max(points.values())
    first, last = min(points), max(points)

    def place(step: int, loss: float) -> str:
        x = left + (step - first) / max(1, last - first) * (width - left - 16)
        y = height - 40 - (loss - low) / max(1e-9, high - low) * (height - top - 44)
        return f"{x:.1f},{y:.1f}"

    drawn = " ".join(place(step, points[step]) for step in sorted(points))
    labels = "".join(
        f'<text x="{left - 6}" y="{place(first, value).split(",")[1]}" text-anchor="end" '
        f'dominant-baseline="middle">{value:.2f}</text>'
        for value in dict.fromkeys((low, high))
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        f'font-family="sans-serif" font-size="12"><title>{escape(title)}</title>'
        '<rect width="100%" height="100%" fill="white"/>'
        f'<text x="{left}" y="20" font-size="14">{escape(title)}</text>{labels}'
        f'<text x="{left}" y="{height - 14}">step {first}</text>'
        f'<text x="{width - 16}" y="{height - 14}" text-anchor="end">step {last}</text>'
        f'<polyline points="{drawn}" fill="none" stroke="#0072b2" stroke-width="1.5"/></svg>\n'
    )
