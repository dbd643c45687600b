"""How a training lies on its processes: replicas of shards, and matrices and experts cut between ranks.

Decides what is cut and where. Over "shard" FSDP2 cuts every parameter, over "replica" whole sets of
shards repeat (HSDP), over "tensor" attention and MLP are cut by heads and columns (Megatron, Shoeybi et
al. 2019) and mixtures by expert (GShard, Lepikhin et al. 2020). Ranks along "tensor" see the same batch.
No layout is part of a training's meaning: a snapshot of one is read by any other. Embeddings, norms and
routers are alike along "tensor".
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import (
    DTensor,
    Partial,
    Replicate,
    Shard,
    distribute_tensor,
)
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)

from base_model.engine.recipe import Plan, Shape
from fedproto.errors import LocalFault

REPLICA, SHARD, TENSOR = "replica", "shard", "tensor"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How many processes along each axis; along "shard" what is left of them."""

    processes: int
    tensor: int = 1
    replicas: int = 1

    @property
    def shards(self) -> int:
        """How many processes share one copy of a parameter, besides those along "tensor"."""
        return self.processes // (self.tensor * self.replicas)

    @property
    def lanes(self) -> int:
        """How many processes share a batch."""
        return self.replicas * self.shards

    def check(self, shape: Shape, plan: Plan) -> None:
        """Refuse what does not divide (RNM-CONF-0001)."""
        why = ""
        if min(self.processes, self.tensor, self.replicas) < 1:
            why = "processes, tensor and replicas are whole numbers from 1 up"
        elif self.processes % (self.tensor * self.replicas):
            why = (
                f"{self.processes} processes are no multiple of {self.tensor} along tensor times "
                f"{self.replicas} replicas"
            )
        elif plan.batch % self.lanes:
            why = f"a batch of {plan.batch} cannot be shared by {self.lanes} processes alike"
        elif self.tensor > 1 and plan.precision == "float8":
            why = "float8 has one scale for a matrix, which ranks along tensor don't share"
        else:
            why = self._uncut(shape)
        if why:
            raise LocalFault(
                "RNM-CONF-0001",
                what="nothing was trained",
                why=why,
                mend="choose --processes, --tensor and --replicas that divide batch and model",
            )

    def _uncut(self, shape: Shape) -> str:
        """Return what of a model cannot be cut so, or nothing."""
        along_tensor = {"heads": shape.heads, "key_value_heads": shape.key_value_heads}
        # FSDP cuts the other side of a matrix that is cut between ranks: it must come out even.
        along_shard = {"hidden": shape.hidden}
        if shape.experts:
            along_tensor["experts"] = shape.experts
        else:
            along_tensor["feed_forward"] = shape.feed_forward
        for name, size in along_tensor.items():
            if size % self.tensor:
                return f"{name} = {size} cannot be cut in {self.tensor}"
        for name, size in along_shard.items():
            if self.tensor > 1 and size % self.shards:
                return f"{name} = {size} cannot be cut in {self.shards}"
        return ""


def cut(model: Any, mesh: DeviceMesh) -> None:
    """Cut attention and MLPs of every layer over the mesh of one axis, in place."""
    for layer in model.model.layers:
        styles: dict[str, ParallelStyle] = {
            "self_attn.q_proj": ColwiseParallel(),
            "self_attn.k_proj": ColwiseParallel(),
            "self_attn.v_proj": ColwiseParallel(),
            "self_attn.o_proj": RowwiseParallel(),
            # Their weights are whole, but each rank sees its own heads: gradients are to be added up.
            "self_attn.q_norm": SequenceParallel(sequence_dim=2, use_local_output=True),
            "self_attn.k_norm": SequenceParallel(sequence_dim=2, use_local_output=True),
        }
        if hasattr(layer.mlp, "experts"):
            _cut_experts(layer.mlp.experts, mesh)
        else:
            styles |= {
                "mlp.gate_proj": ColwiseParallel(),
                "mlp.up_proj": ColwiseParallel(),
                "mlp.down_proj": RowwiseParallel(),
            }
        parallelize_module(layer, mesh, styles)


class _OwnExperts:
    """A view of a mixture in which this rank's experts are all there is; other ids are past its end."""

    def __init__(self, experts: Any, mesh: DeviceMesh) -> None:
        self._experts = experts
        self.num_experts = experts.num_experts // mesh.size()
        self.first = self.num_experts * mesh.get_local_rank()
        self._is_expert_parallel = True

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._experts, name)
        return value.to_local() if isinstance(value, DTensor) else value


def _cut_experts(experts: Any, mesh: DeviceMesh) -> None:
    """Give each rank its share of the experts; every rank routes alike, and outputs are added up."""
    from transformers.integrations.moe import grouped_mm_experts_forward

    for name, parameter in list(experts.named_parameters(recurse=False)):
        placed = distribute_tensor(parameter.data, mesh, [Shard(0)])
        experts.register_parameter(name, torch.nn.Parameter(placed))
    own = _OwnExperts(experts, mesh)

    def forward(hidden: torch.Tensor, index: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        local = index - own.first
        absent = (local < 0) | (local >= own.num_experts)
        local = local.masked_fill(absent, own.num_experts)
        part = grouped_mm_experts_forward(
            own, _entering(hidden, mesh), local, _entering(weights, mesh).masked_fill(absent, 0.0)
        )
        return _leaving(part, mesh)

    experts.forward = forward


def _entering(value: torch.Tensor, mesh: DeviceMesh) -> torch.Tensor:
    """Pass a value that is alike at all ranks; its gradient is the sum of theirs."""
    whole = DTensor.from_local(value, mesh, [Replicate()], run_check=False)
    return whole.to_local(grad_placements=[Partial()])


def _leaving(value: torch.Tensor, mesh: DeviceMesh) -> torch.Tensor:
    """Return the sum of all ranks' values."""
    parts = DTensor.from_local(value, mesh, [Partial()], run_check=False)
    return parts.redistribute(placements=[Replicate()]).to_local()


def shard(module: Any, mesh: DeviceMesh) -> None:
    """Have FSDP2 cut a module's parameters over shards, each along a side that is whole until now."""
    fully_shard(module, mesh=mesh, shard_placement_fn=_free_side)


def _free_side(parameter: torch.nn.Parameter) -> Shard | None:
    if isinstance(parameter, DTensor) and Shard(0) in parameter.placements:
        return Shard(1)
    return None


def meshes(device: str, layout: Layout) -> tuple[DeviceMesh, DeviceMesh | None]:
    """Return the mesh that FSDP cuts over, and that of "tensor" where there is one."""
    from torch.distributed.device_mesh import init_device_mesh

    sizes = {REPLICA: layout.replicas, SHARD: layout.shards, TENSOR: layout.tensor}
    axes = {name: size for name, size in sizes.items() if size > 1 or name == SHARD}
    mesh = init_device_mesh(device, tuple(axes.values()), mesh_dim_names=tuple(axes))
    kept = (REPLICA, SHARD) if REPLICA in axes else (SHARD,)
    return mesh[kept if len(kept) > 1 else SHARD], mesh[TENSOR] if TENSOR in axes else None


def place_of(tensor: torch.Tensor) -> tuple[tuple[int, int], ...]:
    """Return from where to where, along each dimension, a rank holds a tensor (as torch.chunk cuts)."""
    ranges = [(0, size) for size in tensor.shape]
    if isinstance(tensor, DTensor):
        position = tensor.device_mesh.get_coordinate()
        assert position is not None  # noqa: S101  # every rank is in every mesh
        for axis, placement in enumerate(tensor.placements):
            if isinstance(placement, Shard):
                low, high = ranges[placement.dim]
                part = -(-(high - low) // tensor.device_mesh.size(axis))
                start = min(low + part * position[axis], high)
                ranges[placement.dim] = (start, min(start + part, high))
    return tuple(ranges)


def is_copy(tensor: torch.Tensor, *, leads: bool) -> bool:
    """Whether a rank before this one holds the same; `leads`, whether this is the first along "tensor"."""
    if not isinstance(tensor, DTensor):
        return False
    names = tensor.device_mesh.mesh_dim_names or ()
    position: list[int] = list(tensor.device_mesh.get_coordinate() or ())
    repeats = any(
        isinstance(placement, Replicate) and at > 0
        for placement, at in zip(tensor.placements, position, strict=True)
    )
    return repeats or (TENSOR not in names and not leads)


def by_mesh(
    parameters: list[torch.nn.Parameter],
) -> list[list[torch.nn.Parameter]]:
    """Group parameters that lie alike: torch's operators over lists take one mesh at a time."""
    groups: dict[object, list[torch.nn.Parameter]] = {}
    for parameter in parameters:
        mesh = parameter.device_mesh if isinstance(parameter, DTensor) else None
        groups.setdefault(mesh, []).append(parameter)
    return list(groups.values())


def clip(parameters: list[torch.nn.Parameter], largest: float) -> torch.Tensor:
    """Scale gradients so that their norm together is `largest` at most; return what it was."""
    groups = by_mesh([p for p in parameters if p.grad is not None])
    if len(groups) == 1:
        return _whole(torch.nn.utils.clip_grad_norm_(groups[0], largest))
    norms = [
        _whole(torch.nn.utils.get_total_norm([p.grad for p in group if p.grad is not None]))
        for group in groups
    ]
    norm: torch.Tensor = torch.linalg.vector_norm(torch.stack(norms))
    for group in groups:
        torch.nn.utils.clip_grads_with_norm_(group, largest, norm)
    return norm


def _whole(value: torch.Tensor) -> torch.Tensor:
    if not isinstance(value, DTensor):
        return value
    whole: torch.Tensor = value.full_tensor()
    return whole
