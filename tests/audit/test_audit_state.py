"""`apply`: what an honest consortium does is admitted; each rule has its attack, and refuses it."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from ledger_kit import (
    GENESIS_SIGNERS,
    LOG_KEY,
    RUN,
    T0,
    TRAINERS,
    Story,
    authorisation,
    base_model,
    charter_of,
    closed,
    dataset,
    digest,
    full_story,
    key_of,
    mandate,
    member_of,
    plan_of,
    proposal,
    receipt,
    seed,
    started,
    witness_of,
)

from audit.note import NoteSigner
from audit.replay import state_digest
from audit.state import EMPTY, Rejected, State, apply, open_next
from fedproto.errors import LocalFault
from fedproto.events.governance import CharterAdopted, Choice, VoteCast
from fedproto.events.rounds import Excluded, Outcome
from fedproto.governance.charter import Role
from fedproto.ids import KeyId, MemberId
from fedproto.statements import Actor, Head, SignedEvent, leaf_id

RULE, QUORUM, AGAIN = "RNM-GOV-0001", "RNM-GOV-0002", "RNM-GOV-0003"


def refused(result, code, words):
    assert isinstance(result, Rejected), "it was admitted"
    assert result.code == code
    assert words in result.why


def adopted(charter):
    return CharterAdopted(sha256=charter.digest, charter=charter)


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


def test_an_honest_consortium_is_admitted_from_charter_to_last_round():
    state = full_story(rounds=3).state
    assert state.charter == charter_of()
    run = state.mandate(RUN)
    assert run.body.members == TRAINERS
    assert state.leaves[run.leaf] == run.index == 11
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


# --- charter


def try_genesis(charter, signers=GENESIS_SIGNERS, /, **changes):
    return Story().try_act("coordinator", adopted(charter), signers=signers, **changes)


def test_nothing_comes_before_a_charter():
    story = Story()
    with pytest.raises(LocalFault) as caught:
        story.try_act("pfn", base_model())
    assert caught.value.code == "RNM-SIG-0002"
    forced = SignedEvent(event=story.event("pfn", base_model()), signers=())
    refused(apply(EMPTY, digest("leaf"), forced), RULE, "no charter is in force")


@pytest.mark.parametrize("absent", TRAINERS)
def test_a_first_charter_needs_every_voter(absent):
    signers = tuple(name for name in GENESIS_SIGNERS if name != absent)
    refused(try_genesis(charter_of(), signers), QUORUM, absent)


def test_a_first_charter_needs_the_operator():
    story = Story()
    result = story.try_act("nec", adopted(charter_of()), signers=TRAINERS)
    refused(result, QUORUM, "coordinator")


def test_a_first_charter_is_version_one_without_predecessor():
    refused(try_genesis(replace(charter_of(), version=2)), RULE, "version 1")
    refused(try_genesis(replace(charter_of(), prev_sha256=digest("x"))), RULE, "version 1")


def test_a_first_charter_cites_itself():
    refused(try_genesis(charter_of(), charter=digest("x")), RULE, "cites charter")


def test_a_charter_whose_witnesses_share_a_key_is_refused():
    alias = NoteSigner("alias/w1", seed("witness:nec"), cosigner=True).vkey
    members = tuple(
        replace(m, witness=alias) if m.id == "sony" else m for m in charter_of().members
    )
    refused(try_genesis(replace(charter_of(), members=members)), RULE, "share one key")


def test_a_charter_whose_log_key_is_not_of_its_origin_is_refused():
    other = NoteSigner("elsewhere", seed("log")).vkey
    refused(try_genesis(replace(charter_of(), log_vkey=other)), RULE, "origin")
    refused(try_genesis(replace(charter_of(), log_vkey="x")), RULE, "witness policy")


def test_a_charter_without_an_operator_is_refused():
    members = tuple(m for m in charter_of().members if m.id != "coordinator")
    body = adopted(replace(charter_of(), members=members))
    refused(Story().try_act("nec", body, signers=TRAINERS), RULE, "no operator")


def amended(**changes):
    old = charter_of()
    return replace(old, version=2, prev_sha256=old.digest, **changes)


def with_toyota():
    joined = member_of("toyota", Role.TRAINER, Role.WITNESS)
    return amended(members=tuple(sorted((*charter_of().members, joined), key=lambda m: m.id)))


def amend(story, charter, signers, actor="nec"):
    return story.try_act(actor, adopted(charter), signers=signers)


def test_an_amendment_with_both_thresholds_comes_into_force(founded):
    charter = with_toyota()
    result = amend(founded, charter, ("nec", "softbank", "sony", "toyota"))
    assert isinstance(result, State), result
    assert result.charter == charter
    assert [act.body.charter.version for act in result.charters] == [1, 2]
    assert result.charter_at(founded.state.size).version == 1


@pytest.mark.parametrize(
    "signers", [("nec",), ("nec", "sony"), ("nec", "coordinator", "meti", "pfn")]
)
def test_an_amendment_below_the_old_threshold_is_refused(founded, signers):
    refused(amend(founded, amended(witness_quorum=2), signers), QUORUM, "old charter")


def test_an_amendment_is_not_carried_by_those_it_lets_in(founded):
    signers = ("nec", "sony", "toyota")
    refused(amend(founded, with_toyota(), signers), QUORUM, "2 of 3 voters of the old charter")


def test_an_amendment_needs_the_threshold_of_the_new_charter_too(founded):
    clause = replace(charter_of().actions["run.approve"], yes=4)
    charter = amended(actions={"run.approve": clause})
    refused(amend(founded, charter, ("nec", "softbank", "sony")), QUORUM, "new charter")
    assert isinstance(amend(founded, charter, TRAINERS), State)


def test_nobody_is_admitted_without_a_word_of_its_own(founded):
    refused(amend(founded, with_toyota(), TRAINERS), QUORUM, "toyota")


def test_two_keys_of_one_member_are_one_signature(founded):
    first = founded.state.charter
    extra = member_of("nec", Role.TRAINER, Role.WITNESS, key="nec:second").keys[0]
    members = tuple(
        replace(m, keys=(*m.keys, extra)) if m.id == "nec" else m for m in first.members
    )
    founded.act("nec", adopted(amended(members=members)), signers=TRAINERS)
    third = replace(founded.state.charter, version=3, prev_sha256=founded.state.charter.digest)
    result = amend(founded, third, ("nec", "nec:second", "sony"))
    refused(result, QUORUM, "2 of 3")


def test_an_amendment_follows_the_charter_in_force(founded):
    for charter in (
        replace(amended(), version=3),
        replace(amended(), prev_sha256=digest("x")),
        charter_of(),
    ):
        refused(amend(founded, charter, TRAINERS), RULE, "amendment of version 1")


def test_an_amendment_changes_neither_log_nor_consortium(founded):
    refused(amend(founded, amended(consortium="other"), TRAINERS), RULE, "keeps the consortium")
    key = NoteSigner(LOG_KEY.name, seed("other log")).vkey
    refused(amend(founded, amended(log_vkey=key), TRAINERS), RULE, "keeps the log key")


def test_an_amendment_ends_open_proposals(proposed):
    for member in TRAINERS[:3]:
        proposed.vote(member, proposed.proposed)
    proposed.act("nec", adopted(amended(witness_quorum=2)), signers=TRAINERS)
    refused(proposed.try_act("sony", ballot(proposed)), RULE, "lapsed")
    body = mandate(proposed.state, proposed.proposed)
    refused(proposed.try_act("coordinator", body), RULE, "lapsed")


def test_a_mandate_with_an_expelled_member_starts_no_round(approved):
    members = tuple(m for m in charter_of().members if m.id != "sony")
    approved.act("nec", adopted(amended(members=members)), signers=TRAINERS[:3])
    refused(approved.try_act("coordinator", started(approved.state, 1)), RULE, "not trainers")


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
        lambda: replace(base_model(), licence="x" * 129),
        lambda: replace(base_model(), parameters=0),
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
from audit.replay import replay, state_digest
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
