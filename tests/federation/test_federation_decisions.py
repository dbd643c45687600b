"""What the clerk writes: every kind of decision, closings, and the anchors that timelocks wait for."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "audit"))

from ledger_kit import (
    HOUR,
    RUN,
    T0,
    TRAINERS,
    Story,
    adopted,
    charter_of,
    clause,
    clauses,
    cosign,
    cosigned_note,
    described_base,
    digest,
    key_of,
    opened_with,
    signed_note,
)

from audit.note import NoteSigner, parse
from federation import decisions
from fedproto.events.governance import (
    CharterTerms,
    Choice,
    EmergencyStopped,
    KeyTerms,
    MemberStatus,
    ResumeTerms,
    Standing,
    StandingTerms,
)
from fedproto.events.models import EvaluationAttested, ReleaseTerms, RevocationTerms
from fedproto.governance.charter import Action, Role

NEW_RUN = "ef" * 16


@pytest.fixture
def founded():
    story = Story()
    story.genesis()
    story.base_model()
    story.datasets()
    return story


def settle(story, now=None):
    """Append what is due until nothing is, as the clerk does; return the types."""
    written = []
    for number in range(20):
        act = next(decisions.due(story.state, f"{number:032x}", now or story.now), None)
        if act is None:
            return written
        story.act("coordinator", act, at=now or story.now)
        written.append(type(act).__name__)
    raise AssertionError("the clerk does not come to rest")


def test_nothing_is_due_in_an_empty_or_unfounded_ledger():
    assert list(decisions.due(Story().state, RUN, T0)) == []
    story = Story()
    story.act("coordinator", adopted())
    assert list(decisions.due(story.state, RUN, T0)) == []
    assert decisions.anchor_due(story.state, cosigned_note(story.leaves), T0) is None


def test_a_mandate_waits_for_every_member_of_the_plan_or_for_the_close(founded):
    proposed = founded.proposal()
    for member in TRAINERS[:3]:
        founded.vote(member, proposed)
    assert settle(founded) == []
    assert settle(founded, T0 + HOUR + 1) == ["RunApproved"]


def test_a_plan_without_enough_willing_members_expires(founded):
    proposed = founded.proposal()
    for member in TRAINERS[:2]:
        founded.vote(member, proposed)
    assert settle(founded) == []
    assert settle(founded, T0 + HOUR + 1) == ["ProposalClosed"]


def test_a_mandate_leaves_out_who_left_after_its_yes(founded):
    """Its ballot no longer counts: a mandate that bound the member, or cited it, would be refused."""
    proposed = founded.proposal()
    ballots = {member: founded.vote(member, proposed) for member in TRAINERS}
    leave = MemberStatus(member="nec", standing=Standing.WITHDRAWN, proposal="", votes=())
    founded.act("nec", leave)
    assert settle(founded) == ["RunApproved"]
    mandate = founded.state.mandate("0" * 32).body
    assert mandate.members == tuple(member for member in TRAINERS if member != "nec")
    assert set(mandate.votes) == set(ballots.values()) - {ballots["nec"]}


def test_a_rejected_plan_is_closed_at_once(founded):
    proposed = founded.proposal()
    for member in TRAINERS[:2]:
        founded.vote(member, proposed, Choice.NO)
    assert settle(founded) == ["ProposalClosed"]


def test_an_amendment_is_adopted_and_ends_what_was_open(founded):
    founded.proposal()
    old = founded.state.charter
    new = replace(old, version=2, prev_sha256=old.digest, witness_quorum=2)
    founded.carried(Action.AMEND_CHARTER, CharterTerms(charter=new), TRAINERS[:3])
    assert settle(founded) == ["CharterAdopted"]
    assert founded.state.charter == new


def test_standing_keys_stops_and_base_weights_are_decided_as_voted():
    voted = clause((Role.PRETRAINER,), (Role.TRAINER,))
    story = Story()
    story.genesis(
        replace(charter_of(), actions={**clauses(), Action.APPROVE_BASE_MODEL.value: voted})
    )
    base = story.act("pfn", opened_with(Action.APPROVE_BASE_MODEL, described_base(), T0))
    for member in TRAINERS[:3]:
        story.vote(member, base)
    assert settle(story) == ["BaseModelApproved"]
    stop = story.act("sony", EmergencyStopped(run="", reason="drill"))
    story.carried(Action.RESUME, ResumeTerms(stop=stop), TRAINERS[:3])
    assert settle(story) == ["EmergencyResumed"]
    key = key_of("sony").verify_key.key_id
    terms = KeyTerms(member="sony", key=key, reason="stolen")
    story.carried(Action.REVOKE_KEY, terms, TRAINERS[:3])
    assert settle(story) == ["KeyChanged"]
    standing = StandingTerms(member="sony", standing=Standing.SUSPENDED)
    story.carried(Action.CHANGE_STANDING, standing, TRAINERS[:3])
    assert settle(story) == ["MemberStatus"]


def test_no_mandate_is_written_while_work_is_stopped(founded):
    proposed = founded.proposal()
    for member in TRAINERS:
        founded.vote(member, proposed)
    founded.act("sony", EmergencyStopped(run="", reason="drill"))
    assert settle(founded) == []


def test_a_release_waits_for_timelock_and_evaluations_then_is_approved_and_revoked():
    story = Story()
    story.approved()
    story.whole_round(1)
    adapter = digest("adapter:1")
    terms = ReleaseTerms(
        artifact=adapter, made_by=RUN, channels=("members",), conditions_sha256=digest("c")
    )
    proposed = story.carried(Action.APPROVE_RELEASE, terms)
    closes = story.state.proposals[proposed].opened.body.closes_at
    assert settle(story) == []
    first = decisions.anchor_due(story.state, cosigned_note(story.leaves), T0 // 1000)
    story.act("coordinator", first)
    later = T0 + 2 * HOUR
    note = cosign(signed_note(story.leaves), TRAINERS, later // 1000)
    assert decisions.anchor_due(story.state, note, T0 // 1000 + 60) is None
    story.act("coordinator", decisions.anchor_due(story.state, note, later // 1000))
    # Voting is over, the timelock too, but nobody has evaluated it: it expires.
    assert later > closes
    assert [type(a).__name__ for a in decisions.due(story.state, NEW_RUN, later)] == [
        "ProposalClosed"
    ]
    for member in ("honda", "nec"):
        story.act(
            member,
            EvaluationAttested(
                artifact=adapter,
                suite_sha256=digest("suite"),
                report_sha256=digest("report"),
                metrics={"bits_per_byte": "2.3"},
            ),
        )
    assert settle(story, later) == ["ReleaseApproved"]
    (leaf,) = story.state.releases
    story.now = later
    revocation = RevocationTerms(release=leaf, reason="regression", severity=2)
    story.carried(Action.REVOKE_RELEASE, revocation, TRAINERS[:2])
    assert settle(story) == ["ReleaseRevoked"]


def test_an_anchor_is_made_once_an_hour_if_something_happened(founded):
    now = T0 // 1000
    note = cosigned_note(founded.leaves)
    anchor = decisions.anchor_due(founded.state, note, now)
    founded.act("coordinator", anchor)
    assert decisions.anchor_due(founded.state, note, now + 7_200) is None
    own = cosigned_note(founded.leaves)
    # The anchor's own entry is no news: an idle log does not grow by itself.
    assert decisions.anchor_due(founded.state, own, now + 7_200) is None
    founded.proposal()
    grown = cosigned_note(founded.leaves)
    assert decisions.anchor_due(founded.state, grown, now + 60) is None
    assert decisions.anchor_due(founded.state, grown, now + 7_200) is not None


def test_an_anchor_carries_no_line_of_strangers(founded):
    stranger = NoteSigner("stranger/w1", b"s" * 32, cosigner=True)
    note = cosigned_note(founded.leaves)
    extra = note + stranger.cosign(parse(note).text, 1).encode()
    founded.act("coordinator", decisions.anchor_due(founded.state, extra, T0 // 1000))


def test_what_was_carried_twice_is_carried_out_once_and_the_other_expires(founded):
    terms = StandingTerms(member="sony", standing=Standing.SUSPENDED)
    others = ("honda", "nec", "softbank")
    founded.carried(Action.CHANGE_STANDING, terms, others)
    second = founded.carried(Action.CHANGE_STANDING, terms, others)
    founded.act("coordinator", next(decisions.due(founded.state, RUN, T0)))
    late = T0 + 86_400_000 + 1
    acts = list(decisions.due(founded.state, RUN, late))
    assert [type(act).__name__ for act in acts] == ["MemberStatus", "ProposalClosed"]
    founded.act("coordinator", acts[1], at=late)
    assert founded.state.proposals[second].decided is not None
    assert founded.state.waiting == ()
