"""How a log stands to what its witnesses know: current, behind, forked, or not yet known."""

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ledger_kit import TRAINERS, cosign, full_story, signed_note

from audit import recovery
from audit.policy import policy_of
from audit.recovery import Standing
from fedproto.errors import LocalFault

STORY = full_story()
POLICY = policy_of(STORY.state.charter)
SIZE = len(STORY.leaves)


def seen(member, size=SIZE, leaves=STORY.leaves):
    return cosign(signed_note(leaves[:size]), (member,)) if size else b""


def judge(size=SIZE, **answers):
    own = STORY.state
    head = type(own.head)(size, own.root_at(size))
    return recovery.judge(POLICY, head, own.root_at, answers)


def test_any_quorum_is_met_by_any_set_that_is_heard():
    """The bound is exact: one witness fewer may miss a published checkpoint."""
    quorums = [set(q) for q in combinations(TRAINERS, POLICY.quorum)]
    due = recovery.needed(POLICY)
    assert due == 2
    assert all(q & set(h) for q in quorums for h in combinations(TRAINERS, due))
    assert not all(q & set(h) for q in quorums for h in combinations(TRAINERS, due - 1))


def test_a_log_waits_until_enough_are_heard():
    assert judge().standing is Standing.WAITING
    assert judge(nec=seen("nec")).standing is Standing.WAITING
    found = judge(nec=seen("nec"), sony=seen("sony", 9))
    assert (found.standing, found.heard, found.needed) == (Standing.CURRENT, 2, 2)


def test_a_new_log_is_current_once_enough_know_nothing():
    assert judge(nec=b"", sony=b"").standing is Standing.CURRENT


def test_one_witness_that_knows_more_outweighs_the_rest():
    found = judge(12, honda=seen("honda", 12), softbank=seen("softbank", 12), nec=seen("nec", 20))
    assert (found.standing, found.member, found.head.size) == (Standing.BEHIND, "nec", 20)


def test_one_witness_with_another_history_outweighs_all():
    other = [*STORY.leaves[:5], b"forked", *STORY.leaves[6:]]
    found = judge(honda=seen("honda"), softbank=seen("softbank"), nec=seen("nec", 12, other))
    assert (found.standing, found.member) == (Standing.FORKED, "nec")
    assert found.note


def test_a_witness_cannot_stop_the_log_with_a_lie():
    for lie in (
        seen("sony"),
        signed_note(STORY.leaves),
        b"noise",
        seen("nec").replace(b"31\n", b"99\n"),
    ):
        with pytest.raises(LocalFault) as caught:
            judge(nec=lie)
        assert caught.value.code == "RNM-LEDGER-0001"


@given(
    st.integers(1, SIZE),
    st.dictionaries(st.sampled_from(TRAINERS), st.integers(0, SIZE), min_size=2),
)
def test_an_honest_log_is_behind_exactly_when_somebody_knows_more(own, sizes):
    found = judge(own, **{member: seen(member, size) for member, size in sizes.items()})
    expected = Standing.BEHIND if max(sizes.values()) > own else Standing.CURRENT
    assert found.standing is expected
