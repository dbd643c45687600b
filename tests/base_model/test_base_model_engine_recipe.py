"""A recipe is read strictly, and its digest is over what it means."""

from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

import base_model.engine
from base_model.canaries import Canaries
from base_model.engine import network, recipe, schedule
from base_model.engine.meter import active_parameters, flops_of_token
from base_model.engine.recipe import Keeping, Plan, Shape, parse
from fedproto.errors import LocalFault

GOOD = """
name = "x"
[train]
steps = 4
batch = 2
[mixture]
a = 1
"""
SHIPPED = sorted((Path(base_model.engine.__file__).parent / "recipes").glob("*.toml"))


def test_what_is_left_out_has_its_default_and_the_digest_is_over_the_meaning() -> None:
    own = parse(GOOD, "r")
    assert own.model == Shape()
    assert own.digest == parse(GOOD + "\n# a remark\n[snapshots]\nevery = 100\n", "r").digest
    assert own.digest != parse(GOOD.replace("steps = 4", "steps = 5"), "r").digest


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("steps = 4", "stepz = 4", "no value 'stepz'"),
        ("steps = 4", 'steps = "4"', "steps is not of type int"),
        ("steps = 4", "steps = true", "steps is not of type int"),
        ("steps = 4", "steps = 0", "whole numbers from 1 up"),
        ("steps = 4", "", "lacks steps"),
        ("a = 1", "a = 0", "weight"),
        ("[mixture]\na = 1", "", "lacks [mixture]"),
        ('name = "x"', "", "lacks name"),
        ("[train]", "[trane]", "no section or value 'trane'"),
        ("batch = 2", 'batch = 2\nschedule = "linear"', "wsd or cosine"),
        ("batch = 2", "batch = 2\ndecay = 0", "decay"),
        ("[mixture]", "[model]\nheads = 3\nkey_value_heads = 2\n[mixture]", "multiple"),
        ("[mixture]", "[model]\nexperts = 2\nexperts_per_token = 3\n[mixture]", "experts_per"),
        ("[mixture]", "[snapshots]\nkeep = 1\n[mixture]", "keep >= 2"),
        ('name = "x"', "name = x", "not TOML"),
    ],
)
def test_a_recipe_with_anything_else_is_refused_and_says_what(old: str, new: str, why: str) -> None:
    with pytest.raises(LocalFault) as caught:
        parse(GOOD.replace(old, new), "r.toml")
    assert caught.value.code == "RNM-CONF-0001"
    assert why in caught.value.why
    assert "r.toml" in caught.value.what


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_each_recipe_that_is_shipped_can_be_read(path: Path) -> None:
    assert parse(path.read_text(), path.name).name == path.stem


@pytest.mark.parametrize(
    ("name", "vocabulary", "total", "active"),
    [
        ("laptop", 4_096, 1.3e6, 1.3e6),
        ("dense-20m", 16_384, 20e6, 20e6),
        ("dense-125m", 32_768, 125e6, 125e6),
        ("dense-1b", 65_536, 1.07e9, 1.07e9),
        # Published: 30.5 B and 3.3 B, with an output matrix of its own (0.3 B), which is tied here.
        ("moe-30b-a3b", 151_936, 30.2e9, 3.0e9),
        ("plan-1t", 160_000, 1.04e12, 32e9),
    ],
)
def test_a_recipe_has_the_size_that_its_name_says(
    name: str, vocabulary: int, total: float, active: float
) -> None:
    own = next(parse(path.read_text(), path.name) for path in SHIPPED if path.stem == name)
    with torch.device("meta"):
        model = network.build(own.model, vocabulary, 0)
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(total, rel=0.08)
    assert active_parameters(model) == pytest.approx(active, rel=0.08)
    assert flops_of_token(model, 4096) > 6 * active_parameters(model)


def test_wsd_rises_stays_and_falls_and_cosine_falls_all_the_way() -> None:
    wsd = Plan(steps=100, batch=1, warm_up=10, decay=0.2, floor=0.1)
    assert schedule.rate(wsd, 0) == pytest.approx(0.1)
    assert [schedule.rate(wsd, step) for step in (10, 50, 79)] == [1.0, 1.0, 1.0]
    assert schedule.rate(wsd, 90) == pytest.approx(0.5)
    assert schedule.rate(wsd, 99) == pytest.approx(0.1)
    cosine = replace(wsd, schedule="cosine")
    factors = [schedule.rate(cosine, step) for step in range(10, 100)]
    assert factors == sorted(factors, reverse=True)
    assert schedule.rate(cosine, 55) == pytest.approx(0.55, abs=0.01)


def test_a_spike_is_what_stands_out_of_the_recent_losses() -> None:
    keeping = Keeping(window=8, spike=6.0)
    calm = [2.0, 2.1, 1.9, 2.05, 1.95, 2.0, 2.1, 1.9]
    assert not schedule.is_spike(2.2, calm, keeping)
    assert schedule.is_spike(2.6, calm, keeping)
    assert schedule.is_spike(float("nan"), [], keeping)
    assert schedule.is_spike(float("inf"), calm, keeping)
    # At the start losses fall fast; nothing can be said yet.
    assert not schedule.is_spike(9.0, calm[:5], keeping)
    # A flat stretch doesn't make a spike of the next ripple.
    assert not schedule.is_spike(2.1, [2.0] * 8, keeping)


def test_no_float_enters_a_digest() -> None:
    assert recipe._exact({"a": 0.1, "b": [1]}) == {"a": (0.1).hex(), "b": [1]}


def test_the_documentation_lists_every_value_and_its_default() -> None:
    text = (Path(__file__).parents[2] / "docs/pretraining.md").read_text()
    table = text[text.index("| value |") :].splitlines()
    first = {
        section: next(n for n, line in enumerate(table) if line.startswith(f"| `[{section}]`"))
        for section in ("model", "train", "snapshots", "canaries")
    }
    parts = (Shape(), Plan(steps=1, batch=1), Keeping(), Canaries())
    for start, part in zip(first.values(), parts, strict=True):
        for name, value in asdict(part).items():
            row = next(line for line in table[start:] if f"`{name}`" in line)
            if name in {"steps", "batch"}:
                continue
            spelt = str(value).lower() if isinstance(value, bool) else str(value)
            default = row.split("|")[2].replace("`", "").replace('"', "")
            assert spelt in [word.strip() for word in default.split(",")], (name, default)
