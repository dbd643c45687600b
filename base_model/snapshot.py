"""Snapshots: the state of a training on disk, in safetensors and JSON; `kill -9` harms none.

Decides which snapshot a training goes on from: the newest that holds COMMIT, which is written last.
Trusts one only if it is of the same training: model, corpus, schedule and seed. Nothing is unpickled.
"""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from fedproto.durable import disk_fault, sync_directory, write_atomic
from fedproto.errors import LocalFault
from fedproto.ids import Digest

_COMMIT = "COMMIT"
_MODEL = "model.safetensors"
_OPTIMISER = "optimiser.safetensors"
_STATE = "state.json"


def save(
    directory: Path,
    model: Any,
    steppers: Sequence[torch.optim.Optimizer],
    *,
    step: int,
    loss: float,
    training: Digest,
) -> None:
    """Write a snapshot after `step` steps; older ones go only once it is durable."""
    target = directory / f"step-{step:08d}"
    weights = {name: p.detach().clone() for name, p in model.named_parameters()}
    tensors: dict[str, torch.Tensor] = {}
    scalars: dict[str, float] = {}
    for number, stepper in enumerate(steppers):
        for index, state in stepper.state_dict()["state"].items():
            for key, value in state.items():
                name = f"{number}.{index}.{key}"
                if isinstance(value, torch.Tensor):
                    tensors[name] = value.detach().clone()
                else:
                    scalars[name] = value
    # A float's hex form is exact.
    recorded = {"step": step, "loss": loss.hex(), "training": training, "scalars": scalars}
    try:
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        save_file(weights, target / _MODEL)
        save_file(tensors, target / _OPTIMISER)
        for name in (_MODEL, _OPTIMISER):
            with (target / name).open("rb") as file:
                os.fsync(file.fileno())
        write_atomic(target / _STATE, json.dumps(recorded).encode())
        write_atomic(target / _COMMIT, b"")
        sync_directory(directory)
    except OSError as error:
        raise disk_fault(target, error) from None
    except SafetensorError as error:
        # safetensors reports a full disk in its own words.
        raise LocalFault(
            "RNM-DISK-0001",
            what=f"the snapshot {target} was not written",
            why=str(error)[:200],
            mend="free space there, then run it again: it goes on from the snapshot before",
        ) from None
    for other in directory.glob("step-*"):
        if other != target:
            shutil.rmtree(other)


def restore(
    directory: Path,
    model: Any,
    steppers: Sequence[torch.optim.Optimizer],
    *,
    training: Digest,
) -> tuple[int, float]:
    """Load the newest committed snapshot and return its step and loss; (0, nan) where there is none.

    Raises:
        LocalFault: RNM-MODEL-0002 it is of another training, or damaged.
    """
    committed = sorted(path.parent for path in directory.glob(f"step-*/{_COMMIT}"))
    if not committed:
        return 0, float("nan")
    newest = committed[-1]
    try:
        recorded = json.loads((newest / _STATE).read_bytes())
        if recorded["training"] != training:
            raise _refused(newest, "it is of a training with another model, corpus, recipe or seed")
        weights = load_file(newest / _MODEL)
        tensors = load_file(newest / _OPTIMISER)
        values = {**tensors, **recorded["scalars"]}
        step, loss = int(recorded["step"]), float.fromhex(recorded["loss"])
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise _refused(newest, f"it is damaged ({type(error).__name__})") from None
    own = dict(model.named_parameters())
    if weights.keys() != own.keys() or any(weights[n].shape != own[n].shape for n in own):
        raise _refused(newest, "it is of a model with other dimensions")
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(weights[name])
    for number, stepper in enumerate(steppers):
        state: dict[int, dict[str, Any]] = {}
        for name, value in values.items():
            owner, index, key = name.split(".", 2)
            if int(owner) == number:
                state.setdefault(int(index), {})[key] = value
        groups = stepper.state_dict()["param_groups"]
        stepper.load_state_dict({"state": state, "param_groups": groups})
    return step, loss


def _refused(path: Path, why: str) -> LocalFault:
    return LocalFault(
        "RNM-MODEL-0002",
        what=f"the snapshot {path} was not used",
        why=why,
        mend="remove it to begin anew, or go on with the recipe, corpus and seed that made it",
    )
