"""The network that the engine trains: a stock Qwen3 or Qwen3-MoE model and its loss, as one module.

Decides how the loss is made: head and cross-entropy in chunks, z-loss (PaLM, Chowdhery et al. 2022),
the balance of experts (Switch Transformer, Fedus et al. 2021). One module, so that FSDP gathers what
lies outside the layers before any of it is used. Shape suffixes: B batch, T sequence, N tokens, H hidden.
"""

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  # torch's own custom
from torch.distributed.device_mesh import DeviceMesh

from base_model import offline  # noqa: F401  # switches the hub off
from base_model.engine import layout
from base_model.engine.muon import Muon
from base_model.engine.recipe import Plan, Shape
from base_model.model import compiler_reason, document_mask, document_positions
from base_model.tokenizer import BOS, EOS, PAD

_CHUNK = 512


def build(shape: Shape, vocabulary: int, seed: int) -> Any:
    """Return a fresh causal language model whose weights follow from `seed`."""
    from transformers import AutoModelForCausalLM, Qwen3Config, Qwen3MoeConfig

    common: dict[str, Any] = {
        "vocab_size": vocabulary,
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "intermediate_size": shape.feed_forward,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.key_value_heads,
        "head_dim": shape.head_dim,
        "max_position_embeddings": shape.positions,
        "tie_word_embeddings": True,
        "use_cache": False,
        "bos_token_id": BOS,
        "eos_token_id": EOS,
        "pad_token_id": PAD,
    }
    mixed: dict[str, Any] = {
        "num_experts": shape.experts,
        "num_experts_per_tok": shape.experts_per_token,
        "moe_intermediate_size": shape.expert_width,
        "decoder_sparse_step": 1,
        "norm_topk_prob": True,
    }
    config = Qwen3MoeConfig(**common, **mixed) if shape.experts else Qwen3Config(**common)
    torch.manual_seed(seed)
    # The loop over experts depends on the data, which neither compiles nor scales.
    how = {"experts_implementation": "grouped_mm"} if shape.experts else {}
    return AutoModelForCausalLM.from_config(
        config, attn_implementation="sdpa", dtype=torch.float32, **how
    )


def imbalance(router_logits: torch.Tensor, chosen: int) -> torch.Tensor:
    """Return the balance loss of one layer from (N, experts): 1 where the load is even, more elsewhere."""
    experts = router_logits.shape[-1]
    probability = router_logits.float().softmax(dim=-1)
    top = probability.topk(chosen, dim=-1).indices
    load = F.one_hot(top, experts).sum(dim=1).float().mean(dim=0) / chosen
    return experts * (load * probability.mean(dim=0)).sum()


class Objective(torch.nn.Module):
    """A model and the loss of its training; `forward` takes tokens (B, T + 1) and gives both losses."""

    def __init__(self, model: Any, plan: Plan) -> None:
        super().__init__()
        self.model = model
        self._z_loss = plan.z_loss
        self._balance = plan.balance
        self._chosen = int(getattr(model.config, "num_experts_per_tok", 0) or 0)

    def forward(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what is minimised, and the nats of a token, which is what is reported."""
        x_bt, y_bt = tokens[:, :-1], tokens[:, 1:]
        routed = {"output_router_logits": True} if self._chosen else {}
        out = self.model.model(
            input_ids=x_bt,
            position_ids=document_positions(x_bt),
            attention_mask=document_mask(x_bt),
            **routed,
        )
        hidden = out.last_hidden_state.flatten(0, 1)
        nats, squares = hidden.new_zeros((), dtype=torch.float32), 0.0
        # In chunks, so that the logits of a whole batch never lie in memory at once.
        for h_nh, y_n in zip(
            torch.split(hidden, _CHUNK), torch.split(y_bt.flatten(), _CHUNK), strict=True
        ):
            logits = self.model.lm_head(h_nh).float()
            nats = nats + F.cross_entropy(logits, y_n, reduction="sum")
            if self._z_loss:
                squares = squares + logits.logsumexp(dim=-1).square().sum()
        count = y_bt.numel()
        mean = nats / count
        total = mean + self._z_loss * squares / count if self._z_loss else mean
        if self._chosen and self._balance:
            parts = [imbalance(logits, self._chosen) for logits in out.router_logits]
            total = total + self._balance * torch.stack(parts).mean()
        return total, mean


def prepare(
    model: Any, plan: Plan, mesh: DeviceMesh | None, tensor: DeviceMesh | None = None
) -> Objective:
    """Return the objective, compiled, cut over `tensor` and sharded over `mesh`; one process does neither."""
    if plan.recompute:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if tensor is not None:
        layout.cut(model, tensor)
    objective = Objective(model, plan)
    compiles = plan.compile and not compiler_reason()
    if mesh is None:
        if compiles:
            objective.compile(dynamic=False)
        return objective
    for layer in model.model.layers:
        if compiles:
            layer.compile(dynamic=False)
        layout.shard(layer, mesh)
    layout.shard(objective, mesh)
    return objective


def optimisers(objective: Objective, plan: Plan) -> list[torch.optim.Optimizer]:
    """Return Muon over the matrices inside the layers, AdamW over embeddings, norms and routers."""
    matrices: list[torch.nn.Parameter] = []
    others: list[torch.nn.Parameter] = []
    for name, parameter in objective.named_parameters():
        inside = parameter.ndim >= 2 and "embed" not in name and not name.endswith("gate.weight")
        (matrices if inside else others).append(parameter)
    groups = [{"params": group} for group in layout.by_mesh(others)]
    return [
        Muon(matrices, lr=plan.muon_rate, weight_decay=plan.weight_decay),
        torch.optim.AdamW(groups, lr=plan.adam_rate, betas=(0.9, 0.95), weight_decay=0.0),
    ]
