"""How many acts are waited for: as many as come together, and nobody for an act that comes alone."""

from hypothesis import given
from hypothesis import strategies as st

from federation.company import Company


def batches(company, under_way, count):
    """Write batches while so many acts are always under way; return how many each was of."""
    sizes = []
    for _ in range(count):
        sizes.append(company.expected)
        company.gathered(under_way)
    return sizes


def test_an_act_that_comes_alone_waits_for_nobody():
    assert batches(Company(64), 1, 5) == [1] * 5


def test_one_more_is_waited_for_as_long_as_more_are_under_way():
    assert batches(Company(64), 4, 6) == [1, 2, 3, 4, 4, 4]


def test_a_batch_is_never_more_than_can_be_written_together():
    assert batches(Company(3), 100, 5) == [1, 2, 3, 3, 3]


def test_after_a_wait_in_vain_no_more_are_expected_than_came():
    company = Company(64)
    batches(company, 16, 20)
    assert company.expected == 16
    company.missed(1)
    assert batches(company, 1, 3) == [1, 1, 1]


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 40))))
def test_nobody_is_waited_for_who_is_not_there(events):
    # Whatever happened before, one wait in vain is enough to expect what there is.
    company = Company(16)
    for missed, number in events:
        if missed:
            company.missed(min(number, company.expected))
        else:
            company.gathered(number)
        assert 1 <= company.expected <= 16
