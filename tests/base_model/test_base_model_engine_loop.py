"""The loop in one process: what is resumed, rolled back, left aside and refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_kit import MOE, PLAN, RECIPE, tokens, training

from base_model.engine import network
from base_model.engine.muon import Muon, orthogonalised
from base_model.engine.network import imbalance
from base_model.engine.recipe import Keeping, Recipe
from base_model.engine.shards import STATE
from fedproto.errors import LocalFault

MIXED = replace(RECIPE, model=MOE)
EXACT = replace(RECIPE, train=replace(PLAN, precision="float32"))


class Pulled(Exception):
    """The plug was pulled."""


def losses_of(out: Path, recipe: Recipe = RECIPE, **how: Any) -> dict[int, float]:
    """Return the loss of each step that this start took."""
    taken: dict[int, float] = {}
    made, _ = training(
        out, recipe, on_step=lambda step: taken.update({step.step: step.loss}), **how
    )
    made.resume()
    made.run()
    return taken


def stop_after(out: Path, last: int, recipe: Recipe = RECIPE) -> None:
    def on_step(step: Any) -> None:
        if step.step == last:
            raise Pulled

    made, _ = training(out, recipe, on_step=on_step)
    made.resume()
    with pytest.raises(Pulled):
        made.run()


def spoil(objective: torch.nn.Module, batch: torch.Tensor, factor: float) -> None:
    """Multiply the losses of one batch, wherever it is met."""

    def hook(module: Any, args: tuple[torch.Tensor], out: tuple[torch.Tensor, torch.Tensor]) -> Any:
        del module
        return (out[0] * factor, out[1] * factor) if torch.equal(args[0], batch) else out

    objective.register_forward_hook(hook)


@pytest.mark.parametrize("recipe", [RECIPE, MIXED], ids=["dense", "moe"])
def test_a_training_that_stops_anywhere_goes_on_bit_for_bit(tmp_path: Path, recipe: Recipe) -> None:
    whole = losses_of(tmp_path / "whole", recipe)
    assert sorted(whole) == list(range(1, 13))
    assert whole[12] < whole[1]
    stopped = tmp_path / "stopped"
    for last in (2, 4, 8, 11):
        stop_after(stopped, last, recipe)
    assert losses_of(stopped, recipe) == {step: whole[step] for step in (10, 11, 12)}


def test_a_batch_that_spoils_the_loss_is_left_out_and_it_is_said(tmp_path: Path) -> None:
    data, events, cursors = tokens(), [], []
    made, objective = training(
        tmp_path, on_event=events.append, on_step=lambda step: cursors.append(step.cursor)
    )
    spoil(objective, data.batch(7, PLAN.batch), float("nan"))
    made.resume()
    made.run()
    assert events == [{"rolled_back_to": 6, "left_out_batch": 7, "loss_nats": "nan"}]
    # Step 7 was taken with batch 6, was lost, and was taken again; step 8 had batch 8.
    assert cursors == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]


def test_a_finite_spike_is_a_spike_too_once_the_loss_is_known(tmp_path: Path) -> None:
    recipe = replace(
        RECIPE, train=replace(PLAN, steps=16), snapshots=Keeping(every=3, window=8, spike=3.0)
    )
    events: list[dict[str, object]] = []
    made, objective = training(tmp_path, recipe, on_event=events.append)
    spoil(objective, tokens().batch(11, PLAN.batch), 100.0)
    made.resume()
    made.run()
    assert [event["left_out_batch"] for event in events] == [11]


def test_a_gradient_that_is_not_finite_never_reaches_a_snapshot(tmp_path: Path) -> None:
    events: list[dict[str, object]] = []
    made, objective = training(tmp_path, on_event=events.append)
    bad = tokens().batch(5, PLAN.batch)
    now: list[bool] = []
    objective.register_forward_pre_hook(lambda _, args: now.append(torch.equal(args[0], bad)))
    weight = next(iter(objective.parameters()))
    weight.register_hook(lambda gradient: gradient * float("inf") if now[-1] else gradient)
    made.resume()
    made.run()
    assert [event["left_out_batch"] for event in events] == [5]
    assert all(bool(p.isfinite().all()) for p in objective.parameters())


def test_a_training_that_spikes_again_and_again_ends_with_a_name(tmp_path: Path) -> None:
    made, objective = training(tmp_path)
    objective.register_forward_hook(lambda _m, _a, out: (out[0], out[1] * float("nan")))
    made.resume()
    with pytest.raises(LocalFault) as caught:
        made.run()
    assert caught.value.code == "RNM-MODEL-0002"
    assert "spiked 5 times" in caught.value.why


def damage(file: Path, how: str) -> None:
    if how == "flip":
        data = bytearray(file.read_bytes())
        data[-5] ^= 1
        file.write_bytes(data)
    elif how == "cut":
        file.write_bytes(file.read_bytes()[:-9])
    elif how == "json":
        file.write_text('{"v": 3}')
    else:
        file.unlink()


@pytest.mark.parametrize(
    ("name", "how", "why"),
    [
        ("shard-00000-of-00001.safetensors", "flip", "not the file that was written"),
        ("shard-00000-of-00001.safetensors", "cut", "not the file that was written"),
        ("shard-00000-of-00001.safetensors", "remove", "is missing"),
        (STATE, "json", "damaged (ValueError)"),
        (STATE, "cut", "damaged (JSONDecodeError)"),
    ],
)
def test_a_damaged_snapshot_is_named_and_the_one_before_is_used(
    tmp_path: Path, name: str, how: str, why: str
) -> None:
    whole = losses_of(tmp_path)
    newest, before = tmp_path / "step-00000012", tmp_path / "step-00000009"
    assert sorted(tmp_path.iterdir()) == [before, newest]
    damage(newest / name, how)
    events: list[dict[str, object]] = []
    again = losses_of(tmp_path, on_event=events.append)
    assert again == {step: whole[step] for step in (10, 11, 12)}
    (event,) = events
    assert str(newest) in str(event["left_aside"])
    assert why in str(event["why"])


def test_where_every_snapshot_is_damaged_nothing_is_trained(tmp_path: Path) -> None:
    losses_of(tmp_path)
    for file in tmp_path.glob("*/*.safetensors"):
        damage(file, "flip")
    with pytest.raises(LocalFault) as caught:
        losses_of(tmp_path)
    assert caught.value.code == "RNM-MODEL-0002"
    assert "step-00000012" in caught.value.what


@pytest.mark.parametrize(
    "other",
    [
        {"recipe": replace(RECIPE, train=replace(PLAN, seed=8))},
        {"recipe": MIXED},
        {"data": tokens(size=4001)},
    ],
    ids=["seed", "model", "data"],
)
def test_a_snapshot_of_another_training_is_refused(tmp_path: Path, other: dict[str, Any]) -> None:
    losses_of(tmp_path)
    with pytest.raises(LocalFault) as caught:
        losses_of(tmp_path, **other)
    assert caught.value.code == "RNM-MODEL-0002"
    assert "another model, recipe, data or seed" in caught.value.why


def test_a_snapshot_that_names_a_file_elsewhere_is_refused(tmp_path: Path) -> None:
    losses_of(tmp_path)
    for state in tmp_path.glob(f"*/{STATE}"):
        state.write_text(state.read_text().replace("shard-0", "../shard-0"))
    with pytest.raises(LocalFault) as caught:
        losses_of(tmp_path)
    assert "is no file of it" in caught.value.why


def test_a_process_without_room_leaves_the_last_snapshot_that_was_whole(tmp_path: Path) -> None:
    written: list[str] = []

    def exchange(digest: str) -> list[str]:
        # The other process could not write its part of the third snapshot.
        written.append(digest)
        return [digest, "" if len(written) == 3 else digest]

    made, _ = training(tmp_path, exchange=exchange)
    made.resume()
    with pytest.raises(LocalFault) as caught:
        made.run()
    assert caught.value.code == "RNM-DISK-0001"
    assert sorted(path.parent.name for path in tmp_path.glob(f"*/{STATE}")) == [
        "step-00000000",
        "step-00000003",
    ]


def one_step(tmp_path: Path, recipe: Recipe) -> dict[str, torch.Tensor]:
    short = replace(recipe, train=replace(recipe.train, steps=1))
    made, objective = training(tmp_path, short)
    made.resume()
    made.run()
    return {name: value.detach() for name, value in objective.named_parameters()}


def test_a_batch_in_parts_moves_the_weights_as_the_whole_does(tmp_path: Path) -> None:
    whole = one_step(tmp_path / "whole", EXACT)
    parts = one_step(tmp_path / "parts", replace(EXACT, train=replace(EXACT.train, micro_batch=1)))
    for name, value in whole.items():
        # Muon works in bf16, of which a last bit may differ.
        torch.testing.assert_close(parts[name], value, rtol=0, atol=2e-3, msg=name)


def loads_of(objective: Any, recipe: Recipe) -> float:
    """Return the mean imbalance of the layers over some batches."""
    data, found = tokens(), []
    with torch.no_grad():
        for number in range(5):
            x = data.batch(number, 16)[:, :-1]
            out = objective.model.model(input_ids=x, output_router_logits=True)
            found += [
                float(imbalance(part, recipe.model.experts_per_token)) for part in out.router_logits
            ]
    return sum(found) / len(found)


def test_the_balance_of_experts_is_trained(tmp_path: Path) -> None:
    def after(balance: float) -> float:
        plan = replace(PLAN, steps=40, balance=balance, adam_rate=0.02)
        recipe = replace(MIXED, train=plan)
        made, objective = training(tmp_path / str(balance), recipe)
        # Routers that send everything to one expert first, as those left alone come to do.
        with torch.no_grad():
            objective.model.model.embed_tokens.weight.add_(1.0)
            for name, weight in objective.named_parameters():
                if name.endswith("gate.weight"):
                    weight[0] += 0.1
        assert loads_of(objective, recipe) > 1.5
        made.resume()
        made.run()
        return loads_of(objective, recipe)

    with_balance, without = after(0.1), after(0.0)
    assert with_balance < 1.1
    assert with_balance < without - 0.2


def test_imbalance_is_one_where_the_load_is_even_and_the_share_where_one_expert_gets_it() -> None:
    even = torch.eye(4).repeat(8, 1) * 30
    assert float(imbalance(even, 1)) == pytest.approx(1.0)
    assert float(imbalance(torch.tensor([[30.0, 0, 0, 0]]).repeat(8, 1), 1)) == pytest.approx(4.0)


def test_muon_moves_by_a_matrix_of_singular_values_near_one_and_stacks_as_single_matrices() -> None:
    torch.manual_seed(0)
    stack = torch.randn(3, 24, 40)
    found = orthogonalised(stack).float()
    values = torch.linalg.svdvals(found)
    assert 0.6 < float(values.min()) <= float(values.max()) < 1.3
    for part, alone in zip(found, stack, strict=True):
        torch.testing.assert_close(part, orthogonalised(alone).float(), rtol=0, atol=2e-2)


def test_muon_takes_no_closure() -> None:
    with pytest.raises(ValueError, match="closure"):
        Muon([torch.nn.Parameter(torch.eye(2))], lr=0.1).step(lambda: 0.0)


def test_the_loss_in_chunks_is_the_model_s_own() -> None:
    model = network.build(RECIPE.model, 300, 7)
    objective = network.prepare(model, EXACT.train, None)
    batch = tokens().batch(0, 40)
    assert batch[:, 1:].numel() > 512, "more than one chunk"
    nats = objective(batch)[1]
    logits = model(input_ids=batch[:, :-1]).logits.float()
    own = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
    torch.testing.assert_close(nats, own, rtol=1e-5, atol=1e-5)


def test_z_loss_is_minimised_and_not_reported() -> None:
    model = network.build(RECIPE.model, 300, 7)
    plan = replace(EXACT.train, z_loss=0.1)
    total, nats = network.prepare(model, plan, None)(tokens().batch(0, 2))
    assert float(total.detach()) > float(nats.detach()) + 0.1
