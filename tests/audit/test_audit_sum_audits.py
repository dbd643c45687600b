"""`apply` on audits of a sum: each rule has its attack, and refuses it; and who is told of them."""

import pytest
from ledger_kit import RUN, TRAINERS, Story, audited, closed, digest, receipt, started

from audit.answers.presence import presence
from audit.state import Rejected
from fedproto.events.rounds import Excluded, Outcome, Verdict
from fedproto.ids import ZERO_DIGEST

RULE, AGAIN = "RNM-GOV-0001", "RNM-GOV-0003"


@pytest.fixture
def summed():
    """A round whose members have signed for their uploads."""
    story = Story()
    story.approved()
    story.act("coordinator", started(story.state, 1))
    for name in TRAINERS:
        story.act(name, receipt(name, 1))
    return story


def refused(result, code, words):
    assert isinstance(result, Rejected), "it was admitted"
    assert result.code == code
    assert words in result.why


def test_a_member_that_gave_nothing_to_a_sum_does_not_audit_it():
    story = Story()
    story.approved()
    story.act("coordinator", started(story.state, 1))
    name = TRAINERS[0]
    refused(story.try_act(name, audited(name, 1)), RULE, "signed for nothing")
    refused(story.try_act(name, audited(name, 2)), RULE, "not started")


def test_a_member_audits_a_sum_once(summed):
    name = TRAINERS[0]
    summed.act(name, audited(name, 1))
    second = audited(name, 1, verdict=Verdict.REFUSED)
    refused(summed.try_act(name, second), AGAIN, "has audited")


def test_no_round_is_recorded_on_a_sum_that_an_auditor_refused(summed):
    name = TRAINERS[0]
    summed.act(name, audited(name, 1, verdict=Verdict.REFUSED))
    record = closed(summed.state, 1)
    refused(summed.try_act("coordinator", record), RULE, "refuses the sum")
    aborted = closed(
        summed.state,
        1,
        outcome=Outcome.ABORTED,
        reason="RNM-SECAGG-0007",
        model_out=record.model_in,
        included=(),
        excluded=tuple(Excluded(member=m, reason="RNM-SECAGG-0007") for m in TRAINERS),
    )
    summed.act("coordinator", aborted)
    again = started(summed.state, 1, 2)
    refused(summed.try_act("coordinator", again), RULE, "refuses the sum of round 1")


def test_a_round_is_not_recorded_over_another_sum_than_the_one_audited(summed):
    name = TRAINERS[0]
    summed.act(name, audited(name, 1))
    other = closed(summed.state, 1, transcript_sha256=digest("another transcript"))
    refused(summed.try_act("coordinator", other), RULE, "another sum")
    hidden = closed(summed.state, 1, transcript_sha256=ZERO_DIGEST)
    refused(summed.try_act("coordinator", hidden), RULE, "another sum")


def test_two_auditors_that_were_shown_two_sums_leave_none_to_record(summed):
    first, second, *_ = TRAINERS
    summed.act(first, audited(first, 1))
    summed.act(second, audited(second, 1, transcript_sha256=digest("for the second alone")))
    for shown in ("transcript", "for the second alone"):
        record = closed(summed.state, 1, transcript_sha256=digest(shown))
        refused(summed.try_act("coordinator", record), RULE, "another sum")


def test_a_refusal_after_the_close_stops_the_next_round(summed):
    summed.act("coordinator", closed(summed.state, 1))
    name = TRAINERS[0]
    summed.act(name, audited(name, 1, verdict=Verdict.REFUSED))
    refused(summed.try_act("coordinator", started(summed.state, 2)), RULE, "refuses the sum")


def test_the_ledger_says_by_whom_a_sum_was_audited(summed):
    for name in TRAINERS[:2]:
        summed.act(name, audited(name, 1))
    summed.act("coordinator", closed(summed.state, 1))
    (attempt,) = summed.state.rounds(RUN)
    assert attempt.auditors == tuple(TRAINERS[:2])
    shown = {item.member: item for item in presence(summed.state, run=RUN, number=1)}
    ledger_says = {item.member: item.audited is not None for item in shown.values()}
    assert ledger_says == {name: name in TRAINERS[:2] for name in TRAINERS}
    for name in TRAINERS:
        entry = next((a.index for a in attempt.audits if a.member == name), None)
        assert shown[name].audited == entry
        assert entry is None or entry in shown[name].cites
