"""Local training: the same bytes again, the schedule, the baselines, and the private adapter."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from peft import PeftModel
from training_kit import LORA, TRAINING, fresh, noise, plan_for, publish, words, write_corpus

from fedproto.errors import LocalFault
from member_node import adapter, data, personal, train
from member_node.studio import Studio, learner


@pytest.fixture(scope="module")
def base_dir(tmp_path_factory):
    return publish(tmp_path_factory.mktemp("models"))


@pytest.fixture
def plan(base_dir):
    return plan_for(base_dir)


@pytest.fixture
def root(tmp_path):
    write_corpus(tmp_path / "data")
    return tmp_path


@pytest.fixture
def studio(root, plan, base_dir):
    made = Studio(root, compiled=False)
    made.prepare(plan, base_dir)
    return made


def corpus(root, seed):
    directory = write_corpus(root, seed=seed)
    documents = data.read_documents([directory / data.TRAIN])
    return data.batches(documents, words(), directory / data.PACKED, sequence=32, seed=11)


def silent(_):
    return


def initial(studio, plan, base_dir):
    return studio.prepare(plan, base_dir).initial


def test_the_same_seed_gives_the_same_delta_bit_for_bit(root, plan, base_dir):
    deltas = []
    for _ in range(2):
        studio = Studio(root, compiled=False)
        start = studio.prepare(plan, base_dir).initial
        deltas.append(studio.train(1, start, silent))
    assert deltas[0].tobytes() == deltas[1].tobytes()
    assert deltas[0].any()


def test_a_round_does_not_depend_on_the_rounds_before(studio, plan, base_dir):
    start = initial(studio, plan, base_dir)
    first = studio.train(2, start, silent)
    studio.train(1, noise(studio.prepare(plan, base_dir).layout), silent)
    assert np.array_equal(studio.train(2, start, silent), first)
    assert not np.array_equal(studio.train(1, start, silent), first)


def test_training_lowers_the_loss(studio, root, plan, base_dir):
    losses = []
    start = initial(studio, plan, base_dir)
    for number in range(1, 3):
        start = start + studio.train(number, start, lambda p: losses.append(p.loss))
    assert losses[-1] < losses[0]


def test_the_base_is_never_changed(base_dir, plan, root):
    ready = learner(plan, base_dir, compiled=False)
    frozen = {n: p.clone() for n, p in ready.model.named_parameters() if "lora_" not in n}
    start = adapter.to_flat(ready.model, ready.layout)
    train.round_delta(ready, start, corpus(root / "x", 3), plan.training, 1)
    for name, parameter in ready.model.named_parameters():
        if "lora_" not in name:
            assert torch.equal(parameter, frozen[name])


def test_the_rate_falls_to_a_tenth_over_the_whole_run():
    rates = [train.rate(TRAINING, step) for step in range(7)]
    assert rates[0] == pytest.approx(5e-3)
    assert rates[6] == pytest.approx(5e-4)
    assert all(a > b for a, b in pairwise(rates))


def test_progress_tells_every_step_and_the_time_left(studio, plan, base_dir):
    seen = []
    studio.train(1, initial(studio, plan, base_dir), seen.append)
    assert [(p.step, p.steps) for p in seen] == [(1, 3), (2, 3), (3, 3)]
    assert seen[-1].eta_s == 0
    assert seen[0].eta_s > 0


def test_a_loss_that_is_not_finite_is_named_and_never_reaches_the_adapter():
    weight = torch.nn.Parameter(torch.ones(3))

    def loss(_):
        return (weight * float("inf")).sum()

    with pytest.raises(LocalFault) as caught:
        train.train(loss, [weight], lambda _: torch.zeros(1), TRAINING, first=0, steps=2)
    assert caught.value.code == "RNM-MODEL-0002"
    assert "finite" in caught.value.why
    assert torch.equal(weight, torch.ones(3))


def test_the_gradient_is_clipped():
    weight = torch.nn.Parameter(torch.zeros(4))
    norms = []

    def loss(_):
        if weight.grad is None:
            weight.register_hook(lambda g: norms.append(g.norm()))
        return 1e6 * weight.sum()

    steps = TRAINING.rounds * TRAINING.steps
    train.train(loss, [weight], lambda _: torch.zeros(1), TRAINING, first=0, steps=steps)
    assert norms[0] > 1
    # Adam's steps are bounded by the rate whatever the gradient.
    assert weight.abs().max() <= steps * 5e-3


@pytest.mark.parametrize("number", [0, 3])
def test_a_round_outside_the_plan_is_refused(studio, plan, base_dir, number):
    with pytest.raises(LocalFault) as caught:
        studio.train(number, initial(studio, plan, base_dir), silent)
    assert caught.value.code == "RNM-FORM-0002"


def test_an_adapter_of_another_layout_is_refused(studio):
    with pytest.raises(LocalFault) as caught:
        studio.train(1, np.zeros(8, np.float32), silent)
    assert caught.value.code == "RNM-MODEL-0002"


def test_nothing_is_trained_before_a_plan_is_prepared(root):
    with pytest.raises(LocalFault) as caught:
        Studio(root, compiled=False).train(1, np.zeros(8, np.float32), silent)
    assert caught.value.code == "RNM-MODEL-0003"


def test_another_base_than_the_plan_names_is_refused(root, plan, base_dir):
    wrong = replace(plan, base_manifest_sha256="0" * 64)
    with pytest.raises(LocalFault) as caught:
        Studio(root, compiled=False).prepare(wrong, base_dir)
    assert caught.value.code == "RNM-MODEL-0001"


def test_the_same_plan_again_loads_nothing(studio, plan, base_dir, monkeypatch):
    def never(*_):
        raise AssertionError("loaded again")

    monkeypatch.setattr("base_model.weights.load_base", never)
    again = replace(plan)
    assert studio.prepare(again, base_dir).dataset == studio.prepare(plan, base_dir).dataset


def test_another_plan_takes_the_place_of_the_first(studio, plan, base_dir):
    other = replace(plan, lora=replace(LORA, rank=2))
    small, large = studio.prepare(other, base_dir), studio.prepare(plan, base_dir)
    assert small.layout.size * 2 == large.layout.size


def test_local_only_is_the_run_in_one_go(base_dir, plan, root):
    ready = learner(plan, base_dir, compiled=False)
    start = adapter.to_flat(ready.model, ready.layout)
    batches = corpus(root / "x", 3)
    seen = []
    alone = train.local_only(ready, start, batches, plan.training, seen.append)
    assert len(seen) == plan.training.rounds * plan.training.steps
    whole = replace(plan.training, rounds=1, steps=6)
    delta = train.round_delta(ready, start, batches, whole, 1)
    assert np.array_equal(alone - start, delta)


def test_centralised_training_takes_equal_parts_and_all_steps(base_dir, plan, root):
    ready = learner(plan, base_dir, compiled=False)
    start = adapter.to_flat(ready.model, ready.layout)
    corpora = [corpus(root / "x", 3), corpus(root / "y", 4)]
    seen, sizes = [], []

    def loss(tokens):
        sizes.append(tuple(tokens.shape))
        return ready.loss(tokens)

    watched = replace(ready, loss=loss)
    pooled = train.centralised(watched, start, corpora, plan.training, seen.append)
    assert len(seen) == 2 * plan.training.rounds * plan.training.steps
    assert set(sizes) == {(4, 33)}
    assert np.array_equal(pooled, train.centralised(ready, start, corpora, plan.training))
    with pytest.raises(ValueError, match="equal parts"):
        train.centralised(ready, start, [corpora[0]] * 3, plan.training)


def test_the_private_adapter_is_trained_and_the_shared_one_stays(root, studio, plan, base_dir):
    layout = studio.prepare(plan, base_dir).layout
    shared = noise(layout)
    path = studio.personalise(shared, silent)
    assert path == root / "adapters" / "private"
    assert np.array_equal(adapter.read(root / personal.FEDERATED_DIRECTORY, layout), shared)
    own = adapter.read(path, layout)
    assert not np.array_equal(own, shared)
    assert own.any()
    assert path.stat().st_mode & 0o777 == 0o700
    assert {p.stat().st_mode & 0o777 for p in path.iterdir()} == {0o600}
    assert PeftModel.from_pretrained(fresh(), path) is not None


def test_a_fresh_private_adapter_changes_nothing(base_dir, plan):
    ready = learner(plan, base_dir, compiled=False)
    adapter.load_flat(ready.model, ready.layout, noise(ready.layout))
    tokens = torch.arange(66).view(2, 33)
    with torch.no_grad():
        before = ready.loss(tokens)
        personal.attach(ready.model, plan)
        assert torch.equal(ready.loss(tokens), before)
    trained = {n for n, p in ready.model.named_parameters() if p.requires_grad}
    assert trained
    assert all(".private." in name for name in trained)


def test_a_run_goes_on_after_the_private_adapter_as_if_there_were_none(studio, plan, base_dir):
    start = initial(studio, plan, base_dir)
    before = studio.train(1, start, silent)
    studio.personalise(start + before, silent)
    assert np.array_equal(studio.train(1, start, silent), before)


def test_a_private_training_that_is_interrupted_leaves_no_trace(root, studio, plan, base_dir):
    start = initial(studio, plan, base_dir)
    before = studio.train(1, start, silent)

    class HungUp(Exception):
        pass

    def hangs_up(_):
        raise HungUp

    with pytest.raises(HungUp):
        studio.personalise(start, hangs_up)
    assert not (root / personal.PRIVATE_DIRECTORY).exists()
    assert np.array_equal(studio.train(1, start, silent), before)
