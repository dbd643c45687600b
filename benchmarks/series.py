"""What a base model learns of series: `python benchmarks/series.py --cache .cache/corpora`.

One run: builds the data (text and synthetic CAN series of other makers than the held-out ones), trains
the demo's model on a mixture of both, and forecasts the next step of held-out series, beside persistence
and the line through the last two values. Read how often each is best, and the ratios; absolute errors
are in the units of the channels and printed on demand.
"""

import argparse
import json
import tempfile
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch

from base_model import dataset
from base_model.forecast import ChannelError, compare
from base_model.lockfile import read_lock
from base_model.model import build, make_loss
from base_model.predictor import predictor
from base_model.recipes import RECIPES
from base_model.tokenizer import HeaderText, load, series_vocabulary
from base_model.train import StepReport, train

CONTEXT, ROWS = 16, 80


def main() -> None:
    """Build, train, forecast, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", default=".cache/corpora")
    parser.add_argument("--data", help="a build to use again, or to make")
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--share", type=int, default=30, help="per cent of the samples from series")
    parser.add_argument("--channels", action="store_true", help="print every channel")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(args.data or folder)
        if not (out / "data.json").exists():
            options = dataset.Options(bins=256)
            dataset.build(read_lock(), Path(args.cache), out, options, print)
        report(out, args)


def report(out: Path, args: argparse.Namespace) -> None:
    """Train on the build, and say how the forecasts of held-out series turn out."""
    model, loss = trained(out, args.steps, args.share)
    words = load(out)
    vocabulary = series_vocabulary(words)
    assert vocabulary is not None
    errors: list[ChannelError] = []
    for header, values in dataset.held_out_series(
        out / dataset.HELD_OUT / f"{dataset.SERIES}.jsonl"
    ):
        errors += compare(
            values[:ROWS],
            header,
            predictor(model),
            vocabulary,
            HeaderText(words),
            context=CONTEXT,
        )
    if args.channels:
        for one in errors:
            print(one.to_text())
    print(json.dumps({"steps": args.steps, "loss": loss, **summary(errors)}, indent=2))


def trained(out: Path, steps: int, share: int) -> tuple[Any, float]:
    """Return the demo's model after some steps on text and series."""
    recipe = RECIPES["demo"]()
    parts = [part.name for part in dataset.open_manifest(out).parts]
    texts = [name for name in parts if name != dataset.SERIES]
    weights = dict.fromkeys(texts, 100 - share) | {dataset.SERIES: share * len(texts)}
    mixed = dataset.mixture(out, weights, sequence=recipe.sequence, seed=7)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = build(recipe.size, seed=7).to(device)
    schedule = replace(recipe.schedule, steps=steps, snapshot_every=0)
    inner = make_loss(model, compile_=True)

    def loss_of(tokens_bt: torch.Tensor) -> torch.Tensor:
        return inner(tokens_bt.to(device))

    return model, train(model, loss_of, mixed, schedule, on_step=told)


def told(report: StepReport) -> None:
    """Show that it goes on."""
    if report.step % 50 == 0:
        print(f"step {report.step}: loss {report.loss:.3f}, {report.eta_s:.0f} s left", flush=True)


def summary(errors: list[ChannelError]) -> dict[str, Any]:
    """Return how often each is best, and the median of the model's error over each other's."""
    moving = [e for e in errors if e.persistence > 0 and e.line > 0]
    return {
        "channels": len(errors),
        "best": dict(Counter(e.best for e in errors)),
        "model_over_persistence": median(e.model / e.persistence for e in moving),
        "model_over_line": median(e.model / e.line for e in moving),
        "model_over_resolution": median(e.model / e.resolution for e in errors),
        "persistence_over_resolution": median(e.persistence / e.resolution for e in errors),
        "points": sum(e.points for e in errors),
        "clipped": sum(e.clipped for e in errors),
        "worst": asdict(max(moving, key=lambda e: e.model / e.persistence)),
    }


if __name__ == "__main__":
    main()
