"""Shapes of transformers, and what follows from them: parameters, FLOPs of a token, adapter size.

Decides the formulas, which tests hold against models that transformers instantiates without memory and
against published counts. Attention is grouped-query (GQA) or multi-head latent (MLA, DeepSeek-V2); an MLP
is dense or a mixture of experts. Pure.
"""

from dataclasses import dataclass, replace

from base_model.engine.recipe import Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class Grouped:
    """Grouped-query attention (Ainslie et al. 2023)."""

    heads: int
    key_value_heads: int
    head_dim: int
    normed: bool = False

    def matrices(self, hidden: int) -> list[tuple[int, int]]:
        """Return (inputs, outputs) of each linear map."""
        own, shared = self.heads * self.head_dim, self.key_value_heads * self.head_dim
        return [(hidden, own), (hidden, shared), (hidden, shared), (own, hidden)]

    def norms(self) -> int:
        """Return how many scales its norms have."""
        return 2 * self.head_dim if self.normed else 0

    def products(self, sequence: int) -> int:
        """Return the FLOPs of a token's scores and their use, over the whole context."""
        return 4 * sequence * self.heads * self.head_dim


@dataclass(frozen=True, slots=True, kw_only=True)
class Latent:
    """Multi-head latent attention (DeepSeek-V2, 2024)."""

    heads: int
    query_rank: int
    key_value_rank: int
    plain_dim: int
    rotary_dim: int
    value_dim: int

    def matrices(self, hidden: int) -> list[tuple[int, int]]:
        """Return (inputs, outputs) of each linear map."""
        return [
            (hidden, self.query_rank),
            (self.query_rank, self.heads * (self.plain_dim + self.rotary_dim)),
            (hidden, self.key_value_rank + self.rotary_dim),
            (self.key_value_rank, self.heads * (self.plain_dim + self.value_dim)),
            (self.heads * self.value_dim, hidden),
        ]

    def norms(self) -> int:
        """Return how many scales its norms have."""
        return self.query_rank + self.key_value_rank

    def products(self, sequence: int) -> int:
        """Return the FLOPs of a token's scores and their use, over the whole context."""
        width = self.plain_dim + self.rotary_dim + self.value_dim
        return 2 * sequence * self.heads * width


@dataclass(frozen=True, slots=True, kw_only=True)
class Transformer:
    """A decoder; its first `dense_layers` have a dense MLP, the others experts (where there are any)."""

    name: str
    hidden: int
    layers: int
    vocabulary: int
    attention: Grouped | Latent
    feed_forward: int
    dense_layers: int = 0
    experts: int = 0
    experts_per_token: int = 0
    shared_experts: int = 0
    expert_width: int = 0
    tied: bool = False

    @property
    def moe_layers(self) -> int:
        """How many layers have experts."""
        return self.layers - self.dense_layers if self.experts else 0

    @property
    def expert(self) -> int:
        """Parameters of one expert."""
        return 3 * self.hidden * self.expert_width

    @property
    def routed(self) -> int:
        """Parameters of all routed experts."""
        return self.moe_layers * self.experts * self.expert

    @property
    def dense(self) -> int:
        """Parameters of all that every token passes, embeddings included."""
        h = self.hidden
        attention = sum(i * o for i, o in self.attention.matrices(h)) + self.attention.norms()
        mlps = (self.layers - self.moe_layers) * 3 * h * self.feed_forward
        shared = self.moe_layers * (self.shared_experts * self.expert + self.experts * h)
        tables = self.vocabulary * h * (1 if self.tied else 2)
        return self.layers * (attention + 2 * h) + mlps + shared + tables + h

    @property
    def total(self) -> int:
        """All parameters."""
        return self.dense + self.routed

    @property
    def active(self) -> int:
        """Parameters that a token passes, its embedding row and head included."""
        return self.dense + self.moe_layers * self.experts_per_token * self.expert

    def flops(self, sequence: int, *, causal: bool) -> float:
        """Return the FLOPs of training on one token, forward and backward, nothing recomputed.

        Two conventions are in use: half the attention counts (`causal`, NVIDIA's) or all of it
        (torchtitan's). An embedding row is looked up, not multiplied; a tied head is multiplied.
        """
        looked_up = 0 if self.tied else self.vocabulary * self.hidden
        attention = self.layers * self.attention.products(sequence)
        return 6.0 * (self.active - looked_up) + 3.0 * attention * (0.5 if causal else 1.0)

    def adapter(self, rank: int) -> int:
        """Return the parameters of LoRA on attention, dense MLPs and shared experts."""
        h = self.hidden
        maps = self.layers * sum(i + o for i, o in self.attention.matrices(h))
        dense = (self.layers - self.moe_layers) * 3 * (h + self.feed_forward)
        shared = self.moe_layers * self.shared_experts * 3 * (h + self.expert_width)
        return rank * (maps + dense + shared)


def of_recipe(shape: Shape, vocabulary: int, name: str) -> Transformer:
    """Return what the engine builds from a recipe."""
    return Transformer(
        name=name,
        hidden=shape.hidden,
        layers=shape.layers,
        vocabulary=vocabulary,
        attention=Grouped(
            heads=shape.heads,
            key_value_heads=shape.key_value_heads,
            head_dim=shape.head_dim,
            normed=True,
        ),
        feed_forward=shape.feed_forward,
        experts=shape.experts,
        experts_per_token=shape.experts_per_token if shape.experts else 0,
        expert_width=shape.expert_width if shape.experts else 0,
        tied=True,
    )


# The published configurations (config.json of each release).
_LLAMA = Grouped(heads=32, key_value_heads=8, head_dim=128)
_QWEN = Grouped(heads=32, key_value_heads=4, head_dim=128, normed=True)
_DEEPSEEK = Latent(
    heads=128, query_rank=1536, key_value_rank=512, plain_dim=128, rotary_dim=64, value_dim=128
)
PUBLISHED = {
    shape.name: shape
    for shape in (
        Transformer(
            name="llama-3.1-8b",
            hidden=4096,
            layers=32,
            vocabulary=128_256,
            attention=_LLAMA,
            feed_forward=14_336,
        ),
        Transformer(
            name="llama-3.1-405b",
            hidden=16_384,
            layers=126,
            vocabulary=128_256,
            attention=replace(_LLAMA, heads=128),
            feed_forward=53_248,
        ),
        Transformer(
            name="qwen3-30b-a3b",
            hidden=2048,
            layers=48,
            vocabulary=151_936,
            attention=_QWEN,
            feed_forward=6144,
            experts=128,
            experts_per_token=8,
            expert_width=768,
        ),
        Transformer(
            name="qwen3-235b-a22b",
            hidden=4096,
            layers=94,
            vocabulary=151_936,
            attention=replace(_QWEN, heads=64),
            feed_forward=12_288,
            experts=128,
            experts_per_token=8,
            expert_width=1536,
        ),
        Transformer(
            name="deepseek-v3",
            hidden=7168,
            layers=61,
            vocabulary=129_280,
            attention=_DEEPSEEK,
            feed_forward=18_432,
            dense_layers=3,
            experts=256,
            experts_per_token=8,
            shared_experts=1,
            expert_width=2048,
        ),
        Transformer(
            name="kimi-k2",
            hidden=7168,
            layers=61,
            vocabulary=163_840,
            attention=replace(_DEEPSEEK, heads=64),
            feed_forward=18_432,
            dense_layers=1,
            experts=384,
            experts_per_token=8,
            shared_experts=1,
            expert_width=2048,
        ),
    )
}


def nearest(parameters: float) -> Transformer:
    """Return the published shape of the nearest size, by ratio."""

    def ratio(shape: Transformer) -> float:
        return max(shape.total / parameters, parameters / shape.total)

    return min(PUBLISHED.values(), key=ratio)


def scaled(like: Transformer, parameters: float) -> Transformer:
    """Return a shape of about so many parameters with the proportions of another.

    Width, depth and MLPs grow together; the kind and number of heads' dimensions, experts and the
    vocabulary stay.
    """
    if abs(like.total / parameters - 1) < 0.05:  # it is the published shape
        return like
    candidates = (_by(like, step / 500) for step in range(5, 2001))
    best = min(candidates, key=lambda shape: abs(shape.total - parameters))
    return replace(best, name=f"{like.name}, scaled")


def _by(like: Transformer, factor: float) -> Transformer:
    def grown(value: int, unit: int) -> int:
        return max(unit, round(value * factor / unit) * unit)

    attention = like.attention
    heads = max(1, round(attention.heads * factor))
    if isinstance(attention, Grouped):
        shared = max(1, min(attention.key_value_heads, heads))
        own = max(shared, heads // shared * shared)
        scaled_attention: Grouped | Latent = replace(attention, heads=own, key_value_heads=shared)
    else:
        scaled_attention = replace(attention, heads=heads)
    return replace(
        like,
        hidden=grown(like.hidden, 64),
        layers=max(like.dense_layers + 1, round(like.layers * factor)),
        attention=scaled_attention,
        feed_forward=grown(like.feed_forward, 64),
        expert_width=grown(like.expert_width, 64) if like.experts else 0,
    )
