"""What `renmei model pretrain` does: starts the processes of a training and tells how it goes.

A shell module. The processes are torchrun's where there are several; on a cluster, torchrun starts the
same worker itself. Everything stays on loopback here. Run again, it goes on from the last snapshot.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fedproto.command import Console, Progress, Reply
from fedproto.errors import LocalFault
from fedproto.process import Child, spawn

_WORKER = "base_model.engine.worker"
_POLL_S = 0.2
_LOG = "workers.log"


def pretrain(args: argparse.Namespace, console: Console) -> Reply:
    """Pretrain by a recipe file, from its last snapshot if there is one."""
    # torch is loaded here and not with the module: `renmei --help` needs none of it.
    from base_model.engine import meter, worker
    from base_model.engine.layout import Layout
    from base_model.engine.recipe import parse
    from base_model.model import compiler_reason

    source, out = Path(args.recipe), Path(args.out)
    recipe = parse(_text(source), str(source))
    plan = recipe.train
    layout = Layout(processes=args.processes, tensor=args.tensor, replicas=args.replicas)
    layout.check(recipe.model, plan)
    out.mkdir(parents=True, exist_ok=True)
    for stale in (worker.FAULT, worker.RESULT):
        (out / stale).unlink(missing_ok=True)
    tail = _Tail(out / meter.FILE)
    progress = console.progress(console.say(en="pretraining", ja="事前学習"), plan.steps, "steps")
    child = spawn("the training", _command(args), out / _LOG, _environment(), leads=True)
    try:
        taken = _follow(child, tail, progress, console)
    finally:
        child.stop()
        progress.close()
    if (out / worker.FAULT).exists():
        raise LocalFault(**_named(out / worker.FAULT))
    if not (out / worker.RESULT).exists():
        child.check()
        raise LocalFault(
            "RNM-PROC-0002",
            what="the training ended without a result",
            why=f"its processes stopped after step {taken}",
            mend=f"read {out / _LOG}, then run it again: it goes on from its last snapshot",
        )
    result = json.loads((out / worker.RESULT).read_bytes())
    text = console.say(
        en=f"{result['path']}\nlast loss {result['last_loss_nats']:.3f} nats a token; "
        f"loss curve {out / worker.CURVE}, every step in {out / meter.FILE}",
        ja=f"{result['path']}\n最後の損失 {result['last_loss_nats']:.3f} ナット/トークン、"
        f"損失の曲線 {out / worker.CURVE}、各ステップ {out / meter.FILE}",
    )
    reason = compiler_reason() if plan.compile else ""
    return Reply(
        data={**result, "metrics": str(out / meter.FILE), "curve": str(out / worker.CURVE)},
        text=text,
        warnings=(reason,) if reason else (),
    )


def _text(source: Path) -> str:
    try:
        return source.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise LocalFault(
            "RNM-CONF-0001",
            what=f"the recipe {source} was not read",
            why=str(error),
            mend="name a recipe file; base_model/engine/recipes/ has some to start from",
        ) from None


def _command(args: argparse.Namespace) -> Sequence[str]:
    words = [str(Path(args.recipe)), "--data", args.data, "--out", args.out]
    words += ["--watts", str(args.watts)]
    words += ["--tensor", str(args.tensor), "--replicas", str(args.replicas)]
    if args.processes == 1:
        return [sys.executable, "-m", _WORKER, *words]
    # Port 0: torchrun finds a free one. Nothing but loopback is used.
    meeting = ["--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0"]
    local = ["--local-addr", "127.0.0.1", "--nproc-per-node", str(args.processes)]
    return [sys.executable, "-m", "torch.distributed.run", *meeting, *local, "-m", _WORKER, *words]


def _environment() -> dict[str, str]:
    # One thread a process: two collapse on a busy machine (docs/pretraining.md has the figures).
    return {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}


class _Tail:
    """The lines that a file gains from now on."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at = path.stat().st_size if path.exists() else 0

    def read(self) -> Iterator[dict[str, Any]]:
        """Give each whole line that came since."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._at)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._at += len(line)
                yield json.loads(line)


def _follow(child: Child, tail: _Tail, progress: Progress, console: Console) -> int:
    """Show each new line of the metrics until the processes end; return the last step."""
    last, running = 0, True
    while running:
        running = child.running
        for line in tail.read():
            if "loss" not in line:
                console.note(json.dumps(line))
                continue
            step = int(line["step"])
            label = f"loss {line['loss']:.3f}  {line['tokens_per_s']:,.0f} tokens/s"
            progress.advance(max(0, step - last), label)
            last = max(last, step)
        if running:
            time.sleep(_POLL_S)
    return last


def _named(path: Path) -> dict[str, str]:
    fields: dict[str, str] = json.loads(path.read_bytes())
    return fields
