"""What the demo runs: sizes, steps and rounds of its two lengths. Nothing here is a result."""

from dataclasses import dataclass

MEMBERS = ("honda", "nec", "softbank", "sony")
CONSORTIUM = "renmei-demo"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One length of the demo.

    `base_steps` steps of pretraining, `rounds` rounds of `steps` local steps; `test_bytes` of
    held-out text are scored for each domain; shares are of a member's own corpus in bytes.
    """

    name: str
    base_recipe: str
    compiled: bool
    rounds: int
    steps: int
    batch: int
    sequence: int
    rank: int
    lr_micro: int
    outer_lr_milli: int
    momentum_milli: int
    train_bytes: int
    test_bytes: int


# Uncompiled: with two cores and these sizes, compiling once in each process costs what it would save.
DEMO = Settings(
    name="demo",
    base_recipe="demo",
    compiled=False,
    rounds=5,
    steps=20,
    batch=8,
    sequence=256,
    rank=16,
    lr_micro=5000,
    outer_lr_milli=1000,
    momentum_milli=500,
    train_bytes=1_200_000,
    test_bytes=60_000,
)

FAST = Settings(
    name="fast",
    base_recipe="fast",
    compiled=False,
    rounds=2,
    steps=6,
    batch=8,
    sequence=128,
    rank=8,
    lr_micro=5000,
    outer_lr_milli=1000,
    momentum_milli=500,
    train_bytes=200_000,
    test_bytes=12_000,
)
