"""A worker of the demo: trains and scores the arms of the comparison, each for itself.

`python -m renmei.demo.arms SPEC`. The baselines do what each member could do alone, with the same steps,
data and code as the federation; the centralised arm pools the corpora, which no member would allow: it
is the upper bound. Writes one file of scores an arm, complete or not at all.
"""

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from base_model import tokenizer, weights
from base_model.evaluate import score
from base_model.model import make_loss
from fedproto import jcs
from fedproto.durable import write_atomic
from fedproto.governance.plan import RunPlan
from fedproto.ids import Digest
from fedproto.layout import FlatVector
from fedproto.schema import from_json
from member_node import adapter, data
from member_node.studio import FEDERATED_DIRECTORY, PRIVATE_DIRECTORY
from member_node.train import prepare_model, train
from renmei.demo.settings import MEMBERS


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One arm: how it is made and, where it belongs to a member, whose it is."""

    name: str
    kind: str
    member: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """What a worker is told; paths as text, the plan as canonical JSON."""

    root: str
    base: str
    plan: str
    texts: str
    out: str
    compiled: bool
    nice: int
    arms: tuple[Arm, ...]


class Worker:
    """Holds what all arms share."""

    def __init__(self, spec: Spec) -> None:
        self._root = Path(spec.root)
        self._out = Path(spec.out)
        self._base = Path(spec.base)
        self._compiled = spec.compiled
        self._plan = from_json(RunPlan, jcs.loads(spec.plan.encode()), "plan")
        self._tokenizer = tokenizer.load(self._base)
        self._texts: list[str] = json.loads(Path(spec.texts).read_bytes())

    def work(self, arm: Arm) -> None:
        """Make and score one arm, unless its scores are there."""
        path = self._out / f"{arm.name}.json"
        if path.exists():
            return
        model = self._make(arm)
        scores = score(
            model, self._tokenizer, self._texts, window=self._plan.training.sequence
        )
        pairs = [[s.nats, s.bytes] for s in scores]
        write_atomic(path, json.dumps(pairs).encode())

    def _make(self, arm: Arm) -> Any:
        base = weights.load_base(self._base, Digest(self._base.name))
        prepare_model(base)
        if arm.kind == "base":
            return base
        plan = self._plan
        model = adapter.attach(base, plan.lora, plan.training.seed)
        if arm.kind == "local":
            self._train(model, [arm.member])
        elif arm.kind == "centralised":
            self._train(model, list(MEMBERS))
        else:
            layout = adapter.layout_of(model)
            home = self._root / (arm.member or MEMBERS[0])
            adapter.load_flat(model, layout, adapter.read(home / FEDERATED_DIRECTORY, layout))
            if arm.kind == "private":
                own: FlatVector = adapter.read(home / PRIVATE_DIRECTORY, layout)
                adapter.attach_private(model, plan.lora, plan.training.seed)
                adapter.load_flat(model, layout, own, adapter.PRIVATE)
        return model

    def _train(self, model: Any, members: list[str]) -> None:
        """Train as one member would in all rounds; pooled, a step takes a batch of each corpus."""
        training = self._plan.training
        sources = [
            data.batches(
                self._root / member / "data", self._tokenizer, training.sequence, training.seed
            )
            for member in members
        ]

        def sample(step: int) -> torch.Tensor:
            return torch.cat([source.batch(step, training.batch) for source in sources])

        train(
            make_loss(model, compile_=self._compiled),
            adapter.parameters(model).values(),
            sample,
            training,
            first=0,
            steps=training.rounds * training.steps,
        )


def main() -> None:
    """Work through the arms of a spec."""
    spec = from_json(Spec, jcs.loads(Path(sys.argv[1]).read_bytes()), "spec")
    # The federation's own processes come first; the baselines use what they leave.
    os.nice(spec.nice)
    torch.set_num_threads(1)
    worker = Worker(spec)
    for arm in spec.arms:
        worker.work(arm)


if __name__ == "__main__":
    main()
