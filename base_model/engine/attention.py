"""How packed documents stay apart in attention: a dense mask on CPUs, a block mask on a card.

Decides which of the model's stock attention functions is used. A dense mask keeps a card from its fast
kernels; FlexAttention (Dong et al. 2024) skips the blocks that a block mask leaves out. Both let a token
see those before it in its own document and no others. Shape suffixes: B batch, T sequence, Q query heads, K key and value heads, D width of a head.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch

from base_model.model import document_mask
from base_model.tokenizer import BOS

# What a model takes as its mask of tokens (B, T).
MaskMaker = Callable[[torch.Tensor], Any]
_NAME = "renmei_flex"


def masking(model: Any, device: str) -> MaskMaker:
    """Choose the model's attention function for a device; return what makes its masks."""
    if device != "cuda":
        return document_mask
    from transformers import AttentionInterface

    AttentionInterface.register(_NAME, flex)
    model.set_attn_implementation(_NAME)
    return block_mask


def flex(
    module: Any,
    query_bqtd: torch.Tensor,
    key_bktd: torch.Tensor,
    value_bktd: torch.Tensor,
    attention_mask: Any,
    scaling: float | None = None,
    product: Callable[..., Any] | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attend as transformers asks its attention functions to: return (B, T, Q, D) and no weights."""
    del module
    query_bqtd, key_bktd = query_bqtd.to(value_bktd.dtype), key_bktd.to(value_bktd.dtype)
    group = query_bqtd.shape[1] // key_bktd.shape[1]
    # The kernel shares a head of keys between a power of two of queries' heads.
    if group & (group - 1):
        key_bktd, value_bktd = (t.repeat_interleave(group, 1) for t in (key_bktd, value_bktd))
    out = (product or _compiled())(
        query_bqtd,
        key_bktd,
        value_bktd,
        block_mask=attention_mask,
        scale=scaling,
        enable_gqa=query_bqtd.shape[1] != key_bktd.shape[1],
    )
    return out.transpose(1, 2).contiguous(), None


@cache
def _compiled() -> Callable[..., Any]:
    """Return the kernel; uncompiled it would hold every score."""
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False)


def block_mask(tokens_bt: torch.Tensor) -> Any:
    """Return the block mask of tokens (B, T), the same for every head."""
    from torch.nn.attention.flex_attention import create_block_mask

    batch, length = tokens_bt.shape
    seen = together(tokens_bt)
    return create_block_mask(seen, batch, None, length, length, device=tokens_bt.device)


def together(tokens_bt: torch.Tensor) -> Callable[..., torch.Tensor]:
    """Return the predicate of FlexAttention: whether a place sees another."""
    document_bt = (tokens_bt == BOS).cumsum(dim=1)

    def seen(
        row: torch.Tensor, head: torch.Tensor, asks: torch.Tensor, seen_by: torch.Tensor
    ) -> torch.Tensor:
        del head
        return (asks >= seen_by) & (document_bt[row, asks] == document_bt[row, seen_by])

    return seen
