"""The private adapter: a second LoRA beside the shared one, trained with the shared one frozen.

Decides how it is trained and where it lies: below `adapters/private` of the member's own directory, and
nowhere else. Its tensors go from here to that file; what is returned to a caller is a path. Bases:
reference adapters in parallel, as several adapters active at once in PEFT.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from base_model.model import LossFunction
from base_model.packing import Batches
from fedproto.governance.plan import RunPlan
from fedproto.layout import FlatVector
from member_node import adapter
from member_node.train import Learner, OnProgress, train_adapter

PRIVATE = "private"
PRIVATE_DIRECTORY = Path("adapters") / "private"
FEDERATED_DIRECTORY = Path("adapters") / "federated"
# A seed of its own: otherwise the private A would start as the shared one did.
_SEED_OFFSET = 1_000_003


def attach(model: Any, plan: RunPlan) -> None:
    """Add a fresh private adapter; both add to the base from here on, and it alone is trained."""
    if PRIVATE not in model.peft_config:
        model.add_adapter(PRIVATE, adapter.config(plan.lora))
    layout = adapter.layout_of(model)
    start = adapter.initial(layout, plan.training.seed + _SEED_OFFSET)
    adapter.load_flat(model, layout, start, PRIVATE)
    model.base_model.set_adapter([adapter.SHARED, PRIVATE])
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(f".{PRIVATE}." in name)


def detach(model: Any) -> None:
    """Take the private adapter away: the shared one is alone again, and is trained."""
    model.base_model.set_adapter(adapter.SHARED)
    if PRIVATE in model.peft_config:
        model.delete_adapter(PRIVATE)


def personalise(
    root: Path,
    learner: Learner,
    loss_of: Callable[[Any], LossFunction],
    shared: FlatVector,
    batches: Batches,
    plan: RunPlan,
    on_progress: OnProgress,
) -> Path:
    """Train the private adapter beside the frozen `shared`, save both; return the private one's path."""
    model, training = learner.model, plan.training
    adapter.load_flat(model, learner.layout, shared)
    attach(model, plan)
    try:
        # Two adapters are another graph, so the private pass has a loss of its own.
        own = replace(learner, loss=loss_of(model), name=PRIVATE)
        alone = replace(training, rounds=1)
        trained = train_adapter(
            own,
            adapter.to_flat(model, learner.layout, PRIVATE),
            # Batches go on where the run's last round ended.
            lambda step: batches.batch(training.rounds * training.steps + step, training.batch),
            alone,
            first=0,
            steps=training.steps,
            on_progress=on_progress,
        )
    finally:
        detach(model)
    base = plan.base_manifest_sha256
    adapter.save(root / PRIVATE_DIRECTORY, plan.lora, learner.layout, trained, base)
    adapter.save(root / FEDERATED_DIRECTORY, plan.lora, learner.layout, shared, base)
    return root / PRIVATE_DIRECTORY
