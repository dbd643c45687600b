"""Local training: a loop to be read from top to bottom.

Decides the local delta. The same plan, data and starting adapter give the same bytes: batches depend on
(seed, step) alone, the optimiser starts afresh each round, and one thread computes.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch

from base_model.model import LossFunction
from base_model.train import finite
from fedproto.governance.plan import Training

# From a step, counted over the whole run, to its batch.
Sampler = Callable[[int], torch.Tensor]

_CLIP = 1.0
_LAST_RATE = 0.1


class Interrupted(Exception):
    """Nobody waits for this training any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a training is; the loss is for this premises only."""

    step: int
    steps: int
    loss: float
    eta_s: float


def rate(training: Training, step: int) -> float:
    """Return the learning rate of a step of the whole run: linear to a tenth of the peak."""
    total = training.rounds * training.steps
    return training.lr_micro / 1e6 * (1 - (1 - _LAST_RATE) * step / total)


def train(
    loss_of: LossFunction,
    parameters: Iterable[torch.nn.Parameter],
    sampler: Sampler,
    training: Training,
    *,
    first: int,
    steps: int,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> float:
    """Train `parameters` in place for `steps` steps, from step `first` of the run's schedule.

    Returns:
        The last loss, in nats a token.

    Raises:
        LocalFault: RNM-MODEL-0002 the loss is no longer finite.
    """
    own = list(parameters)
    optimiser = torch.optim.AdamW(own, lr=1.0, betas=(0.9, 0.99), weight_decay=0.0, fused=True)
    began = time.monotonic()
    value = float("nan")
    for number in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = rate(training, first + number)
        loss = loss_of(sampler(first + number))
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        torch.nn.utils.clip_grad_norm_(own, _CLIP)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        value = finite(loss.item(), first + number)
        spent = time.monotonic() - began
        eta = spent / (number + 1) * (steps - number - 1)
        on_progress(Progress(step=number + 1, steps=steps, loss=value, eta_s=eta))
    return value


def prepare_model(model: Any) -> None:
    """Set what every local training shares: training mode, one thread."""
    torch.set_num_threads(1)
    model.train()
