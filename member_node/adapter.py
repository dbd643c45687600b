"""LoRA adapters: attached to the base as the plan says, and turned into the one flat vector and back.

Decides the initial adapter: a pure function of layout and seed, the same on every machine, device and
version of torch, so that members compare its digest with the ledger's. Trusts no file: adapters on disk
are safetensors in PEFT's format, bounded and checked against the layout before anything is loaded.
LoRA: Hu et al. 2021. The torch and peft edge.
"""

import hashlib
import json
import struct
import warnings
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import torch

from base_model import offline  # noqa: F401  # switches the hub off
from fedproto.durable import make_private_directory, write_atomic
from fedproto.errors import LocalFault
from fedproto.governance.plan import Lora
from fedproto.ids import Digest
from fedproto.layout import AdapterLayout, FlatVector

# The name that PEFT gives an adapter which has none.
SHARED = "default"
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
_MAX_HEADER = 1 << 20
_INITIAL_TAG = b"renmei/v1/lora-init\0"


def config(lora: Lora) -> Any:
    """Return PEFT's configuration of an adapter."""
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
    """Return `base`, frozen, with a fresh shared adapter: A from `seed`, B zero: it changes nothing yet.

    Raises:
        LocalFault: RNM-MODEL-0002 a target is no linear module of this base model.
    """
    from peft import get_peft_model

    wanted = _linear_modules(base, lora)
    with warnings.catch_warnings():
        # peft 0.21 asks for an attribute that transformers 5.23 has renamed.
        warnings.simplefilter("ignore", FutureWarning)
        model = get_peft_model(base, config(lora))
    check_attached(model, wanted)
    layout = layout_of(model)
    load_flat(model, layout, initial(layout, seed))
    return model


def _linear_modules(base: Any, lora: Lora) -> frozenset[str]:
    """Return the full names of the modules that the targets name; each must name linear ones."""
    found: dict[str, list[str]] = {target: [] for target in lora.targets}
    for name, module in base.named_modules():
        last = name.rpartition(".")[2]
        if last in found and isinstance(module, torch.nn.Linear):
            found[last].append(name)
    missing = sorted(target for target, names in found.items() if not names)
    if missing:
        raise LocalFault(
            "RNM-MODEL-0002",
            what="the adapter was not attached",
            why=f"the base model has no linear modules named {', '.join(missing)}",
            mend="propose a plan whose targets are linear modules of this base model",
        )
    return frozenset(name for names in found.values() for name in names)


def check_attached(model: Any, wanted: frozenset[str]) -> None:
    """Refuse an adapter on any other module than the plan names.

    Of a mixture of experts, PEFT takes `gate_proj` and its like for the routed experts and adapts
    the router with them, without a word.
    """
    prefix = "base_model.model."
    own = {name.removeprefix(prefix).split(".lora_")[0] for name in parameters(model)}
    if own != wanted:
        raise LocalFault(
            "RNM-MODEL-0002",
            what="the adapter was not attached",
            why="it would also change modules that the plan does not name, such as routed experts",
            mend="propose a plan whose targets are attention and dense modules alone",
        )


def initial(layout: AdapterLayout, seed: int) -> FlatVector:
    """Return the adapter that a run starts from: A uniform in ±1/sqrt(columns), B zero.

    The range is that of Kaiming's initialisation, as in PEFT; the numbers come from SHAKE-256 of the
    seed and the tensor's name, and every step is exact or correctly rounded in IEEE 754.
    """
    tensors: dict[str, FlatVector] = {}
    for spec in layout.tensors:
        if not spec.name.endswith(".lora_A.weight"):
            tensors[spec.name] = np.zeros(spec.shape, np.float32)
            continue
        stream = hashlib.shake_256(_INITIAL_TAG + f"{seed}\0{spec.name}".encode())
        words = np.frombuffer(stream.digest(4 * spec.size), "<u4") >> 8
        unit = words.astype(np.float32) * np.float32(2**-23) - np.float32(1)
        bound = np.float32(1 / sqrt(spec.shape[-1]))
        tensors[spec.name] = (unit * bound).reshape(spec.shape)
    return layout.flatten(tensors)


def parameters(model: Any, name: str = SHARED) -> dict[str, torch.nn.Parameter]:
    """Return an adapter's parameters by their name in PEFT's files."""
    return {
        key.replace(f".{name}.", "."): parameter
        for key, parameter in model.named_parameters()
        if f".{name}." in key and ".lora_" in key
    }


def _arrays(model: Any, name: str) -> dict[str, FlatVector]:
    return {
        key: parameter.detach().cpu().numpy().astype(np.float32)
        for key, parameter in parameters(model, name).items()
    }


def layout_of(model: Any, name: str = SHARED) -> AdapterLayout:
    """Return the layout of an attached adapter."""
    return AdapterLayout.of(_arrays(model, name))


def to_flat(model: Any, layout: AdapterLayout, name: str = SHARED) -> FlatVector:
    """Return an adapter as one vector (float32, length d)."""
    return layout.flatten(_arrays(model, name))


def load_flat(model: Any, layout: AdapterLayout, flat: FlatVector, name: str = SHARED) -> None:
    """Set an adapter from a vector; raise RNM-MODEL-0002 if it does not fit."""
    own = parameters(model, name)
    tensors = layout.unflatten(flat)
    if own.keys() != tensors.keys():
        raise _foreign("the model has other adapter tensors than the layout")
    with torch.no_grad():
        for key, parameter in own.items():
            parameter.copy_(torch.from_numpy(tensors[key].copy()))


def save(
    directory: Path, lora: Lora, layout: AdapterLayout, flat: FlatVector, base: Digest
) -> None:
    """Write an adapter that `PeftModel.from_pretrained` and serving engines load.

    The configuration goes first and comes last: without it the directory holds no adapter, so a crash
    leaves the old one, the new one or none, never a mixture.
    """
    from safetensors.numpy import save as encode

    make_private_directory(directory)
    content = config(lora).to_dict() | {"base_model_name_or_path": base, "inference_mode": True}
    plain = {k: sorted(v) if isinstance(v, set) else v for k, v in content.items()}
    tensors = {n: np.ascontiguousarray(t) for n, t in layout.unflatten(flat).items()}
    (directory / CONFIG).unlink(missing_ok=True)
    data = encode(tensors, metadata={"format": "pt"})
    write_atomic(directory / WEIGHTS, data, mode=0o600)
    text = json.dumps(plain, indent=1, sort_keys=True, default=str)
    write_atomic(directory / CONFIG, text.encode(), mode=0o600)


def read(directory: Path, layout: AdapterLayout) -> FlatVector:
    """Read an adapter that has exactly this layout; size and header are checked before its tensors.

    Raises:
        LocalFault: RNM-MODEL-0003 there is none; RNM-MODEL-0002 it differs in any name, shape or type.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    limit = 8 + _MAX_HEADER + 4 * layout.size
    try:
        (directory / CONFIG).stat()
        with (directory / WEIGHTS).open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise LocalFault(
            "RNM-MODEL-0003",
            what=f"no adapter was read from {directory}",
            why=f"{CONFIG} or {WEIGHTS} cannot be read ({type(error).__name__})",
            mend="let the run finish, or copy the adapter there",
        ) from None
    if len(data) > limit:
        raise _foreign("the file is larger than its layout allows")
    _check_header(data, layout)
    try:
        return layout.flatten(load(data))
    except SafetensorError:
        raise _foreign("its tensors do not fill the file") from None


def _check_header(data: bytes, layout: AdapterLayout) -> None:
    if len(data) < 8:
        raise _foreign("the file is cut short")
    (size,) = struct.unpack("<Q", data[:8])
    if size > min(_MAX_HEADER, len(data) - 8):
        raise _foreign("its header is larger than the file or than 1 MiB")
    try:
        header = dict(json.loads(data[8 : 8 + size]))
        header.pop("__metadata__", None)
        found = {name: (entry["dtype"], entry["shape"]) for name, entry in header.items()}
    except (ValueError, TypeError, KeyError, RecursionError):
        raise _foreign("its header is not that of safetensors") from None
    if found != {tensor.name: ("F32", list(tensor.shape)) for tensor in layout.tensors}:
        raise _foreign("its tensors are not those of the layout, in float32")


def _foreign(why: str) -> LocalFault:
    return LocalFault(
        "RNM-MODEL-0002",
        what="an adapter was refused",
        why=why,
        mend="train with the rank, targets and base model that the plan names",
    )
