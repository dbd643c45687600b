"""The base model: a stock Qwen3 architecture, and the one loss that pretraining and LoRA share.

Decides sizes and how the loss is computed: bf16 autocast, our own head and cross-entropy, compiled
where a C++ compiler is there, documents isolated by restarting `position_ids` at each BOS. Shape
suffixes: B batch, T sequence, N tokens of a chunk, H hidden.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  # torch's own custom

from base_model import offline  # noqa: F401  # switches the hub off
from base_model.tokenizer import BOS, EOS, PAD

# From int64 tokens (B, T + 1) to the mean nats of a token.
LossFunction = Callable[[torch.Tensor], torch.Tensor]

# Tokens whose logits are computed at once.
_CHUNK = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """The dimensions of a dense Qwen3 model."""

    vocabulary: int = 4096
    hidden: int = 128
    layers: int = 4
    feed_forward: int = 384
    heads: int = 4
    key_value_heads: int = 2
    head_dim: int = 32
    positions: int = 1024


def build(size: Size, seed: int) -> Any:
    """Return a fresh `Qwen3ForCausalLM` whose weights follow from `seed`."""
    from transformers import AutoModelForCausalLM, Qwen3Config

    config = Qwen3Config(
        vocab_size=size.vocabulary,
        hidden_size=size.hidden,
        num_hidden_layers=size.layers,
        intermediate_size=size.feed_forward,
        num_attention_heads=size.heads,
        num_key_value_heads=size.key_value_heads,
        head_dim=size.head_dim,
        max_position_embeddings=size.positions,
        tie_word_embeddings=True,
        use_cache=False,
        bos_token_id=BOS,
        eos_token_id=EOS,
        pad_token_id=PAD,
    )
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(config, attn_implementation="sdpa", dtype=torch.float32)


def compiler_reason() -> str:
    """Return why the loss cannot be compiled here, or nothing if it can."""
    if shutil.which("g++") is None and shutil.which("clang++") is None:
        return "no C++ compiler (g++ or clang++): training runs uncompiled, about 2.5 times slower"
    return ""


def document_positions(tokens_bt: torch.Tensor) -> torch.Tensor:
    """Return positions (B, T) that start again at each BOS, which isolates packed documents."""
    index_bt = torch.arange(tokens_bt.shape[1], device=tokens_bt.device).expand_as(tokens_bt)
    start_bt = torch.where(tokens_bt == BOS, index_bt, torch.zeros_like(index_bt))
    return index_bt - start_bt.cummax(dim=1).values


def _core(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def token_nats(model: Any) -> Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]:
    """Return a function of (inputs BT, targets BT, mask B1TT) to nats of each target (B * T).

    Works for a plain model and for one wrapped by peft.
    """
    core = _core(model)
    body, head = core.model, core.lm_head

    def nats(x_bt: torch.Tensor, y_bt: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        hidden = body(
            input_ids=x_bt, position_ids=document_positions(x_bt), attention_mask=mask
        ).last_hidden_state
        # In chunks, so that the logits stay in the processor's cache: a fifth faster uncompiled.
        chunks = zip(
            torch.split(hidden.flatten(0, 1), _CHUNK),
            torch.split(y_bt.flatten(), _CHUNK),
            strict=True,
        )
        return torch.cat(
            [F.cross_entropy(head(h_nh).float(), y_n, reduction="none") for h_nh, y_n in chunks]
        )

    return nats


def document_mask(tokens_bt: torch.Tensor) -> torch.Tensor:
    """Return the boolean mask (B, 1, T, T): causal, and within one document."""
    document_bt = (tokens_bt == BOS).cumsum(dim=1)
    same = document_bt[:, None, :, None] == document_bt[:, None, None, :]
    length = tokens_bt.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=tokens_bt.device).tril()
    return same & causal


def make_loss(model: Any, *, compile_: bool) -> LossFunction:
    """Return the training loss of a model; `compile_` is obeyed where a compiler is there."""
    nats = token_nats(model)

    def mean(x_bt: torch.Tensor, y_bt: torch.Tensor) -> torch.Tensor:
        return nats(x_bt, y_bt, document_mask(x_bt)).mean()

    inner = torch.compile(mean, dynamic=False) if compile_ and not compiler_reason() else mean
    device = next(model.parameters()).device.type

    def loss(tokens: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device, dtype=torch.bfloat16):
            return inner(tokens[:, :-1], tokens[:, 1:])

    return loss
