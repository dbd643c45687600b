"""A cohort in groups over gRPC: sums side by side, groups that fall short, digests that must be there."""

import numpy as np
import pytest
from secagg_members import Members
from test_federation_sum_audit_wire import hand_out_the_result
from wire_kit import Wire

from federation.rounds.phases import Phase
from fedproto.errors import FederationError, LocalFault, PeerFault
from fedproto.secagg.groups import assign, round_digest
from fedproto.v1.exchange_pb2 import CoordinatorFrame

NAMES = tuple(f"m{number:02d}" for number in range(20))


class GroupWire(Wire):
    """Twenty members in four groups of five, each of which needs four."""

    def __init__(self, root, *, least_groups=3, timeout_s=20.0, **options):
        members = Members(names=NAMES, groups=4)
        super().__init__(
            root, members=members, least_groups=least_groups, timeout_s=timeout_s, **options
        )
        self.groups = None
        whole = self.runner._groups[0].server
        split = whole.split

        def kept():
            found = split()
            self.groups = list(found)
            return found

        whole.split = kept

    def fail(self, place, step, count=2):
        """Let members of a group break off instead of a step; nobody knows before who they are."""
        for name, half in self.members.halves.items():
            work = getattr(half, step)

            def leave(*arguments, name=name, work=work):
                if name in self.groups[place][:count]:
                    raise LocalFault("RNM-DATA-0002", what="x", why="x", mend="x")
                return work(*arguments)

            setattr(half, step, leave)


def mean_of(wire, names):
    return np.mean([wire.members.delta(name) for name in names], axis=0)


def whole_digest(wire):
    shown = [bytes.fromhex(total.transcript_sha256) for total in wire.totals]
    return round_digest(wire.members.authorisation.ctx, shown).hex()


def test_every_group_is_summed_audited_and_named_by_one_digest(tmp_path):
    wire = GroupWire(tmp_path).play(hand_out_the_result)
    assert wire.error is None
    assert [total.included for total in wire.totals] == wire.groups
    keys = {name: wire.members.advertised[name] for name in NAMES}
    assert len(keys) == 20
    assert assign(wire.runner._groups[0].server._keying.h1, NAMES, 4) == tuple(wire.groups)
    for total in wire.totals:
        assert np.abs(total.mean_delta - mean_of(wire, total.included)).max() < 1e-4
    assert {finding.transcript for finding in wire.findings.values()} == {whole_digest(wire)}
    assert all(finding.fault is None for finding in wire.findings.values())
    assert sorted(wire.findings) == list(NAMES)
    # What a member writes down is the sum that its own shares opened: that of its group.
    for group in wire.groups:
        assert {wire.opened[name] for name in group} == {group}


@pytest.mark.parametrize("step", ["share_keys", "mask", "confirm", "reveal"])
def test_a_group_that_falls_short_gives_no_sum_and_the_others_do(tmp_path, step):
    wire = GroupWire(tmp_path)
    if step == "share_keys":
        # The groups are fixed by then, though nobody was told yet.
        wire.groups = None
        for half in wire.members.halves.values():
            work = half.share_keys

            def leave(key_list, half=half, work=work):
                done = work(key_list)
                if (
                    half._seen.member in sorted(half._seen.listed)[:2]
                    and "m00" in half._seen.listed
                ):
                    raise LocalFault("RNM-DATA-0002", what="x", why="x", mend="x")
                return done

            half.share_keys = leave
    else:
        wire.fail(1, step)
    wire.play(hand_out_the_result)
    assert wire.error is None
    lost = next(g for g in wire.groups if all(g != total.included for total in wire.totals))
    assert len(wire.totals) == 3
    assert set(wire.runner.excluded) == set(lost)
    assert [wire.runner.excluded[name] for name in lost].count("RNM-DATA-0002") == 2
    assert [wire.runner.excluded[name] for name in lost].count("RNM-SECAGG-0002") == 3
    for total in wire.totals:
        assert np.abs(total.mean_delta - mean_of(wire, total.included)).max() < 1e-4
    assert {finding.transcript for finding in wire.findings.values()} == {whole_digest(wire)}
    assert not set(wire.findings) & set(lost)
    assert [fault.code for fault in wire.runner.faults] == ["RNM-SECAGG-0002"]


def test_fewer_groups_than_the_plan_needs_end_the_attempt_before_anything_is_open(tmp_path):
    wire = GroupWire(tmp_path, least_groups=4)
    wire.fail(2, "mask")
    wire.play()
    assert isinstance(wire.error, FederationError)
    assert wire.error.code == "RNM-SECAGG-0002"
    assert not wire.runner.opened
    assert not wire.opened
    assert not wire.findings


def test_fewer_groups_after_the_confirmations_say_that_a_sum_may_be_open(tmp_path):
    wire = GroupWire(tmp_path, least_groups=4)
    wire.fail(2, "reveal")
    wire.play()
    assert wire.error.code == "RNM-SECAGG-0002"
    assert wire.runner.opened, "no other attempt may be made: it would have other groups"


def test_a_group_whose_sum_nobody_looks_at_ends_the_attempt(tmp_path):
    """Its digest is in every auditor's finding by then: it cannot be left out any more."""
    wire = GroupWire(tmp_path)
    wire.fail(0, "take_transcript", count=5)
    wire.play(hand_out_the_result)
    assert wire.error.code == "RNM-SECAGG-0002"
    assert "audit" in wire.error.what


def test_a_dropout_costs_its_group_nothing_but_itself(tmp_path):
    wire = GroupWire(tmp_path)
    wire.fail(3, "mask", count=1)
    wire.play(hand_out_the_result)
    assert wire.error is None
    assert [len(total.included) for total in wire.totals] == [5, 5, 5, 4]
    assert np.abs(wire.totals[3].mean_delta - mean_of(wire, wire.groups[3][1:])).max() < 1e-4


@pytest.mark.parametrize(
    "bend",
    [
        lambda digests: [],
        lambda digests: [bytes(32)] * 4,
        lambda digests: [*digests, bytes(32)],
        lambda digests: [digests[0]] * 4,
        lambda digests: [bytes([number]) * 32 for number in range(4)],
    ],
    ids=["none", "one again and again", "one too many", "the first four times", "of others"],
)
def test_a_list_of_transcripts_that_cannot_be_is_refused_by_every_member(tmp_path, bend):
    wire = GroupWire(tmp_path)
    broadcast = wire.runner._broadcast

    def bent(group, frame):
        if frame.WhichOneof("frame") == "transcript":
            frame = CoordinatorFrame(
                transcript=frame.transcript, transcripts=bend(list(frame.transcripts))
            )
        broadcast(group, frame)

    wire.runner._broadcast = bent
    wire.play(hand_out_the_result)
    assert not wire.findings
    for outcome in wire.outcomes.values():
        assert isinstance(outcome, PeerFault)
        assert outcome.peer == "coordinator"


def test_one_sum_has_no_list_of_transcripts(tmp_path):
    wire = Wire(tmp_path)
    broadcast = wire.runner._broadcast
    wire.runner._broadcast = lambda group, frame: broadcast(
        group,
        CoordinatorFrame(transcript=frame.transcript, transcripts=[bytes(32)])
        if frame.WhichOneof("frame") == "transcript"
        else frame,
    )
    wire.play()
    assert not wire.findings
    assert all("transcripts" in outcome.why for outcome in wire.outcomes.values())


def test_all_groups_stand_in_the_same_phase(tmp_path):
    wire = GroupWire(tmp_path).play(hand_out_the_result)
    assert {group.attempt.phase for group in wire.runner._groups} == {Phase.DONE}
    assert [event.phase for event in wire.words("closed")] == [
        phase.value for phase in Phase if phase.value not in ("done", "aborted")
    ]
