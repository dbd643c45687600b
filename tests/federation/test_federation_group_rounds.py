"""Whole runs in groups: from the vote to the adapter, with members that poison their deltas."""

import numpy as np
import pytest
from federation_kit import CLIP, INITIAL, PARAMETERS, STEP, delta_of
from test_federation_rounds import Running, adapter_of

from federation import optimiser
from fedproto.events.rounds import Outcome
from fedproto.governance.plan import Combine
from fedproto.ids import sha256_hex
from fedproto.secagg.faults import not_genuine

NAMES = tuple(f"t{number:02d}" for number in range(18))
POISONED = ("t03", "t11")


@pytest.fixture
def running(tmp_path):
    made = []

    def make(**settings):
        made.append(Running(tmp_path / "c", NAMES, **settings))
        return made[-1]

    yield make
    for one in made:
        one.close()


def poisoned(name, round_no):
    """Two members push every coordinate as far as the clip lets them."""
    if name in POISONED:
        return np.full(PARAMETERS, CLIP / np.sqrt(PARAMETERS) * 0.999, np.float32)
    return delta_of(name, round_no)


def combined(groups, deltas, round_no):
    means = [np.mean([deltas(name, round_no) for name in group], axis=0) for group in groups]
    return np.median(means, axis=0).astype(np.float32)


def test_a_run_in_three_groups_takes_the_median_and_says_who_was_with_whom(running):
    federation = running(deltas=poisoned)
    federation.start_run(rounds=2, groups=3, combine=Combine.MEDIAN)
    events, rounds = federation.finish()
    assert events[-1].state == "finished", events[-1]
    step = optimiser.start(INITIAL)
    for number, attempt in enumerate(rounds, 1):
        body = attempt.closed.body
        assert (body.outcome, body.included) == (Outcome.AGGREGATED, NAMES)
        assert sorted(len(group) for group in body.groups) == [6, 6, 6]
        assert tuple(sorted(name for group in body.groups for name in group)) == NAMES
        assert sorted(attempt.auditors) == list(NAMES)
        assert attempt.unaudited(threshold=10, tolerated=1) == ""
        step = optimiser.advance(step, combined(body.groups, poisoned, number), rate=1.0, decay=0.5)
    assert np.abs(adapter_of(federation, rounds[-1].closed) - step.adapter).max() <= 6 * STEP
    # Nobody picks the groups: another round has others.
    assert rounds[0].closed.body.groups != rounds[1].closed.body.groups
    # Each member wrote down over whom a sum may be open: its own group, before it revealed.
    first = rounds[0].closed.body.groups
    for name, member in federation.federation.members.items():
        content, survivors = member.opened[0]
        assert content.groups == 3
        assert survivors in first
        assert name in survivors


def test_a_run_whose_groups_fall_short_after_a_sum_may_be_open_ends(running):
    """No second attempt: it would sum the same deltas in other groups."""
    federation = running()
    for name in NAMES[:9]:
        member = federation.federation.members[name]
        member.tampers = Withholding
    federation.start_run(rounds=1, groups=3, combine=Combine.TRIMMED_MEAN, phase_timeout_s=6)
    events, rounds = federation.finish()
    assert events[-1].state == "aborted"
    assert len(rounds) == 1
    assert rounds[0].closed.body.outcome is Outcome.ABORTED
    assert rounds[0].closed.body.groups == ()


class Withholding:
    """A half that confirms and then keeps its shares."""

    def __init__(self, half):
        self._half = half

    def __getattr__(self, name):
        return getattr(self._half, name)

    def reveal(self, confirmations):
        raise not_genuine("coordinator", sha256_hex(confirmations)[:8])
