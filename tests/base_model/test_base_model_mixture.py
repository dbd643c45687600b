import json
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from base_model import mixture
from base_model.mixture import BLOCK, Mixture
from base_model.model import document_mask, document_positions
from base_model.packing import Stream, pack
from base_model.sources import Document
from base_model.tokenizer import BOS
from fedproto.errors import LocalFault

# The first samples, and one of the second block.
FROZEN = [("ja", 0, 402), ("ja", 0, 12), ("en", 0, 596), ("ja", 6, 768)]
SIZES = {"ja": 9_000, "en": 5_000, "can": 700}
WEIGHTS = {"ja": 60, "en": 37, "can": 3}


def stream(name: str, size: int) -> Stream:
    # The source of each token can be told by its number.
    first = list(SIZES).index(name) * 10_000
    return Stream.of(np.arange(first, first + size, dtype=np.uint16))


def mixed(seed: int = 7, **weights: int) -> Mixture:
    chosen = weights or WEIGHTS
    sources = {name: stream(name, SIZES[name]) for name in chosen}
    return Mixture(sources=sources, weights=chosen, sequence=8, seed=seed)


@pytest.mark.parametrize("first", [0, 3_217, BLOCK, 5 * BLOCK + 4_999])
def test_weights_are_honoured_within_one_percent_over_ten_thousand_samples(first: int) -> None:
    own = mixed()
    seen = Counter(own.sample(number).source for number in range(first, first + BLOCK))
    for name, weight in WEIGHTS.items():
        assert seen[name] == pytest.approx(BLOCK * weight / 100, rel=0.01)


def test_any_stretch_holds_the_sources_in_proportion() -> None:
    own = mixed()
    seen: Counter[str] = Counter()
    for number in range(2_000):
        seen[own.sample(number).source] += 1
        for name, weight in WEIGHTS.items():
            assert abs(seen[name] - (number + 1) * weight / 100) <= 2


@pytest.mark.parametrize("ranks", [1, 2, 4, 8])
def test_a_step_has_the_same_samples_however_many_processes_share_it(ranks: int) -> None:
    whole = mixed().batch(90, 8)
    for rank in range(ranks):
        assert torch.equal(mixed().batch(90, 8, rank=rank, ranks=ranks), whole[rank::ranks])


@given(st.integers(0, 10**9), st.integers(1, 64))
def test_a_training_goes_on_at_any_step_with_the_same_samples(step: int, size: int) -> None:
    # Through JSON, in another process, without what came before.
    position = json.loads(json.dumps(mixed().position(step, size)))
    mixture._block.cache_clear()
    again = mixed()
    assert again.resume(position, size) == step
    assert len(json.dumps(position)) < 600
    there = [again.sample(n) for n in range(step * size, step * size + 3)]
    assert there == [mixed().sample(n) for n in range(step * size, step * size + 3)]


def test_a_position_says_how_far_each_source_was_read() -> None:
    own, size = mixed(), 16
    for step in (0, 1, 130, 700):
        seen = Counter(own.sample(number).source for number in range(step * size))
        said = own.position(step, size)["sources"]
        for name in WEIGHTS:
            epoch, window = divmod(seen[name], (SIZES[name] - 1) // 8)
            assert said[name] == {"samples": seen[name], "epoch": epoch, "window": window}


def test_an_epoch_of_a_source_shows_each_window_once_and_the_next_another_order() -> None:
    own = mixed()
    orders: dict[int, list[int]] = {0: [], 1: []}
    number = 0
    while len(orders[1]) < 87:
        sample = own.sample(number)
        if sample.source == "can" and sample.epoch in orders:
            orders[sample.epoch].append(sample.window)
        number += 1
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(87))
    assert orders[0] != orders[1]
    assert orders[0] != sorted(orders[0])


@given(st.integers(1, 3_000), st.integers(0, 2**64 - 1))
def test_the_order_of_a_source_is_a_permutation_of_any_size(count: int, key: int) -> None:
    assert sorted(mixture._permuted(n, count, key) for n in range(count)) == list(range(count))


def test_a_source_of_a_trillion_windows_needs_no_table() -> None:
    assert 0 <= mixture._permuted(10**12 - 1, 10**12, 5) < 10**12


def test_the_order_is_this_one_on_every_machine() -> None:
    # Frozen: a changed figure breaks the resumption of every training under way.
    said = [(s.source, s.epoch, s.window) for s in map(mixed().sample, (0, 1, 2, 12_345))]
    assert said == FROZEN


def test_another_seed_is_another_order() -> None:
    assert not torch.equal(mixed(8).batch(0, 16), mixed(7).batch(0, 16))


def test_a_window_never_mixes_sources() -> None:
    tokens = mixed().batch(3, 64)
    assert torch.equal(tokens // 10_000, (tokens // 10_000)[:, :1].expand_as(tokens))


def test_documents_in_a_window_stay_apart(tokenizer: Tokenizer, tmp_path) -> None:
    short = [Document("g", f"{number} 一") for number in range(300)]
    packed = Stream.of(pack(short, tokenizer, tmp_path))
    own = Mixture(sources={"s": packed}, weights={"s": 1}, sequence=64, seed=1)
    tokens = own.batch(0, 4)
    starts = tokens == BOS
    assert starts[:, 1:].any()
    assert torch.all(document_positions(tokens)[starts] == 0)
    mask = document_mask(tokens)[0, 0]
    second = int(starts[0].nonzero()[1])
    assert not mask[second, :second].any()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"step": -1}, "damaged"),
        ({"step": "3"}, "damaged"),
        ({"step": 4}, "damaged"),
        ({"step": True}, "damaged"),
        ({"v": 2}, "damaged"),
        ({"sources": {}}, "damaged"),
        ({"batch": 8}, "not of 16"),
        ({"mixture": "0" * 64}, "other tokens"),
    ],
)
def test_a_position_of_something_else_is_refused_by_name(change: dict, why: str) -> None:
    with pytest.raises(LocalFault) as caught:
        mixed().resume({**mixed().position(3, 16), **change}, 16)
    assert caught.value.code == "RNM-DATA-0005"
    assert why in caught.value.why


@pytest.mark.parametrize(
    "other",
    [
        mixed(8),
        mixed(ja=1, en=1),
        mixed(ja=60, en=36, can=4),
        Mixture(
            sources={n: stream(n, SIZES[n] + 1) for n in WEIGHTS},
            weights=WEIGHTS,
            sequence=8,
            seed=7,
        ),
        Mixture(
            sources={n: stream(n, SIZES[n]) for n in WEIGHTS}, weights=WEIGHTS, sequence=16, seed=7
        ),
    ],
)
def test_other_tokens_weights_windows_or_seeds_do_not_go_on(other: Mixture) -> None:
    with pytest.raises(LocalFault) as caught:
        other.resume(mixed().position(3, 16), 16)
    assert caught.value.code == "RNM-DATA-0005"


@pytest.mark.parametrize(
    ("weights", "size", "why"),
    [
        ({"ja": 1}, 100, "do not name"),
        ({"ja": 0, "en": 1}, 100, "whole number"),
        ({"ja": 1, "en": 100_000}, 100, "below 1"),
        ({"ja": 1, "en": 1}, 8, "fewer tokens"),
    ],
)
def test_a_mixture_that_cannot_be_is_named(weights: dict[str, int], size: int, why: str) -> None:
    with pytest.raises(LocalFault) as caught:
        Mixture(
            sources={name: stream(name, size) for name in ("ja", "en")},
            weights=weights,
            sequence=8,
            seed=1,
        )
    assert caught.value.code == "RNM-DATA-0003"
    assert why in caught.value.why
