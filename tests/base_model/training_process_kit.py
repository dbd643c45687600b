"""Trainings in processes of their own: start one, kill it, let it finish, read what it told."""

import argparse
import json
import os
import signal
import subprocess
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from base_model import pretrain_commands
from base_model.engine import meter, worker
from base_model.engine.layout import Layout

STEPS = 40
ALONE = Layout(processes=1)
CHANCE = np.random.default_rng()
RECIPE = """
name = "tiny"
[model]
hidden = 32
layers = 2
feed_forward = 64
heads = 2
key_value_heads = 2
head_dim = 16
{model}
[train]
steps = {steps}
batch = 4
sequence = 32
warm_up = 2
compile = false
precision = "{precision}"
[snapshots]
every = 4
[mixture]
can-series = 1
more = 1
prose = 2
"""
EXPERTS = "experts = 4\nexperts_per_token = 2\nexpert_width = 32"


def recipe(root: Path, *, steps: int = STEPS, model: str = "", precision: str = "float32") -> Path:
    path = root / "recipe.toml"
    path.write_text(RECIPE.format(steps=steps, model=model, precision=precision))
    return path


def start(source: Path, data: Path, out: Path, layout: Layout) -> subprocess.Popen[bytes]:
    args = argparse.Namespace(
        recipe=str(source), data=str(data), out=str(out), watts=0.0, **asdict(layout)
    )
    out.mkdir(parents=True, exist_ok=True)
    with (out / "log").open("ab") as log:
        return subprocess.Popen(
            pretrain_commands._command(args),
            env=os.environ | pretrain_commands._environment(),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def finish(source: Path, data: Path, out: Path, layout: Layout = ALONE) -> dict[str, Any]:
    child = start(source, data, out, layout)
    assert child.wait(timeout=200) == 0, (out / "log").read_text()[-3000:]
    result: dict[str, Any] = json.loads((out / worker.RESULT).read_bytes())
    return result


def kill_after(source: Path, data: Path, out: Path, layout: Layout, step: int) -> None:
    """Start a training and kill all of its processes at some instruction after a step."""
    child = start(source, data, out, layout)
    while not any(line.get("step", 0) >= step for line in meter.read(out / meter.FILE)):
        assert child.poll() is None, (out / "log").read_text()[-3000:]
        time.sleep(0.002)
    time.sleep(CHANCE.random() * 0.01)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def losses(out: Path) -> dict[int, float]:
    """Return the loss of each step; a step that was taken again must have been the same, exactly."""
    found: dict[int, float] = {}
    for line in meter.read(out / meter.FILE):
        if "loss" in line:
            assert found.setdefault(line["step"], line["loss"]) == line["loss"], line["step"]
    return found


def weights_of(result: dict[str, Any]) -> dict[str, torch.Tensor]:
    (file,) = Path(result["path"]).glob("*.safetensors")
    return load_file(file)


def losses_any(out: Path) -> dict[int, float]:
    return {line["step"]: line["loss"] for line in meter.read(out / meter.FILE) if "loss" in line}
