"""Export for devices at the edge: base and adapters merged, as ONNX in float32 and in int8.

Decides the graph: tokens and the keys and values before them go in, logits and all keys and values come
out, so that a device decodes token by token. ONNX is protobuf: a file of it carries no Python. int8 is
dynamic quantisation (Jacob et al. 2018): weights by channel, activations as they come. Trusts a release
that its caller verified; an adapter must name that release and be safetensors.
"""

import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from base_model import offline  # noqa: F401  # switches the hub off
from base_model.fetch import file_sha256
from fedproto.errors import LocalFault
from fedproto.ids import Digest

WHOLE, QUANTISED = "model.onnx", "model.int8.onnx"
INPUTS, OUTPUTS = ("input_ids", "past"), ("logits", "present")
_WEIGHTS, _CONFIG = "adapter_model.safetensors", "adapter_config.json"
# Protobuf ends at 2 GiB; above this, weights lie in a file beside the graph.
_LARGE = 1_500_000_000


class Step(torch.nn.Module):
    """A model as a pure function: what a device calls for each token, or for all of a prompt."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: torch.Tensor, past: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Take tokens (B, T) and what was before them (2, layers, B, heads, P, D).

        Returns:
            Logits (B, T, V), and keys and values of all P + T places.
        """
        from transformers import DynamicCache

        cache = DynamicCache(config=self.model.config)
        for layer in range(past.shape[1]):
            cache.update(past[0, layer], past[1, layer], layer)
        logits = self.model(input_ids=input_ids, past_key_values=cache, use_cache=True).logits
        keys = torch.stack([layer.keys for layer in cache.layers])
        values = torch.stack([layer.values for layer in cache.layers])
        return logits, torch.stack([keys, values])


def no_past(config: Any, batch: int = 1, places: int = 0) -> torch.Tensor:
    """Return keys and values (2, layers, B, heads, P, D) of `places` places, all zero."""
    heads, width = config.num_key_value_heads, config.head_dim
    return torch.zeros(2, config.num_hidden_layers, batch, heads, places, width)


def merge(model: Any, adapters: Sequence[Path], release: Digest) -> tuple[Any, list[Digest]]:
    """Add adapters to the weights, one after the other; return the plain model and their digests.

    Several adapters that were active side by side add up to the same weights.

    Raises:
        LocalFault: RNM-MODEL-0003 there is none; RNM-MODEL-0002 it is of another release, or not LoRA
            in safetensors.
    """
    from peft import PeftModel

    digests: list[Digest] = []
    for directory in adapters:
        _check_adapter(directory, release)
        digests.append(Digest(file_sha256(directory / _WEIGHTS)))
        with _quiet():
            model = PeftModel.from_pretrained(model, str(directory)).merge_and_unload()
    return model, digests


def _check_adapter(directory: Path, release: Digest) -> None:
    try:
        config = json.loads((directory / _CONFIG).read_bytes())
        (directory / _WEIGHTS).stat()
    except (OSError, ValueError) as error:
        raise LocalFault(
            "RNM-MODEL-0003",
            what=f"no adapter was read from {directory}",
            why=f"{_CONFIG} or {_WEIGHTS} cannot be read ({type(error).__name__})",
            mend="name the directory of an adapter that `renmei run` or a release brought",
        ) from None
    why = ""
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        why = "it is not LoRA"
    elif config.get("base_model_name_or_path") != release:
        why = f"it is of base model {str(config.get('base_model_name_or_path'))[:16]}"
    elif config.get("auto_mapping"):
        why = "it names classes to import"
    if why:
        raise LocalFault(
            "RNM-MODEL-0002",
            what=f"the adapter in {directory} was refused",
            why=why,
            mend=f"use one that was trained on base model {release[:16]}",
        )


def write(model: Any, directory: Path) -> None:
    """Write both graphs; the same weights give the same bytes."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    if hasattr(model.config, "num_experts"):
        # The only form of routed experts that a graph without branches can hold.
        model.set_experts_implementation("batched_mm")
    model.eval()
    dynamic = torch.export.Dim.DYNAMIC
    large = sum(p.numel() * p.element_size() for p in model.parameters()) > _LARGE
    sample = (torch.arange(2 * 7).reshape(2, 7), no_past(model.config, batch=2, places=3))
    with _quiet():
        program = torch.onnx.export(
            Step(model),
            sample,
            dynamo=True,
            input_names=INPUTS,
            output_names=OUTPUTS,
            dynamic_shapes=({0: dynamic, 1: dynamic}, {2: dynamic, 4: dynamic}),
            verbose=False,
        )
        assert program is not None  # noqa: S101  # what dynamo=True returns
        _forget_where_it_was_made(program.model)
        program.save(directory / WHOLE, external_data=large)
        quantize_dynamic(
            directory / WHOLE,
            directory / QUANTISED,
            weight_type=QuantType.QInt8,
            per_channel=True,
            use_external_data_format=large,
        )


def _forget_where_it_was_made(model: Any) -> None:
    """Remove what the exporter notes of this machine: paths and lines of the code it went through."""
    for graph in (model.graph, *(function.graph for function in model.functions.values())):
        for node in graph.all_nodes():
            node.metadata_props.clear()
        for value in (*graph.inputs, *graph.outputs, *graph.initializers.values()):
            value.metadata_props.clear()
        graph.metadata_props.clear()
    model.metadata_props.clear()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporters' advice to their own developers from the terminal."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
