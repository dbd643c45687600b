"""A recipe: everything that a pretraining needs besides its data, read strictly from TOML.

Decides what a recipe may say; a name that it doesn't know is refused, never skipped. The recipe's digest
is over its meaning (canonical JSON of every value, defaults included), not over its spelling. Pure.
"""

import tomllib
from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import Any, TypeVar, get_type_hints

from base_model.canaries import Canaries
from fedproto import jcs
from fedproto.errors import LocalFault
from fedproto.ids import Digest, sha256_hex
from fedproto.jcs import Json

T = TypeVar("T")

# What the stream of planted records is called among the parts of a mixture.
CANARIES = "canaries"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The model: dense Qwen3, or Qwen3-MoE where `experts` is not 0."""

    hidden: int = 128
    layers: int = 4
    feed_forward: int = 384
    heads: int = 4
    key_value_heads: int = 2
    head_dim: int = 32
    positions: int = 1024
    experts: int = 0
    experts_per_token: int = 2
    expert_width: int = 128

    def __post_init__(self) -> None:
        if min(self.hidden, self.layers, self.feed_forward, self.heads, self.head_dim) < 1:
            raise ValueError("a model's dimensions are whole numbers from 1 up")
        if self.key_value_heads < 1 or self.heads % self.key_value_heads:
            raise ValueError("heads are a multiple of key_value_heads")
        if self.experts and not 1 <= self.experts_per_token <= self.experts:
            raise ValueError("experts_per_token lies between 1 and experts")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The training: steps, batches, rates and what keeps it stable.

    `schedule` is "wsd" (warm-up, constant, linear decay over the share `decay` of the steps; MiniCPM,
    Hu et al. 2024) or "cosine" (warm-up, then half a cosine down to `floor`).
    """

    steps: int
    batch: int
    micro_batch: int = 0
    sequence: int = 256
    schedule: str = "wsd"
    warm_up: int = 15
    decay: float = 0.5
    floor: float = 0.02
    muon_rate: float = 0.02
    adam_rate: float = 5e-3
    weight_decay: float = 0.01
    clip: float = 1.0
    z_loss: float = 0.0
    balance: float = 0.01
    precision: str = "bf16"
    compile: bool = True
    recompute: bool = False
    seed: int = 7

    def __post_init__(self) -> None:
        if min(self.steps, self.batch, self.sequence, self.warm_up) < 1 or self.micro_batch < 0:
            raise ValueError("steps, batch, sequence and warm_up are whole numbers from 1 up")
        if self.schedule not in {"wsd", "cosine"}:
            raise ValueError("schedule is wsd or cosine")
        if self.precision not in {"float8", "bf16", "float32"}:
            raise ValueError("precision is float8, bf16 or float32")
        if not (0 < self.decay <= 1 and 0 <= self.floor <= 1 and self.clip > 0):
            raise ValueError("decay lies in (0, 1], floor in [0, 1], and clip is positive")


@dataclass(frozen=True, slots=True, kw_only=True)
class Keeping:
    """Snapshots, and what is a spike: a loss above the recent mean by `spike` standard deviations."""

    every: int = 100
    keep: int = 2
    spike: float = 8.0
    window: int = 32
    most_rollbacks: int = 4

    def __post_init__(self) -> None:
        if self.every < 1 or self.keep < 2 or self.window < 8 or self.spike <= 0:
            raise ValueError("every >= 1, keep >= 2 (one may be damaged), window >= 8, spike > 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A whole recipe; `mixture` has an integer weight for each part of the data."""

    name: str
    train: Plan
    mixture: dict[str, int]
    model: Shape = field(default_factory=Shape)
    snapshots: Keeping = field(default_factory=Keeping)
    canaries: Canaries = field(default_factory=Canaries)

    def to_bytes(self) -> bytes:
        """Return its meaning in one form; a float is in hexadecimal, which is exact."""
        return jcs.dumps(["recipe/1", _exact(asdict(self))])

    @property
    def digest(self) -> Digest:
        """What a snapshot, a release and the ledger call it by."""
        return sha256_hex(self.to_bytes())


def _exact(value: Any) -> Json:
    """Return JSON without floats: a float as its hexadecimal form, which is exact."""
    if isinstance(value, float):
        return value.hex()
    if isinstance(value, dict):
        return {key: _exact(item) for key, item in value.items()}
    return value  # type: ignore[no-any-return]


def parse(text: str, source: str) -> Recipe:
    """Read a recipe; raise RNM-CONF-0001, which names what is wrong in `source`."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _unusable(source, f"it is not TOML: {error}") from None
    sections = {"model": Shape, "train": Plan, "snapshots": Keeping, "canaries": Canaries}
    unknown = sorted(set(table) - {*sections, "name", "mixture"})
    if unknown:
        raise _unusable(source, f"it has no section or value {unknown[0]!r}")
    mixture = table.get("mixture")
    if not isinstance(mixture, dict) or not mixture:
        raise _unusable(source, "it lacks [mixture]: a weight for each part of the data")
    if any(type(weight) is not int or weight < 1 for weight in mixture.values()):
        raise _unusable(source, "a weight of [mixture] is not a whole number from 1 up")
    if not isinstance(table.get("name"), str):
        raise _unusable(source, 'it lacks name = "..."')
    if CANARIES in mixture:
        raise _unusable(source, f"{CANARIES} is no part of the data: plant them with [{CANARIES}]")
    parts: dict[str, Any] = {
        key: _section(cls, table[key], f"{source} [{key}]")
        for key, cls in sections.items()
        if key in table
    }
    if "train" not in parts:
        raise _unusable(source, "it lacks [train]")
    return Recipe(name=table["name"], mixture=mixture, **parts)


def _section(cls: type[T], table: object, where: str) -> T:
    if not isinstance(table, dict):
        raise _unusable(where, "it is not a section")
    hints = get_type_hints(cls)
    unknown = sorted(set(table) - set(hints))
    if unknown:
        raise _unusable(where, f"it has no value {unknown[0]!r}; there are {', '.join(hints)}")
    needed = [f.name for f in fields(cls) if f.default is MISSING and f.name not in table]  # type: ignore[arg-type]
    if needed:
        raise _unusable(where, f"it lacks {needed[0]}")
    values: dict[str, Any] = {}
    for name, value in table.items():
        # TOML's 1 may stand for 1.0, but true is no number.
        exact = float(value) if hints[name] is float and type(value) is int else value
        if type(exact) is not hints[name]:
            raise _unusable(where, f"{name} is not of type {hints[name].__name__}")
        values[name] = exact
    try:
        return cls(**values)
    except ValueError as error:
        raise _unusable(where, str(error)) from None


def _unusable(source: str, why: str) -> LocalFault:
    return LocalFault(
        "RNM-CONF-0001",
        what=f"the recipe {source} was not used",
        why=why,
        mend="correct it; docs/pretraining.md lists every value of a recipe",
    )
