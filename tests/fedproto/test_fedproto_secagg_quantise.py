"""Quantisation: bounded, unbiased, repeatable, exact in sums; unsound input is refused."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from fedproto.errors import LocalFault
from fedproto.secagg.params import SIGNED_WORD, WORD, Params
from fedproto.secagg.prg import CHUNK_WORDS
from fedproto.secagg.quantise import Rounding, dequantise, norm_l2, quantise
from fedproto.secagg.ring import blocks

SEED = hashlib.sha256(b"rounding").digest()


def params(d, *, members=4, bits=20, clip=1.0):
    return Params(
        members=members,
        threshold=members,
        tolerated=1,
        parameters=d,
        qmax=2 ** (bits - 1) - 1,
        clip=clip,
    )


def words_of(delta, weight, fixed, seed=SEED):
    vector = quantise(delta, weight, fixed, seed)
    words, rounding = np.empty(vector.words, WORD), Rounding(vector)
    for chunk, block in blocks(words):
        rounding.write(chunk, block)
    return words


floats = npst.arrays(
    np.float32,
    st.integers(1, 50),
    elements=st.floats(-1e3, 1e3, width=32, allow_nan=False, allow_infinity=False),
)


@settings(max_examples=200, deadline=None)
@given(
    delta=floats,
    weight=st.floats(1e-6, 1.0),
    bits=st.integers(8, 24),
    clip=st.sampled_from([0.001, 0.5, 1.0, 7.3, 1000.0]),
    seed=st.binary(min_size=32, max_size=32),
)
def test_no_word_is_beyond_the_weight_and_no_weight_beyond_qmax(delta, weight, bits, clip, seed):
    fixed = params(delta.size, bits=bits, clip=clip)
    if norm_l2(delta) > 1e6 * clip:
        return
    signed = words_of(delta, weight, fixed, seed).view(SIGNED_WORD)
    assert 1 <= signed[-1] <= fixed.qmax
    assert np.abs(signed[:-1]).max() <= signed[-1]


@settings(max_examples=100, deadline=None)
@given(data=st.data(), bits=st.integers(12, 24))
def test_the_mean_of_a_cohort_is_within_rounding_of_the_true_mean(data, bits):
    n, d = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 40))
    fixed = params(d, members=n, bits=bits)
    top = float(np.float32(0.999 / np.sqrt(d)))
    coordinates = st.floats(-top, top, width=32)
    total = np.zeros(d + 1, WORD)
    exact, weights = np.zeros(d), 0.0
    for i in range(n):
        delta = data.draw(npst.arrays(np.float32, d, elements=coordinates))
        weight = data.draw(st.floats(0.1, 1.0))
        total += words_of(delta, weight, fixed, hashlib.sha256(bytes([i])).digest())
        q = fixed.weight_word(weight)
        exact, weights = exact + q * delta.astype(np.float64), weights + q
    mean, weight = dequantise(total, fixed, n)
    # Each member rounds by less than one step, next to float32's own error.
    assert np.abs(mean - exact / weights).max() <= (n + 0.01) / weights + 3e-7
    assert weight == pytest.approx(weights / fixed.qmax)


def test_the_same_seed_repeats_and_another_does_not():
    delta = np.random.default_rng(0).standard_normal(1000).astype(np.float32) / np.float32(100)
    fixed = params(1000)
    one = words_of(delta, 1.0, fixed)
    assert np.array_equal(one, words_of(delta.copy(), 1.0, fixed))
    assert not np.array_equal(one, words_of(delta, 1.0, fixed, bytes(32)))


def test_rounding_is_unbiased_for_both_signs():
    d = 400_000
    fixed = params(d, bits=24, clip=1000.0)
    step = fixed.clip / fixed.qmax
    for fraction in (0.1, 0.5, 0.9, -0.3):
        delta = np.full(d, np.float32(fraction * step), np.float32)
        signed = words_of(delta, 1.0, fixed).view(SIGNED_WORD)[:-1]
        error = signed.mean() - fraction
        assert abs(error) < 5 * 0.5 / np.sqrt(d)


def test_neighbouring_chunks_round_independently():
    delta = np.full(2 * CHUNK_WORDS, np.float32(1e-4), np.float32)
    words = words_of(delta, 1.0, params(delta.size))
    assert not np.array_equal(words[:CHUNK_WORDS], words[CHUNK_WORDS : 2 * CHUNK_WORDS])


def test_a_delta_beyond_the_clip_keeps_its_direction_and_loses_its_length():
    delta = np.array([3.0, 4.0], np.float32)
    fixed = params(2, members=1, clip=1.0, bits=24)
    mean, _ = dequantise(words_of(delta, 1.0, fixed), fixed, 1)
    assert mean == pytest.approx([0.6, 0.8], abs=1e-6)


def test_a_delta_within_the_clip_is_left_alone():
    delta = np.array([0.3, -0.4], np.float32)
    fixed = params(2, members=1, clip=1.0, bits=24)
    mean, _ = dequantise(words_of(delta, 0.25, fixed), fixed, 1)
    assert mean == pytest.approx([0.3, -0.4], abs=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, CHUNK_WORDS, -1])
def test_a_value_that_is_not_finite_is_refused(bad, place):
    delta = np.zeros(CHUNK_WORDS + 10, np.float32)
    delta[place] = bad
    with pytest.raises(LocalFault, match="finite") as caught:
        quantise(delta, 1.0, params(delta.size), SEED)
    assert caught.value.code == "RNM-SECAGG-0004"


def test_the_largest_floats_are_finite_and_refused_as_diverged():
    delta = np.full(1000, np.finfo(np.float32).max, np.float32)
    with pytest.raises(LocalFault, match="diverged"):
        quantise(delta, 1.0, params(1000), SEED)


@pytest.mark.parametrize(
    "delta",
    [np.zeros(9, np.float32), np.zeros(11, np.float32), np.zeros(10), np.zeros((2, 5), np.float32)],
)
def test_another_length_or_type_is_refused(delta):
    with pytest.raises(LocalFault, match="float32"):
        quantise(delta, 1.0, params(10), SEED)


def test_a_rounding_seed_of_another_length_is_refused():
    with pytest.raises(ValueError, match="32 bytes"):
        quantise(np.zeros(10, np.float32), 1.0, params(10), bytes(16))


def total_of(*values):
    return np.array(values, np.int64).astype(np.int32).view(np.uint32)


@pytest.mark.parametrize(
    "values",
    [(5, 0, 4), (-5, 0, 4), (0, 0, 0), (0, 0, -1), (0, 0, 2 * (2**19 - 1) + 1), (-(2**31), 0, 9)],
)
def test_a_sum_that_honest_members_cannot_make_is_refused(values):
    with pytest.raises(LocalFault) as caught:
        dequantise(total_of(*values), params(2), 2)
    assert caught.value.code == "RNM-SECAGG-0004"


def test_the_largest_sum_that_honest_members_can_make_is_taken():
    top = 2 * (2**19 - 1)
    mean, weight = dequantise(total_of(top, -top, top), params(2), 2)
    assert mean.tolist() == [1.0, -1.0]
    assert weight == 2.0


@pytest.mark.parametrize(
    ("members", "bits", "fits"), [(256, 24, True), (257, 24, False), (65_536, 16, True)]
)
def test_a_cohort_that_could_wrap_is_refused(members, bits, fits):
    if fits:
        fixed = params(1, members=members, bits=bits)
        assert members * fixed.qmax < 2**31
    else:
        with pytest.raises(LocalFault, match="wrap"):
            params(1, members=members, bits=bits)
