"""What a pretraining would take: memory of a card under each layout, time, energy, cost.

Decides the formulas; prices, power and utilisation are the caller's, and every default is an assumption
that the report names. Bytes of a parameter: bf16 weight 2 and float32 gradient 4 (as Kimi K2 reports),
float32 master copy with two moments 12 (AdamW) or one (Muon) 8. Pure.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import sqrt

from base_model.planner.shapes import Transformer

_WORKING = 2 + 4
STATE_BYTES = {"adamw": 12, "muon": 8}
# Of a card's power, what it draws in training; and the rest of its host, over the cards'.
_DRAWN, _HOST = 0.85, 1.35
# 419 unexpected interruptions in 54 days on 16,384 cards (Llama 3 report, 2024, section 3.3.4).
CARD_HOURS_BETWEEN_FAILURES = 16_384 * 54 * 24 / 419
# Master weights and two moments: what a snapshot holds besides what can be computed from it.
_SNAPSHOT_BYTES = 12
_CHUNK_OF_LOGITS = 512
# What a dense layer keeps for its backward pass, bytes a token and width (Korthikanti et al. 2022,
# with attention that keeps no scores).
_LAYER_BYTES = 34
_DAY_S, _HOUR_S = 86_400, 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """An accelerator by its data sheet: dense bf16 FLOP/s, memory in bytes, power in watts."""

    name: str
    flops: float
    memory: float
    watts: float


CARDS = {
    card.name: card
    for card in (
        Card(name="h800", flops=989e12, memory=80e9, watts=700),
        Card(name="h100", flops=989e12, memory=80e9, watts=700),
        Card(name="h200", flops=989e12, memory=141e9, watts=700),
        Card(name="b200", flops=2250e12, memory=180e9, watts=1000),
        Card(name="gb200", flops=2500e12, memory=186e9, watts=1200),
    )
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What is assumed besides the model: data, machine, and what it costs."""

    tokens: float
    sequence: int
    cards: int
    card: Card
    mfu: float
    availability: float
    pue: float
    price: float

    def __post_init__(self) -> None:
        shares = (self.mfu, self.availability)
        if not all(0 < share <= 1 for share in shares) or self.pue < 1 or self.price < 0:
            raise ValueError(
                "mfu and availability lie in (0, 1], pue is 1 or more, price is 0 or more"
            )
        if self.tokens <= 0 or self.sequence < 1 or self.cards < 1:
            raise ValueError("tokens, sequence and cards are positive")


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How a model lies over cards, and bytes of one card: states, gathered weights, activations."""

    name: str
    built_here: bool
    adamw: float
    muon: float
    gathered: float
    activations: float

    def bytes(self, optimiser: str) -> float:
        """Return all of it."""
        states = {"adamw": self.adamw, "muon": self.muon}[optimiser]
        return states + self.gathered + self.activations


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What it takes: FLOPs (causal attention), time, card-hours, energy, money, snapshots."""

    flops: float
    days: float
    card_hours: float
    kwh: float
    cost: float
    snapshot_bytes: float
    snapshot_every_s: float
    layouts: tuple[Layout, ...]


def estimate(shape: Transformer, terms: Terms) -> Estimate:
    """Return what pretraining `shape` would take."""
    flops = shape.flops(terms.sequence, causal=True) * terms.tokens
    seconds = flops / (terms.cards * terms.card.flops * terms.mfu) / terms.availability
    hours = seconds / _HOUR_S * terms.cards
    snapshot = float(_SNAPSHOT_BYTES * shape.total)
    return Estimate(
        flops=flops,
        days=seconds / _DAY_S,
        card_hours=hours,
        kwh=hours * terms.card.watts / 1000 * _DRAWN * _HOST * terms.pue,
        cost=hours * terms.price,
        snapshot_bytes=snapshot,
        snapshot_every_s=snapshot_interval(snapshot, terms.cards),
        layouts=tuple(layouts(shape, terms.cards, terms.sequence)),
    )


def snapshot_interval(snapshot: float, cards: int, write: float = 1e9) -> float:
    """Return the best seconds between snapshots (Young 1974), at `write` bytes/s for each card."""
    between_failures = CARD_HOURS_BETWEEN_FAILURES / cards * _HOUR_S
    return sqrt(2 * snapshot / (write * cards) * between_failures)


def zero_1(shape: Transformer, *, pipeline: int, experts: int, data: int, state: int) -> float:
    """Return bytes of a card where only optimiser state is sharded over `data` replicas.

    Routed experts lie over pipeline x experts cards, all else over the pipeline; `experts` divides
    `data`.
    """
    routed, dense = shape.routed / (pipeline * experts), shape.dense / pipeline
    return (routed + dense) * _WORKING + (routed / (data / experts) + dense / data) * state


def layouts(shape: Transformer, cards: int, sequence: int) -> Iterator[Layout]:
    """Give each layout that `cards` allow, for one sequence at a time on a card."""
    whole = activations(shape, sequence, tensor=1)
    largest = _layer(shape, experts=1)

    def sharded(name: str, gathered: float, acts: float, *, built: bool = False) -> Layout:
        return Layout(
            name=name,
            built_here=built,
            adamw=shape.total / cards * (_WORKING + STATE_BYTES["adamw"]),
            muon=shape.total / cards * (_WORKING + STATE_BYTES["muon"]),
            gathered=gathered,
            activations=acts,
        )

    # Two layers at once: one in use, the next on its way; and a layer's full gradient.
    yield sharded("FSDP", largest * (2 * 2 + 4), whole, built=True)
    if cards % 8 == 0:
        acts = activations(shape, sequence, tensor=8)
        yield sharded("FSDP + TP 8", largest / 8 * (2 * 2 + 4), acts)
    for experts in (8, 64):
        if shape.experts and shape.experts % experts == 0 and cards % experts == 0:
            gathered = _layer(shape, experts=experts) * (2 * 2 + 4)
            yield sharded(f"FSDP + EP {experts}", gathered, whole)
    for pipeline in (8, 16):
        experts = 16 if shape.experts else 1
        if cards % (pipeline * experts) == 0 and shape.layers >= pipeline:
            data = cards // pipeline
            adamw, muon = (
                zero_1(shape, pipeline=pipeline, experts=experts, data=data, state=state)
                for state in (STATE_BYTES["adamw"], STATE_BYTES["muon"])
            )
            name = (
                f"PP {pipeline} + EP {experts}, ZeRO-1"
                if shape.experts
                else f"PP {pipeline}, ZeRO-1"
            )
            yield Layout(
                name=name,
                built_here=False,
                adamw=adamw,
                muon=muon,
                gathered=0.0,
                activations=whole,
            )


def _layer(shape: Transformer, *, experts: int) -> float:
    """Return the parameters of the largest layer that are gathered, its experts over `experts` cards."""
    tables = shape.vocabulary * shape.hidden * (1 if shape.tied else 2)
    dense = (shape.dense - tables) / shape.layers
    routed = shape.experts * shape.expert / experts if shape.experts else 0.0
    return max(dense + routed, float(tables))


def activations(shape: Transformer, sequence: int, *, tensor: int) -> float:
    """Return bytes for the backward pass of one sequence, layers recomputed, logits in chunks."""
    inputs = shape.layers * sequence * shape.hidden * 2
    layer = sequence * shape.hidden * _LAYER_BYTES / tensor
    routed = sequence * shape.experts_per_token * (2 * shape.hidden + 3 * shape.expert_width) * 2
    logits = _CHUNK_OF_LOGITS * shape.vocabulary * (4 + 4) / tensor
    return inputs + layer + routed + logits
