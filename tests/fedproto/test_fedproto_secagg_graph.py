"""The mask graph: symmetric, fixed by the list, and connected whatever may be cut out of it."""

import itertools

import pytest

from fedproto.authorisation import recovery_threshold
from fedproto.secagg.graph import neighbours


def edges(members, tolerated, threshold):
    return {
        member: set(neighbours(members, member, tolerated=tolerated, threshold=threshold))
        for member in members
    }


def names(n):
    return tuple(f"m{i:03d}" for i in range(n))


@pytest.mark.parametrize("n", [2, 3, 4, 7, 16])
def test_up_to_sixteen_members_everybody_shares_a_mask_with_everybody(n):
    graph = edges(names(n), 1, recovery_threshold(n, 1))
    assert all(graph[member] == set(names(n)) - {member} for member in graph)


@pytest.mark.parametrize(("n", "tolerated"), [(17, 1), (20, 1), (32, 10), (64, 21), (64, 5)])
def test_the_graph_is_symmetric_without_loops_and_of_the_degree_asked_for(n, tolerated):
    threshold = recovery_threshold(n, tolerated)
    graph = edges(names(n), tolerated, threshold)
    for member, near in graph.items():
        assert member not in near
        assert all(member in graph[other] for other in near)
        assert len(near) >= min(n - 1, tolerated + (n - threshold) + 1)


def test_sixty_four_members_with_a_third_colluding_have_the_degree_of_the_specification():
    assert recovery_threshold(64, 21) == 43
    assert len(neighbours(names(64), "m000", tolerated=21, threshold=43)) == 44


def is_connected(graph, left):
    seen, todo = set(), [next(iter(left))]
    while todo:
        member = todo.pop()
        if member not in seen:
            seen.add(member)
            todo.extend(graph[member] & left)
    return seen == left


def test_colluders_and_dropouts_cannot_cut_the_honest_survivors_apart():
    """Cut runs of neighbours and spread ones: the worst cuts of a circulant graph are runs."""
    n, tolerated = 40, 3
    threshold = recovery_threshold(n, tolerated)
    graph = edges(names(n), tolerated, threshold)
    gone = tolerated + (n - threshold)
    for first in range(1, gone):
        for start, second in itertools.product(range(0, n, 7), range(n)):
            cut = {(start + i) % n for i in range(first)}
            cut |= {(second + i) % n for i in range(gone - first)}
            left = {f"m{i:03d}" for i in range(n) if i not in cut}
            assert is_connected(graph, left)


def test_the_cut_that_the_degree_does_not_bear_is_found():
    n, tolerated = 40, 3
    threshold = recovery_threshold(n, tolerated)
    graph = edges(names(n), tolerated, threshold)
    left = set(names(n)) - graph["m000"]
    assert not is_connected(graph, left)
