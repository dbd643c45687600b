"""`apply` on ballots, mandates and rounds: each rule has its attack, and refuses it."""

from dataclasses import replace

import pytest
from ledger_kit import (
    HOUR,
    RUN,
    T0,
    TRAINERS,
    Story,
    authorisation,
    closed,
    copy_of,
    digest,
    full_story,
    mandate,
    plan_of,
    receipt,
    started,
)

from audit.state import Rejected, State
from fedproto.events.governance import Choice, VoteCast
from fedproto.events.rounds import Excluded, Outcome

RULE, QUORUM, AGAIN = "RNM-GOV-0001", "RNM-GOV-0002", "RNM-GOV-0003"


def refused(result, code, words):
    assert isinstance(result, Rejected), "it was admitted"
    assert result.code == code
    assert words in result.why


@pytest.fixture
def founded():
    story = Story()
    story.genesis()
    story.base_model()
    story.datasets()
    return story


@pytest.fixture
def proposed(founded):
    founded.proposed = founded.proposal()
    return founded


@pytest.fixture
def approved():
    story = Story()
    story.approved()
    return story


def ballot(story, choice=Choice.YES, **changes):
    body = VoteCast(
        proposal=story.proposed,
        terms_sha256=plan_of().digest,
        choice=choice,
        reason=digest("reason") if choice is Choice.VETO else "",
    )
    return replace(body, **changes)


# --- ballots


@pytest.mark.parametrize("actor", ["pfn", "coordinator", "secretariat", "meti"])
def test_only_a_voter_votes(proposed, actor):
    refused(proposed.try_act(actor, ballot(proposed)), RULE, "has no vote")


@pytest.mark.parametrize("second", list(Choice))
def test_a_member_votes_once_and_does_not_change_its_mind(proposed, second):
    proposed.vote("nec", proposed.proposed)
    refused(proposed.try_act("nec", ballot(proposed, second)), AGAIN, "has voted")


def test_a_late_ballot_is_refused_and_one_in_the_last_millisecond_counts(proposed):
    refused(proposed.try_act("nec", ballot(proposed), at=T0 + HOUR + 1), RULE, "later than")
    assert isinstance(proposed.try_act("nec", ballot(proposed), at=T0 + HOUR), State)


def test_a_ballot_for_no_proposal_is_refused(proposed):
    body = ballot(proposed, proposal=digest("none"))
    refused(proposed.try_act("nec", body), RULE, "no proposal")


def test_a_ballot_is_bound_to_its_plan(proposed):
    body = ballot(proposed, terms_sha256=digest("other plan"))
    refused(proposed.try_act("nec", body), RULE, "other terms")


def test_a_ballot_is_not_moved_to_another_proposal(proposed):
    leaf = proposed.vote("nec", proposed.proposed)
    second = proposed.proposal()
    assert set(proposed.state.ballots(second)) == set()
    forged = mandate(proposed.state, second, votes=(leaf,), members=("nec",))
    refused(proposed.try_act("coordinator", forged), QUORUM, "0 of 3")


def test_a_decided_proposal_takes_no_more_ballots(proposed):
    for member in TRAINERS[:3]:
        proposed.vote(member, proposed.proposed)
    proposed.mandate(proposed.proposed)
    refused(proposed.try_act("sony", ballot(proposed)), AGAIN, "decided")


# --- mandates


def vote_all(story, choices):
    for member, choice in zip(TRAINERS, choices, strict=False):
        story.vote(member, story.proposed, choice)


YES, NO, ABSTAIN = Choice.YES, Choice.NO, Choice.ABSTAIN


@pytest.mark.parametrize(
    "choices", [(), (YES,), (YES, YES), (YES, YES, NO, NO), (YES, YES, ABSTAIN, ABSTAIN), (NO,) * 4]
)
def test_a_mandate_below_the_quorum_is_refused(proposed, choices):
    vote_all(proposed, choices)
    body = mandate(proposed.state, proposed.proposed)
    refused(proposed.try_act("coordinator", body), QUORUM, "votes needed")


@pytest.mark.parametrize("actor", ["nec", "secretariat", "pfn", "meti"])
def test_only_the_operator_states_a_mandate(proposed, actor):
    vote_all(proposed, (YES,) * 4)
    body = mandate(proposed.state, proposed.proposed)
    refused(proposed.try_act(actor, body), RULE, "open to operator")


def test_every_word_of_a_mandate_is_checked(proposed):
    vote_all(proposed, (YES, YES, YES, NO))
    state = proposed.state
    votes = mandate(state, proposed.proposed).votes
    other = plan_of(purpose="other")
    for changes, code, words in (
        ({"members": TRAINERS}, RULE, "did not vote yes"),
        ({"members": TRAINERS[:2]}, RULE, "did not vote yes"),
        ({"votes": votes[:2]}, RULE, "other votes"),
        ({"votes": votes[::-1]}, RULE, "other votes"),
        ({"votes": (*votes, digest("forged"))}, RULE, "other votes"),
        ({"plan": other, "plan_sha256": other.digest}, RULE, "plan"),
        ({"not_after": T0 + 25 * HOUR}, RULE, "term"),
        ({"proposal": digest("none")}, RULE, "no proposal"),
    ):
        body = mandate(state, proposed.proposed)
        refused(proposed.try_act("coordinator", replace(body, **changes)), code, words)


def test_a_proposal_has_one_mandate_and_a_run_id_is_used_once(approved):
    first = approved.state.mandate(RUN).body.proposal
    again = mandate(approved.state, first, "cd" * 16)
    refused(approved.try_act("coordinator", again), AGAIN, "was decided by entry")
    second = approved.proposal()
    for member in TRAINERS:
        approved.vote(member, second)
    refused(approved.try_act("coordinator", mandate(approved.state, second)), AGAIN, "run")


# --- rounds


def test_a_round_needs_a_mandate(proposed):
    refused(proposed.try_act("coordinator", started(proposed.state, 1)), RULE, "no mandate")


@pytest.mark.parametrize("actor", ["nec", "secretariat", "pfn", "meti"])
def test_only_the_operator_starts_and_closes_rounds(approved, actor):
    refused(approved.try_act(actor, started(approved.state, 1)), RULE, "open to operator")
    approved.start(1)
    refused(approved.try_act(actor, closed(approved.state, 1)), RULE, "open to operator")


def test_rounds_come_in_order(approved):
    for number, attempt in ((2, 1), (1, 2), (3, 1)):
        result = approved.try_act("coordinator", started(approved.state, number, attempt))
        assert isinstance(result, Rejected)
        assert "not next" in result.why
    approved.start(1)
    other = started(approved.state, 2)
    refused(approved.try_act("coordinator", other), AGAIN, "still open")
    approved.close(1)
    again = started(approved.state, 1, authorisation_sha256=digest("new"))
    refused(approved.try_act("coordinator", again), AGAIN, "not next")


def test_a_round_beyond_the_mandate_is_refused():
    story = copy_of(full_story(rounds=3))
    refused(story.try_act("coordinator", started(story.state, 4)), RULE, "covers 3 rounds")


def test_a_round_outside_the_term_is_refused(approved):
    body = started(approved.state, 1)
    for at in (T0 - 1, T0 + 10 * HOUR + 1):
        refused(approved.try_act("coordinator", body, at=at), RULE, "term")


def test_a_round_invites_exactly_the_mandated_members(approved):
    for invited in (TRAINERS[:3], TRAINERS[::-1], (*TRAINERS, "stranger")):
        body = started(approved.state, 1, invited=invited)
        refused(approved.try_act("coordinator", body), RULE, "invited")


def test_a_round_starts_from_the_adapter_that_is_due(approved):
    body = started(approved.state, 1, model_in=digest("other"))
    refused(approved.try_act("coordinator", body), RULE, "adapter that is due")
    approved.whole_round(1)
    body = started(approved.state, 2, model_in=digest("adapter:0"))
    refused(approved.try_act("coordinator", body), RULE, "adapter that is due")


def test_an_authorisation_is_used_for_one_attempt(approved):
    approved.whole_round(1)
    body = started(approved.state, 2, authorisation_sha256=authorisation(1, 1))
    refused(approved.try_act("coordinator", body), AGAIN, "authorisation")


# --- receipts and records


def test_a_receipt_is_of_an_invited_member_for_a_started_attempt(approved):
    refused(approved.try_act("nec", receipt("nec", 1)), RULE, "not started")
    approved.start(1)
    refused(approved.try_act("nec", receipt("nec", 1, 2)), RULE, "not started")
    refused(approved.try_act("nec", receipt("nec", 2)), RULE, "not started")
    refused(approved.try_act("nec", receipt("nec", 1, run="cd" * 16)), RULE, "no mandate")
    refused(approved.try_act("coordinator", receipt("nec", 1)), RULE, "not invited")


def test_a_member_that_said_no_gives_no_receipt(proposed):
    vote_all(proposed, (YES, YES, YES, NO))
    proposed.mandate(proposed.proposed)
    proposed.act("coordinator", started(proposed.state, 1, invited=TRAINERS[:3]))
    refused(proposed.try_act("sony", receipt("sony", 1)), RULE, "not invited")


def test_a_member_signs_once_for_an_attempt(approved):
    approved.start(1)
    approved.receipt("nec", 1)
    refused(approved.try_act("nec", receipt("nec", 1)), AGAIN, "has signed")


def test_a_receipt_names_the_rounds_own_authorisation(approved):
    approved.start(1)
    body = receipt("nec", 1, authorisation_sha256=digest("other"))
    refused(approved.try_act("nec", body), RULE, "another authorisation")


def test_a_receipt_names_a_dataset_that_its_member_declared(approved):
    approved.start(1)
    for commitment in (digest("undeclared"), digest("dataset:sony")):
        body = receipt("nec", 1, dataset=commitment)
        refused(approved.try_act("nec", body), RULE, "not declared")


def out(*members):
    return tuple(Excluded(member=m, reason="RNM-ROUND-0002") for m in members)


def test_a_record_accounts_for_everyone_invited(approved):
    approved.start(1)
    for included, excluded in (
        (TRAINERS[:3], ()),
        (TRAINERS, out("sony")),
        ((*TRAINERS, "stranger"), ()),
        (TRAINERS[:3], out("stranger")),
    ):
        body = closed(approved.state, 1, included=included, excluded=excluded)
        refused(approved.try_act("coordinator", body), RULE, "not those invited")
    for included in (TRAINERS[::-1], ("honda", "honda", "nec", "softbank", "sony")):
        body = closed(approved.state, 1, included=included)
        refused(approved.try_act("coordinator", body), RULE, "sorted")
    body = closed(approved.state, 1, included=TRAINERS[:3], excluded=out("sony"))
    assert isinstance(approved.try_act("coordinator", body), State)


def test_a_sum_over_too_few_is_not_recorded_as_aggregated(approved):
    approved.start(1)
    body = closed(approved.state, 1, included=TRAINERS[:2], excluded=out("softbank", "sony"))
    refused(approved.try_act("coordinator", body), QUORUM, "2 members")


def test_an_aborted_round_does_not_change_the_adapter(approved):
    approved.start(1)
    body = closed(approved.state, 1, outcome=Outcome.ABORTED, included=(), excluded=out(*TRAINERS))
    refused(approved.try_act("coordinator", body), RULE, "leaves the adapter")
    body = closed(approved.state, 1, outcome=Outcome.ABORTED, model_out=digest("adapter:0"))
    refused(approved.try_act("coordinator", body), RULE, "no sum")


def test_only_the_open_attempt_is_closed_once(approved):
    refused(approved.try_act("coordinator", closed(approved.state, 1)), RULE, "no round")
    approved.start(1)
    refused(approved.try_act("coordinator", closed(approved.state, 2)), RULE, "open round is 1")
    body = closed(approved.state, 1, model_in=digest("other"))
    refused(approved.try_act("coordinator", body), RULE, "another adapter")
    approved.close(1)
    refused(approved.try_act("coordinator", closed(approved.state, 1)), AGAIN, "closed already")
