"""The charter, the plan and the rules: what is well formed, what is allowed, what a mandate must prove."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from charter_kit import clause, clauses, limits, member
from hypothesis import given
from hypothesis import strategies as st

from fedproto import jcs
from fedproto.authorisation import recovery_threshold
from fedproto.errors import LocalFault
from fedproto.events.governance import Choice, ProposalOpened, PublicKey
from fedproto.events.rounds import RunApproved
from fedproto.governance.charter import Action, Charter, Role, Rule
from fedproto.governance.plan import Aggregation, Lora, Method, RunPlan, Training
from fedproto.governance.rules import Ballot, check_mandate, check_plan, check_roles
from fedproto.governance.tally import Motion, Tally, Verdict, count, verdict
from fedproto.identity import SigningKey
from fedproto.ids import ZERO_DIGEST, Digest, MemberId, RunId, sha256_hex
from fedproto.schema import from_json, to_json

KEY = sha256_hex(b"one key")
NAMES = tuple(MemberId(name) for name in ("honda", "nec", "softbank", "sony"))


RUN = clause((Role.ADMINISTRATOR,), (Role.TRAINER,), expires_s=3600)


def charter(**change: object) -> Charter:
    fields: dict[str, object] = {
        "version": 1,
        "prev_sha256": ZERO_DIGEST,
        "consortium": "demo",
        "origin": "ledger.example/demo",
        "log_vkey": "log+00000000+AAAA",
        "witness_quorum": 3,
        "members": (
            member("admin", Role.ADMINISTRATOR),
            *(member(name) for name in NAMES),
        ),
        "actions": clauses(RUN),
        "limits": limits(),
        "retention": {"ledger": 3650},
        "disclosure": {"report": (Role.AUDITOR,)},
    }
    return Charter(**{**fields, **change})  # type: ignore[arg-type]


def plan(**change: object) -> RunPlan:
    fields: dict[str, object] = {
        "purpose": "domain-adaptation",
        "base_manifest_sha256": sha256_hex(b"base"),
        "initial_adapter": sha256_hex(b"initial"),
        "layout_sha256": sha256_hex(b"layout"),
        "parameters": 100,
        "lora": Lora(rank=4, alpha=8, targets=("k", "q")),
        "training": Training(rounds=2, steps=5, batch=2, sequence=64, lr_micro=1000, seed=0),
        "aggregation": Aggregation(
            method=Method.FEDAVG,
            outer_lr_milli=700,
            momentum_milli=900,
            clip_milli=1000,
            bits=16,
            tolerated=1,
        ),
        "members": NAMES,
        "min_members": 3,
        "phase_timeout_s": 60,
    }
    return RunPlan(**{**fields, **change})  # type: ignore[arg-type]


def proposal(of: RunPlan) -> ProposalOpened:
    return ProposalOpened(
        action=Action.APPROVE_RUN, terms=of, terms_sha256=of.digest, closes_at=1_000_000
    )


def ballots(**answers: Choice) -> dict[MemberId, Ballot]:
    return {
        MemberId(name): Ballot(leaf=sha256_hex(name.encode()), choice=choice)
        for name, choice in answers.items()
    }


YES3 = ballots(honda=Choice.YES, nec=Choice.YES, sony=Choice.YES, softbank=Choice.NO)


def mandate(of: RunPlan, cast: dict[MemberId, Ballot], **change: object) -> RunApproved:
    yes = sorted(name for name, ballot in cast.items() if ballot.choice is Choice.YES)
    fields: dict[str, object] = {
        "run": RunId("0" * 32),
        "proposal": sha256_hex(b"proposal"),
        "votes": tuple(sorted(cast[name].leaf for name in yes)),
        "members": tuple(name for name in of.members if name in yes),
        "plan": of,
        "plan_sha256": of.digest,
        "not_before": 0,
        "not_after": 3_600_000,
    }
    return RunApproved(**{**fields, **change})  # type: ignore[arg-type]


def test_a_charter_reads_back_with_its_digest() -> None:
    written = jcs.dumps(to_json(charter()))
    again = from_json(Charter, jcs.loads(written))
    assert again == charter()
    assert again.digest == charter().digest == sha256_hex(written)


BAD_CHARTERS: dict[str, dict[str, object]] = {
    "members out of order": {"members": (member("sony"), member("nec"), member("honda"))},
    "a member twice": {"members": (member("nec"), member("nec", key=KEY), member("sony"))},
    "one key of two members": {
        "members": (member("honda", key=KEY), member("nec", key=KEY), member("sony"))
    },
    "no witness quorum": {"witness_quorum": 0},
    "more witnesses asked than there are": {"witness_quorum": 5},
    "an action missing": {"actions": {}},
    "an unknown action": {
        "actions": {
            **charter().actions,
            "world.rule": RUN,
        }
    },
    "more votes asked than voters": {"actions": clauses(dataclasses.replace(RUN, yes=5))},
    "no predecessor": {"prev_sha256": "x"},
    "version nought": {"version": 0},
}


@pytest.mark.parametrize("change", BAD_CHARTERS.values(), ids=BAD_CHARTERS.keys())
def test_a_charter_that_contradicts_itself_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"."):
        charter(**change)


@pytest.mark.parametrize("alg", ["ed25519", "none", ""])
def test_a_weaker_algorithm_is_refused(alg: str) -> None:
    key = SigningKey(bytes(64)).verify_key
    with pytest.raises(ValueError, match="algorithm"):
        PublicKey(alg=alg, pub=key.to_text())


BAD_CLAUSES: dict[str, dict[str, Any]] = {
    "no proposers": {"propose": ()},
    "no voters": {"vote": ()},
    "a negative quorum": {"yes": -1},
    "a count and all": {"rule": Rule.ALL},
    "no term": {"expires_s": 0},
    "a negative timelock": {"timelock_s": -1},
    "a veto of who has no vote": {"veto": (Role.AUDITOR,)},
    "voters of a vote that there is not": {"yes": 0},
}


@pytest.mark.parametrize("change", BAD_CLAUSES.values(), ids=BAD_CLAUSES.keys())
def test_a_clause_that_contradicts_itself_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        dataclasses.replace(RUN, **change)


BAD_MEMBERS: dict[str, dict[str, Any]] = {
    "a key that is no digest": {"key": "short"},
    "a recovery key that is no digest": {"recovery": "short"},
    "one key for both uses": {"recovery": sha256_hex(b"acting:nec")},
    "a witness without a key": {"witness": ""},
}


@pytest.mark.parametrize("change", BAD_MEMBERS.values(), ids=BAD_MEMBERS.keys())
def test_a_member_that_contradicts_itself_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        member("nec", **change)


def test_who_validates_is_a_witness() -> None:
    with pytest.raises(ValueError, match="witness too"):
        member("meti", Role.AUDITOR, validator="meti/v1+00000000+AAAA")


def test_all_and_all_but_the_subject_ask_for_every_other_voter() -> None:
    voters = frozenset(NAMES)
    everyone = dataclasses.replace(RUN, rule=Rule.ALL, yes=0)
    motion = Motion(clause=everyone, voters=voters)
    assert verdict(motion, dict.fromkeys(NAMES[:3], Choice.YES)) is Verdict.OPEN
    assert verdict(motion, dict.fromkeys(NAMES, Choice.YES)) is Verdict.CARRIED
    others = dataclasses.replace(RUN, rule=Rule.ALL_BUT_SUBJECT, yes=0)
    about = Motion(clause=others, voters=voters, subject=NAMES[3])
    assert verdict(about, dict.fromkeys(NAMES[:3], Choice.YES)) is Verdict.CARRIED
    assert verdict(about, dict.fromkeys(NAMES[1:], Choice.YES)) is Verdict.OPEN


def test_a_cohort_of_two_is_never_allowed() -> None:
    with pytest.raises(ValueError, match="three members"):
        limits(min_members=2)


@pytest.mark.parametrize(("n", "t", "threshold"), [(4, 1, 3), (3, 1, 3), (5, 1, 4), (10, 3, 7)])
def test_two_groups_of_the_recovery_threshold_share_an_honest_member(
    n: int, t: int, threshold: int
) -> None:
    assert recovery_threshold(n, t) == threshold
    assert 2 * threshold - n > t


BAD_PLANS: dict[str, Callable[[], object]] = {
    "no rounds": lambda: dataclasses.replace(plan().training, rounds=0),
    "no rank": lambda: Lora(rank=0, alpha=1, targets=("q",)),
    "targets out of order": lambda: Lora(rank=1, alpha=1, targets=("q", "k")),
    "members out of order": lambda: plan(members=(NAMES[1], NAMES[0])),
    "a minimum above the members": lambda: plan(min_members=5),
    "a digest that is none": lambda: plan(layout_sha256=Digest("00")),
    "a purpose of free text": lambda: plan(purpose="目的"),
    "momentum of one": lambda: dataclasses.replace(plan().aggregation, momentum_milli=1000),
    "nobody to collude": lambda: dataclasses.replace(plan().aggregation, tolerated=0),
    "bits beyond the ring": lambda: dataclasses.replace(plan().aggregation, bits=25),
    "a negative seed": lambda: dataclasses.replace(plan().training, seed=-1),
}


@pytest.mark.parametrize("make", BAD_PLANS.values(), ids=BAD_PLANS.keys())
def test_a_plan_that_makes_no_sense_is_refused(make: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=r"."):
        make()


def code_of(act: Callable[[], None]) -> str:
    with pytest.raises(LocalFault) as caught:
        act()
    return caught.value.code


def test_a_plan_within_the_charter_passes() -> None:
    check_plan(charter(), plan())


OUTSIDE = {
    "a member that is no trainer": plan(members=(MemberId("admin"), *NAMES)),
    "a cohort below the charter's": plan(min_members=2),
    "more rounds than the charter's": plan(
        training=dataclasses.replace(plan().training, rounds=11)
    ),
}


@pytest.mark.parametrize("of", OUTSIDE.values(), ids=OUTSIDE.keys())
def test_a_plan_outside_the_charter_is_refused(of: RunPlan) -> None:
    assert code_of(lambda: check_plan(charter(), of)) == "RNM-GOV-0001"


def test_a_plan_that_tolerates_fewer_colluders_than_the_charter_is_refused() -> None:
    strict = charter(limits=limits(tolerated=2))
    assert code_of(lambda: check_plan(strict, plan())) == "RNM-GOV-0001"


@pytest.mark.parametrize("who", ["honda", "stranger"])
def test_only_the_roles_that_are_named_may_act(who: str) -> None:
    check_roles(charter(), MemberId("admin"), (Role.ADMINISTRATOR,), "a proposal")
    act = lambda: check_roles(charter(), MemberId(who), (Role.ADMINISTRATOR,), "a proposal")  # noqa: E731
    assert code_of(act) == "RNM-GOV-0001"


def test_a_mandate_that_follows_from_the_votes_passes() -> None:
    check_mandate(charter(), mandate(plan(), YES3), proposal(plan()), YES3)


def test_a_mandate_below_the_quorum_is_refused() -> None:
    cast = ballots(honda=Choice.YES, nec=Choice.YES, sony=Choice.ABSTAIN)
    act = lambda: check_mandate(charter(), mandate(plan(), cast), proposal(plan()), cast)  # noqa: E731
    assert code_of(act) == "RNM-GOV-0002"


def test_a_ballot_of_someone_without_a_vote_does_not_count() -> None:
    cast = ballots(honda=Choice.YES, nec=Choice.YES, admin=Choice.YES, ghost=Choice.YES)
    act = lambda: check_mandate(charter(), mandate(plan(), cast), proposal(plan()), cast)  # noqa: E731
    assert code_of(act) == "RNM-GOV-0002"


FORGED: dict[str, dict[str, object]] = {
    "binds a member that said no": {"members": NAMES},
    "leaves out a member that said yes": {"members": NAMES[:2]},
    "cites a vote that is not there": {
        "votes": tuple(sorted(sha256_hex(n) for n in (b"honda", b"nec", b"softbank")))
    },
    "cites fewer votes": {"votes": tuple(sorted(sha256_hex(n) for n in (b"honda", b"nec")))},
    "holds longer than the clause": {"not_after": 3_600_001},
}


@pytest.mark.parametrize("change", FORGED.values(), ids=FORGED.keys())
def test_a_mandate_that_says_more_than_the_votes_is_refused(change: dict[str, object]) -> None:
    forged = mandate(plan(), YES3, **change)
    act = lambda: check_mandate(charter(), forged, proposal(plan()), YES3)  # noqa: E731
    assert code_of(act) == "RNM-GOV-0001"


def test_a_mandate_for_another_plan_than_was_voted_on_is_refused() -> None:
    other = plan(training=dataclasses.replace(plan().training, rounds=3))
    act = lambda: check_mandate(charter(), mandate(other, YES3), proposal(plan()), YES3)  # noqa: E731
    assert code_of(act) == "RNM-GOV-0001"


def test_a_plan_under_the_hash_of_another_cannot_even_be_written() -> None:
    with pytest.raises(ValueError, match="plan hash"):
        mandate(plan(), YES3, plan_sha256=sha256_hex(b"other"))


def test_willing_members_below_the_plans_minimum_make_no_mandate() -> None:
    """The quorum can be met by members that the plan does not name."""
    of = plan(members=NAMES[:3], min_members=3)
    cast = ballots(honda=Choice.YES, nec=Choice.YES, sony=Choice.YES)
    act = lambda: check_mandate(charter(), mandate(of, cast), proposal(of), cast)  # noqa: E731
    assert code_of(act) == "RNM-GOV-0002"


ANSWERS = st.dictionaries(st.sampled_from(NAMES), st.sampled_from(Choice), max_size=4)


@given(ANSWERS, st.sampled_from(NAMES), st.sampled_from(Choice))
def test_a_verdict_once_reached_is_not_changed_by_a_later_ballot(
    answers: dict[MemberId, Choice], late: MemberId, choice: Choice
) -> None:
    motion = Motion(clause=RUN, voters=frozenset(NAMES))
    before = verdict(motion, answers)
    after_answers = {**answers, **({} if late in answers else {late: choice})}
    after = verdict(motion, after_answers)
    if before is not Verdict.OPEN and after is not Verdict.VETOED:
        assert after is before


@given(ANSWERS)
def test_each_member_counts_once_and_only_for_one_answer(answers: dict[MemberId, Choice]) -> None:
    tally = count(answers, frozenset(NAMES))
    sets = (tally.approvals, tally.refusals, tally.abstentions, tally.vetoes)
    assert sum(len(s) for s in sets) == len(answers)
    assert isinstance(tally, Tally)
