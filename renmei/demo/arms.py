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

import torch

from base_model import tokenizer
from base_model.evaluate import DocumentScore
from fedproto import jcs
from fedproto.durable import write_atomic
from fedproto.governance.plan import RunPlan
from fedproto.layout import FlatVector
from fedproto.schema import from_json
from member_node import adapter, data
from member_node.evaluate import Bench
from member_node.personal import FEDERATED_DIRECTORY, PRIVATE_DIRECTORY
from member_node.studio import learner
from member_node.train import centralised, local_only
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
        self._texts: list[str] = json.loads(Path(spec.texts).read_bytes())
        self._bench = Bench(self._plan, self._base)

    def work(self, arm: Arm) -> None:
        """Make and score one arm, unless its scores are there."""
        path = self._out / f"{arm.name}.json"
        if not path.exists():
            pairs = [[score.nats, score.bytes] for score in self._score(arm)]
            write_atomic(path, json.dumps(pairs).encode())

    def _score(self, arm: Arm) -> list[DocumentScore]:
        bench, home = self._bench, self._root / (arm.member or MEMBERS[0])
        match arm.kind:
            case "base":
                return bench.base(self._texts)
            case "local":
                return bench.adapted(self._texts, self._train([arm.member]))
            case "centralised":
                return bench.adapted(self._texts, self._train(list(MEMBERS)))
            case "federated":
                return bench.adapted(self._texts, bench.read(home / FEDERATED_DIRECTORY))
            case _:
                shared = bench.read(home / FEDERATED_DIRECTORY)
                own = bench.read(home / PRIVATE_DIRECTORY)
                return bench.personal(self._texts, shared, own)

    def _train(self, members: list[str]) -> FlatVector:
        """Train as one member would in all rounds, or on all corpora pooled."""
        plan = self._plan
        ready = learner(plan, self._base, compiled=self._compiled)
        start = adapter.to_flat(ready.model, ready.layout)
        words = tokenizer.load(self._base)
        corpora = [
            data.batches(
                data.read_documents([self._root / member / "data" / data.TRAIN]),
                words,
                self._out / "packed" / f"{os.getpid()}-{member}",
                sequence=plan.training.sequence,
                seed=plan.training.seed,
            )
            for member in members
        ]
        if len(corpora) > 1:
            return centralised(ready, start, corpora, plan.training)
        return local_only(ready, start, corpora[0], plan.training)


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
