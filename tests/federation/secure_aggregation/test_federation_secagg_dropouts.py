"""Members that drop out, any number that the threshold bears, at any phase: the sum stays exact."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedproto.errors import FederationError

PHASES = ("advertise", "share", "mask", "confirm", "reveal")


@st.composite
def cohorts(draw):
    """Return n, t_c and who drops out in which phase; T are left at the end."""
    n = draw(st.integers(3, 20))
    tolerated = draw(st.integers(1, max(1, (n - 1) // 3)))
    bearable = n - ((n + tolerated) // 2 + 1)
    names = draw(st.permutations([f"m{i:02d}" for i in range(n)]))
    gone = names[: draw(st.integers(0, bearable))]
    when = {name: draw(st.sampled_from(PHASES)) for name in gone}
    return n, tolerated, when


def play(attempt, n, tolerated, when, d=40):
    """Play a whole attempt; whoever drops out in a phase says nothing in it, nor later."""
    run = attempt(n, d=d, tolerated=tolerated)
    gone: set[str] = set()
    for phase in PHASES:
        gone |= {name for name, at in when.items() if at == phase}
        getattr(run, phase)(without=gone)
    return run


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(cohort=cohorts())
def test_the_sum_of_those_who_uploaded_is_exact_whoever_drops_out_when(attempt, cohort):
    n, tolerated, when = cohort
    run = play(attempt, n, tolerated, when)
    uploaded = [name for name in run.names if when.get(name) not in PHASES[:3]]
    result = run.server.finish()
    assert list(result.included) == uploaded
    mean, weight = run.expected(uploaded)
    assert np.array_equal(result.mean_delta, mean)
    assert result.weight == weight


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("n", [4, 7, 17])
def test_as_many_as_the_threshold_bears_may_go_and_not_one_more(attempt, n, phase):
    tolerated = max(1, (n - 1) // 3)
    bearable = n - ((n + tolerated) // 2 + 1)
    names = [f"m{i:02d}" for i in range(n)]
    run = play(attempt, n, tolerated, dict.fromkeys(names[:bearable], phase))
    assert np.array_equal(run.server.finish().mean_delta, run.expected(run.survivors)[0])
    with pytest.raises(FederationError) as caught:
        play(attempt, n, tolerated, dict.fromkeys(names[: bearable + 1], phase)).server.finish()
    assert caught.value.code == "RNM-SECAGG-0002"
