"""The count of votes and the mandate, against a second count written from the charter's own words."""

from dataclasses import replace

import pytest
from charter_kit import clause, clauses, limits, member
from hypothesis import assume, example, given
from hypothesis import strategies as st

from fedproto.errors import LocalFault
from fedproto.events.governance import Choice, ProposalOpened
from fedproto.events.rounds import RunApproved
from fedproto.governance import rules
from fedproto.governance.charter import Action, Charter, Role
from fedproto.governance.plan import Aggregation, Lora, Method, RunPlan, Training
from fedproto.governance.rules import Ballot
from fedproto.governance.tally import Motion, Verdict, verdict
from fedproto.ids import ZERO_DIGEST, sha256_hex

NAMES = ("alpha", "beta", "delta", "gamma", "omega")
D = sha256_hex(b"x")


def charter_with(voters, yes):
    """A charter of five trainers, of whom `voters` are administrators too and so may vote."""
    members = tuple(
        member(
            name,
            *(Role.TRAINER, Role.WITNESS, *((Role.ADMINISTRATOR,) if name in voters else ())),
        )
        for name in NAMES
    )
    run = clause((Role.TRAINER,), (Role.ADMINISTRATOR,), yes=yes, expires_s=60)
    return Charter(
        version=1,
        prev_sha256=ZERO_DIGEST,
        consortium="lab",
        origin="lab/log",
        log_vkey="",
        witness_quorum=1,
        members=members,
        actions=clauses(run),
        limits=limits(max_rounds=5),
        retention={},
        disclosure={},
    )


def plan_for(members=NAMES, min_members=3):
    return RunPlan(
        purpose="demo",
        base_manifest_sha256=D,
        layout_sha256=D,
        initial_adapter=D,
        parameters=10,
        lora=Lora(rank=1, alpha=1, targets=("q",)),
        training=Training(rounds=1, steps=1, batch=1, sequence=1, lr_micro=1, seed=0),
        aggregation=Aggregation(
            method=Method.FEDAVG,
            outer_lr_milli=1,
            momentum_milli=0,
            clip_milli=1,
            bits=16,
            tolerated=1,
        ),
        members=members,
        min_members=min_members,
        phase_timeout_s=1,
    )


def oracle(charter, ballots):
    """Count again: walk the roster, ask each member that may vote, and add up on fingers.

    Written from the clause alone: who may vote, one answer each, so many yes. Shares no code with the
    tally.
    """
    rule = charter.actions["run.approve"]
    yes, still_possible = 0, 0
    for someone in charter.members:
        may_vote = False
        for role in someone.roles:
            may_vote = may_vote or role in rule.vote
        if not may_vote:
            continue
        if someone.id not in ballots:
            still_possible += 1
        elif ballots[someone.id].value == "veto":
            return "vetoed"
        elif ballots[someone.id].value == "yes":
            yes += 1
    if yes >= rule.yes:
        return "carried"
    return "open" if yes + still_possible >= rule.yes else "rejected"


cases = st.tuples(
    st.sets(st.sampled_from(NAMES), min_size=1),
    st.integers(1, 5),
    st.dictionaries(st.sampled_from((*NAMES, "stranger")), st.sampled_from(list(Choice))),
)


@given(cases)
def test_two_independent_counts_agree(case):
    voters, yes, ballots = case
    assume(yes <= len(voters))
    charter = charter_with(voters, yes)
    asked = charter.actions["run.approve"]
    motion = Motion(clause=asked, voters=charter.eligible(asked))
    assert motion.entitled == voters
    found = verdict(motion, ballots)
    assert found.value == oracle(charter, ballots)


@given(cases, st.sampled_from(NAMES), st.sampled_from(list(Choice)))
def test_a_decided_verdict_is_never_turned_by_one_more_ballot(case, member, choice):
    voters, yes, ballots = case
    assume(yes <= len(voters) and member not in ballots)
    asked = charter_with(voters, yes).actions["run.approve"]
    motion = Motion(clause=asked, voters=frozenset(voters))
    before = verdict(motion, ballots)
    after = verdict(motion, {**ballots, member: choice})
    assert before is Verdict.OPEN or after in {before, Verdict.VETOED}


def mandate_for(charter, plan, ballots):
    """What an honest operator would state: those of the plan that voted yes."""
    entitled = charter.eligible(charter.actions["run.approve"])
    yes = {m for m, b in ballots.items() if b.choice is Choice.YES and m in entitled}
    return RunApproved(
        run="ab" * 16,
        proposal=D,
        votes=tuple(sorted(ballots[m].leaf for m in yes)),
        members=tuple(m for m in plan.members if m in yes),
        plan=plan,
        plan_sha256=plan.digest,
        not_before=0,
        not_after=60_000,
    )


def opened_with(plan):
    return ProposalOpened(
        action=Action.APPROVE_RUN, terms=plan, terms_sha256=plan.digest, closes_at=1
    )


def leaf(name):
    return sha256_hex(name.encode())


@given(cases)
@example(
    ({"alpha", "beta", "delta"}, 1, {**dict.fromkeys(NAMES[:4], Choice.YES), "gamma": Choice.VETO})
)
def test_an_honest_mandate_passes_exactly_when_carried_with_enough_members(case):
    voters, yes, choices = case
    assume(yes <= len(voters))
    charter, plan = charter_with(voters, yes), plan_for()
    ballots = {m: Ballot(leaf=leaf(m), choice=c) for m, c in choices.items()}
    mandate = mandate_for(charter, plan, ballots)
    # A veto that was logged was cast by one who had the right to, whoever counts now.
    stands = Choice.VETO in choices.values()
    carried = oracle(charter, choices) == "carried" and len(mandate.members) >= 3 and not stands
    if carried:
        rules.check_mandate(charter, mandate, opened_with(plan), ballots)
        return
    with pytest.raises(LocalFault) as caught:
        rules.check_mandate(charter, mandate, opened_with(plan), ballots)
    assert caught.value.code == "RNM-GOV-0002"


@given(st.permutations(NAMES), st.integers(0, 5), st.sets(st.sampled_from(NAMES)))
def test_a_mandate_binds_nobody_that_did_not_say_yes(order, agreeing, claimed):
    willing = set(order[:agreeing])
    charter, plan = charter_with(set(NAMES), 3), plan_for()
    ballots = {
        m: Ballot(leaf=leaf(m), choice=Choice.YES if m in willing else Choice.NO) for m in NAMES
    }
    members = tuple(m for m in NAMES if m in claimed)
    mandate = replace(mandate_for(charter, plan, ballots), members=members)
    if claimed == willing and len(willing) >= 3:
        rules.check_mandate(charter, mandate, opened_with(plan), ballots)
        return
    with pytest.raises(LocalFault):
        rules.check_mandate(charter, mandate, opened_with(plan), ballots)


def test_a_plan_outside_the_limits_is_refused():
    charter = charter_with(set(NAMES), 3)
    rules.check_plan(charter, plan_for())
    training = replace(plan_for().training, rounds=6)
    aggregation = replace(plan_for().aggregation, tolerated=1)
    strict = replace(charter, limits=limits(max_rounds=5, tolerated=2))
    for rule, plan in (
        (charter, plan_for(min_members=2)),
        (charter, plan_for(members=(*NAMES, "zeta"))),
        (charter, replace(plan_for(), training=training)),
        (strict, replace(plan_for(), aggregation=aggregation)),
    ):
        with pytest.raises(LocalFault) as caught:
            rules.check_plan(rule, plan)
        assert caught.value.code == "RNM-GOV-0001"


def test_an_act_is_open_to_its_roles_only():
    charter = charter_with({"alpha"}, 1)
    rules.check_roles(charter, "alpha", (Role.ADMINISTRATOR,), "x")
    for stranger in ("beta", "nobody"):
        with pytest.raises(LocalFault) as caught:
            rules.check_roles(charter, stranger, (Role.ADMINISTRATOR,), "x")
        assert caught.value.code == "RNM-GOV-0001"
