"""float8 and the masks of a card, as far as a CPU can tell; the rest is marked `gpu`."""

import contextlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from engine_kit import DENSE, PLAN, RECIPE, VOCABULARY, training
from torch.nn.attention.flex_attention import create_mask, flex_attention

from base_model.engine import attention, float8, network
from base_model.engine.layout import Layout
from base_model.engine.loop import Step
from base_model.model import document_mask
from base_model.tokenizer import BOS
from fedproto.errors import LocalFault

FLOAT8 = replace(RECIPE, train=replace(PLAN, precision="float8"))
CARD = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a card")


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.detach().float() - expected).norm() / expected.norm())


def test_a_float8_product_and_both_of_its_gradients_are_near_the_exact_ones() -> None:
    """e4m3 keeps 3 bits after the point and e5m2 two: each factor is off by 2 to 5 %."""
    torch.manual_seed(1)
    weight = torch.nn.Parameter(torch.randn(48, 32) / 6)
    x = torch.randn(4, 16, 32, requires_grad=True)
    found = float8.Float8Linear(weight)(x)
    seed = torch.randn(4, 16, 48)
    exact = torch.nn.functional.linear(x, weight)
    wanted = torch.autograd.grad(exact, (x, weight), seed)
    given = torch.autograd.grad(found, (x, weight), seed.to(found.dtype))
    assert found.dtype is torch.bfloat16
    assert [g.dtype for g in given] == [torch.float32, torch.float32]
    assert 0.001 < relative(found, exact.detach()) < 0.05
    assert all(0.001 < relative(g, w) < 0.08 for g, w in zip(given, wanted, strict=True))


def test_one_large_value_saturates_nothing_and_zeros_stay_zeros() -> None:
    weight = torch.nn.Parameter(torch.eye(16))
    x = torch.zeros(16, 16)
    assert torch.equal(float8.Float8Linear(weight)(x), torch.zeros(16, 16, dtype=torch.bfloat16))
    x[0, 0] = 1e30
    assert float(float8.Float8Linear(weight)(x)[0, 0].detach()) == pytest.approx(1e30, rel=0.01)


def test_layers_are_converted_and_the_head_the_embeddings_and_odd_sizes_are_not() -> None:
    odd = network.build(replace(DENSE, feed_forward=72), VOCABULARY, 1)
    names = list(dict(odd.named_parameters()))
    # Of each layer the four maps of attention; 72 is no multiple of 16.
    assert float8.convert(odd) == 4 * DENSE.layers
    assert isinstance(odd.lm_head, torch.nn.Linear)
    assert list(dict(odd.named_parameters())) == names


def losses(recipe: object, out: Path) -> list[float]:
    taken: list[Step] = []
    made, _ = training(out, recipe, on_step=taken.append)  # type: ignore[arg-type]
    made.resume()
    made.run()
    return [step.loss for step in taken]


def test_a_training_in_float8_learns_as_one_in_bf16_does(tmp_path: Path) -> None:
    bf16 = losses(replace(RECIPE, train=replace(PLAN, precision="bf16")), tmp_path / "a")
    found = losses(FLOAT8, tmp_path / "b")
    assert found != bf16
    assert found == pytest.approx(bf16, rel=0.03)
    assert found[-1] < found[0] - 0.1


def test_float8_with_cut_matrices_is_refused() -> None:
    with pytest.raises(LocalFault, match="RNM-CONF-0001") as refused:
        Layout(processes=2, tensor=2).check(replace(DENSE, key_value_heads=2), FLOAT8.train)
    assert "float8" in refused.value.why


def test_a_card_without_float8_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (8, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA A100")
    with pytest.raises(LocalFault, match="RNM-CONF-0001") as refused:
        float8.require("cuda")
    assert "NVIDIA A100 has no float8" in refused.value.why
    float8.require("cpu")


def packed(batch: int, length: int) -> torch.Tensor:
    torch.manual_seed(2)
    tokens = torch.randint(5, VOCABULARY, (batch, length))
    tokens[torch.rand(batch, length) < 0.05] = BOS
    return tokens


def test_the_mask_of_a_card_shows_the_same_places_as_that_of_a_cpu() -> None:
    tokens = packed(3, 160)
    mask = create_mask(attention.together(tokens), 3, None, 160, 160, device="cpu")
    assert torch.equal(mask, document_mask(tokens))


@pytest.mark.parametrize("key_value_heads", [1, 2, 3, 6])
def test_attention_of_a_card_gives_what_that_of_a_cpu_gives(key_value_heads: int) -> None:
    torch.manual_seed(4)
    tokens = packed(2, 128)
    query = torch.randn(2, 6, 128, 16)
    key, value = torch.randn(2, 2, key_value_heads, 128, 16)
    found, _ = attention.flex(
        None, query, key, value, attention.block_mask(tokens), scaling=0.3, product=flex_attention
    )
    exact = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=document_mask(tokens), scale=0.3, enable_gqa=True
    )
    torch.testing.assert_close(found, exact.transpose(1, 2))


@pytest.mark.gpu
@CARD
@pytest.mark.parametrize("compiled", [False, True])
def test_a_card_and_a_cpu_give_the_same_loss_and_gradients(compiled: bool) -> None:
    shape = replace(DENSE, heads=4, key_value_heads=2, head_dim=16)
    plan = replace(PLAN, precision="float32", compile=compiled, z_loss=1e-4)
    tokens, found = packed(2, 257), []
    for device in ("cpu", "cuda"):
        objective = network.prepare(network.build(shape, VOCABULARY, 3).to(device), plan, None)
        total, nats = objective(tokens.to(device))
        total.backward()
        norm = torch.nn.utils.get_total_norm([p.grad for p in objective.parameters()])
        found.append([float(total), float(nats), float(norm)])
    assert found[1] == pytest.approx(found[0], rel=1e-3)


class StopError(Exception):
    pass


@pytest.mark.gpu
@CARD
@pytest.mark.parametrize("precision", ["bf16", "float8"])
def test_a_training_on_a_card_goes_on_bit_for_bit(tmp_path: Path, precision: str) -> None:
    plan = replace(PLAN, precision=precision, compile=True)
    recipe = replace(RECIPE, train=plan, model=replace(DENSE, head_dim=64))

    def run(out: Path, stop: int) -> dict[int, float]:
        taken: dict[int, float] = {}

        def on_step(step: Step) -> None:
            taken[step.step] = step.loss
            if step.step == stop:
                raise StopError

        made, _ = training(out, recipe, on_step=on_step, device="cuda")
        made.resume()
        with contextlib.suppress(StopError):
            made.run()
        return taken

    whole = run(tmp_path / "whole", 0)
    cut = run(tmp_path / "cut", 7)
    went_on = run(tmp_path / "cut", 0)
    assert min(went_on) == 7
    assert cut | went_on == whole
