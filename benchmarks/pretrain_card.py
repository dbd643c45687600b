"""Speed of pretraining on one card: `python benchmarks/pretrain_card.py [--json FILE]`.

The shipped recipes' models of 125 M and 1 B parameters, in bf16 and in float8, and the largest dense
model that fits the card; at 125 M beside the Hugging Face Trainer with its own bf16 on the same tokens.
Each in a process of its own, after two steps that warm up and compile. MFU is by the convention of
`base_model/engine/meter.py`, against the card's data sheet and against this card's own measured rate of
bf16 matrix products. Documents are longer than a sequence, so that attention is nearly all causal.
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import base_model.engine
from base_model.engine import meter, network, worker
from base_model.engine.layout import Layout
from base_model.engine.loop import Listener, Step, Training
from base_model.engine.recipe import Keeping, Plan, Recipe, Shape, parse
from base_model.engine.shards import Shelf
from base_model.mixture import Mixture
from base_model.packing import Stream
from base_model.planner.planner import CARDS
from base_model.tokenizer import BOS

RECIPES = Path(base_model.engine.__file__).parent / "recipes"
# No training gets there: the last step would write a snapshot of many GB.
WARM_UP, TIMED, NEVER = 2, 5, 100_000
TRAINER = "125m trainer"
# What fits an H100 or H200, the larger first; vocabulary 32,768.
_WIDE = Shape(
    hidden=3072, layers=40, feed_forward=12_288, heads=32, key_value_heads=8, head_dim=128
)
LARGE = tuple(replace(_WIDE, layers=layers) for layers in (72, 40, 36, 28))


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A model, how it is trained, and the words of its vocabulary."""

    shape: Shape
    plan: Plan
    vocabulary: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One way; `mfu` is of the data sheet, `of_matmul` of this card's measured products."""

    name: str
    parameters: int
    tokens_per_s: int
    mfu: float
    of_matmul: float
    peak_gib: float
    first_loss: float
    last_loss: float


def settings() -> dict[str, Setting]:
    """Return the ways by name; the largest has a name for each size that may fit."""

    def shipped(name: str, vocabulary: int, **changes: Any) -> Setting:
        recipe = parse((RECIPES / name).read_text(), name)
        plan = replace(recipe.train, steps=NEVER, warm_up=1, **changes)
        return Setting(shape=recipe.model, plan=plan, vocabulary=vocabulary)

    found = {
        "125m bf16": shipped("dense-125m.toml", 32_768),
        "125m float8": shipped("dense-125m.toml", 32_768, precision="float8"),
        "1b bf16": shipped("dense-1b.toml", 65_536, batch=64),
        "1b float8": shipped("dense-1b.toml", 65_536, batch=64, precision="float8"),
    }
    found[TRAINER] = found["125m bf16"]
    for shape in LARGE:
        plan = Plan(
            steps=NEVER,
            batch=32,
            micro_batch=2,
            sequence=4096,
            warm_up=1,
            recompute=True,
            muon_rate=0.01,
            adam_rate=0.001,
        )
        found[f"large {shape.layers}"] = Setting(shape=shape, plan=plan, vocabulary=32_768)
    return found


def tokens(setting: Setting) -> Mixture:
    """Documents of four sequences of random tokens, packed."""
    numbers = np.random.default_rng(3).integers(8, setting.vocabulary, size=8_000_000)
    numbers[:: 4 * setting.plan.sequence] = BOS
    stream = Stream.of(numbers.astype("<u4"))
    return Mixture(sources={"a": stream}, weights={"a": 1}, sequence=setting.plan.sequence, seed=3)


class EnoughError(Exception):
    """As many steps were timed as are wanted."""


class Clock:
    """Counts from the end of the steps that warm up."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self.losses: list[float] = []
        self._began = self.step_s = 0.0

    def tick(self, loss: float) -> None:
        """Note the end of a step; raise EnoughError after the last."""
        torch.cuda.synchronize()
        self.losses.append(loss)
        taken = len(self.losses) - WARM_UP
        if taken == 0:
            self._began = time.perf_counter()
        if taken == self._steps:
            self.step_s = (time.perf_counter() - self._began) / taken
            raise EnoughError


def by_engine(setting: Setting, model: Any, clock: Clock) -> None:
    """Train as `renmei model pretrain` does."""
    recipe = Recipe(
        name="card",
        train=setting.plan,
        mixture={"a": 1},
        model=setting.shape,
        snapshots=Keeping(every=NEVER),
    )
    world = worker.join(Layout(processes=1))
    objective = network.prepare(model, setting.plan, None)

    def step(taken: Step) -> None:
        clock.tick(taken.loss)

    with tempfile.TemporaryDirectory() as directory:
        shelf = Shelf(Path(directory), rank=0, ranks=1, exchange=world.exchange, keep=2)
        training = Training(
            objective,
            network.optimisers(objective, setting.plan),
            tokens(setting),
            recipe,
            world.crew,
            shelf,
            Listener(step=step, event=print),
        )
        try:
            training.run()
        except EnoughError:
            shelf.close()


def by_trainer(setting: Setting, model: Any, clock: Clock) -> None:
    """Train as the Trainer's documentation shows, with its bf16."""
    from transformers import Trainer, TrainerCallback, TrainingArguments

    plan, data = setting.plan, tokens(setting)
    steps = range(WARM_UP + TIMED)
    rows = [row for step in steps for row in data.batch(step, plan.batch)[:, :-1]]

    class Ticks(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock.tick(float("nan"))

    with tempfile.TemporaryDirectory() as directory:
        arguments = TrainingArguments(
            output_dir=directory,
            max_steps=len(steps),
            per_device_train_batch_size=plan.micro_batch,
            gradient_accumulation_steps=plan.batch // plan.micro_batch,
            bf16=True,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            logging_strategy="no",
        )
        try:
            Trainer(
                model=model,
                args=arguments,
                train_dataset=[{"input_ids": row, "labels": row} for row in rows],
                callbacks=[Ticks()],
            ).train()
        except EnoughError:
            return


def measure_here(name: str, steps: int) -> Measured:
    """Run one way in this process."""
    setting = settings()[name]
    plan = setting.plan
    model = network.build(setting.shape, setting.vocabulary, 1).to("cuda")
    flops = meter.flops_of_token(model, plan.sequence)
    parameters = sum(p.numel() for p in model.parameters())
    peak = meter.matmul_peak("cuda", torch.bfloat16)
    clock = Clock(steps)
    (by_trainer if name == TRAINER else by_engine)(setting, model, clock)
    speed = plan.batch * plan.sequence / clock.step_s
    return Measured(
        name=name,
        parameters=parameters,
        tokens_per_s=round(speed),
        mfu=speed * flops / sheet(),
        of_matmul=speed * flops / peak,
        peak_gib=torch.cuda.max_memory_allocated() / 2**30,
        first_loss=clock.losses[0],
        last_loss=clock.losses[-1],
    )


def sheet() -> float:
    """Return the dense bf16 FLOP/s that the data sheet of this card states."""
    name = torch.cuda.get_device_name().lower()
    return next(card.flops for card in CARDS.values() if card.name in name)


def measured(name: str, steps: int) -> Measured | None:
    """Run one way in a process of its own; nothing, where the card has too little memory."""
    command = [sys.executable, __file__, "--one", name, "--steps", str(steps)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return Measured(**json.loads(done.stdout.splitlines()[-1]))
    if "OutOfMemoryError" not in done.stderr:
        raise SystemExit(f"{name}: {done.stderr[-3000:]}")
    return None


def compare(names: list[str], steps: int, keep: Callable[[list[Measured]], None]) -> None:
    """Measure each way, and the first of the largest that fits; keep what is known after each."""
    found: list[Measured] = []
    for name in names:
        if any(m.name.startswith("large") for m in found) and name.startswith("large"):
            continue
        one = measured(name, 3 if name.startswith("large") else steps)
        if one is None:
            print(f"{name}: does not fit", flush=True)
            continue
        found.append(one)
        print(
            f"{one.name:<14}{one.parameters / 1e9:>7.2f} B{one.tokens_per_s:>10,} tokens/s"
            f"{one.mfu:>8.1%} MFU{one.of_matmul:>8.1%} of products{one.peak_gib:>7.1f} GiB"
            f"   loss {one.first_loss:.2f} -> {one.last_loss:.2f}",
            flush=True,
        )
        keep(found)


def main() -> None:
    """Print a table and write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    parser.add_argument("--steps", type=int, default=TIMED)
    parser.add_argument("--only", action="append", choices=list(settings()), metavar="WAY")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(asdict(measure_here(options.one, options.steps))))
        return
    if not torch.cuda.is_available():
        raise SystemExit("this benchmark needs a CUDA card; benchmarks/pretrain.py runs on a CPU")
    import transformers

    surroundings = {
        "command": "python benchmarks/pretrain_card.py",
        "card": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
    }

    def keep(found: list[Measured]) -> None:
        if options.json:
            told = {**surroundings, "measured": [asdict(one) for one in found]}
            options.json.write_text(json.dumps(told, indent=2) + "\n")

    compare(options.only or list(settings()), options.steps, keep)


if __name__ == "__main__":
    main()
