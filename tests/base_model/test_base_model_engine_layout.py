"""Layouts on processes: whatever is cut, the training is the same, and snapshots pass between layouts."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from engine_kit import DENSE, MOE, PLAN
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor
from training_process_kit import (
    ALONE,
    EXPERTS,
    finish,
    kill_after,
    losses,
    losses_any,
    recipe,
    weights_of,
)

from base_model.engine.layout import Layout, place_of
from base_model.engine.recipe import Plan, Shape
from fedproto.errors import LocalFault

CUT = Layout(processes=2, tensor=2)
STEPS = 16


def test_a_layout_says_how_many_share_a_batch_and_a_parameter() -> None:
    layout = Layout(processes=24, tensor=3, replicas=2)
    assert (layout.shards, layout.lanes) == (4, 8)


@pytest.mark.parametrize(
    ("layout", "shape", "plan", "why"),
    [
        (Layout(processes=0), DENSE, PLAN, "whole numbers from 1 up"),
        (Layout(processes=2, tensor=0), DENSE, PLAN, "whole numbers from 1 up"),
        (Layout(processes=3, tensor=2), DENSE, PLAN, "no multiple"),
        (Layout(processes=3), DENSE, PLAN, "cannot be shared by 3 processes"),
        (CUT, DENSE, PLAN, "key_value_heads = 1 cannot be cut in 2"),
        (CUT, replace(DENSE, heads=3, key_value_heads=3), PLAN, "heads = 3 cannot be cut in 2"),
        (CUT, replace(DENSE, key_value_heads=2, feed_forward=63), PLAN, "feed_forward = 63"),
        (CUT, replace(MOE, key_value_heads=2, experts=3), PLAN, "experts = 3 cannot be cut in 2"),
        (
            Layout(processes=6, tensor=2),
            replace(DENSE, key_value_heads=2),
            replace(PLAN, batch=6),
            "hidden = 32 cannot be cut in 3",
        ),
    ],
)
def test_what_does_not_divide_is_refused(
    layout: Layout, shape: Shape, plan: Plan, why: str
) -> None:
    with pytest.raises(LocalFault, match="RNM-CONF-0001") as refused:
        layout.check(shape, plan)
    assert why in refused.value.why


@pytest.mark.parametrize("rank", range(6))
def test_the_places_of_a_tensor_are_where_torch_puts_its_parts(
    rank: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against torch's own distribution, for every rank of a mesh of 3 by 2, uneven sizes included."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    torch.distributed.init_process_group("fake", rank=rank, world_size=6, store=FakeStore())
    try:
        mesh = init_device_mesh("cpu", (3, 2))
        whole = torch.arange(7 * 5).reshape(7, 5)
        for placements in ([Shard(0), Shard(1)], [Shard(1), Shard(0)], [Shard(0), Replicate()]):
            part = distribute_tensor(whole, mesh, placements, src_data_rank=None)
            (top, bottom), (left, right) = place_of(part)
            assert torch.equal(part.to_local(), whole[top:bottom, left:right]), placements
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize("model", ["", EXPERTS], ids=["dense", "moe"])
def test_cut_matrices_and_experts_train_alike_and_their_snapshots_are_read_by_one_process(
    data: Path, tmp_path: Path, model: str
) -> None:
    source = recipe(tmp_path, steps=STEPS, model=model)
    alone = finish(source, data, tmp_path / "alone")
    cut = finish(source, data, tmp_path / "cut", CUT)
    other = tmp_path / "other"
    kill_after(source, data, other, CUT, 5)
    ended = finish(source, data, other, ALONE)
    expected, found, mixed = (
        losses_any(tmp_path / "alone"),
        losses_any(tmp_path / "cut"),
        losses_any(other),
    )
    # The first loss comes before any step: only the order of its sums differs.
    assert found[1] == pytest.approx(expected[1], rel=1e-5)
    for step, loss in expected.items():
        # Muon turns matrices in bf16: losses agree to 1 %.
        assert found[step] == pytest.approx(loss, rel=0.01), step
        assert mixed[step] == pytest.approx(loss, rel=0.01), step
    shapes = {name: tensor.shape for name, tensor in weights_of(alone).items()}
    assert {name: tensor.shape for name, tensor in weights_of(cut).items()} == shapes
    assert {name: tensor.shape for name, tensor in weights_of(ended).items()} == shapes


def test_a_cut_training_that_was_killed_ends_with_the_same_bits(data: Path, tmp_path: Path) -> None:
    source = recipe(tmp_path, steps=STEPS, model=EXPERTS)
    whole = finish(source, data, tmp_path / "whole", CUT)
    kill_after(source, data, tmp_path / "killed", CUT, 7)
    resumed = finish(source, data, tmp_path / "killed", CUT)
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")
    assert resumed["manifest_sha256"] == whole["manifest_sha256"]


@pytest.mark.slow
@pytest.mark.parametrize("model", ["", EXPERTS], ids=["dense", "moe"])
@pytest.mark.parametrize(
    "layout",
    [
        Layout(processes=2, replicas=2),
        Layout(processes=4, tensor=2),
        Layout(processes=4, tensor=2, replicas=2),
        Layout(processes=8, tensor=2, replicas=2),
    ],
    ids=str,
)
def test_every_layout_trains_alike(data: Path, tmp_path: Path, model: str, layout: Layout) -> None:
    source = recipe(tmp_path, steps=STEPS, model=model)
    finish(source, data, tmp_path / "alone")
    finish(source, data, tmp_path / "laid", layout)
    expected, found = losses_any(tmp_path / "alone"), losses_any(tmp_path / "laid")
    assert found[1] == pytest.approx(expected[1], rel=1e-5)
    for step, loss in expected.items():
        assert found[step] == pytest.approx(loss, rel=0.01), step
