"""Groups: a cohort that is summed in parts, which nobody picks; each part hides as much as it has to."""

import copy
import dataclasses

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from secagg_members import signing_key

from federation.secure_aggregation.server import SecAggServer
from fedproto.errors import FederationError, LocalFault, PeerFault
from fedproto.secagg.faults import COORDINATOR, Equivocation
from fedproto.secagg.groups import assign, round_digest
from fedproto.secagg.keying_messages import EncryptedShares, KeyList, ShareList
from fedproto.secagg.messages import decode, encode
from fedproto.secagg.stages import AggregateSum
from fedproto.secagg.sum_audit import SumAudit, assigned


def names(count):
    return tuple(f"m{number:02d}" for number in range(count))


def parts_of(run):
    """Return a driver for each group, once the key list is out."""
    parts = []
    for group, server in run.server.split().items():
        part = copy.copy(run)
        part.server, part.listed = server, list(group)
        part.share_lists, part.uploads = {}, {}
        part.params = run.params.of_group(len(group))
        parts.append(part)
    return parts


def play(part, share=(), mask=(), confirm=(), reveal=()):
    part.share(without=share)
    part.mask(without=mask)
    part.confirm(without=confirm)
    part.reveal(without=reveal)
    return part.server.finish()


def grouped(attempt, n, groups, tolerated=1, without=(), **changes):
    run = attempt(n, tolerated=tolerated, groups=groups, **changes)
    run.advertise(without=without)
    return run, parts_of(run)


# Who is with whom.


@given(h1=st.binary(min_size=32, max_size=32), n=st.integers(17, 64), groups=st.integers(3, 8))
def test_every_member_is_in_one_group_and_their_sizes_differ_by_one(h1, n, groups):
    found = assign(h1, names(n), groups)
    assert sorted(name for group in found for name in group) == list(names(n))
    sizes = [len(group) for group in found]
    assert max(sizes) - min(sizes) <= 1
    assert all(list(group) == sorted(group) for group in found)
    assert found == assign(h1, tuple(reversed(names(n))), groups), "whatever order it is listed in"


def test_another_key_list_gives_other_groups():
    first = assign(bytes(32), names(20), 4)
    others = [assign(bytes(31) + bytes([byte]), names(20), 4) for byte in range(1, 50)]
    assert all(other != first for other in others)
    # Over many lists a member meets each other one about equally often: nobody is stuck with anybody.
    met = sum("m00" in group and "m01" in group for found in others for group in found)
    assert 2 <= met <= 20


def test_the_digest_of_one_transcript_is_its_own_and_of_several_it_is_of_all_in_order():
    a, b = bytes(32), bytes(31) + b"x"
    assert round_digest(b"c" * 32, [a]) == a
    assert len({round_digest(c * 32, t) for c in (b"c", b"d") for t in ([a, b], [b, a])}) == 4


# Sums.


@pytest.mark.parametrize(("n", "groups", "tolerated"), [(17, 3, 3), (20, 4, 2), (64, 4, 5)])
def test_each_group_gives_its_exact_sum(attempt, n, groups, tolerated):
    run, parts = grouped(attempt, n, groups, tolerated)
    assert len(parts) == groups
    for part in parts:
        total = play(part)
        assert total.included == tuple(part.listed)
        mean, weight = run.expected(part.listed)
        assert np.array_equal(total.mean_delta, mean)
        assert total.weight == weight


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_dropouts_in_each_phase_leave_every_sum_exact(attempt, data):
    run = attempt(20, d=40, tolerated=1, groups=3)
    silent = data.draw(st.sets(st.sampled_from(run.names), max_size=2))
    run.advertise(without=silent)
    for part in parts_of(run):
        spare = len(part.listed) - part.params.threshold
        lost = data.draw(st.lists(st.sampled_from(part.listed), unique=True, max_size=spare))
        when = [data.draw(st.integers(0, 3)) for _ in lost]
        gone = [
            [name for name, at in zip(lost, when, strict=True) if at == phase] for phase in range(4)
        ]
        total = play(part, *gone)
        included = [name for name in part.listed if name not in gone[0] + gone[1]]
        mean, _ = run.expected(included)
        assert np.array_equal(total.mean_delta, mean)


def test_a_group_needs_the_threshold_of_its_own_size(attempt):
    run, parts = grouped(attempt, 20, 4, tolerated=1)
    assert run.params.threshold == 11
    for part in parts:
        assert part.params.threshold == 4
    part = parts[0]
    part.share()
    with pytest.raises(LocalFault) as refusal:
        part.mask(without=part.listed[:2])
    assert refusal.value.code == "RNM-SECAGG-0002"
    # The other groups are none the worse for it.
    assert isinstance(play(parts[1]), AggregateSum)


def test_a_member_of_one_group_is_nobody_in_another(attempt):
    _, (first, second, *_) = grouped(attempt, 20, 4)
    name = first.listed[0]
    shares = first.clients[name].share_keys(first.key_list)
    with pytest.raises(PeerFault) as refusal:
        second.server.receive_shares(name, shares)
    assert refusal.value.peer == name


def test_shares_are_dealt_within_the_group_only(attempt):
    run, parts = grouped(attempt, 20, 4)
    part = parts[0]
    message = decode(
        EncryptedShares, part.clients[part.listed[0]].share_keys(part.key_list), peer="x"
    )
    assert len(message.entries) == len(part.listed) == 5
    assert len(run.listed) == 20


def test_each_group_audits_its_own_sum_and_refuses_that_of_another(attempt):
    _, parts = grouped(attempt, 18, 3, d=50)
    shown = []
    for part in parts:
        play(part)
        shown.append(part.server.published)
    for place, part in enumerate(parts):
        audited = set()
        for name in part.listed:
            signed = shown[place].signed_by(signing_key("coordinator"))
            seen, published = part.clients[name].take_transcript(encode(signed))
            audit = SumAudit(seen, published)
            chunks = assigned(name, seen)
            read = lambda who, index, part=part: part.uploads[who].chunks[index]  # noqa: E731
            assert all(audit.matches(chunk, read) for chunk in chunks)
            audited.update(chunks)
            with pytest.raises(PeerFault):
                SumAudit(seen, shown[(place + 1) % 3])
        assert audited == {0}


# Attacks.


@pytest.mark.parametrize(
    ("n", "groups", "tolerated"),
    [(16, 3, 1), (65, 4, 5), (17, 2, 1), (17, 0, 1), (17, 3, 4), (64, 4, 15), (64, 16, 3)],
)
def test_groups_that_would_hide_too_little_have_no_authorisation(attempt, n, groups, tolerated):
    with pytest.raises(ValueError, match="groups"):
        attempt(n, tolerated=tolerated, groups=groups)


def test_so_few_keys_that_a_group_would_hide_too_little_end_the_attempt_on_both_sides(attempt):
    run = attempt(20, tolerated=3, groups=4)
    run.advertise(without=["m00"])
    with pytest.raises(LocalFault) as refusal:
        run.server.split()
    assert refusal.value.code == "RNM-SECAGG-0002"
    assert "m00" in refusal.value.why
    with pytest.raises(PeerFault) as refusal:
        run.clients["m01"].share_keys(run.key_list)
    assert (refusal.value.peer, refusal.value.code) == (COORDINATOR, "RNM-SECAGG-0003")


def test_a_member_is_not_moved_into_another_group(attempt):
    """The coordinator shows it the share list of a group that it would rather see it in."""
    _, (first, second, *_) = grouped(attempt, 20, 4)
    first.share()
    lists = second.share()
    own = decode(ShareList, first.share_lists[first.listed[0]], peer="x").dealt
    other = decode(ShareList, lists[second.listed[0]], peer="x").dealt
    mixed = ShareList(dealt=tuple(sorted((*own, other[0]), key=lambda item: item.header.member)))
    with pytest.raises(PeerFault) as refusal:
        first.clients[first.listed[0]].check_shares(encode(mixed))
    assert refusal.value.peer == COORDINATOR
    assert "outside the phase before" in refusal.value.why
    with pytest.raises(PeerFault) as refusal:
        first.clients[first.listed[1]].check_shares(lists[second.listed[1]])
    assert refusal.value.peer == COORDINATOR


def test_groups_picked_by_a_second_key_list_are_shown_up_by_the_next_header(attempt):
    """A victim is shown a list that puts it among colluders: its neighbours sign another h1."""
    run = attempt(20, tolerated=1, groups=3)
    for name in run.names:
        run.server.receive_advertise(name, run.clients[name].advertise())
    honest = run.server.close_advertise()
    keys = decode(KeyList, honest, peer="x").keys
    # A list without one member gives other groups; both are above the threshold and fully signed.
    bent = encode(KeyList(keys=keys[:-1]))
    victim = "m00"
    signed = run.clients[victim].share_keys(bent)
    parts = run.server.split()
    server = next(server for group, server in parts.items() if victim in group)
    with pytest.raises((Equivocation, PeerFault)):
        server.receive_shares(victim, signed)


def test_no_reveal_of_one_group_holds_shares_of_another(attempt):
    _, (first, second, *_) = grouped(attempt, 20, 4)
    for part in (first, second):
        part.share()
        part.mask()
        part.confirm()
    with pytest.raises(PeerFault) as refusal:
        first.clients[first.listed[0]].reveal(second.confirmations)
    assert refusal.value.peer == COORDINATOR


def test_an_attempt_made_again_in_other_groups_is_confirmed_by_nobody_that_revealed(attempt):
    """The same deltas summed in other groups: differences of the sums would show single members."""
    _, parts = grouped(attempt, 20, 4)
    play(parts[0])
    opened = tuple(parts[0].listed)
    again = attempt(20, tolerated=1, groups=4, attempt=2)
    for name in opened:
        again.clients[name] = again.client(name, opened=opened)
    again.advertise()
    others = parts_of(again)
    assert all(tuple(part.listed) != opened for part in others)
    for part in others:
        part.share()
        part.mask()
        for name in set(part.listed) & set(opened):
            with pytest.raises(PeerFault) as refusal:
                part.clients[name].confirm(part.survivor_list)
            assert refusal.value.code == "RNM-SECAGG-0003"


def test_an_abort_names_members_of_its_group_only(attempt):
    _, (part, *_) = grouped(attempt, 20, 4)
    part.share()
    part.mask()
    part.confirm()
    for name in part.listed[:2]:
        part.server.receive_reveal(name, part.clients[name].reveal(part.confirmations))
    with pytest.raises(FederationError) as refusal:
        part.server.finish()
    assert refusal.value.code == "RNM-SECAGG-0002"
    assert all(name in part.listed for name in part.names if name in refusal.value.why)


def test_one_group_is_the_whole_cohort(attempt):
    run = attempt(5)
    run.advertise()
    assert list(run.server.split()) == [tuple(run.names)]
    assert run.server.split()[tuple(run.names)] is run.server


def test_a_cohort_without_two_honest_members_has_no_authorisation(attempt):
    with pytest.raises(ValueError, match="colluders"):
        attempt(3, tolerated=2)
    assert isinstance(attempt(4, tolerated=2).server, SecAggServer)
    assert dataclasses.is_dataclass(attempt(4, tolerated=2).content)
