"""Votes and what follows from them: vetoes, closings, stops, releases, and base weights by vote."""

from dataclasses import replace

import pytest
from ledger_kit import (
    HOUR,
    RUN,
    T0,
    TRAINERS,
    Story,
    base_model,
    charter_of,
    clause,
    clauses,
    described_base,
    digest,
    mandate,
    opened_with,
    started,
)

from audit import decision
from audit.state import Rejected
from fedproto.errors import LocalFault
from fedproto.events.governance import (
    ActRefused,
    Choice,
    Closing,
    EmergencyResumed,
    EmergencyStopped,
    MemberStatus,
    ProposalClosed,
    ResumeTerms,
    Standing,
    StandingTerms,
)
from fedproto.events.models import (
    BaseModelApproved,
    DatasetWithdrawn,
    EvaluationAttested,
    ReleaseApproved,
    ReleaseRevoked,
    ReleaseTerms,
    Remedy,
    RevocationTerms,
)
from fedproto.governance.charter import Action, Role, Rule
from fedproto.governance.tally import Motion, Verdict, verdict

RULE, QUORUM, AGAIN, STOPPED = "RNM-GOV-0001", "RNM-GOV-0002", "RNM-GOV-0003", "RNM-GOV-0004"
ADAPTER = digest("adapter:1")


def refused(result, code, words):
    assert isinstance(result, Rejected), "it was admitted"
    assert result.code == code, result
    assert words in result.why, result.why


@pytest.fixture
def founded():
    story = Story()
    story.genesis()
    return story


@pytest.fixture
def trained():
    """A run with one round behind it."""
    story = Story()
    story.approved()
    story.whole_round(1)
    return story


# --- base weights by vote


def voting_charter():
    voted = clause((Role.PRETRAINER,), (Role.TRAINER,))
    actions = {**clauses(), Action.APPROVE_BASE_MODEL.value: voted}
    return replace(charter_of(), actions=actions)


def by_vote():
    story, charter = Story(), voting_charter()
    story.genesis(charter)
    return story


def propose_base(story, voters):
    opened = opened_with(Action.APPROVE_BASE_MODEL, described_base(), story.now)
    proposed = story.act("pfn", opened)
    for member in voters:
        story.vote(member, proposed)
    return proposed


def test_a_pretrainer_alone_approves_nothing_where_the_charter_asks_for_a_vote():
    refused(by_vote().try_act("pfn", base_model()), QUORUM, "needs a vote")


def test_voted_base_weights_are_approved_as_voted_on_and_no_other():
    story = by_vote()
    cited = story.cited(propose_base(story, TRAINERS[:3]))
    other = replace(described_base(), parameters=7)
    refused(
        story.try_act("coordinator", BaseModelApproved(model=other, **cited)),
        RULE,
        "not those that were voted on",
    )
    story.act("coordinator", BaseModelApproved(model=described_base(), **cited))
    assert story.state.base_model(digest("base"))
    again = BaseModelApproved(model=described_base(), **cited)
    refused(story.try_act("coordinator", again), AGAIN, "approved already")


def test_what_needs_no_vote_is_not_put_to_one(founded):
    body = opened_with(Action.APPROVE_BASE_MODEL, described_base())
    refused(founded.try_act("pfn", body), RULE, "needs no vote")


# --- votes are for one proposal of one log


def test_a_vote_for_one_proposal_does_not_count_for_another_of_equal_terms(founded):
    """T11, T12: a ballot is bound to its proposal by leaf hash, not only to the plan."""
    founded.base_model()
    first, second = founded.proposal(), founded.proposal()
    for member in TRAINERS[:3]:
        founded.vote(member, first)
    body = mandate(founded.state, first)
    refused(founded.try_act("coordinator", replace(body, proposal=second)), QUORUM, "0 of 3 votes")


def test_a_vote_from_another_log_is_refused(founded):
    founded.base_model()
    proposed = founded.proposal()
    for member in TRAINERS[:2]:
        founded.vote(member, proposed)
    body = founded.state.proposals[proposed].votes[0].body
    refused(founded.try_act("sony", body, log="another.example/log"), RULE, "for the log 'another")


def test_a_late_ballot_is_refused_by_the_witnesses_clock_whatever_its_own_says(founded):
    founded.base_model()
    proposed = founded.proposal()
    founded.anchor(T0 + HOUR + 1000)
    with pytest.raises(LocalFault, match="later than the proposal's close"):
        founded.vote("nec", proposed)


def test_a_carried_proposal_lapses_with_its_term():
    story = by_vote()
    cited = story.cited(propose_base(story, TRAINERS[:3]))
    body = BaseModelApproved(model=described_base(), **cited)
    late = T0 + 86_400_000 + 1
    refused(story.try_act("coordinator", body, at=late), RULE, "has lapsed")


# --- closings


def closing(story, proposed, outcome):
    votes = tuple(sorted(vote.leaf for vote in story.state.proposals[proposed].votes))
    return ProposalClosed(proposal=proposed, outcome=outcome, votes=votes)


def test_a_rejected_proposal_is_closed_as_rejected_and_only_so(founded):
    founded.base_model()
    proposed = founded.proposal()
    for member in TRAINERS[:2]:
        founded.vote(member, proposed, Choice.NO)
    for outcome in (Closing.VETOED, Closing.EXPIRED):
        refused(
            founded.try_act("coordinator", closing(founded, proposed, outcome)), RULE, "rejected"
        )
    founded.act("coordinator", closing(founded, proposed, Closing.REJECTED))
    with pytest.raises(LocalFault, match="was decided by entry"):
        founded.vote("sony", proposed)


def test_an_open_proposal_is_not_closed(founded):
    founded.base_model()
    proposed = founded.proposal()
    for outcome in Closing:
        body = closing(founded, proposed, outcome)
        refused(founded.try_act("coordinator", body), RULE, "open")


def test_a_proposal_expires_and_a_carried_one_too(founded):
    founded.base_model()
    proposed = founded.proposal()
    for member in TRAINERS[:3]:
        founded.vote(member, proposed)
    body = closing(founded, proposed, Closing.EXPIRED)
    refused(founded.try_act("coordinator", body), RULE, "carried")
    founded.act("coordinator", body, at=T0 + HOUR + 1)


def test_a_closing_that_leaves_votes_out_is_refused(founded):
    founded.base_model()
    proposed = founded.proposal()
    for member in TRAINERS[:2]:
        founded.vote(member, proposed, Choice.NO)
    body = replace(closing(founded, proposed, Closing.REJECTED), votes=())
    refused(founded.try_act("coordinator", body), RULE, "other votes")


# --- emergencies


def stop_of(run=""):
    return EmergencyStopped(run=run, reason="suspicious-update")


@pytest.mark.parametrize("actor", ["sony", "secretariat"])
@pytest.mark.parametrize("scope", ["", RUN])
def test_one_member_stops_a_run_or_everything(actor, scope):
    story = Story()
    story.approved()
    story.act(actor, stop_of(scope))
    refused(story.try_act("coordinator", started(story.state, 1)), STOPPED, "work is stopped")


@pytest.mark.parametrize("actor", ["coordinator", "meti", "pfn"])
def test_who_may_not_stop_does_not(founded, actor):
    refused(founded.try_act(actor, stop_of()), RULE, "open to")


def test_a_stop_ends_only_by_the_vote_of_three():
    story = Story()
    story.approved()
    stop = story.act("sony", stop_of())
    lone = EmergencyResumed(stop=stop, proposal=digest("none"), votes=())
    refused(story.try_act("coordinator", lone), RULE, "no proposal")
    few = story.carried(Action.RESUME, ResumeTerms(stop=stop), TRAINERS[:2])
    body = EmergencyResumed(stop=stop, **story.cited(few))
    refused(story.try_act("coordinator", body), QUORUM, "open")
    story.vote("softbank", few)
    story.act("coordinator", EmergencyResumed(stop=stop, **story.cited(few)))
    story.start(1)


def test_a_stop_of_one_run_leaves_others_alone():
    story = Story()
    story.approved()
    refused(story.try_act("sony", stop_of("cd" * 16)), RULE, "no run")
    proposed = story.proposal()
    for member in TRAINERS:
        story.vote(member, proposed)
    story.act("sony", stop_of(RUN))
    refused(story.try_act("nec", stop_of(RUN)), AGAIN, "stopped already")
    story.mandate(proposed, "cd" * 16)


# --- releases


def evaluation(member, **changes):
    body = EvaluationAttested(
        artifact=ADAPTER,
        suite_sha256=digest("suite"),
        report_sha256=digest(f"report:{member}"),
        metrics={"bits_per_byte": "2.31"},
    )
    return replace(body, **changes)


def release_terms(**changes):
    body = ReleaseTerms(
        artifact=ADAPTER, made_by=RUN, channels=("members",), conditions_sha256=digest("terms")
    )
    return replace(body, **changes)


def released(story, proposed, **changes):
    attested = story.state.evaluations.get(ADAPTER, ())
    body = ReleaseApproved(
        release=release_terms(),
        evaluations=tuple(sorted(item.leaf for item in attested)),
        **story.cited(proposed),
    )
    return replace(body, **changes)


def ready(story, evaluators=("honda", "nec")):
    """A carried release with its evaluations, its timelock over by the witnesses' clock."""
    for member in evaluators:
        story.act(member, evaluation(member))
    proposed = story.carried(Action.APPROVE_RELEASE, release_terms())
    story.anchor(story.now)
    story.now += 2 * HOUR
    story.anchor(story.now)
    return proposed


def test_a_release_with_vote_evaluations_and_timelock_is_approved_and_revoked(trained):
    leaf = trained.act("coordinator", released(trained, ready(trained)))
    assert trained.state.releases[leaf].revoked is None
    terms = RevocationTerms(release=leaf, reason="regression", severity=3)
    proposed = trained.carried(Action.REVOKE_RELEASE, terms, TRAINERS[:2])
    body = ReleaseRevoked(revocation=terms, **trained.cited(proposed))
    other = replace(body, revocation=replace(terms, severity=1))
    refused(trained.try_act("coordinator", other), RULE, "not the one that was voted on")
    trained.act("coordinator", body)
    assert trained.state.releases[leaf].revoked == trained.state.size - 1
    refused(trained.try_act("coordinator", body), AGAIN, "was revoked")


def test_a_release_without_enough_members_evaluations_is_refused(trained):
    proposed = ready(trained, ("honda",))
    refused(trained.try_act("coordinator", released(trained, proposed)), QUORUM, "1 members")


def test_two_evaluations_by_one_member_are_one(trained):
    trained.act("honda", evaluation("honda", suite_sha256=digest("other suite")))
    proposed = ready(trained, ("honda",))
    refused(trained.try_act("coordinator", released(trained, proposed)), QUORUM, "1 members")
    refused(trained.try_act("honda", evaluation("honda")), AGAIN, "has attested")


def test_a_release_before_its_timelock_is_refused(trained):
    for member in ("honda", "nec"):
        trained.act(member, evaluation(member))
    proposed = trained.carried(Action.APPROVE_RELEASE, release_terms())
    body = released(trained, proposed)
    refused(trained.try_act("coordinator", body), QUORUM, "timelock")
    assert decision.ripens_at(trained.state, trained.state.proposals[proposed]) is None


def test_a_veto_within_the_timelock_ends_a_carried_release(trained):
    for member in ("honda", "nec"):
        trained.act(member, evaluation(member))
    proposed = trained.carried(Action.APPROVE_RELEASE, release_terms(), TRAINERS[:3])
    trained.vote("sony", proposed, Choice.VETO)
    trained.anchor(trained.now)
    trained.now += 2 * HOUR
    trained.anchor(trained.now)
    refused(trained.try_act("coordinator", released(trained, proposed)), QUORUM, "vetoed")
    trained.act("coordinator", closing(trained, proposed, Closing.VETOED))


def test_who_has_no_veto_casts_none(founded):
    founded.base_model()
    proposed = founded.proposal()
    with pytest.raises(LocalFault, match="a veto is open to"):
        founded.vote("sony", proposed, Choice.VETO)


def test_a_release_of_what_the_run_did_not_make_is_refused(trained):
    for member in ("honda", "nec"):
        trained.act(member, evaluation(member))
    terms = release_terms(artifact=digest("adapter:9"))
    proposed = trained.carried(Action.APPROVE_RELEASE, terms)
    trained.anchor(trained.now)
    trained.now += 2 * HOUR
    trained.anchor(trained.now)
    body = released(trained, proposed, release=terms)
    refused(trained.try_act("coordinator", body), RULE, "did not lead to")


def test_a_release_that_hides_an_evaluation_is_refused(trained):
    proposed = ready(trained, ("honda", "nec", "sony"))
    body = released(trained, proposed)
    partial = replace(body, evaluations=body.evaluations[:2])
    refused(trained.try_act("coordinator", partial), RULE, "other evaluations")


def test_a_release_fed_by_a_withdrawn_dataset_is_refused(trained):
    proposed = ready(trained)
    gone = DatasetWithdrawn(
        commitment=digest("dataset:sony"), reason="consent-withdrawn", remedy=Remedy.TO_BE_VOTED
    )
    refused(trained.try_act("nec", gone), RULE, "nec has not declared")
    trained.act("sony", gone)
    refused(trained.try_act("sony", gone), AGAIN, "was withdrawn")
    refused(trained.try_act("coordinator", released(trained, proposed)), RULE, "is withdrawn")
    assert trained.state.dataset(digest("dataset:sony")) is None


def test_a_withdrawn_dataset_feeds_no_later_round(trained):
    gone = DatasetWithdrawn(
        commitment=digest("dataset:sony"), reason="consent-withdrawn", remedy=Remedy.NONE_MADE
    )
    trained.start(2)
    trained.act("sony", gone)
    trained.receipt("sony", 2)
    trained.close(2)
    trained.start(3)
    with pytest.raises(LocalFault, match="was withdrawn"):
        trained.receipt("sony", 3)


def test_an_evaluation_of_what_no_round_made_is_refused(trained):
    other = evaluation("nec", artifact=digest("elsewhere"))
    refused(trained.try_act("nec", other), RULE, "no round led to")
    refused(trained.try_act("meti", evaluation("meti")), RULE, "open to trainer")


def test_a_pretrainer_attests_its_base_model_and_nothing_else(trained):
    base = next(iter(trained.state.base_models))
    for member in ("pfn", "nec"):
        trained.act(member, evaluation(member, artifact=base))
    twice = trained.try_act("pfn", evaluation("pfn", artifact=base))
    refused(twice, AGAIN, "has attested this suite")
    refused(trained.try_act("pfn", evaluation("pfn")), RULE, "open to trainer")
    assert [act.member for act in trained.state.evaluations[base]] == ["pfn", "nec"]


def test_a_stop_holds_releases_too(trained):
    proposed = ready(trained)
    trained.act("sony", stop_of(RUN))
    refused(trained.try_act("coordinator", released(trained, proposed)), STOPPED, "stopped")


# --- refusals


def test_a_refusal_is_recorded_once_and_by_the_operator(founded):
    body = ActRefused(member="meti", kind="vote.cast", sha256=digest("act"), code="RNM-GOV-0001")
    refused(founded.try_act("nec", body), RULE, "open to operator")
    founded.act("coordinator", body)
    refused(founded.try_act("coordinator", body), AGAIN, "in the ledger")
    stranger = replace(body, member="stranger", sha256=digest("other"))
    refused(founded.try_act("coordinator", stranger), RULE, "not a member")


# --- the count itself


def test_a_motion_without_voters_carries_nothing():
    alone = Motion(
        clause=clause((Role.ADMINISTRATOR,), (Role.TRAINER,), rule=Rule.ALL_BUT_SUBJECT, yes=0),
        voters=frozenset({"sony"}),
        subject="sony",
    )
    assert verdict(alone, {"sony": Choice.YES}) is Verdict.REJECTED


# --- what changes while a proposal is open


def suspend(story, name, voters):
    terms = StandingTerms(member=name, standing=Standing.SUSPENDED)
    proposed = story.carried(Action.CHANGE_STANDING, terms, voters)
    body = MemberStatus(member=name, standing=Standing.SUSPENDED, **story.cited(proposed))
    story.act("coordinator", body)


def test_a_veto_stands_although_its_voter_was_suspended_since(trained):
    for member in ("honda", "nec"):
        trained.act(member, evaluation(member))
    proposed = trained.carried(Action.APPROVE_RELEASE, release_terms(), TRAINERS[:3])
    trained.vote("sony", proposed, Choice.VETO)
    suspend(trained, "sony", TRAINERS[:3])
    trained.anchor(trained.now)
    trained.now += 2 * HOUR
    trained.anchor(trained.now)
    refused(trained.try_act("coordinator", released(trained, proposed)), QUORUM, "vetoed")


def locked_expulsions():
    """A charter under which all but the subject must agree, and two hours pass."""
    asked = replace(clauses()[Action.CHANGE_STANDING.value], timelock_s=7_200)
    return replace(charter_of(), actions={**clauses(), Action.CHANGE_STANDING.value: asked})


def test_a_proposal_that_a_departure_carries_waits_from_then_on():
    story = Story()
    story.genesis(locked_expulsions())
    terms = StandingTerms(member="sony", standing=Standing.SUSPENDED)
    proposed = story.carried(Action.CHANGE_STANDING, terms, ("honda", "nec"))
    assert story.state.proposals[proposed].carried is None
    leave = MemberStatus(member="softbank", standing=Standing.WITHDRAWN, proposal="", votes=())
    story.act("softbank", leave)
    assert story.state.proposals[proposed].carried == story.state.size - 1
    body = MemberStatus(member="sony", standing=Standing.SUSPENDED, **story.cited(proposed))
    refused(story.try_act("coordinator", body), QUORUM, "timelock")
    story.anchor(story.now)
    story.anchor(story.now + 2 * HOUR)
    story.act("coordinator", body)


def test_a_proposal_that_is_no_longer_carried_loses_its_place_in_time(trained):
    proposed = trained.carried(Action.APPROVE_RELEASE, release_terms(), TRAINERS[:3])
    assert trained.state.proposals[proposed].carried is not None
    leave = MemberStatus(member="nec", standing=Standing.WITHDRAWN, proposal="", votes=())
    trained.act("nec", leave)
    assert trained.state.proposals[proposed].carried is None
