"""A small training that behaves like a large one: data, recipe, and the pieces put together."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from base_model.engine import network
from base_model.engine.loop import Crew, Listener, Step, Training
from base_model.engine.recipe import Keeping, Plan, Recipe, Shape
from base_model.engine.shards import Shelf
from base_model.mixture import Mixture
from base_model.packing import Stream

VOCABULARY = 300
DENSE = Shape(hidden=32, layers=2, feed_forward=64, heads=2, key_value_heads=1, head_dim=16)
MOE = replace(DENSE, experts=4, expert_width=32)
PLAN = Plan(steps=12, batch=4, sequence=16, warm_up=2, compile=False)
RECIPE = Recipe(
    name="tiny", train=PLAN, mixture={"a": 1}, model=DENSE, snapshots=Keeping(every=3, window=8)
)
ALONE = Crew(rank=0, ranks=1, lane=0, lanes=1, device="cpu", mean=float)


def tokens(seed: int = 5, size: int = 4000) -> Mixture:
    """A stream that can be learnt: counting in steps, from many starts."""
    numbers = np.arange(size) * (1 + np.arange(size) // 500) % 290 + 5
    stream = Stream.of(numbers.astype(np.uint16))
    return Mixture(sources={"a": stream}, weights={"a": 1}, sequence=PLAN.sequence, seed=seed)


def nothing(what: object) -> None:
    del what


def training(
    out: Path,
    recipe: Recipe = RECIPE,
    *,
    on_step: Callable[[Step], None] = nothing,
    on_event: Callable[[dict[str, object]], None] = nothing,
    data: Mixture | None = None,
    exchange: Callable[[str], list[str]] = lambda digest: [digest],
    device: str = "cpu",
) -> tuple[Training, Any]:
    """Return a training in this process and its objective."""
    torch.set_num_threads(1)
    model = network.build(recipe.model, VOCABULARY, recipe.train.seed).to(device)
    objective = network.prepare(model, recipe.train, None)
    shelf = Shelf(out, rank=0, ranks=1, exchange=exchange, keep=recipe.snapshots.keep)
    made = Training(
        objective,
        network.optimisers(objective, recipe.train),
        data or tokens(),
        recipe,
        replace(ALONE, device=device),
        shelf,
        Listener(step=on_step, event=on_event),
    )
    return made, objective
