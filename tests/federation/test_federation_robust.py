"""Median and trimmed mean of group sums: right values, and poison that moves them only so far."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.robust import combine
from fedproto.governance.plan import Aggregation, Combine, Method
from fedproto.secagg.stages import AggregateSum

PLAIN = Aggregation(
    method=Method.FEDAVG,
    outer_lr_milli=1000,
    momentum_milli=0,
    clip_milli=1000,
    bits=16,
    tolerated=1,
)


def by(how, groups):
    return replace(PLAIN, groups=groups, combine=how)


def sums_of(means):
    return [
        AggregateSum(
            mean_delta=np.asarray(mean, np.float32),
            weight=1.0,
            included=(f"m{number}",),
            transcript_sha256="0" * 64,
        )
        for number, mean in enumerate(means)
    ]


def test_one_sum_is_taken_as_it_is():
    (total,) = sums_of([[1.0, -2.0]])
    assert combine([total], PLAIN) is total.mean_delta
    with pytest.raises(ValueError, match="too many"):
        combine(sums_of([[1.0], [2.0]]), PLAIN)


@given(seed=st.integers(0, 2**32 - 1), groups=st.integers(3, 12), size=st.integers(1, 300))
def test_the_median_is_that_of_each_coordinate(seed, groups, size):
    means = np.random.default_rng(seed).standard_normal((groups, size)).astype(np.float32)
    got = combine(sums_of(means), by(Combine.MEDIAN, groups))
    assert np.allclose(got, np.median(means, axis=0), atol=1e-6)
    assert got.dtype == np.float32


@given(seed=st.integers(0, 2**32 - 1), groups=st.integers(3, 12))
def test_the_trimmed_mean_leaves_out_a_quarter_at_each_end(seed, groups):
    means = np.random.default_rng(seed).standard_normal((groups, 50)).astype(np.float32)
    plan = by(Combine.TRIMMED_MEAN, groups)
    kept = np.sort(means, axis=0)[plan.trimmed : groups - plan.trimmed]
    assert np.allclose(combine(sums_of(means), plan), kept.mean(axis=0), atol=1e-6)


def test_a_vector_longer_than_a_block_is_combined_whole():
    means = np.random.default_rng(1).standard_normal((5, (1 << 17) + 3)).astype(np.float32)
    got = combine(sums_of(means), by(Combine.MEDIAN, 5))
    assert np.array_equal(got, np.median(means, axis=0))


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    how=st.sampled_from([Combine.MEDIAN, Combine.TRIMMED_MEAN]),
    groups=st.integers(3, 9),
    poison=st.floats(-1e6, 1e6, width=32),
)
def test_poisoned_groups_never_move_the_result_beyond_the_honest_ones(seed, how, groups, poison):
    plan = by(how, groups)
    bad = (groups - 1) // 2 if how is Combine.MEDIAN else plan.trimmed
    means = np.random.default_rng(seed).standard_normal((groups, 40)).astype(np.float32)
    means[:bad] = poison
    got, honest = combine(sums_of(means), plan), means[bad:]
    assert (got >= honest.min(axis=0) - 1e-5).all()
    assert (got <= honest.max(axis=0) + 1e-5).all()
    # A plain mean goes wherever the poison does.
    if abs(poison) > 1e4:
        assert (np.abs(means.mean(axis=0)) > np.abs(honest).max()).all()


@pytest.mark.parametrize(("how", "groups", "least"), [("median", 8, 3), ("trimmed_mean", 8, 5)])
def test_fewer_sums_than_the_plan_needs_are_not_combined(how, groups, least):
    plan = by(Combine(how), groups)
    assert plan.least_groups == least
    assert combine(sums_of(np.ones((least, 4))), plan).tolist() == [1.0] * 4
    with pytest.raises(ValueError, match=f"needs {least}"):
        combine(sums_of(np.ones((least - 1, 4))), plan)


@pytest.mark.parametrize(
    ("groups", "how"),
    [(1, "median"), (3, "mean"), (2, "median"), (0, "trimmed_mean"), (-3, "median")],
)
def test_a_plan_whose_groups_do_not_fit_its_method_has_no_form(groups, how):
    with pytest.raises(ValueError, match=r"group|sum"):
        by(Combine(how), groups)
