"""Linear layers whose three products are made in float8, each tensor with a scale of its own.

Decides what is rounded: inputs and weights to e4m3, gradients to e5m2 (Micikevicius et al. 2022), each by
its largest value at that moment, so that nothing is carried from step to step and a resumed training
repeats bit for bit. Weights, their gradients, optimiser, embeddings, head, routers and experts stay as
they are. Shape suffixes: N tokens, I inputs, O outputs.
"""

from typing import Any

import torch

from fedproto.errors import LocalFault

# The matrix units take sides that are multiples of this.
_SIDE = 16
# Compute capability of the first cards with float8 (Ada, then Hopper).
_FIRST_CARD = (8, 9)


def require(device: str) -> None:
    """Refuse a card that has no float8 (RNM-CONF-0001); a CPU computes it, slowly."""
    if device == "cuda" and torch.cuda.get_device_capability() < _FIRST_CARD:
        raise LocalFault(
            "RNM-CONF-0001",
            what="nothing was trained",
            why=f"{torch.cuda.get_device_name()} has no float8",
            mend='set precision = "bf16" in the recipe',
        )


def convert(model: Any) -> int:
    """Let the linear maps inside a model's layers be made in float8; return how many are."""
    converted = 0
    for layer in model.model.layers:
        for module in list(layer.modules()):
            for name, inner in list(module.named_children()):
                if type(inner) is torch.nn.Linear and not any(
                    n % _SIDE for n in inner.weight.shape
                ):
                    setattr(module, name, Float8Linear(inner.weight))
                    converted += 1
    return converted


class Float8Linear(torch.nn.Module):
    """A linear map without bias; its weight (O, I) keeps its own type."""

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return bf16, whatever came in."""
        product: torch.Tensor = _Product.apply(x.flatten(0, -2), self.weight)  # type: ignore[no-untyped-call]
        return product.reshape(*x.shape[:-1], -1)


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_ni: torch.Tensor, w_oi: torch.Tensor) -> torch.Tensor:
        x8, x_scale = _scaled(x_ni, torch.float8_e4m3fn)
        w8, w_scale = _scaled(w_oi, torch.float8_e4m3fn)
        ctx.save_for_backward(x8, x_scale, w8, w_scale)
        ctx.types = x_ni.dtype, w_oi.dtype
        return torch._scaled_mm(  # noqa: SLF001  # torch has no public name for it yet
            x8, w8.t(), scale_a=x_scale, scale_b=w_scale, out_dtype=torch.bfloat16
        )

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x8, x_scale, w8, w_scale = ctx.saved_tensors
        x_type, w_type = ctx.types
        g8, g_scale = _scaled(gradients[0], torch.float8_e5m2)
        # The second factor of a product lies column by column.
        dx_ni = torch._scaled_mm(  # noqa: SLF001
            g8, _by_columns(w8), scale_a=g_scale, scale_b=w_scale, out_dtype=torch.bfloat16
        )
        dw_oi = torch._scaled_mm(  # noqa: SLF001
            g8.t().contiguous(),
            _by_columns(x8),
            scale_a=g_scale,
            scale_b=x_scale,
            out_dtype=torch.bfloat16,
        )
        return dx_ni.to(x_type), dw_oi.to(w_type)


def _scaled(value: torch.Tensor, kind: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a tensor in float8 and the float32 factor that undoes its scale."""
    largest = torch.finfo(kind).max
    undo = value.abs().amax().float().clamp(min=1e-12) / largest
    return (value.float() / undo).clamp(-largest, largest).to(kind), undo


def _by_columns(matrix: torch.Tensor) -> torch.Tensor:
    return matrix.t().contiguous().t()
