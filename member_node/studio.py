"""The trainer's work: a base model and adapters in memory, warm across rounds.

Decides what is trained with what; sees the member's data. Of the private adapter only a path ever
leaves it. Holds no key and opens no connection.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from base_model import tokenizer, weights
from base_model.model import LossFunction, make_loss
from base_model.packing import Batches
from fedproto.errors import LocalFault
from fedproto.governance.plan import RunPlan
from fedproto.ids import Digest
from fedproto.layout import AdapterLayout, FlatVector
from member_node import adapter, data
from member_node.train import Progress, prepare_model, train

OnProgress = Callable[[Progress], None]
PRIVATE_DIRECTORY = Path("adapters") / "private"
FEDERATED_DIRECTORY = Path("adapters") / "federated"
# Seeds of a run's parts differ, so that a private adapter does not start as the shared one did.
_PRIVATE_SEED = 1_000_003


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What a plan leads to at this member."""

    layout: AdapterLayout
    dataset: Digest
    initial: FlatVector


class Studio:
    """Keeps one plan's model warm; used by one caller at a time."""

    def __init__(self, root: Path, *, compiled: bool) -> None:
        self._root = root
        self._compiled = compiled
        self._plan: RunPlan | None = None
        self._model: Any = None
        self._loss: LossFunction | None = None
        self._batches: Batches | None = None
        self._prepared: Prepared | None = None

    def prepare(self, plan: RunPlan, base_dir: Path) -> Prepared:
        """Load and verify the base, attach the adapter, read the corpus; again is quick."""
        if self._prepared is not None and self._plan == plan:
            return self._prepared
        base = weights.load_base(base_dir, plan.base_manifest_sha256)
        model = adapter.attach(base, plan.lora, plan.training.seed)
        layout = adapter.layout_of(model)
        corpus = self._root / "data"
        self._batches = data.batches(
            corpus, tokenizer.load(base_dir), plan.training.sequence, plan.training.seed
        )
        prepare_model(model)
        self._model, self._plan = model, plan
        self._loss = make_loss(model, compile_=self._compiled)
        self._prepared = Prepared(
            layout=layout,
            dataset=data.commitment(corpus),
            initial=adapter.to_flat(model, layout),
        )
        return self._prepared

    def train(self, round_no: int, start: FlatVector, on_progress: OnProgress) -> FlatVector:
        """Return the delta of one round of local training (float32, length d)."""
        plan, prepared, batches, loss = self._ready()
        adapter.load_flat(self._model, prepared.layout, start)
        train(
            loss,
            adapter.parameters(self._model).values(),
            lambda step: batches.batch(step, plan.training.batch),
            plan.training,
            first=(round_no - 1) * plan.training.steps,
            steps=plan.training.steps,
            on_progress=on_progress,
        )
        return adapter.to_flat(self._model, prepared.layout) - start

    def personalise(self, start: FlatVector, on_progress: OnProgress) -> Path:
        """Train the private adapter beside the frozen final one; return where both are kept."""
        plan, prepared, batches, _ = self._ready()
        lora, training = plan.lora, plan.training
        adapter.load_flat(self._model, prepared.layout, start)
        adapter.attach_private(self._model, lora, training.seed + _PRIVATE_SEED)
        # Another graph: the private pass has its own loss.
        loss = make_loss(self._model, compile_=self._compiled)
        total = training.rounds * training.steps
        train(
            loss,
            adapter.parameters(self._model, adapter.PRIVATE).values(),
            lambda step: batches.batch(step, training.batch),
            training,
            first=total - training.steps,
            steps=training.steps,
            on_progress=on_progress,
        )
        name = plan.base_manifest_sha256
        own = adapter.to_flat(self._model, prepared.layout, adapter.PRIVATE)
        adapter.save(self._root / PRIVATE_DIRECTORY, lora, prepared.layout, own, name)
        adapter.save(self._root / FEDERATED_DIRECTORY, lora, prepared.layout, start, name)
        # The next run starts from a clean model.
        self._plan = self._prepared = self._model = None
        return self._root / PRIVATE_DIRECTORY

    def _ready(self) -> tuple[RunPlan, Prepared, Batches, LossFunction]:
        if (
            self._plan is None
            or self._prepared is None
            or self._batches is None
            or self._loss is None
        ):
            raise LocalFault(
                "RNM-MODEL-0003",
                what="nothing was trained",
                why="no plan has been prepared",
                mend="prepare a plan first",
            )
        return self._plan, self._prepared, self._batches, self._loss
