"""The engine's loop, to be read from top to bottom: batch, loss, gradient, step, snapshot.

Decides what happens at a spike or a loss that is not finite: back to the last snapshot, and that batch
is left out. What a batch holds follows from its number alone, and the number of the next one is in the
snapshot, so a resumed training repeats bit for bit on as many processes. A spike is judged by the loss
of all processes together, hence alike by each.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path

import torch
from torch.distributed.fsdp import FSDPModule

from base_model.engine import layout, shards
from base_model.engine.network import Objective
from base_model.engine.recipe import Recipe
from base_model.engine.schedule import is_spike, rate
from base_model.engine.shards import Progress, Shelf
from base_model.mixture import Mixture
from fedproto.errors import LocalFault
from fedproto.ids import Digest, sha256_hex


@dataclass(frozen=True, slots=True, kw_only=True)
class Crew:
    """The processes of a training: who this one is, and the mean of a number over all of them.

    A batch is shared by `lanes`; this process is in `lane`, alone where no matrix is cut.
    """

    rank: int
    ranks: int
    lane: int
    lanes: int
    device: str
    mean: Callable[[torch.Tensor], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A step that was taken, counted from 1."""

    step: int
    cursor: int
    loss: float
    norm: float
    rate: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """Who is told: of each step, and of what is out of the ordinary."""

    step: Callable[[Step], None]
    event: Callable[[dict[str, object]], None]


def identity(recipe: Recipe, data: Digest) -> Digest:
    """Return the digest of everything that a training's losses follow from, but the processes."""
    return sha256_hex(f"training/1 {recipe.digest} {data}".encode())


class Training:
    """A training in progress; `run` carries it to its last step."""

    def __init__(
        self,
        objective: Objective,
        steppers: list[torch.optim.Optimizer],
        data: Mixture,
        recipe: Recipe,
        crew: Crew,
        shelf: Shelf,
        listener: Listener,
    ) -> None:
        self._objective, self._steppers, self._data = objective, steppers, data
        self._recipe, self._crew, self._shelf, self._listener = recipe, crew, shelf, listener
        self._peaks = [[group["lr"] for group in s.param_groups] for s in steppers]
        self._at = Progress(
            training=identity(recipe, data.digest),
            step=0,
            cursor=0,
            skipped=(),
            recent=(),
            rollbacks=0,
        )
        shards.warm(steppers)

    @property
    def step(self) -> int:
        """How many steps were taken."""
        return self._at.step

    def resume(self) -> None:
        """Go on from the newest whole snapshot; where there is none, make the first."""
        found = self._shelf.newest(self._at.training)
        if found is None:
            self._save()
            self._shelf.wait()
            return
        snapshot, self._at, damaged = found
        for fault in damaged:
            self._listener.event({"left_aside": fault.what, "why": fault.why})
        self._read(snapshot)

    def run(self) -> float:
        """Take the steps that are left; return the last loss.

        Raises:
            LocalFault: RNM-MODEL-0002 the loss spikes again and again; RNM-DISK-0001 no room.
        """
        plan, every = self._recipe.train, self._recipe.snapshots.every
        self._objective.train()
        while self._at.step < plan.steps:
            loss, norm = self._gradient()
            # A gradient that is not finite would spoil the weights of the next snapshot.
            worst = loss if isfinite(norm) else norm
            if is_spike(worst, self._at.recent, self._recipe.snapshots):
                self._roll_back(worst)
                continue
            factor = self._move()
            recent = deque(self._at.recent, maxlen=self._recipe.snapshots.window)
            recent.append(loss)
            self._at = replace(
                self._at,
                step=self._at.step + 1,
                cursor=self._following(self._at.cursor + 1),
                recent=tuple(recent),
            )
            taken = Step(
                step=self._at.step, cursor=self._at.cursor, loss=loss, norm=norm, rate=factor
            )
            self._listener.step(taken)
            if self._at.step % every == 0 or self._at.step == plan.steps:
                self._save()
        self._shelf.wait()
        return self._at.recent[-1]

    def _gradient(self) -> tuple[float, float]:
        """Return the mean loss of the next batch and the norm of its gradient, clipped by now."""
        plan, crew = self._recipe.train, self._crew
        tokens = self._data.batch(self._at.cursor, plan.batch, rank=crew.lane, ranks=crew.lanes)
        parts = torch.split(tokens.to(crew.device), plan.micro_batch or len(tokens))
        total = torch.zeros((), device=crew.device)
        for number, part in enumerate(parts):
            if isinstance(self._objective, FSDPModule):
                # Gradients meet with the last part of a batch only.
                self._objective.set_requires_gradient_sync(number == len(parts) - 1)
            with torch.autocast(
                crew.device, dtype=torch.bfloat16, enabled=plan.precision != "float32"
            ):
                minimised, nats = self._objective(part)
            share = len(part) / len(tokens)
            (minimised * share).backward()
            total += nats.detach() * share
        norm = layout.clip(list(self._objective.parameters()), plan.clip)
        return crew.mean(total), float(norm)

    def _move(self) -> float:
        factor = rate(self._recipe.train, self._at.step)
        for stepper, peaks in zip(self._steppers, self._peaks, strict=True):
            for group, peak in zip(stepper.param_groups, peaks, strict=True):
                group["lr"] = peak * factor
            stepper.step()
            stepper.zero_grad(set_to_none=True)
        return factor

    def _roll_back(self, loss: float) -> None:
        """Return to the last snapshot without the batch that spoiled the loss."""
        bad, rollbacks = self._at.cursor, self._at.rollbacks + 1
        if rollbacks > self._recipe.snapshots.most_rollbacks:
            raise LocalFault(
                "RNM-MODEL-0002",
                what=f"training stopped at step {self._at.step + 1}",
                why=f"the loss ({loss:.3f}) spiked {rollbacks} times",
                mend="lower the rates, and look at the batches that metrics.jsonl names as left out",
            )
        for stepper in self._steppers:
            stepper.zero_grad(set_to_none=True)
        self._shelf.wait()
        found = self._shelf.newest(self._at.training)
        assert found is not None  # noqa: S101  # `resume` made one, and the shelf keeps two
        snapshot, before, _ = found
        self._read(snapshot)
        skipped = tuple(sorted({*before.skipped, *self._at.skipped, bad}))
        self._listener.event(
            {"rolled_back_to": before.step, "left_out_batch": bad, "loss_nats": repr(loss)}
        )
        self._at = replace(before, skipped=skipped, rollbacks=rollbacks)
        self._at = replace(self._at, cursor=self._following(self._at.cursor))

    def _following(self, cursor: int) -> int:
        while cursor in self._at.skipped:
            cursor += 1
        return cursor

    def _save(self) -> None:
        self._shelf.save(shards.tensors_of(self._objective, self._steppers), self._at)

    def _read(self, snapshot: Path) -> None:
        named = shards.tensors_of(self._objective, self._steppers)
        shards.read_into(snapshot, named)
