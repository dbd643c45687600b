"""Speed of a member's local LoRA training beside plain peft: `python benchmarks/local_training.py`.

All in one process and one run, one thread, on the demo's model with random tokens: tokens for each
second of process CPU time, the best of several repeats after one that warms up (and compiles). Plain
peft is what its own documentation shows: the model's own loss on labels, float32. Read the ratios.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch

from base_model.model import Size, build, compiler_reason, make_loss
from fedproto.governance.plan import Lora, Training
from member_node import adapter, train

TARGETS = ("down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj")
BATCH, SEQUENCE = 16, 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """Tokens a second of one core, and that over plain peft's."""

    way: str
    tokens_per_core_s: int
    ratio: float


def plain(model: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return the loss that Hugging Face computes."""

    def loss(tokens_bt: torch.Tensor) -> torch.Tensor:
        value: torch.Tensor = model(input_ids=tokens_bt[:, :-1], labels=tokens_bt[:, :-1]).loss
        return value

    return loss


def measure(loss: Callable[[torch.Tensor], torch.Tensor], model: Any, steps: int) -> float:
    """Return the best tokens per CPU second of three trainings of `steps` steps."""
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(3, 4096, (BATCH, SEQUENCE + 1), generator=generator)
    plan = Training(rounds=1, steps=steps, batch=BATCH, sequence=SEQUENCE, lr_micro=1000, seed=1)
    own = list(adapter.parameters(model).values())
    train.train(loss, own, lambda _: tokens, plan, first=0, steps=2)
    best = 0.0
    for _ in range(3):
        began = time.process_time()
        train.train(loss, own, lambda _: tokens, plan, first=0, steps=steps)
        best = max(best, steps * BATCH * SEQUENCE / (time.process_time() - began))
    return best


def run(rank: int, steps: int) -> list[Speed]:
    """Measure every way of training."""
    lora = Lora(rank=rank, alpha=2 * rank, targets=TARGETS)
    ways: dict[str, Callable[[Any], Callable[[torch.Tensor], torch.Tensor]]] = {
        "plain peft, float32": plain,
        "renmei, uncompiled": lambda model: make_loss(model, compile_=False),
    }
    if not compiler_reason():
        ways["renmei, compiled"] = lambda model: make_loss(model, compile_=True)
    speeds = []
    for way in ways.values():
        model = adapter.attach(build(Size(), 1), lora, 1)
        speeds.append(measure(way(model), model, steps))
    return [
        Speed(way=name, tokens_per_core_s=round(speed), ratio=round(speed / speeds[0], 2))
        for name, speed in zip(ways, speeds, strict=True)
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    speeds = run(options.rank, options.steps)
    if options.json:
        print(json.dumps([asdict(speed) for speed in speeds]))
        return
    for speed in speeds:
        print(f"{speed.way:<22}{speed.tokens_per_core_s:>10,} tokens/core-s{speed.ratio:>8.2f}x")


if __name__ == "__main__":
    main()
