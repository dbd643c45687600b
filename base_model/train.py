"""Pretraining: a loop to be read from top to bottom.

Muon for matrices (Jordan et al. 2024, as in torch.optim.Muon), AdamW for the rest; warm-up, constant,
then linear decay (WSD). Batches depend on (seed, step) alone, and snapshots hold all the rest, so a
resumed training repeats bit for bit. Several ranks share a batch through a `Team`.
"""

import time
from collections.abc import Callable
from dataclasses import astuple, dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import torch

from base_model import snapshot
from base_model.model import LossFunction
from base_model.packing import Batches
from base_model.team import ALONE, Team
from fedproto.errors import LocalFault
from fedproto.ids import Digest, sha256_hex


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

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 1 or self.warm_up < 1 or not 0 < self.decay <= 1:
            raise ValueError("a schedule has steps, a batch, a warm-up and a decay in (0, 1]")

    def rate(self, step: int) -> float:
        """Return the factor of the learning rates at a step, counted from 0."""
        start = self.steps * (1 - self.decay)
        fall = 1.0 if step < start else (self.steps - step) / (self.steps - start)
        return min(1.0, (step + 1) / self.warm_up) * max(fall, 0.02)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReport:
    """What a step tells: its number (from 1), the loss in nats a token, speed, and time left."""

    step: int
    steps: int
    loss: float
    tokens_per_s: float
    eta_s: float


def optimisers(model: Any, schedule: Schedule) -> list[torch.optim.Optimizer]:
    """Return Muon over the matrices inside the layers, AdamW over embeddings and norms."""
    matrices: list[torch.nn.Parameter] = []
    others: list[torch.nn.Parameter] = []
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
    team: Team = ALONE,
) -> float:
    """Train in place and return the last loss; goes on from the newest snapshot, if any.

    Raises:
        LocalFault: RNM-MODEL-0002 the loss is no longer finite, or a snapshot is of another training;
            RNM-DISK-0001 a snapshot could not be written.
    """
    steppers = optimisers(model, schedule)
    peaks = [[group["lr"] for group in stepper.param_groups] for stepper in steppers]
    parameters = list(model.parameters())
    identity = _identity(model, batches, schedule)
    first, value = 0, float("nan")
    if snapshots:
        first, value = snapshot.restore(snapshots, model, steppers, training=identity)
    model.train()
    began = time.perf_counter()
    for step in range(first, schedule.steps):
        for stepper, rates in zip(steppers, peaks, strict=True):
            for group, peak in zip(stepper.param_groups, rates, strict=True):
                group["lr"] = peak * schedule.rate(step)
        loss = loss_of(batches.batch(step, schedule.batch, rank=team.rank, ranks=team.ranks))
        loss.backward()  # type: ignore[no-untyped-call]
        value = finite(team.mean(loss.item(), [p.grad for p in parameters]), step)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        for stepper in steppers:
            stepper.step()
            stepper.zero_grad(set_to_none=True)
        if team.rank == 0:
            done, took = step + 1 - first, time.perf_counter() - began
            on_step(
                StepReport(
                    step=step + 1,
                    steps=schedule.steps,
                    loss=value,
                    tokens_per_s=done * schedule.batch * batches.sequence / took,
                    eta_s=(schedule.steps - step - 1) * took / done,
                )
            )
            every = schedule.snapshot_every
            if snapshots and every and (step + 1) % every == 0:
                snapshot.save(
                    snapshots, model, steppers, step=step + 1, loss=value, training=identity
                )
    return value


def _identity(model: Any, batches: Batches, schedule: Schedule) -> Digest:
    """Return the digest of everything that a training's losses follow from."""
    shapes = [(name, tuple(p.shape)) for name, p in model.named_parameters()]
    return sha256_hex(f"{shapes} {batches.digest} {astuple(schedule)}".encode())


def finite(loss: float, step: int) -> float:
    """Return a finite loss; raise RNM-MODEL-0002 otherwise, before it spoils the weights."""
    if not isfinite(loss):
        raise LocalFault(
            "RNM-MODEL-0002",
            what=f"training stopped at step {step + 1}",
            why="the loss is no longer finite",
            mend="lower the learning rate, and look for damaged documents in the corpus",
        )
    return loss
