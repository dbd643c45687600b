"""Bits per byte at the member: three arms of one model, each as if it were alone."""

import json

import pytest
from training_kit import noise, plan_for, publish, words, write_corpus

from base_model.evaluate import bits_per_byte, score
from fedproto.errors import LocalFault
from member_node import adapter, personal
from member_node.evaluate import Bench, texts
from member_node.studio import Studio, learner

# Scores of the same text in batches of another shape differ in the last bits of bf16.
CLOSE = {"rel": 1e-3}


@pytest.fixture(scope="module")
def base_dir(tmp_path_factory):
    return publish(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def plan(base_dir):
    return plan_for(base_dir)


@pytest.fixture(scope="module")
def bench(plan, base_dir):
    return Bench(plan, base_dir)


@pytest.fixture(scope="module")
def held_out(tmp_path_factory):
    return texts([write_corpus(tmp_path_factory.mktemp("d"), count=20) / "test.jsonl"])


def test_a_document_has_a_score_and_its_length(bench, held_out):
    scores = bench.base(held_out)
    assert [s.bytes for s in scores] == [len(text.encode()) for text in held_out]
    assert all(s.nats > 0 for s in scores)


def test_the_base_arm_is_the_base_whatever_is_attached(bench, held_out, plan, base_dir):
    bench.adapted(held_out, noise(bench.layout, scale=0.5))
    plain = learner(plan, base_dir, compiled=False).model.unload()
    assert bench.base(held_out) == score(plain, words(), held_out, window=32)


def test_an_adapter_that_changes_nothing_scores_as_the_base(bench, held_out, plan):
    start = adapter.initial(bench.layout, plan.training.seed)
    assert bench.adapted(held_out, start) == bench.base(held_out)


def test_the_arms_do_not_leak_into_each_other(bench, held_out):
    shared, private = noise(bench.layout, 1, 0.3), noise(bench.layout, 2, 0.3)
    alone = bench.adapted(held_out, shared)
    both = bench.personal(held_out, shared, private)
    assert bench.adapted(held_out, shared) == alone
    assert bench.personal(held_out, shared, private) == both
    values = [bits_per_byte(arm) for arm in (bench.base(held_out), alone, both)]
    assert len(set(values)) == 3


def test_two_adapters_add_up(bench, held_out):
    """With the same A, two B in parallel are their sum: checks that both are active at once."""
    start = adapter.initial(bench.layout, 3)
    one = start.copy()
    is_b = start == 0
    one[is_b] = noise(bench.layout, 4, 0.3)[is_b]
    twice = start.copy()
    twice[is_b] = 2 * one[is_b]
    both = bits_per_byte(bench.personal(held_out, one, one))
    assert both == pytest.approx(bits_per_byte(bench.adapted(held_out, twice)), **CLOSE)
    assert both != pytest.approx(bits_per_byte(bench.adapted(held_out, one)), **CLOSE)


def test_what_the_trainer_saves_is_what_is_scored(bench, held_out, plan, base_dir, tmp_path):
    write_corpus(tmp_path / "data")
    studio = Studio(tmp_path, compiled=False)
    start = studio.prepare(plan, base_dir).initial
    shared = start + studio.train(1, start, lambda _: None)
    path = studio.personalise(shared, lambda _: None)
    federated = bench.read(tmp_path / personal.FEDERATED_DIRECTORY)
    scores = bench.personal(held_out, federated, bench.read(path))
    assert bits_per_byte(scores) < bits_per_byte(bench.base(held_out))


def test_a_limit_keeps_whole_documents(tmp_path):
    path = write_corpus(tmp_path / "d", count=20) / "test.jsonl"
    size = [len(json.loads(line)["text"].encode()) for line in path.read_text().splitlines()]
    assert len(texts([path], limit_bytes=sum(size[:5]))) == 5
    assert len(texts([path], limit_bytes=sum(size[:5]) - 1)) == 4
    assert len(texts([path, path])) == 40


def test_missing_test_documents_are_named(tmp_path):
    with pytest.raises(LocalFault) as caught:
        texts([tmp_path / "test.jsonl"])
    assert caught.value.code == "RNM-DATA-0001"
