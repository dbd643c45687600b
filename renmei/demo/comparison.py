"""Step 5 of the demo: the arms are trained and scored by worker processes, then put into a table."""

import json
import sys
import time
from dataclasses import replace
from pathlib import Path

from base_model.evaluate import DocumentScore
from fedproto import jcs, process
from fedproto.durable import make_private_directory, write_atomic
from fedproto.governance.plan import RunPlan
from fedproto.schema import to_json
from member_node.personal import FEDERATED_DIRECTORY, PRIVATE_DIRECTORY
from renmei.demo import table
from renmei.demo.arms import Arm, Spec
from renmei.demo.corpora import TestSets
from renmei.demo.settings import MEMBERS
from renmei.demo.stage import Stage

_POLL_S = 0.2
_PRIVATE_S = 600.0
# The federation's own processes go first; baselines take what they leave idle.
_POLITE = 15

BASELINES = (
    (
        Arm(name=table.BASE, kind="base"),
        Arm(name=table.local_arm("honda"), kind="local", member="honda"),
        Arm(name=table.local_arm("nec"), kind="local", member="nec"),
        Arm(name=table.local_arm("softbank"), kind="local", member="softbank"),
        Arm(name=table.local_arm("sony"), kind="local", member="sony"),
    ),
    (Arm(name=table.CENTRALISED, kind="centralised"),),
)
FEDERATED = (
    (
        Arm(name=table.FEDERATED, kind="federated"),
        *(Arm(name=table.private_arm(m), kind="private", member=m) for m in ("honda", "nec")),
    ),
    tuple(Arm(name=table.private_arm(m), kind="private", member=m) for m in ("softbank", "sony")),
)


class Comparison:
    """Runs the arms of one demo."""

    def __init__(self, stage: Stage, release: Path, plan: RunPlan, tests: TestSets) -> None:
        self._stage = stage
        self._tests = tests
        self._out = stage.root / "comparison"
        make_private_directory(self._out)
        texts = self._out / "texts.json"
        write_atomic(texts, json.dumps(list(tests.texts)).encode(), mode=0o600)
        self._spec = Spec(
            root=str(stage.root),
            base=str(release),
            plan=jcs.dumps(to_json(plan)).decode(),
            texts=str(texts),
            out=str(self._out),
            compiled=stage.settings.compiled,
            nice=0,
            arms=(),
        )
        self._workers: list[process.Child] = []

    def start(self, groups: tuple[tuple[Arm, ...], ...], *, polite: bool) -> None:
        """Start a worker for each group of arms."""
        for arms in groups:
            number = len(self._workers)
            path = self._out / f"worker-{number}.spec"
            spec = replace(self._spec, arms=arms, nice=_POLITE if polite else 0)
            write_atomic(path, jcs.dumps(to_json(spec)))
            worker = process.spawn(
                f"worker {number}",
                [sys.executable, "-m", "renmei.demo.arms", str(path)],
                self._out / f"worker-{number}.log",
                {"OMP_NUM_THREADS": "1"},
            )
            self._workers.append(worker)
            self._stage.children.append(worker)

    def await_private(self) -> None:
        """Wait until each member's trainer has made its private adapter."""
        bar = self._stage.console.progress(
            self._stage.console.say(en="      private adapters", ja="      専用アダプター"),
            len(MEMBERS),
            "",
        )
        deadline, done = time.monotonic() + _PRIVATE_S, 0
        while done < len(MEMBERS):
            now = sum(
                all(
                    (self._stage.root / m / kept / "adapter_config.json").exists()
                    for kept in (PRIVATE_DIRECTORY, FEDERATED_DIRECTORY)
                )
                for m in MEMBERS
            )
            bar.advance(now - done)
            done = now
            self._check()
            if time.monotonic() > deadline:
                raise TimeoutError("a private adapter did not appear")
            time.sleep(_POLL_S)
        bar.close()

    def finish(self) -> dict[str, table.Scores]:
        """Wait for every arm and return its scores by test set."""
        names = [arm.name for group in (*BASELINES, *FEDERATED) for arm in group]
        bar = self._stage.console.progress(
            self._stage.console.say(en="      comparison", ja="      比較"),
            len(names),
            self._stage.console.say(en="arms", ja="条件"),
        )
        done: set[str] = set()
        while len(done) < len(names):
            for name in set(names) - done:
                if (self._out / f"{name}.json").exists():
                    done.add(name)
                    bar.advance(1, name)
            self._check()
            time.sleep(_POLL_S)
        bar.close()
        return {name: self._scores(name) for name in _ORDER}

    def _check(self) -> None:
        for worker in self._workers:
            if not worker.running and worker.process.returncode != 0:
                worker.check()
        running = [child for child in self._stage.children if child not in self._workers]
        for child in running:
            child.check()

    def _scores(self, name: str) -> table.Scores:
        pairs = json.loads((self._out / f"{name}.json").read_bytes())
        scores = [DocumentScore(nats, size) for nats, size in pairs]
        return {column: [scores[i] for i in places] for column, places in self._tests.sets.items()}


_ORDER = (
    table.BASE,
    *(table.local_arm(member) for member in MEMBERS),
    table.FEDERATED,
    *(table.private_arm(member) for member in MEMBERS),
    table.CENTRALISED,
)
