"""Cohorts summed in groups, in the ledger: plans that may ask for it, records that say who with whom."""

from dataclasses import replace

import ledger_kit
import pytest
from ledger_kit import Story, audited, charter_of, closed, digest, plan_of

from audit.decision import QUORUM
from audit.records import State
from fedproto.events.governance import Choice
from fedproto.events.rounds import Excluded, Outcome, Verdict
from fedproto.governance.plan import Combine

NAMES = tuple(f"t{number:02d}" for number in range(18))
GROUPS = (NAMES[0::3], NAMES[1::3], NAMES[2::3])
RULE = "RNM-GOV-0001"


def plan(groups=3, combine=Combine.MEDIAN, tolerated=2, min_members=4, names=NAMES):
    aggregation = replace(
        plan_of().aggregation, groups=groups, combine=combine, tolerated=tolerated
    )
    return plan_of(members=names, min_members=min_members, aggregation=aggregation)


@pytest.fixture
def story(monkeypatch):
    """Eighteen trainers under a charter that asks for groups from seventeen on."""
    monkeypatch.setattr(ledger_kit, "TRAINERS", NAMES)
    charter_of.cache_clear()
    made = Story()
    limits = replace(charter_of().limits, robust_from=17)
    made.genesis(replace(charter_of(), limits=limits))
    made.base_model()
    made.datasets()
    yield made
    charter_of.cache_clear()


def approve(story, wanted, no=()):
    proposed = story.proposal(wanted)
    for name in NAMES:
        story.vote(name, proposed, Choice.NO if name in no else Choice.YES)
    return proposed


@pytest.fixture
def running(story):
    """One attempt, which all have signed for."""
    story.mandate(approve(story, plan()))
    story.start(1)
    for name in NAMES:
        story.receipt(name, 1)
    return story


def refused(answer, code, why):
    assert not isinstance(answer, State), "it was admitted"
    assert (answer.code, why in answer.why) == (code, True), answer


def record(story, groups=GROUPS, **changes):
    included = tuple(sorted(name for group in groups for name in group))
    out = tuple(Excluded(member=m, reason="RNM-SECAGG-0002") for m in NAMES if m not in included)
    body = closed(story.state, 1, included=included, excluded=out, groups=groups)
    return replace(body, **changes)


# What may be asked for.


def test_a_large_cohort_in_one_sum_is_refused_where_the_charter_asks_for_groups(story):
    wanted = ledger_kit.proposal(plan(groups=1, combine=Combine.MEAN), story.now)
    refused(story.try_act("secretariat", wanted), RULE, "summed in groups")
    # A small one may still be.
    few = ledger_kit.proposal(plan(1, Combine.MEAN, names=NAMES[:16]), story.now)
    assert isinstance(story.try_act("secretariat", few), State)


@pytest.mark.parametrize(
    "changes",
    [{"groups": 5}, {"tolerated": 5}, {"min_members": 7}, {"names": NAMES[:16]}],
    ids=["groups too small", "too many colluders", "minimum above a group", "cohort too small"],
)
def test_a_plan_whose_groups_hide_too_little_has_no_form(changes):
    with pytest.raises(ValueError, match="group"):
        plan(**changes)


def test_too_few_that_are_willing_give_no_mandate(story):
    # 16 of 18 say yes: groups are for 17 and more.
    proposed = approve(story, plan(), no=NAMES[:2])
    body = ledger_kit.mandate(story.state, proposed, now=story.now)
    refused(story.try_act("coordinator", body), "RNM-GOV-0002", "16 members are willing")


# What may be recorded.


def test_groups_that_partition_the_sum_are_recorded(running):
    assert isinstance(running.try_act("coordinator", record(running)), State)
    # One that lost two members, and, with a median of three left, one that gave no sum.
    short = (GROUPS[0][:4], *GROUPS[1:])
    assert isinstance(running.try_act("coordinator", record(running, short)), State)


@pytest.mark.parametrize(
    ("groups", "changes", "code", "why"),
    [
        ((), {"included": NAMES, "excluded": ()}, RULE, "in 3 groups"),
        (GROUPS[:2], {}, QUORUM, "2 sums"),
        ((GROUPS[0][:3], *GROUPS[1:]), {}, QUORUM, "3 members"),
        ((GROUPS[0], GROUPS[1][::-1], GROUPS[2]), {}, RULE, "sorted"),
        ((*GROUPS, GROUPS[0]), {"included": NAMES, "excluded": ()}, RULE, "not the members"),
        (
            (GROUPS[0], GROUPS[1], GROUPS[2][:5]),
            {"included": NAMES, "excluded": ()},
            RULE,
            "not the",
        ),
        (
            (NAMES[:4], NAMES[4:8], NAMES[8:12], NAMES[12:]),
            {},
            QUORUM,
            "4 sums",
        ),
    ],
    ids=[
        "none",
        "two",
        "too small",
        "not sorted",
        "one twice",
        "one left out",
        "more than planned",
    ],
)
def test_a_record_of_other_groups_is_refused(running, groups, changes, code, why):
    refused(running.try_act("coordinator", record(running, groups, **changes)), code, why)


def test_an_aborted_round_has_no_groups(running):
    out = tuple(Excluded(member=m, reason="RNM-ROUND-0001") for m in NAMES)
    body = record(running, outcome=Outcome.ABORTED, included=(), excluded=out)
    body = replace(body, model_out=body.model_in)
    refused(running.try_act("coordinator", body), RULE, "no sum")
    assert isinstance(running.try_act("coordinator", replace(body, groups=())), State)


def test_one_sum_has_no_groups_in_its_record(story):
    story.mandate(approve(story, plan(1, Combine.MEAN, names=NAMES[:16])))
    story.act("coordinator", replace(ledger_kit.started(story.state, 1, 1), invited=NAMES[:16]))
    body = closed(story.state, 1, included=NAMES[:16], excluded=())
    assert isinstance(story.try_act("coordinator", body), State)
    refused(
        story.try_act("coordinator", replace(body, groups=(NAMES[:8], NAMES[8:16]))),
        RULE,
        "1 groups",
    )


# Who looked at which sum.


def closed_after(running, auditors):
    for name in auditors:
        running.act(name, audited(name, 1))
    running.act("coordinator", record(running))
    return running.state.rounds(ledger_kit.RUN)[-1]


def test_each_group_needs_auditors_of_its_own(running):
    # Six members and two colluders: five of each have to find their sum right.
    attempt = closed_after(running, [*GROUPS[0], *GROUPS[1][:5], *GROUPS[2][:4]])
    assert attempt.unaudited(threshold=11, tolerated=2) == "4 members audited its sum, fewer than 5"
    # All fifteen together are more than T of the whole cohort, and that is not what counts.
    assert len(attempt.auditors) == 15
    state = running.try_act(GROUPS[2][4], audited(GROUPS[2][4], 1))
    assert state.rounds(ledger_kit.RUN)[-1].unaudited(threshold=11, tolerated=2) == ""


def test_who_is_not_in_the_one_sum_of_a_cohort_does_not_count_as_its_auditor(running):
    attempt = closed_after(running, [*GROUPS[0], *GROUPS[1]])
    transcript = attempt.closed.body.transcript_sha256
    missing = attempt.missing_audits(transcript, [GROUPS[0]], threshold=7, tolerated=2)
    assert missing == "6 members audited its sum, fewer than 7"
    assert attempt.missing_audits(transcript, [GROUPS[0]], threshold=6, tolerated=2) == ""


def test_a_refusal_in_one_group_is_a_refusal_of_the_round(running):
    running.act("t05", audited("t05", 1, verdict=Verdict.REFUSED))
    refused(running.try_act("coordinator", record(running)), RULE, "refuses the sum")


def test_an_audit_of_another_list_of_transcripts_is_no_audit_of_the_round(running):
    running.act("t05", audited("t05", 1, transcript_sha256=digest("another")))
    refused(running.try_act("coordinator", record(running)), RULE, "another sum")
