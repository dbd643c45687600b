"""Every chunk of a sum has t_c + 1 auditors, and fewer than all of them certify nothing."""

from hypothesis import given
from hypothesis import strategies as st

from fedproto.ids import MemberId
from fedproto.secagg.sum_audit import auditors, uncertified

H3 = bytes(range(32))


def names(count):
    return [MemberId(f"m{i:02d}") for i in range(count)]


@given(
    st.integers(2, 30), st.integers(0, 9), st.integers(0, 200), st.binary(min_size=32, max_size=32)
)
def test_each_chunk_has_one_auditor_more_than_may_collude(count, tolerated, chunk, h3):
    tolerated = min(tolerated, count - 1)
    chosen = auditors(chunk, names(count), tolerated, h3)
    assert len(set(chosen)) == tolerated + 1
    assert set(chosen) <= set(names(count))
    assert chosen == auditors(chunk, names(count)[::-1], tolerated, h3)


@given(st.integers(2, 30), st.integers(0, 9), st.integers(1, 200))
def test_the_work_is_even(count, tolerated, chunks):
    tolerated = min(tolerated, count - 1)
    load = dict.fromkeys(names(count), 0)
    for chunk in range(chunks):
        for name in auditors(chunk, names(count), tolerated, H3):
            load[name] += 1
    assert max(load.values()) - min(load.values()) <= 1


def test_one_auditor_alone_certifies_no_chunk():
    liar = {MemberId("m00"): range(40)}
    assert uncertified(liar, 40, names(5), 1, H3) == tuple(range(40))


def test_a_chunk_is_certified_when_all_its_auditors_found_it_right():
    found = {name: range(40) for name in names(5)}
    assert uncertified(found, 40, names(5), 1, H3) == ()
    one, _ = auditors(7, names(5), 1, H3)
    found[one] = [chunk for chunk in range(40) if chunk != 7]
    assert uncertified(found, 40, names(5), 1, H3) == (7,)
