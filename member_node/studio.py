"""The trainer's work: a base model and adapters in memory, warm across rounds.

Decides what is trained with what; sees the member's data. Of the private adapter only a path ever
leaves it. Holds no key and opens no connection.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from base_model import tokenizer, weights
from base_model.model import LossFunction, make_loss
from base_model.packing import Batches
from fedproto.errors import LocalFault
from fedproto.governance.plan import RunPlan
from fedproto.ids import Digest
from fedproto.layout import AdapterLayout, FlatVector
from member_node import adapter, data
from member_node.personal import personalise
from member_node.train import Learner, OnProgress, round_delta

DATA = "data"
# Compiling another graph takes 10 to 40 s of a core, which fewer steps never earn back.
_WORTH_COMPILING = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What a plan leads to at this member."""

    layout: AdapterLayout
    dataset: Digest
    initial: FlatVector = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Desk:
    """One plan's model and data, in memory."""

    plan: RunPlan
    base_dir: Path
    learner: Learner
    batches: Batches
    prepared: Prepared


def learner(plan: RunPlan, base_dir: Path, *, compiled: bool) -> Learner:
    """Load and verify a base model and attach the plan's adapter, ready for training.

    Raises:
        LocalFault: RNM-MODEL-0001..3 the base model is missing, another one, or lacks the targets.
    """
    # Two threads a process collapse where members share cores.
    torch.set_num_threads(1)
    base = weights.load_base(base_dir, plan.base_manifest_sha256)
    model = adapter.attach(base, plan.lora, plan.training.seed)
    model.train()
    loss = make_loss(model, compile_=compiled)
    return Learner(model=model, loss=loss, layout=adapter.layout_of(model))


class Studio:
    """Keeps one plan's model warm; used by one caller at a time."""

    def __init__(self, root: Path, *, compiled: bool) -> None:
        self._root = root
        self._compiled = compiled
        self._desk: _Desk | None = None

    def prepare(self, plan: RunPlan, base_dir: Path) -> Prepared:
        """Load and verify the base, attach the adapter, read the corpus; again is quick."""
        if self._desk is None or (self._desk.plan, self._desk.base_dir) != (plan, base_dir):
            # The old model goes before the new one comes: there is never room for two.
            self._desk = None
            self._desk = self._lay_out(plan, base_dir)
        return self._desk.prepared

    def _lay_out(self, plan: RunPlan, base_dir: Path) -> _Desk:
        corpus = self._root / DATA
        documents = data.read_documents([corpus / data.TRAIN])
        # The data first: it is read in a moment, and its faults are the common ones.
        batches = data.batches(
            documents,
            tokenizer.load(base_dir),
            corpus / data.PACKED,
            sequence=plan.training.sequence,
            seed=plan.training.seed,
        )
        dataset = data.commitment(documents, corpus)
        ready = learner(plan, base_dir, compiled=self._compiled)
        prepared = Prepared(
            layout=ready.layout,
            dataset=dataset,
            initial=adapter.to_flat(ready.model, ready.layout),
        )
        return _Desk(
            plan=plan, base_dir=base_dir, learner=ready, batches=batches, prepared=prepared
        )

    def train(self, round_no: int, start: FlatVector, on_progress: OnProgress) -> FlatVector:
        """Return the delta of one round of local training (float32, length d)."""
        desk = self._at_work()
        training = desk.plan.training
        if not 1 <= round_no <= training.rounds:
            raise LocalFault(
                "RNM-FORM-0002",
                what="nothing was trained",
                why=f"round {round_no} is not one of the plan's {training.rounds}",
                mend="use agent and trainer of the same version",
            )
        return round_delta(desk.learner, start, desk.batches, training, round_no, on_progress)

    def personalise(self, start: FlatVector, on_progress: OnProgress) -> Path:
        """Train the private adapter beside the frozen final one; return where it lies."""
        desk = self._at_work()

        def loss_of(model: Any) -> LossFunction:
            worth_it = desk.plan.training.steps >= _WORTH_COMPILING
            return make_loss(model, compile_=self._compiled and worth_it)

        return personalise(
            self._root, desk.learner, loss_of, start, desk.batches, desk.plan, on_progress
        )

    def _at_work(self) -> _Desk:
        if self._desk is None:
            raise LocalFault(
                "RNM-MODEL-0003",
                what="nothing was trained",
                why="no plan has been prepared since the trainer started",
                mend="nothing to do: the node prepares it and tries again",
            )
        return self._desk
