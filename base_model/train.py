"""Pretraining: a loop to be read from top to bottom, and a snapshot that makes `kill -9` harmless.

Muon for matrices (Jordan et al. 2024, as in torch.optim.Muon), AdamW for the rest; warm-up, constant,
then linear decay (WSD). Batches depend on (seed, step) alone, so a resumed run repeats bit for bit.
"""

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from base_model.model import LossFunction
from base_model.packing import Batches
from fedproto.durable import sync_directory, write_atomic
from fedproto.errors import LocalFault


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Steps and rates; `decay` is the share of steps at the end over which the rate falls."""

    steps: int
    batch: int
    muon_lr: float = 0.02
    adam_lr: float = 5e-3
    warm_up: int = 15
    decay: float = 0.5
    snapshot_every: int = 0

    def rate(self, step: int) -> float:
        """Return the factor of the learning rates at a step, counted from 0."""
        start = self.steps * (1 - self.decay)
        fall = 1.0 if step < start else (self.steps - step) / (self.steps - start)
        return min(1.0, (step + 1) / self.warm_up) * max(fall, 0.02)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReport:
    """What a step tells: its number (from 1), the loss in nats a token, and tokens a second."""

    step: int
    steps: int
    loss: float
    tokens_per_s: float


def optimisers(model: Any, schedule: Schedule) -> list[torch.optim.Optimizer]:
    """Return Muon over the matrices inside the layers, AdamW over embeddings and norms."""
    matrices, others = [], []
    for name, parameter in model.named_parameters():
        inside = parameter.ndim == 2 and "embed" not in name
        (matrices if inside else others).append(parameter)
    return [
        torch.optim.Muon(
            matrices,
            lr=schedule.muon_lr,
            weight_decay=0.01,
            momentum=0.95,
            adjust_lr_fn="original",
        ),
        torch.optim.AdamW(
            others, lr=schedule.adam_lr, betas=(0.9, 0.95), weight_decay=0.0, fused=True
        ),
    ]


def train(
    model: Any,
    loss_of: LossFunction,
    batches: Batches,
    schedule: Schedule,
    *,
    snapshots: Path | None = None,
    on_step: Callable[[StepReport], None] = lambda report: None,
) -> float:
    """Train in place and return the last loss; goes on from the newest snapshot, if any.

    Raises:
        LocalFault: RNM-MODEL-0002 the loss is no longer finite, or a snapshot is of another model.
    """
    steppers = optimisers(model, schedule)
    peaks = [[group["lr"] for group in stepper.param_groups] for stepper in steppers]
    first = restore(snapshots, model, steppers) if snapshots else 0
    value = float("nan")
    model.train()
    for step in range(first, schedule.steps):
        began = time.perf_counter()
        for stepper, rates in zip(steppers, peaks, strict=True):
            for group, peak in zip(stepper.param_groups, rates, strict=True):
                group["lr"] = peak * schedule.rate(step)
        tokens = batches.batch(step, schedule.batch)
        loss = loss_of(tokens)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for stepper in steppers:
            stepper.step()
            stepper.zero_grad(set_to_none=True)
        value = finite(loss.item(), step)
        rate = tokens.numel() / (time.perf_counter() - began)
        on_step(StepReport(step=step + 1, steps=schedule.steps, loss=value, tokens_per_s=rate))
        if snapshots and schedule.snapshot_every and (step + 1) % schedule.snapshot_every == 0:
            save(snapshots, model, steppers, step + 1)
    return value


def finite(loss: float, step: int) -> float:
    """Return a finite loss; raise RNM-MODEL-0002 otherwise, before it spoils the weights."""
    if loss != loss or abs(loss) == float("inf"):
        raise LocalFault(
            "RNM-MODEL-0002",
            what=f"training stopped at step {step + 1}",
            why="the loss is no longer finite",
            mend="lower the learning rate, and look for damaged documents in the corpus",
        )
    return loss


def save(directory: Path, model: Any, steppers: list[torch.optim.Optimizer], step: int) -> None:
    """Write a snapshot; COMMIT is written last, and older snapshots go only after it."""
    target = directory / f"step-{step:08d}"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    weights = {name: p.detach().clone() for name, p in model.named_parameters()}
    save_file(weights, target / "model.safetensors")
    tensors: dict[str, torch.Tensor] = {}
    scalars: dict[str, float] = {}
    for number, stepper in enumerate(steppers):
        for index, state in stepper.state_dict()["state"].items():
            for key, value in state.items():
                name = f"{number}.{index}.{key}"
                if isinstance(value, torch.Tensor):
                    tensors[name] = value.detach().clone()
                else:
                    scalars[name] = value
    save_file(tensors, target / "optimiser.safetensors")
    write_atomic(target / "state.json", json.dumps({"step": step, "scalars": scalars}).encode())
    write_atomic(target / "COMMIT", b"")
    sync_directory(directory)
    for other in directory.glob("step-*"):
        if other != target:
            shutil.rmtree(other)


def restore(directory: Path, model: Any, steppers: list[torch.optim.Optimizer]) -> int:
    """Load the newest committed snapshot and return its step; 0 where there is none."""
    committed = sorted(path.parent for path in directory.glob("step-*/COMMIT"))
    if not committed:
        return 0
    newest = committed[-1]
    weights = load_file(newest / "model.safetensors")
    own = dict(model.named_parameters())
    if weights.keys() != own.keys() or any(weights[n].shape != own[n].shape for n in own):
        raise LocalFault(
            "RNM-MODEL-0002",
            what=f"the snapshot {newest} was not used",
            why="it is of a model with other dimensions",
            mend="remove it, or resume with the recipe that made it",
        )
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(weights[name])
    recorded = json.loads((newest / "state.json").read_bytes())
    tensors = load_file(newest / "optimiser.safetensors")
    for number, stepper in enumerate(steppers):
        content = stepper.state_dict()
        state: dict[int, dict[str, Any]] = {}
        for name, value in [*tensors.items(), *recorded["scalars"].items()]:
            owner, index, key = name.split(".", 2)
            if int(owner) == number:
                state.setdefault(int(index), {})[key] = value
        stepper.load_state_dict({"state": state, "param_groups": content["param_groups"]})
    return int(recorded["step"])
