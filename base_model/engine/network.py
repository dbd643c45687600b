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
from base_model.engine import attention, float8, layout
from base_model.engine.muon import Muon
from base_model.engine.recipe import Plan, Shape
from base_model.model import compiler_reason, document_positions
from base_model.tokenizer import BOS, EOS, PAD

# Tokens whose logits are computed at once: few stay in a processor's cache, a card wants many.
_CHUNK = {"cpu": 512, "cuda": 8192}


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

    def __init__(self, model: Any, plan: Plan, device: str) -> None:
        super().__init__()
        self.model = model
        self._mask = attention.masking(model, device)
        self._chunk = _CHUNK[device]
        self._losses = chunk_losses
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
            attention_mask=self._mask(x_bt),
            **routed,
        )
        hidden = out.last_hidden_state.flatten(0, 1)
        nats = squares = hidden.new_zeros((), dtype=torch.float32)
        # In chunks, so that the logits of a whole batch never lie in memory at once.
        for h_nh, y_n in zip(
            torch.split(hidden, self._chunk), torch.split(y_bt.flatten(), self._chunk), strict=True
        ):
            part, square = self._losses(self.model.lm_head, h_nh, y_n, square=self._z_loss > 0)
            nats, squares = nats + part, squares + square
        count = y_bt.numel()
        mean = nats / count
        total = mean + self._z_loss * squares / count if self._z_loss else mean
        if self._chosen and self._balance:
            parts = [imbalance(logits, self._chosen) for logits in out.router_logits]
            total = total + self._balance * torch.stack(parts).mean()
        return total, mean

    def compile_parts(self) -> None:
        """Compile each layer and the losses of a chunk: once for all that are alike."""
        for layer in self.model.model.layers:
            layer.compile(dynamic=False)
        self._losses = torch.compile(chunk_losses, dynamic=False)


def chunk_losses(
    head: torch.nn.Module, h_nh: torch.Tensor, y_n: torch.Tensor, *, square: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the nats of some tokens, and where asked the squared log-sums of their logits."""
    logits = head(h_nh).float()
    squares = logits.logsumexp(dim=-1).square().sum() if square else logits.new_zeros(())
    return F.cross_entropy(logits, y_n, reduction="sum"), squares


def prepare(
    model: Any, plan: Plan, mesh: DeviceMesh | None, tensor: DeviceMesh | None = None
) -> Objective:
    """Return the objective, compiled, cut over `tensor` and sharded over `mesh`; one process does neither.

    Raises:
        LocalFault: RNM-CONF-0001 a card without float8 is asked for it.
    """
    device = next(model.parameters()).device.type
    if plan.recompute:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if plan.precision == "float8":
        float8.require(device)
        float8.convert(model)
    if tensor is not None:
        layout.cut(model, tensor)
    objective = Objective(model, plan, device)
    if plan.compile and not compiler_reason():
        if mesh is None and device == "cpu":
            objective.compile(dynamic=False)
            return objective
        objective.compile_parts()
    if mesh is not None:
        for layer in model.model.layers:
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
