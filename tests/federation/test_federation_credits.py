"""Credits: what is under way fits into a fixed room, everybody's turn comes, nobody can hold it all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from secagg_members import NAMES, Members
from test_federation_attempt import Stage

from federation.rounds.credits import MOST, ROOM, Credits
from federation.rounds.phases import Phase
from fedproto.errors import PeerFault
from fedproto.secagg.params import UPLOAD_CHUNK_WORDS
from fedproto.v1.exchange_pb2 import UploadBegin, UploadChunk


def held(turns):
    return sum(turns._granted.values())


@given(
    members=st.integers(3, 64),
    chunks=st.integers(1, 9),
    silent=st.sets(st.integers(0, 63), max_size=21),
    order=st.randoms(use_true_random=False),
)
def test_everybody_who_sends_gets_through_whoever_keeps_silent(members, chunks, silent, order):
    turns = Credits(members, tolerated=21)
    left = dict.fromkeys(range(members), chunks)
    owed = dict.fromkeys(left, 0)
    room = ROOM
    for member in left:
        turns.open(member, chunks)
        for name, more in turns.grant().items():
            owed[name] += more
        assert held(turns) <= room
    while sending := [name for name in left if owed[name] and name not in silent]:
        member = order.choice(sending)
        turns.spend(member)
        owed[member] -= 1
        left[member] -= 1
        for name, more in turns.grant().items():
            owed[name] += more
        assert held(turns) <= room
        assert max(owed.values()) <= max(1, min(MOST, room // members))
    assert all(count == 0 for name, count in left.items() if name not in silent)


def test_four_members_have_four_chunks_each_under_way():
    turns = Credits(4, tolerated=1)
    for name in NAMES:
        turns.open(name, 10)
    assert turns.grant() == dict.fromkeys(NAMES, 4)
    assert turns.grant() == {}
    turns.spend("nec")
    assert turns.grant() == {"nec": 1}


def test_who_leaves_makes_room():
    turns = Credits(64, tolerated=21)
    for number in range(64):
        turns.open(f"m{number:02d}", 2)
    first = turns.grant()
    assert set(first.values()) == {1}
    waiting = [f"m{number:02d}" for number in range(len(first), 64)]
    turns.leave("m00")
    turns.leave(waiting[0])
    turns.leave("nobody")
    assert turns.grant() == {waiting[1]: 1}


def test_a_credit_is_spent_once():
    turns = Credits(4, tolerated=1)
    turns.open("nec", 1)
    turns.grant()
    turns.spend("nec")
    with pytest.raises(PeerFault) as refusal:
        turns.spend("nec")
    assert refusal.value.peer == "nec"
    with pytest.raises(PeerFault):
        turns.spend("stranger")


def test_a_member_that_sends_more_than_its_credit_is_out_and_nobody_else():
    stage = Stage(members=Members(5 * UPLOAD_CHUNK_WORDS))
    last = stage.play_to(Phase.UPLOAD)
    header, chunks = stage.members.mask("nec", last["nec"][-1].share_list)
    stage.send("nec", upload_begin=UploadBegin())
    assert [frame.credit for frame in stage.received("nec")] == [MOST]
    for index in range(MOST):
        stage.send("nec", masked_chunk=UploadChunk(index=index, data=chunks[index]))
        # Each one that arrived makes room for another.
    more = stage.received("nec")
    assert sum(frame.credit for frame in more) == len(chunks) - MOST
    for index in (4, 5):
        stage.send("nec", masked_chunk=UploadChunk(index=index, data=chunks[index]))
    stage.send("nec", masked_header=header)
    assert not stage.runner.excluded
    assert "nec" in stage.attempt.answered
    # The same chunk once more: there is no credit for it.
    stage.send("nec", masked_chunk=UploadChunk(index=0, data=chunks[0]))
    assert stage.runner.excluded == {"nec": "RNM-SECAGG-0001"}
    assert stage.attempt.waiting == set(NAMES) - {"nec"}


def test_the_place_of_a_member_that_is_lost_goes_to_the_others():
    stage = Stage(members=Members(5 * UPLOAD_CHUNK_WORDS))
    stage.play_to(Phase.UPLOAD)
    for name in NAMES:
        stage.send(name, upload_begin=UploadBegin())
        stage.received(name)
    assert held(stage.runner._credits) == 4 * MOST
    stage.runner._lose("sony", "RNM-TLS-0001")
    assert held(stage.runner._credits) == 3 * MOST
