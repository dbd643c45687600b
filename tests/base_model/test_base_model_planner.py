"""The planner's formulas against models that transformers makes without memory, and published runs.

Sources: the releases' own reports (DeepSeek-V3 2412.19437, Kimi K2 2507.20534, Llama 3 2407.21783), and
throughput that NVIDIA (GB200, Llama 3.1 8B) and torchtitan (GB300, DeepSeek-V3) published.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import base_model.engine
from base_model import plan_commands
from base_model.engine import network
from base_model.engine.recipe import parse
from base_model.planner import planner, shapes
from base_model.planner.planner import CARDS, Terms, estimate, layouts, zero_1
from base_model.planner.shapes import PUBLISHED, Latent, Transformer
from fedproto.errors import LocalFault

RECIPES = sorted((Path(base_model.engine.__file__).parent / "recipes").glob("*.toml"))


def instantiated(shape: Transformer) -> int:
    """Return how many parameters the model has that transformers makes of this shape."""
    from transformers import (
        AutoModelForCausalLM,
        DeepseekV3Config,
        LlamaConfig,
        Qwen3MoeConfig,
    )

    common: dict[str, Any] = {
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "intermediate_size": shape.feed_forward,
        "num_attention_heads": shape.attention.heads,
        "tie_word_embeddings": shape.tied,
    }
    config: Any
    if isinstance(shape.attention, Latent):
        config = DeepseekV3Config(
            **common,
            num_key_value_heads=shape.attention.heads,
            q_lora_rank=shape.attention.query_rank,
            kv_lora_rank=shape.attention.key_value_rank,
            qk_nope_head_dim=shape.attention.plain_dim,
            qk_rope_head_dim=shape.attention.rotary_dim,
            v_head_dim=shape.attention.value_dim,
            first_k_dense_replace=shape.dense_layers,
            n_routed_experts=shape.experts,
            n_shared_experts=shape.shared_experts,
            num_experts_per_tok=shape.experts_per_token,
            moe_intermediate_size=shape.expert_width,
        )
    else:
        grouped = {
            "num_key_value_heads": shape.attention.key_value_heads,
            "head_dim": shape.attention.head_dim,
        }
        config = (
            Qwen3MoeConfig(
                **common,
                **grouped,
                num_experts=shape.experts,
                num_experts_per_tok=shape.experts_per_token,
                moe_intermediate_size=shape.expert_width,
                decoder_sparse_step=1,
            )
            if shape.experts
            else LlamaConfig(**common, **grouped)
        )
    with torch.device("meta"):
        return sum(p.numel() for p in AutoModelForCausalLM.from_config(config).parameters())


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_shape_has_exactly_the_parameters_that_transformers_gives_it(name: str) -> None:
    assert PUBLISHED[name].total == instantiated(PUBLISHED[name])


@pytest.mark.parametrize(
    ("name", "total", "active", "tolerance"),
    [
        ("llama-3.1-8b", 8.03e9, 8.03e9, 0.001),
        ("llama-3.1-405b", 405e9, 405e9, 0.003),
        ("qwen3-30b-a3b", 30.5e9, 3.3e9, 0.02),
        ("qwen3-235b-a22b", 235e9, 22e9, 0.01),
        ("deepseek-v3", 671e9, 37e9, 0.02),
        # The report rounds, and counts neither embedding in what is active.
        ("kimi-k2", 1.04e12, 32.6e9, 0.02),
    ],
)
def test_totals_and_active_parameters_are_those_that_were_published(
    name: str, total: float, active: float, tolerance: float
) -> None:
    assert PUBLISHED[name].total == pytest.approx(total, rel=tolerance)
    assert PUBLISHED[name].active == pytest.approx(active, rel=tolerance)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_s_shape_has_the_parameters_that_the_engine_makes(path: Path) -> None:
    recipe = parse(path.read_text(), path.name)
    shape = shapes.of_recipe(recipe.model, 4096, recipe.name)
    with torch.device("meta"):
        model = network.build(recipe.model, 4096, 1)
    assert shape.total == sum(p.numel() for p in model.parameters())
    from base_model.engine.meter import flops_of_token

    # The meter counts attention as half, as `causal` does.
    assert shape.flops(256, causal=True) == pytest.approx(flops_of_token(model, 256), rel=0.001)


@pytest.mark.parametrize(
    ("name", "sequence", "causal", "published"),
    [
        # torchtitan: 1,636.87 TFLOP/s at 5,822 tokens/s; all of attention counted.
        ("deepseek-v3", 4096, False, 1636.87e12 / 5822),
        # NVIDIA: 1,614 TFLOP/s at 31,357 tokens/s; half of it.
        ("llama-3.1-8b", 8192, True, 1614e12 / 31_357),
    ],
)
def test_flops_of_a_token_agree_with_published_throughput(
    name: str, sequence: int, causal: bool, published: float
) -> None:
    found = PUBLISHED[name].flops(sequence, causal=causal)
    assert found == pytest.approx(published, rel=0.0005)


def terms(**changes: Any) -> Terms:
    known: dict[str, Any] = {
        "tokens": 14.8e12,
        "sequence": 4096,
        "cards": 2048,
        "card": CARDS["h800"],
        "mfu": 0.39,
        "availability": 1.0,
        "pue": 1.2,
        "price": 2.0,
    }
    return Terms(**(known | changes))


def test_deepseek_v3_s_card_hours_and_cost_follow_from_its_utilisation() -> None:
    found = estimate(PUBLISHED["deepseek-v3"], terms())
    # 2.664 M H800-hours at 2 dollars; in under two months, as the report says.
    assert found.card_hours == pytest.approx(2.664e6, rel=0.02)
    assert found.cost == pytest.approx(5.328e6, rel=0.02)
    assert 50 < found.days < 60


def test_llama_405b_s_flops_and_the_utilisation_that_its_card_hours_mean() -> None:
    shape = PUBLISHED["llama-3.1-405b"]
    assert 6 * shape.total * 15.6e12 == pytest.approx(3.8e25, rel=0.001)
    hours = estimate(
        shape, terms(tokens=15.6e12, cards=16_384, card=CARDS["h100"], mfu=0.41, availability=0.9)
    ).card_hours
    # 30.84 M hours for all of it; 38 to 43 % while running, more than 90 % effective time.
    assert hours == pytest.approx(30.84e6, rel=0.1)


def test_kimi_k2_s_states_fit_its_published_layout() -> None:
    shape = PUBLISHED["kimi-k2"]
    assert shape.total * (2 + 4) == pytest.approx(6e12, rel=0.05)
    # 16 stages, experts over 16, 256 cards: "about 30 GB" of parameters and gradients each.
    without_optimiser = zero_1(shape, pipeline=16, experts=16, data=16, state=0)
    assert without_optimiser == pytest.approx(30e9, rel=0.1)
    assert zero_1(shape, pipeline=16, experts=16, data=16, state=12) == pytest.approx(
        76e9, rel=0.02
    )


def test_adapters_have_the_sizes_that_peft_gives_them() -> None:
    assert 2 * PUBLISHED["llama-3.1-8b"].adapter(16) == pytest.approx(84e6, rel=0.01)
    assert 2 * PUBLISHED["kimi-k2"].adapter(16) == pytest.approx(178e6, rel=0.01)
    assert 2 * PUBLISHED["deepseek-v3"].adapter(16) == pytest.approx(253e6, rel=0.01)


def test_memory_of_a_card_falls_with_cards_and_all_of_it_is_somewhere() -> None:
    shape = PUBLISHED["kimi-k2"]
    few, many = (next(layouts(shape, cards, 4096)) for cards in (256, 2048))
    assert few.adamw == pytest.approx(8 * many.adamw)
    assert few.adamw * 256 == pytest.approx(shape.total * 18)
    assert few.gathered == many.gathered > 100e9, "a layer of all experts is gathered whole"
    names = [layout.name for layout in layouts(shape, 2048, 4096)]
    assert names == [
        "FSDP",
        "FSDP + TP 8",
        "FSDP + EP 8",
        "FSDP + EP 64",
        "PP 8 + EP 16, ZeRO-1",
        "PP 16 + EP 16, ZeRO-1",
    ]
    assert [layout.name for layout in layouts(shape, 3, 4096)] == ["FSDP"]


def test_snapshots_are_more_frequent_the_more_cards_can_fail() -> None:
    assert planner.snapshot_interval(14e12, 16_384) < planner.snapshot_interval(14e12, 1024)
    # One card: hours between failures as on 16,384 of them, and 1 GB/s.
    hours = planner.CARD_HOURS_BETWEEN_FAILURES
    assert planner.snapshot_interval(2e9, 1) == pytest.approx((2 * 2 * hours * 3600) ** 0.5)


@pytest.mark.parametrize("wanted", [500e6, 1e9, 7e9, 70e9, 100e9, 500e9, 1e12, 2e12])
def test_a_scaled_shape_comes_near_to_what_was_asked(wanted: float) -> None:
    found = shapes.scaled(shapes.nearest(wanted), wanted)
    assert found.total == pytest.approx(wanted, rel=0.06)
    assert found.hidden % 64 == 0


@pytest.mark.parametrize(
    ("text", "value"), [("1T", 1e12), ("7.5b", 7.5e9), ("125M", 125e6), ("20000", 20_000)]
)
def test_counts_are_read_as_people_write_them(text: str, value: float) -> None:
    assert plan_commands.quantity(text) == value


@pytest.mark.parametrize("text", ["", "1X", "-1T", "1e12", "T", "0T", "nan"])
def test_what_is_no_count_is_refused(text: str) -> None:
    with pytest.raises(LocalFault) as caught:
        plan_commands.quantity(text)
    assert caught.value.code == "RNM-CONF-0001"


def renmei(*words: str) -> dict[str, Any]:
    command = [str(Path(sys.executable).parent / "renmei"), "--json", "model", "plan", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    told: dict[str, Any] = json.loads(done.stdout)
    assert (done.returncode == 0) == (told["status"] == "ok"), done.stderr
    return told


def test_the_command_plans_a_trillion() -> None:
    data = renmei("--params", "1T", "--price", "2.5", "--tokens", "15.5T")["data"]
    assert data["shape"]["name"] == "kimi-k2"
    assert data["flops"] == pytest.approx(3.18e24, rel=0.01)
    assert data["days"] == pytest.approx(58, rel=0.02)
    assert data["cost"] == pytest.approx(7.1e6, rel=0.02)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ((), "neither"),
        (("--params", "1M"), "vocabulary alone"),
        (("--params", "1T", "--mfu", "0"), "mfu"),
        (("--params", "1T", "--mfu", "nan"), "mfu"),
        (("--params", "1T", "--cards", "0"), "cards"),
        (("--recipe", "nowhere.toml"), "nowhere.toml"),
    ],
)
def test_what_cannot_be_planned_is_refused_by_name(words: tuple[str, ...], why: str) -> None:
    told = renmei(*words)
    assert told["data"]["code"] == "RNM-CONF-0001"
    assert why in told["data"]["why"]


def test_the_command_s_choices_are_the_planner_s() -> None:
    for option, names in (("--like", PUBLISHED), ("--card", CARDS)):
        for name in names:
            assert renmei("--like", "kimi-k2", option, name)["status"] == "ok"
