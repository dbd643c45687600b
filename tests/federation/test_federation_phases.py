"""The transition table, from every state under every event."""

import itertools

import pytest

from federation.rounds import phases
from federation.rounds.phases import NEXT, Attempt, Command, Phase

ALL = frozenset(("a", "b", "c", "d"))
LIVE = tuple(NEXT)


def attempts():
    """Every live attempt of four members with cohort 3 and threshold 3."""
    for phase in LIVE:
        for roles in itertools.product("wax", repeat=4):
            by = {
                r: frozenset(m for m, role in zip("abcd", roles, strict=True) if role == r)
                for r in "wa"
            }
            yield Attempt(phase=phase, waiting=by["w"], answered=by["a"], cohort=3, threshold=3)


def test_an_attempt_never_closes_with_fewer_answers_than_it_needs():
    for attempt, late in itertools.product(attempts(), (False, True)):
        if phases.decide(attempt, late=late) is Command.CLOSE:
            assert len(attempt.answered) >= attempt.needed


def test_an_attempt_waits_only_while_somebody_can_still_answer():
    for attempt in attempts():
        if phases.decide(attempt, late=False) is Command.WAIT:
            assert attempt.waiting
            assert len(attempt.waiting) + len(attempt.answered) >= attempt.needed


def test_a_late_attempt_never_waits():
    for attempt in attempts():
        assert phases.decide(attempt, late=True) is not Command.WAIT


def test_an_attempt_that_cannot_succeed_is_aborted_at_once():
    for attempt, late in itertools.product(attempts(), (False, True)):
        if len(attempt.waiting) + len(attempt.answered) < attempt.needed:
            assert phases.decide(attempt, late=late) is Command.ABORT


def test_the_order_of_phases_is_fixed():
    attempt = phases.begin(ALL, cohort=3, threshold=3)
    seen = [attempt.phase]
    while attempt.phase in NEXT:
        for member in attempt.waiting:
            attempt = phases.answered(attempt, member)
        attempt = phases.close(attempt, ALL)
        seen.append(attempt.phase)
    assert [p.value for p in seen] == [
        "advertise",
        "share",
        "upload",
        "confirm",
        "reveal",
        "audit",
        "done",
    ]


def test_one_who_left_is_not_waited_for_again():
    attempt = phases.begin(ALL, cohort=3, threshold=3)
    for member in "abc":
        attempt = phases.answered(attempt, member)
    attempt = phases.left(attempt, "d")
    assert phases.decide(attempt, late=False) is Command.CLOSE
    attempt = phases.close(attempt, ALL)
    assert attempt.waiting == frozenset("abc")


def test_an_answer_of_one_who_is_not_waited_for_changes_nothing():
    attempt = phases.begin(frozenset("abc"), cohort=3, threshold=3)
    assert phases.answered(attempt, "z") == attempt
    once = phases.answered(attempt, "a")
    assert phases.answered(once, "a") == once


def test_until_the_upload_a_whole_cohort_is_needed_then_a_threshold():
    for phase in LIVE:
        attempt = Attempt(
            phase=phase, waiting=frozenset(), answered=frozenset("abc"), cohort=4, threshold=3
        )
        late = phases.decide(attempt, late=False)
        later = (Phase.CONFIRM, Phase.REVEAL, Phase.AUDIT)
        expected = Command.CLOSE if phase in later else Command.ABORT
        assert late is expected


@pytest.mark.parametrize("phase", [Phase.DONE, Phase.ABORTED])
def test_an_attempt_that_has_ended_goes_nowhere(phase):
    ended = Attempt(phase=phase, waiting=frozenset(), answered=ALL, cohort=3, threshold=3)
    with pytest.raises(ValueError, match="next one"):
        phases.close(ended, ALL)
    with pytest.raises(ValueError, match="cannot be aborted"):
        phases.abort(ended)


def test_every_live_phase_can_be_aborted():
    for attempt in attempts():
        assert phases.abort(attempt).phase is Phase.ABORTED
