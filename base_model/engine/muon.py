"""Muon over whole and sharded matrices, also stacks of them (experts).

Momentum orthogonalised by a quintic Newton-Schulz iteration (Jordan et al. 2024, whose coefficients
these are); under FSDP the momentum stays sharded and only the step's update is gathered. Every rank
computes the same update, so no rank waits for another's matrix. Trusts torch alone.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.distributed.tensor import DTensor, Replicate

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_TURNS = 5


def orthogonalised(matrix: torch.Tensor) -> torch.Tensor:
    """Return a matrix (..., m, n) with singular values near 1 and the same singular vectors, in bf16."""
    a, b, c = _COEFFICIENTS
    turned = matrix.shape[-2] > matrix.shape[-1]
    x = matrix.to(torch.bfloat16)
    x = x.mT if turned else x
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for _ in range(_TURNS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    result: torch.Tensor = x.mT if turned else x
    return result


class Muon(torch.optim.Optimizer):
    """The optimiser of matrices inside the layers."""

    def __init__(
        self,
        parameters: Iterable[torch.nn.Parameter],
        *,
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.01,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__(parameters, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move each matrix by its orthogonalised momentum (Nesterov's form)."""
        if closure is not None:
            raise ValueError("Muon takes no closure")
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, group)

    def _move(self, parameter: torch.nn.Parameter, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        momentum, gradient = state["momentum"], parameter.grad
        assert gradient is not None  # noqa: S101  # `step` asked
        momentum.lerp_(gradient, 1 - group["momentum"])
        ahead = gradient.lerp(momentum, group["momentum"])
        whole = ahead.full_tensor() if isinstance(ahead, DTensor) else ahead
        rows, columns = whole.shape[-2:]
        update = orthogonalised(whole).to(parameter.dtype) * max(1.0, rows / columns) ** 0.5
        if isinstance(parameter, DTensor):
            mesh, placements = parameter.device_mesh, parameter.placements
            update = DTensor.from_local(
                update, mesh, [Replicate()] * mesh.ndim, run_check=False
            ).redistribute(mesh, placements)
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(update, alpha=-group["lr"])
