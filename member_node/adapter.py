"""LoRA adapters: attached to the base as the plan says, and turned into the one flat vector and back.

Decides the initial adapter: it follows from the plan's seed alone, so every member makes the same one
and compares its digest with the ledger's. Adapters on disk are safetensors in PEFT's format, checked
against the layout before anything is loaded. The torch and peft edge.
"""

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from base_model import offline  # noqa: F401  # switches the hub off
from fedproto.durable import make_private_directory, write_atomic
from fedproto.errors import LocalFault
from fedproto.governance.plan import Lora
from fedproto.layout import AdapterLayout, FlatVector

SHARED = "default"
PRIVATE = "private"
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
_MAX_HEADER = 1 << 20


def _config(lora: Lora) -> Any:
    from peft import LoraConfig

    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        target_modules=list(lora.targets),
        lora_dropout=0.0,
        bias="none",
        task_type="CAUSAL_LM",
    )


def attach(base: Any, lora: Lora, seed: int) -> Any:
    """Return `base` with a fresh shared adapter: A from `seed`, B zero, so it changes nothing yet.

    Raises:
        LocalFault: RNM-MODEL-0002 the base has no module of a target's name.
    """
    from peft import get_peft_model

    torch.manual_seed(seed)
    try:
        return get_peft_model(base, _config(lora))
    except ValueError:
        raise LocalFault(
            "RNM-MODEL-0002",
            what="the adapter was not attached",
            why=f"the base model has no modules named {', '.join(lora.targets)}",
            mend="propose a plan whose targets are linear modules of this base model",
        ) from None


def attach_private(model: Any, lora: Lora, seed: int) -> None:
    """Add a second adapter, the member's own, in parallel with the shared one."""
    torch.manual_seed(seed)
    model.add_adapter(PRIVATE, _config(lora))
    # Both add to the base at once; only the private one is trained from here on.
    model.base_model.set_adapter([SHARED, PRIVATE])
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(f".{PRIVATE}." in name)


def parameters(model: Any, adapter: str = SHARED) -> dict[str, torch.nn.Parameter]:
    """Return an adapter's parameters by their name in PEFT's files."""
    return {
        name.replace(f".{adapter}.", "."): parameter
        for name, parameter in model.named_parameters()
        if f".{adapter}." in name and "lora_" in name
    }


def _arrays(model: Any, adapter: str) -> dict[str, FlatVector]:
    return {
        name: parameter.detach().cpu().numpy().astype(np.float32)
        for name, parameter in parameters(model, adapter).items()
    }


def layout_of(model: Any, adapter: str = SHARED) -> AdapterLayout:
    """Return the layout of an attached adapter."""
    return AdapterLayout.of(_arrays(model, adapter))


def to_flat(model: Any, layout: AdapterLayout, adapter: str = SHARED) -> FlatVector:
    """Return an adapter as one vector (float32, length d)."""
    return layout.flatten(_arrays(model, adapter))


def load_flat(model: Any, layout: AdapterLayout, flat: FlatVector, adapter: str = SHARED) -> None:
    """Set an adapter from a vector; raise RNM-MODEL-0002 if it does not fit."""
    own = parameters(model, adapter)
    tensors = layout.unflatten(flat)
    if own.keys() != tensors.keys():
        raise _foreign("the model has other adapter tensors than the layout")
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(torch.from_numpy(tensors[name].copy()))


def save(
    directory: Path, lora: Lora, layout: AdapterLayout, flat: FlatVector, base_name: str
) -> None:
    """Write an adapter that `PeftModel.from_pretrained` and serving engines load."""
    from safetensors.numpy import save as encode

    make_private_directory(directory)
    config = _config(lora).to_dict()
    config |= {"base_model_name_or_path": base_name, "inference_mode": True}
    plain = {k: sorted(v) if isinstance(v, set) else v for k, v in config.items()}
    write_atomic(directory / WEIGHTS, encode(_named(layout.unflatten(flat))), mode=0o600)
    text = json.dumps(plain, indent=1, sort_keys=True, default=str)
    write_atomic(directory / CONFIG, text.encode(), mode=0o600)


def _named(tensors: Mapping[str, FlatVector]) -> dict[str, FlatVector]:
    return {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}


def read(directory: Path, layout: AdapterLayout) -> FlatVector:
    """Read an adapter that has exactly this layout; its header is checked before its tensors.

    Raises:
        LocalFault: RNM-MODEL-0003 there is none; RNM-MODEL-0002 it differs in any name, shape or type.
    """
    path = directory / WEIGHTS
    if not path.is_file():
        raise LocalFault(
            "RNM-MODEL-0003",
            what=f"no adapter in {directory}",
            why=f"{WEIGHTS} is missing",
            mend="let the run finish, or copy the adapter there",
        )
    data = path.read_bytes()
    _check_header(data, layout)
    from safetensors.numpy import load

    return layout.flatten(load(data))


def _check_header(data: bytes, layout: AdapterLayout) -> None:
    if len(data) < 8:
        raise _foreign("the file is cut short")
    (size,) = struct.unpack("<Q", data[:8])
    if size > min(_MAX_HEADER, len(data) - 8):
        raise _foreign("its header is larger than the file or than 1 MiB")
    try:
        header = json.loads(data[8 : 8 + size])
    except ValueError:
        raise _foreign("its header is not JSON") from None
    header.pop("__metadata__", None)
    expected = {tensor.name: list(tensor.shape) for tensor in layout.tensors}
    if {name: entry.get("shape") for name, entry in header.items()} != expected:
        raise _foreign("its tensors are not those of the layout")
    if any(entry.get("dtype") != "F32" for entry in header.values()):
        raise _foreign("a tensor is not float32")


def _foreign(why: str) -> LocalFault:
    return LocalFault(
        "RNM-MODEL-0002",
        what="an adapter was refused",
        why=why,
        mend="train with the rank, targets and base model that the plan names",
    )
