"""`apply`: what an honest consortium does is admitted; each rule has its attack, and refuses it."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from ledger_kit import (
    RUN,
    T0,
    TRAINERS,
    Story,
    authorisation,
    base_model,
    charter_of,
    closed,
    dataset,
    described_base,
    digest,
    full_story,
    key_of,
    plan_of,
    proposal,
    receipt,
    started,
    witness_of,
)

from audit.state import EMPTY, RULES, Rejected, State, apply, open_next
from audit.summary import state_digest
from fedproto.errors import LocalFault
from fedproto.events.governance import Choice, VoteCast
from fedproto.events.rounds import Excluded, Outcome
from fedproto.ids import KeyId, MemberId
from fedproto.statements import BODIES, Actor, Head, leaf_id

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
        proposal=story.proposed, terms_sha256=plan_of().digest, choice=choice, reason=""
    )
    return replace(body, **changes)


# --- the whole way


def test_every_event_type_has_a_rule():
    assert RULES.keys() == set(BODIES.values())


def test_an_honest_consortium_is_admitted_from_charter_to_last_round():
    state = full_story(rounds=3).state
    assert state.charter == charter_of()
    run = state.mandate(RUN)
    assert run.body.members == TRAINERS
    assert state.leaves[run.leaf] == run.index == 18
    assert [attempt.aggregated for attempt in state.rounds(RUN)] == [True] * 3
    assert state.model_out(RUN) == digest("adapter:3")
    assert state.base_model(digest("base")).member == "pfn"
    assert state.dataset(digest("dataset:nec")).member == "nec"
    assert set(state.ballots(run.body.proposal)) == set(TRAINERS)
    assert state.size == len(full_story(rounds=3).leaves)


def test_a_rejected_act_leaves_the_state_as_it_was(founded):
    before = state_digest(founded.state)
    refused(founded.try_act("nec", proposal()), RULE, "open to administrator")
    assert state_digest(founded.state) == before


def test_an_aborted_round_is_tried_again_from_the_same_adapter(approved):
    approved.start(1)
    aborted = {"outcome": Outcome.ABORTED, "reason": "RNM-ROUND-0001"}
    excluded = tuple(Excluded(member=m, reason="RNM-ROUND-0002") for m in TRAINERS)
    approved.close(1, model_out=digest("adapter:0"), included=(), excluded=excluded, **aborted)
    refused(approved.try_act("coordinator", started(approved.state, 2)), RULE, "not next")
    refused(
        approved.try_act(
            "coordinator", started(approved.state, 1, authorisation_sha256=authorisation(1, 9))
        ),
        AGAIN,
        "not next",
    )
    approved.start(1, 2)
    approved.close(1, 2)
    approved.start(2)


def test_a_receipt_may_come_after_the_close_and_after_the_next_start(approved):
    approved.start(1)
    approved.receipt("nec", 1)
    approved.close(1)
    approved.receipt("sony", 1)
    approved.start(2)
    approved.receipt("honda", 1)
    assert [r.member for r in approved.state.rounds(RUN)[0].receipts] == ["nec", "sony", "honda"]


# --- what every act must say


def test_an_act_for_another_log_is_refused(founded):
    refused(founded.try_act("secretariat", proposal(), log="other"), RULE, "for the log")


def test_an_act_under_another_charter_is_refused(founded):
    result = founded.try_act("secretariat", proposal(), charter=digest("other"))
    refused(result, RULE, "cites charter")


def test_an_event_id_is_used_once(proposed):
    first = proposed.event("nec", ballot(proposed))
    proposed.act("nec", first.body, id=first.id)
    refused(proposed.try_act("sony", ballot(proposed), id=first.id), AGAIN, "event id")


def test_the_same_leaf_twice_is_refused(proposed):
    leaf = proposed.leaf("nec", ballot(proposed))
    signed = open_next(proposed.state, leaf)
    after = apply(proposed.state, leaf_id(leaf), signed)
    refused(apply(after, leaf_id(leaf), signed), AGAIN, "event id")


def test_a_key_of_another_member_does_not_speak_for_one(proposed):
    actor = Actor(member=MemberId("sony"), key=key_of("nec").verify_key.key_id)
    refused(proposed.try_act("nec", ballot(proposed), actor=actor), RULE, "is not one of sony")


def test_an_actor_that_did_not_sign_is_refused(proposed):
    actor = Actor(member=MemberId("sony"), key=key_of("sony").verify_key.key_id)
    with pytest.raises(LocalFault) as caught:
        proposed.try_act("nec", ballot(proposed), actor=actor)
    assert caught.value.code == "RNM-SIG-0002"


def test_a_second_signature_on_an_act_is_refused(proposed):
    result = proposed.try_act("nec", ballot(proposed), signers=("nec", "sony"))
    refused(result, RULE, "by its actor alone")


def test_a_stranger_is_refused(proposed):
    with pytest.raises(LocalFault) as caught:
        proposed.try_act("stranger", ballot(proposed))
    assert caught.value.code == "RNM-SIG-0002"


def test_a_forged_signature_is_refused(proposed):
    leaf = proposed.leaf("nec", ballot(proposed))
    other = proposed.leaf("nec", ballot(proposed, Choice.NO))
    payload = lambda data: data.split(b'"')[3]  # noqa: E731
    with pytest.raises(LocalFault) as caught:
        open_next(proposed.state, leaf.replace(payload(leaf), payload(other)))
    assert caught.value.code == "RNM-SIG-0001"


def test_a_head_beyond_the_log_is_refused(proposed):
    size = proposed.state.size + 1
    result = proposed.try_act("nec", ballot(proposed), head=Head(size=size, root=digest("x")))
    refused(result, RULE, f"saw {size} entries")


def test_a_head_of_another_history_is_refused(proposed):
    for size in (0, 1, proposed.state.size):
        result = proposed.try_act("nec", ballot(proposed), head=Head(size=size, root=digest("x")))
        refused(result, RULE, "shown another log")


def test_any_head_of_this_history_is_admitted(proposed):
    for size in range(proposed.state.size + 1):
        head = Head(size=size, root=proposed.state.root_at(size))
        assert isinstance(proposed.try_act("nec", ballot(proposed), head=head), State)


# --- base weights, datasets, proposals


@pytest.mark.parametrize("actor", ["nec", "coordinator", "secretariat", "meti"])
def test_only_a_pretrainer_approves_base_weights(actor):
    story = Story()
    story.genesis()
    refused(story.try_act(actor, base_model()), RULE, "open to pretrainer")


def test_base_weights_and_datasets_are_recorded_once(founded):
    refused(founded.try_act("pfn", base_model()), AGAIN, "approved already")
    refused(founded.try_act("nec", dataset("nec")), AGAIN, "declared already")
    refused(founded.try_act("sony", dataset("nec")), AGAIN, "declared already")


@pytest.mark.parametrize("actor", ["pfn", "coordinator", "secretariat", "meti"])
def test_only_a_trainer_declares_a_dataset(founded, actor):
    refused(founded.try_act(actor, dataset("new")), RULE, "open to trainer")


@pytest.mark.parametrize("actor", ["pfn", "coordinator", "nec", "meti"])
def test_only_whom_the_clause_names_proposes(founded, actor):
    refused(founded.try_act(actor, proposal()), RULE, "open to administrator")


def test_a_plan_on_unapproved_weights_is_refused(founded):
    plan = plan_of(base_manifest_sha256=digest("other"))
    refused(founded.try_act("secretariat", proposal(plan)), RULE, "not approved")


def test_a_plan_outside_the_charter_is_refused(founded):
    training = replace(plan_of().training, rounds=6)
    for plan, words in (
        (plan_of(min_members=2), "3 members"),
        (plan_of(training=training), "5 rounds"),
        (plan_of(members=(*TRAINERS[:3], "stranger")), "not trainers"),
    ):
        refused(founded.try_act("secretariat", proposal(plan)), RULE, words)


def test_a_proposal_that_is_closed_from_the_start_is_refused(founded):
    refused(founded.try_act("secretariat", proposal(closes_at=T0)), RULE, "closes before")


# --- form


@pytest.mark.parametrize(
    "make",
    [
        lambda: receipt("nec", 0),
        lambda: receipt("nec", 1, 0),
        lambda: receipt("nec", 1, run="x"),
        lambda: receipt("nec", 1, upload_sha256="not a digest"),
        lambda: receipt("nec", 1, upload_bytes=-1),
        lambda: started(EMPTY, 1, authorisation_sha256="short"),
        lambda: closed(EMPTY, 1, reason="秘密のコード名"),
        lambda: closed(EMPTY, 1, reason="x" * 129),
        lambda: closed(EMPTY, 1, transcript_sha256=""),
        lambda: replace(dataset("nec"), purpose="line\nbreak"),
        lambda: replace(dataset("nec"), size_bucket=64),
        lambda: replace(described_base(), licence="x" * 129),
        lambda: replace(described_base(), parameters=0),
    ],
)
def test_what_is_no_digest_number_or_short_code_has_no_place_in_the_ledger(make):
    with pytest.raises(ValueError, match=r"."):
        make()


# --- determinism

SCRIPT = """
import sys
sys.path.insert(0, {kit!r})
from ledger_kit import full_story
from audit.replay import replay
from audit.summary import state_digest
leaves = [bytes.fromhex(line) for line in sys.stdin]
print(state_digest(replay(leaves).state))
"""


def test_two_processes_with_different_hash_seeds_derive_the_same_state():
    story = full_story()
    feed = "\n".join(leaf.hex() for leaf in story.leaves).encode()
    script = SCRIPT.format(kit=str(Path(__file__).parent))
    found = {
        subprocess.run(
            [sys.executable, "-c", script],
            input=feed,
            capture_output=True,
            check=True,
            env={
                **os.environ,
                "PYTHONHASHSEED": seed_text,
                "PYTHONPATH": os.pathsep.join(sys.path),
            },
        ).stdout
        for seed_text in ("1", "2")
    }
    assert found == {f"{state_digest(story.state)}\n".encode()}


def test_a_key_id_that_nobody_holds_resolves_to_nothing():
    assert full_story().state.verify_key(KeyId("00" * 16)) is None
    assert EMPTY.verify_key(KeyId("00" * 16)) is None
    assert witness_of("nec").cosigner
