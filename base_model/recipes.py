"""Named recipes of pretraining, as functions: size, schedule and sequence length."""

from dataclasses import dataclass

from base_model.model import Size
from base_model.train import Schedule


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything that pretraining needs besides the corpus and the seed."""

    name: str
    size: Size
    schedule: Schedule
    sequence: int


def demo() -> Recipe:
    """1.3 M parameters and 1 M tokens: what two idle cores train in about a minute."""
    return Recipe(
        name="demo",
        size=Size(),
        schedule=Schedule(steps=250, batch=16, snapshot_every=100),
        sequence=256,
    )


def fast() -> Recipe:
    """The same model after 0.1 M tokens: for tests of the way, not of quality; not worth compiling."""
    return Recipe(
        name="fast",
        size=Size(),
        schedule=Schedule(steps=100, batch=8, warm_up=8),
        sequence=128,
    )


RECIPES = {"demo": demo, "fast": fast}
