"""Speed of pretraining beside the Hugging Face Trainer: `python benchmarks/pretrain.py`.

Same model, same tokens, same batch, one thread a process; each way in a process of its own, the ways in
turn, the best of the repeats. Tokens for each second of CPU time of all its processes, after two steps
that warm up (and compile). The Trainer is run as it comes, in float32, and with its own `bf16=True`. Of
the limit: FLOPs by the convention of `base_model/engine/meter.py` over this core's own measured rate of
bf16 matrix products. Read the ratios.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from base_model.engine import meter, network, worker
from base_model.engine.layout import Layout
from base_model.engine.loop import Listener, Training
from base_model.engine.recipe import Keeping, Plan, Recipe, Shape
from base_model.engine.shards import Shelf
from base_model.mixture import Mixture
from base_model.packing import Stream
from base_model.tokenizer import BOS

SIZES = {
    1: (4096, Shape(hidden=128, layers=4, feed_forward=384, heads=4, key_value_heads=2)),
    5: (
        8192,
        Shape(hidden=256, layers=4, feed_forward=768, heads=4, key_value_heads=2, head_dim=64),
    ),
    20: (
        16_384,
        Shape(hidden=384, layers=8, feed_forward=1152, heads=6, key_value_heads=2, head_dim=64),
    ),
}
TRAINER, TRAINER_BF16, OURS, OURS_TWO = "trainer", "trainer bf16", "renmei", "renmei, 2 processes"
WAYS = (TRAINER, TRAINER_BF16, OURS, OURS_TWO)
# A batch goes through the model in parts of so many sequences, whoever trains.
SEQUENCE, WARM_UP, PART = 256, 2, 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One way: tokens a core-second, wall seconds, peak memory of a process, and of the limit."""

    tokens_per_core_s: float
    tokens_per_s: float
    peak_mib: float
    of_matmul_peak: float


def tokens(vocabulary: int, seed: int = 3) -> Mixture:
    """Documents of about 400 random tokens, packed."""
    chance = np.random.default_rng(seed)
    numbers = chance.integers(8, vocabulary, size=400_000)
    numbers[::400] = BOS
    stream = Stream.of(numbers.astype(np.uint16))
    return Mixture(sources={"a": stream}, weights={"a": 1}, sequence=SEQUENCE, seed=seed)


class Clock:
    """Counts from the end of the steps that warm up to the end of the last."""

    def __init__(self, last: int) -> None:
        self._steps, self._last = 0, last
        self.core_s = self.wall_s = 0.0

    def tick(self) -> None:
        """Note the end of a step."""
        self._steps += 1
        if self._steps == WARM_UP:
            self.core_s, self.wall_s = time.process_time(), time.perf_counter()
        if self._steps == self._last:
            self.core_s = time.process_time() - self.core_s
            self.wall_s = time.perf_counter() - self.wall_s


def by_trainer(size: int, steps: int, batch: int, *, bf16: bool) -> Clock:
    """Train as the Trainer's documentation shows."""
    from transformers import Trainer, TrainerCallback, TrainingArguments

    vocabulary, shape = SIZES[size]
    data = tokens(vocabulary)
    rows = [row for step in range(steps + WARM_UP) for row in data.batch(step, batch)[:, :-1]]
    clock = Clock(steps + WARM_UP)

    class Ticks(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock.tick()

    with tempfile.TemporaryDirectory() as directory:
        arguments = TrainingArguments(
            output_dir=directory,
            max_steps=steps + WARM_UP,
            per_device_train_batch_size=min(batch, PART),
            gradient_accumulation_steps=max(1, batch // PART),
            bf16=bf16,
            use_cpu=not torch.cuda.is_available(),
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            logging_strategy="no",
        )
        Trainer(
            model=network.build(shape, vocabulary, 1),
            args=arguments,
            train_dataset=[{"input_ids": row, "labels": row} for row in rows],
            callbacks=[Ticks()],
        ).train()
    return clock


def by_engine(size: int, steps: int, batch: int) -> Clock | None:
    """Train as `renmei model pretrain` does; the first process returns its clock."""
    vocabulary, shape = SIZES[size]
    plan = Plan(steps=steps + WARM_UP, batch=batch, micro_batch=PART, sequence=SEQUENCE)
    keeping = Keeping(every=plan.steps + 1)
    recipe = Recipe(name="bench", train=plan, mixture={"a": 1}, model=shape, snapshots=keeping)
    world = worker.join(Layout(processes=worker.processes()))
    objective = network.prepare(network.build(shape, vocabulary, 1), plan, world.mesh)
    clock = Clock(steps + WARM_UP)
    with tempfile.TemporaryDirectory() as directory:
        shelf = Shelf(
            Path(directory), rank=world.crew.rank, ranks=world.crew.ranks,
            exchange=world.exchange, keep=2,
        )  # fmt: skip
        training = Training(
            objective,
            network.optimisers(objective, plan),
            tokens(vocabulary),
            recipe,
            world.crew,
            shelf,
            Listener(step=lambda step: clock.tick(), event=print),
        )
        # Without `resume` there is no first snapshot, which is no part of a step.
        training.run()
        shelf.close()
    return clock if world.crew.rank == 0 else None


def measure_here(way: str, size: int, steps: int, batch: int) -> Measured | None:
    """Measure one way in this process."""
    torch.set_num_threads(1)
    if way in {OURS, OURS_TWO}:
        clock = by_engine(size, steps, batch)
    else:
        clock = by_trainer(size, steps, batch, bf16=way == TRAINER_BF16)
    if clock is None:
        return None
    processes = 2 if way == OURS_TWO else 1
    vocabulary, shape = SIZES[size]
    flops = meter.flops_of_token(network.build(shape, vocabulary, 1), SEQUENCE)
    speed = steps * batch * SEQUENCE / clock.core_s / processes
    return Measured(
        tokens_per_core_s=speed,
        tokens_per_s=steps * batch * SEQUENCE / clock.wall_s,
        peak_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        of_matmul_peak=speed * flops / meter.matmul_peak("cpu", torch.bfloat16),
    )


def measure(way: str, size: int, steps: int, batch: int) -> Measured:
    """Measure one way in a process of its own."""
    words = [__file__, "--way", way, "--size", str(size), "--steps", str(steps)]
    words += ["--batch", str(batch)]
    start = [sys.executable]
    if way == OURS_TWO:
        start += ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d"]
        start += ["--rdzv-endpoint", "127.0.0.1:0", "--local-addr", "127.0.0.1"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(
        [*start, *words], env=environment, capture_output=True, text=True, check=False
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"tokens')]
    if done.returncode or not lines:
        sys.exit(done.stderr)
    return Measured(**json.loads(lines[-1]))


def compare(size: int, steps: int, batch: int, repeats: int) -> dict[str, Measured]:
    """Measure the ways in turn; keep the best of each."""
    best: dict[str, Measured] = {}
    for _ in range(repeats):
        for way in WAYS:
            found = measure(way, size, steps, batch)
            if way not in best or found.tokens_per_core_s > best[way].tokens_per_core_s:
                best[way] = found
    return best


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, choices=SIZES, action="append", help="millions")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    sizes = options.size or [5, 20]
    if options.way:
        found = measure_here(options.way, sizes[0], options.steps, options.batch)
        if found is not None:
            print(json.dumps(asdict(found)))
        return
    for size in sizes:
        best = compare(size, options.steps, options.batch, options.repeats)
        if options.json:
            print(json.dumps({"million": size} | {way: asdict(m) for way, m in best.items()}))
            continue
        print(f"{size} M parameters      tokens/core-s  x trainer  x its bf16  of peak  peak MiB")
        for way, m in best.items():
            over, over_bf16 = (
                m.tokens_per_core_s / best[base].tokens_per_core_s
                for base in (TRAINER, TRAINER_BF16)
            )
            print(
                f"{way:<22}{m.tokens_per_core_s:>12,.0f}{over:>10.2f}x{over_bf16:>10.2f}x"
                f"{m.of_matmul_peak:>9.0%}{m.peak_mib:>10,.0f}"
            )
        scaling = best[OURS_TWO].tokens_per_s / best[OURS].tokens_per_s
        print(f"two processes take {scaling:.2f} times the tokens of one in the same time\n")


if __name__ == "__main__":
    main()
