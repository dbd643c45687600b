"""Local training: a loop to be read from top to bottom.

Decides the local delta. The same plan, data and starting adapter give the same bytes: batches depend on
(seed, step) alone, the optimiser starts afresh each round, and one thread computes. The baselines that
a federation is compared with run through the same loop.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from base_model.model import LossFunction
from base_model.packing import Batches
from base_model.train import finite
from fedproto.governance.plan import Training
from fedproto.layout import AdapterLayout, FlatVector
from member_node import adapter

# From a step, counted over the whole run, to its batch of int64 tokens (B, T + 1).
Sampler = Callable[[int], torch.Tensor]

_CLIP = 1.0
_LAST_RATE = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a training is; the loss is for this premises only."""

    step: int
    steps: int
    loss: float
    eta_s: float


OnProgress = Callable[[Progress], None]


def _silent(_: Progress) -> None:
    return


@dataclass(frozen=True, slots=True, kw_only=True)
class Learner:
    """A model in memory with an adapter attached, its loss, and the adapter's layout and name."""

    model: Any
    loss: LossFunction
    layout: AdapterLayout
    name: str = adapter.SHARED


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
    on_progress: OnProgress = _silent,
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
        # Before the step, so that a loss that is not finite never reaches the adapter.
        value = finite(loss.item(), first + number)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        torch.nn.utils.clip_grad_norm_(own, _CLIP)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        spent = time.monotonic() - began
        eta = spent / (number + 1) * (steps - number - 1)
        on_progress(Progress(step=number + 1, steps=steps, loss=value, eta_s=eta))
    return value


def train_adapter(
    learner: Learner,
    start: FlatVector,
    sampler: Sampler,
    training: Training,
    *,
    first: int,
    steps: int,
    on_progress: OnProgress = _silent,
) -> FlatVector:
    """Train an adapter from `start` and return what it came to (float32, length d)."""
    adapter.load_flat(learner.model, learner.layout, start, learner.name)
    own = adapter.parameters(learner.model, learner.name).values()
    learner.model.train()
    train(learner.loss, own, sampler, training, first=first, steps=steps, on_progress=on_progress)
    return adapter.to_flat(learner.model, learner.layout, learner.name)


def round_delta(
    learner: Learner,
    start: FlatVector,
    batches: Batches,
    training: Training,
    round_no: int,
    on_progress: OnProgress = _silent,
) -> FlatVector:
    """Return the delta of one round: the adapter after its steps less the global one."""
    ended = train_adapter(
        learner,
        start,
        lambda step: batches.batch(step, training.batch),
        training,
        first=(round_no - 1) * training.steps,
        steps=training.steps,
        on_progress=on_progress,
    )
    return ended - start


def local_only(
    learner: Learner,
    start: FlatVector,
    batches: Batches,
    training: Training,
    on_progress: OnProgress = _silent,
) -> FlatVector:
    """Return the adapter of a member that trains alone: the run's steps in one go."""
    return train_adapter(
        learner,
        start,
        lambda step: batches.batch(step, training.batch),
        training,
        first=0,
        steps=training.rounds * training.steps,
        on_progress=on_progress,
    )


def centralised(
    learner: Learner,
    start: FlatVector,
    corpora: Sequence[Batches],
    training: Training,
    on_progress: OnProgress = _silent,
) -> FlatVector:
    """Return the adapter that pooled data would give: as many steps as all members take together.

    Every batch holds equal parts of every corpus.

    Raises:
        ValueError: a batch cannot be cut into as many equal parts.
    """
    part, rest = divmod(training.batch, len(corpora))
    if rest:
        raise ValueError(f"a batch of {training.batch} has no {len(corpora)} equal parts")
    pooled = replace(training, steps=training.steps * len(corpora))
    return train_adapter(
        learner,
        start,
        lambda step: torch.cat([batches.batch(step, part) for batches in corpora]),
        pooled,
        first=0,
        steps=pooled.rounds * pooled.steps,
        on_progress=on_progress,
    )
