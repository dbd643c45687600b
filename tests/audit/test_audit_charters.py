"""Charters, seats, standing and keys: who belongs and under which key, and what is refused to whom."""

from dataclasses import replace

import pytest
from ledger_kit import (
    HOUR,
    LOG_KEY,
    TRAINERS,
    Story,
    admitted,
    adopted,
    base_model,
    charter_of,
    clauses,
    dataset,
    digest,
    key_of,
    mandate,
    member_of,
    proposal,
    public,
    recovery_of,
    seed,
    started,
    witness_of,
)

from audit.note import NoteSigner
from audit.state import EMPTY, Rejected, State, apply
from fedproto.errors import LocalFault
from fedproto.events.governance import (
    CharterAdopted,
    CharterTerms,
    Choice,
    KeyChanged,
    KeyOperation,
    KeyTerms,
    KeyUse,
    MemberAdmitted,
    MemberStatus,
    Standing,
    StandingTerms,
)
from fedproto.governance.charter import Action, Role
from fedproto.statements import Actor, SignedEvent

RULE, QUORUM, AGAIN = "RNM-GOV-0001", "RNM-GOV-0002", "RNM-GOV-0003"


def refused(result, code, words):
    assert isinstance(result, Rejected), "it was admitted"
    assert result.code == code, result
    assert words in result.why, result.why


@pytest.fixture
def founded():
    story = Story()
    story.genesis()
    return story


# --- the first charter


def try_genesis(charter, /, **changes):
    return Story().try_act("coordinator", adopted(charter), **changes)


def test_nothing_comes_before_a_charter():
    story = Story()
    with pytest.raises(LocalFault) as caught:
        story.try_act("pfn", base_model())
    assert caught.value.code == "RNM-SIG-0002"
    forced = SignedEvent(event=story.event("pfn", base_model()), signers=())
    refused(apply(EMPTY, digest("leaf"), forced), RULE, "no charter is in force")


def test_a_first_charter_is_the_operators():
    body = replace(adopted(), operator_key=public("nec"))
    refused(Story().try_act("nec", body), RULE, "open to operator")


def test_a_first_charter_by_another_key_than_it_names_is_refused():
    body = replace(adopted(), operator_key=public("thief"))
    actor = Actor(member="coordinator", key=key_of("thief").verify_key.key_id)
    refused(Story().try_act("thief", body, actor=actor), RULE, "not the one that the charter names")


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
    body = replace(adopted(replace(charter_of(), members=members)), operator_key=public("nec"))
    refused(Story().try_act("nec", body), RULE, "no operator")


# --- seats


def test_nothing_but_consent_is_admitted_until_every_voter_has_consented():
    story = Story()
    story.act("coordinator", adopted())
    for member in charter_of().members:
        if member.id not in {"coordinator", "sony"}:
            story.seat(member.id)
    assert story.state.unseated == ("sony",)
    refused(story.try_act("pfn", base_model()), RULE, "sony have not taken their seats")
    story.seat("sony")
    assert story.state.founded
    story.base_model()


def test_an_auditor_that_has_not_come_holds_nobody_up():
    story = Story()
    story.act("coordinator", adopted())
    for name in (*TRAINERS, "pfn", "secretariat"):
        story.seat(name)
    assert story.state.founded
    story.base_model()


def test_a_seat_is_taken_once(founded):
    signers = ("nec", recovery_of("nec"))
    refused(founded.try_act("nec", admitted("nec"), signers=signers), AGAIN, "has its seat")


def unseated():
    story = Story()
    story.act("coordinator", adopted())
    return story


def test_a_seat_needs_just_the_keys_that_the_charter_names():
    story = unseated()
    other = MemberAdmitted(acting=public("thief"), recovery=public(recovery_of("nec")))
    actor = Actor(member="nec", key=key_of("thief").verify_key.key_id)
    result = story.try_act("nec", other, actor=actor, signers=("thief", recovery_of("nec")))
    refused(result, RULE, "acting key is not the one")
    none = MemberAdmitted(acting=public("nec"), recovery=None)
    refused(story.try_act("nec", none), RULE, "recovery key is not the one")


def test_a_seat_is_not_taken_for_another():
    actor = Actor(member="nec", key=key_of("sony").verify_key.key_id)
    signers = ("sony", recovery_of("sony"))
    result = unseated().try_act("sony", admitted("sony"), actor=actor, signers=signers)
    refused(result, RULE, "acting key is not the one")


def test_a_seat_needs_proof_that_its_keys_are_held():
    refused(unseated().try_act("nec", admitted("nec")), RULE, "by the keys that it brings")


def test_a_stranger_takes_no_seat():
    signers = ("stranger", recovery_of("stranger"))
    result = unseated().try_act("stranger", admitted("stranger"), signers=signers)
    refused(result, RULE, "not a member")


# --- amendments


def amended(story, **changes):
    old = story.state.charter
    return replace(old, version=old.version + 1, prev_sha256=old.digest, **changes)


def with_toyota(story):
    joined = member_of("toyota", Role.TRAINER, Role.WITNESS)
    members = tuple(sorted((*story.state.charter.members, joined), key=lambda m: m.id))
    return amended(story, members=members)


def adoption(story, charter, proposed):
    return CharterAdopted(
        sha256=charter.digest, charter=charter, operator_key=None, **story.cited(proposed)
    )


def carry(story, charter, voters=TRAINERS):
    proposed = story.carried(Action.AMEND_CHARTER, CharterTerms(charter=charter), voters)
    return adoption(story, charter, proposed)


def test_an_amendment_that_both_charters_carry_comes_into_force(founded):
    charter = with_toyota(founded)
    founded.act("coordinator", carry(founded, charter))
    assert founded.state.charter == charter
    assert founded.state.charter_at(founded.state.size - 1).version == 1
    assert founded.state.standing("toyota") is None
    founded.seat("toyota")
    founded.act("toyota", dataset("toyota"))


def test_who_may_propose_may_write_a_carried_amendment_down(founded):
    """Else nobody could end the operator's own key."""
    founded.act("secretariat", carry(founded, amended(founded, witness_quorum=2)))


def test_an_amendment_without_a_vote_is_refused(founded):
    charter = amended(founded, witness_quorum=2)
    body = CharterAdopted(
        sha256=charter.digest,
        charter=charter,
        operator_key=None,
        proposal=digest("none"),
        votes=(),
    )
    refused(founded.try_act("coordinator", body), RULE, "there is no proposal")
    second = CharterAdopted(
        sha256=charter.digest,
        charter=charter,
        operator_key=public("coordinator"),
        proposal="",
        votes=(),
    )
    refused(founded.try_act("coordinator", second), RULE, "there is no proposal")


def test_a_lower_quorum_needs_the_quorum_of_the_old_rule(founded):
    """T14: an administrator alone, or two members, cannot lower what is asked of three."""
    easy = replace(clauses()[Action.APPROVE_RUN.value], yes=1)
    charter = amended(founded, actions={**clauses(), Action.APPROVE_RUN.value: easy})
    refused(founded.try_act("coordinator", carry(founded, charter, ())), QUORUM, "open")
    refused(founded.try_act("coordinator", carry(founded, charter, TRAINERS[:2])), QUORUM, "open")
    founded.act("coordinator", carry(founded, charter, TRAINERS[:3]))


def test_a_higher_quorum_needs_itself(founded):
    strict = replace(clauses()[Action.AMEND_CHARTER.value], yes=4)
    charter = amended(founded, actions={**clauses(), Action.AMEND_CHARTER.value: strict})
    refused(founded.try_act("coordinator", carry(founded, charter, TRAINERS[:3])), QUORUM, "open")
    founded.act("coordinator", carry(founded, charter))


def test_admission_needs_all_where_the_charter_says_all(founded):
    charter = with_toyota(founded)
    result = founded.try_act("coordinator", carry(founded, charter, TRAINERS[:3]))
    refused(result, QUORUM, "open")


def test_an_expulsion_needs_all_but_the_expelled(founded):
    members = tuple(m for m in charter_of().members if m.id != "sony")
    charter = amended(founded, members=members)
    body = carry(founded, charter, ("honda", "nec"))
    refused(founded.try_act("coordinator", body), QUORUM, "open")
    founded.act("coordinator", carry(founded, charter, ("honda", "nec", "softbank")))
    with pytest.raises(LocalFault) as caught:
        founded.try_act("sony", dataset("sony"))
    assert caught.value.code == "RNM-SIG-0002"


def test_another_charter_than_was_voted_on_is_refused(founded):
    voted, other = amended(founded, witness_quorum=2), amended(founded, witness_quorum=1)
    proposed = founded.carried(Action.AMEND_CHARTER, CharterTerms(charter=voted))
    body = adoption(founded, other, proposed)
    refused(founded.try_act("coordinator", body), RULE, "not the one that was voted on")


def test_an_amendment_follows_the_charter_in_force(founded):
    for charter in (
        replace(amended(founded), version=3),
        replace(amended(founded), prev_sha256=digest("x")),
        charter_of(),
    ):
        terms = CharterTerms(charter=charter)
        with pytest.raises(LocalFault, match="amendment of version 1"):
            founded.open(Action.AMEND_CHARTER, terms)


def test_an_amendment_changes_neither_log_nor_consortium(founded):
    key = NoteSigner(LOG_KEY.name, seed("other log")).vkey
    for charter, words in (
        (amended(founded, consortium="other"), "keeps the consortium"),
        (amended(founded, log_vkey=key), "keeps the log key"),
    ):
        with pytest.raises(LocalFault, match=words):
            founded.open(Action.AMEND_CHARTER, CharterTerms(charter=charter))


def test_an_amendment_ends_open_proposals(founded):
    founded.base_model()
    proposed = founded.proposal()
    for member in TRAINERS[:3]:
        founded.vote(member, proposed)
    body = mandate(founded.state, proposed)
    founded.act("coordinator", carry(founded, amended(founded, witness_quorum=2)))
    with pytest.raises(LocalFault, match="lapsed"):
        founded.vote("sony", proposed)
    refused(founded.try_act("coordinator", body), RULE, "lapsed")


def test_a_mandate_with_an_expelled_member_starts_no_round():
    story = Story()
    story.approved()
    members = tuple(m for m in charter_of().members if m.id != "sony")
    story.act("coordinator", carry(story, amended(story, members=members), TRAINERS[:3]))
    refused(story.try_act("coordinator", started(story.state, 1)), RULE, "not trainers")


def test_an_amendment_waits_for_its_timelock_by_the_witnesses_clock(founded):
    """A coordinator's clock, however it is set, moves nothing."""
    locked = replace(clauses()[Action.AMEND_CHARTER.value], timelock_s=7_200)
    charter = amended(founded, actions={**clauses(), Action.AMEND_CHARTER.value: locked})
    # What the new charter asks of itself holds for its own adoption already.
    adopt = carry(founded, charter)
    founded.anchor(founded.now)
    refused(founded.try_act("coordinator", adopt), QUORUM, "timelock")
    founded.now += 2 * HOUR
    founded.anchor(founded.now)
    founded.act("coordinator", adopt)
    body = carry(founded, amended(founded, witness_quorum=2))
    at = founded.now + 3 * HOUR
    refused(founded.try_act("coordinator", body, at=at), QUORUM, "timelock")
    founded.anchor(founded.now)
    refused(founded.try_act("coordinator", body, at=at), QUORUM, "timelock")
    founded.anchor(founded.now + 2 * HOUR - 1000)
    refused(founded.try_act("coordinator", body, at=at), QUORUM, "timelock")
    founded.anchor(founded.now + 2 * HOUR)
    founded.act("coordinator", body)


# --- standing


def status(story, member, standing, voters):
    terms = StandingTerms(member=member, standing=standing)
    proposed = story.carried(Action.CHANGE_STANDING, terms, voters)
    return MemberStatus(member=member, standing=standing, **story.cited(proposed))


OTHERS = ("honda", "nec", "softbank")


def test_a_suspended_member_neither_acts_nor_counts(founded):
    founded.act("coordinator", status(founded, "sony", Standing.SUSPENDED, OTHERS))
    refused(founded.try_act("sony", dataset("sony")), RULE, "sony is suspended")
    founded.base_model()
    proposed = founded.proposal()
    for member in OTHERS[:2]:
        founded.vote(member, proposed)
    with pytest.raises(LocalFault, match="suspended"):
        founded.vote("sony", proposed)


def test_a_reinstated_member_acts_again(founded):
    founded.act("coordinator", status(founded, "sony", Standing.SUSPENDED, OTHERS))
    founded.act("coordinator", status(founded, "sony", Standing.ACTIVE, OTHERS))
    founded.act("sony", dataset("sony"))


def test_the_subject_of_a_suspension_has_no_vote_on_it(founded):
    terms = StandingTerms(member="sony", standing=Standing.SUSPENDED)
    proposed = founded.open(Action.CHANGE_STANDING, terms)
    with pytest.raises(LocalFault, match="sony has no vote"):
        founded.vote("sony", proposed, Choice.NO)


def test_two_of_three_others_suspend_nobody(founded):
    body = status(founded, "sony", Standing.SUSPENDED, OTHERS[:2])
    refused(founded.try_act("coordinator", body), QUORUM, "open")


def test_a_member_withdraws_by_itself_and_only_itself(founded):
    leave = MemberStatus(member="sony", standing=Standing.WITHDRAWN, proposal="", votes=())
    refused(founded.try_act("nec", leave), RULE, "withdraws by itself")
    founded.act("sony", leave)
    refused(founded.try_act("sony", dataset("sony")), RULE, "sony is withdrawn")
    refused(founded.try_act("sony", leave), AGAIN, "withdrawn")


def test_a_suspended_member_may_leave(founded):
    founded.act("coordinator", status(founded, "sony", Standing.SUSPENDED, OTHERS))
    leave = MemberStatus(member="sony", standing=Standing.WITHDRAWN, proposal="", votes=())
    founded.act("sony", leave)


def test_a_round_with_a_suspended_member_is_not_started():
    story = Story()
    story.approved()
    story.act("coordinator", status(story, "sony", Standing.SUSPENDED, OTHERS))
    result = story.try_act("coordinator", started(story.state, 1))
    refused(result, RULE, "no longer in good standing")


# --- keys


def key_id(name):
    return key_of(name).verify_key.key_id


def rotation(member="nec", new="nec:2", **changes):
    body = KeyChanged(
        op=KeyOperation.ROTATE,
        use=KeyUse.ACT,
        key=key_id(member),
        new=public(new),
        reason="routine",
        proposal="",
        votes=(),
    )
    return replace(body, **changes)


def revocation(member="nec", **changes):
    fields = {
        "use": KeyUse.ACT,
        "key": key_id(member),
        "reason": "lost",
        "proposal": "",
        "votes": (),
        **changes,
    }
    return KeyChanged(op=KeyOperation.REVOKE, new=None, **fields)


def by_recovery(member="nec"):
    recovery = recovery_of(member)
    actor = Actor(member=member, key=key_id(recovery))
    return {"actor": actor, "signers": (recovery,)}


def test_a_rotated_key_acts_and_the_old_one_no_longer(founded):
    founded.act("nec", rotation(), signers=("nec", "nec:2"))
    assert founded.state.acting_key("nec") == key_of("nec:2").verify_key
    with pytest.raises(LocalFault) as caught:
        founded.try_act("nec", dataset("nec"))
    assert caught.value.code == "RNM-SIG-0002"
    actor = Actor(member="nec", key=key_id("nec:2"))
    founded.act("nec", dataset("nec"), actor=actor, signers=("nec:2",))


def test_a_rotation_needs_both_keys_and_its_holder(founded):
    refused(founded.try_act("nec", rotation()), RULE, "by the keys that it brings")
    body = rotation("sony", "thief")
    result = founded.try_act("nec", body, signers=("nec", "thief"))
    refused(result, RULE, "rotates its own keys")


def test_a_key_never_comes_back(founded):
    founded.act("nec", rotation(), signers=("nec", "nec:2"))
    actor = Actor(member="nec", key=key_id("nec:2"))
    back = rotation("nec:2", "nec")
    result = founded.try_act("nec", back, actor=actor, signers=("nec:2", "nec"))
    refused(result, AGAIN, "is or was on the ledger")


def test_a_key_of_another_member_is_not_taken_over(founded):
    taken = rotation("nec", "sony")
    result = founded.try_act("nec", taken, signers=("nec", "sony"))
    refused(result, AGAIN, "is or was on the ledger")


def test_the_recovery_key_ends_a_lost_acting_key(founded):
    founded.act("nec", revocation(), **by_recovery())
    assert founded.state.acting_key("nec") is None
    with pytest.raises(LocalFault):
        founded.try_act("nec", dataset("nec"))
    # What the key signed before stays valid: nothing is backdated.
    assert founded.state.keys[key_id("nec")].until == founded.state.size - 1


def test_a_stolen_acting_key_ends_no_key(founded):
    refused(founded.try_act("nec", revocation()), QUORUM, "recovery key")
    body = revocation(use=KeyUse.RECOVERY, key=key_id(recovery_of("nec")))
    refused(founded.try_act("nec", body), QUORUM, "recovery key")
    refused(founded.try_act("nec", revocation("sony")), QUORUM, "recovery key")


def test_a_recovery_key_does_nothing_else(founded):
    result = founded.try_act("nec", dataset("nec"), **by_recovery())
    refused(result, RULE, "is not one of nec")


def test_a_new_charter_seats_a_member_whose_key_was_ended(founded):
    founded.act("nec", revocation(), **by_recovery())
    fresh = key_of("nec:new").verify_key.digest
    members = tuple(replace(m, key=fresh) if m.id == "nec" else m for m in charter_of().members)
    charter = amended(founded, members=members)
    founded.act("coordinator", carry(founded, charter, ("honda", "softbank", "sony")))
    body = MemberAdmitted(acting=public("nec:new"), recovery=public(recovery_of("nec")))
    actor = Actor(member="nec", key=key_id("nec:new"))
    founded.act("nec", body, actor=actor, signers=("nec:new", recovery_of("nec")))
    assert founded.state.acting_key("nec") == key_of("nec:new").verify_key


def test_the_others_end_a_key_by_vote(founded):
    terms = KeyTerms(member="nec", key=key_id("nec"), reason="stolen")
    proposed = founded.carried(Action.REVOKE_KEY, terms, ("honda", "softbank", "sony"))
    other = revocation("sony", **founded.cited(proposed))
    refused(founded.try_act("coordinator", other), RULE, "not the one that was voted on")
    body = revocation(reason="stolen", **founded.cited(proposed))
    founded.act("coordinator", body)
    assert founded.state.acting_key("nec") is None
    assert founded.state.charter.member("nec")


def test_a_vote_by_an_ended_key_is_refused(founded):
    founded.base_model()
    proposed = founded.proposal()
    founded.act("nec", revocation(), **by_recovery())
    with pytest.raises(LocalFault) as caught:
        founded.vote("nec", proposed)
    assert caught.value.code == "RNM-SIG-0002"


def test_two_keys_of_one_member_are_one_vote(founded):
    founded.base_model()
    proposed = founded.proposal()
    founded.vote("nec", proposed)
    founded.act("nec", rotation(), signers=("nec", "nec:2"))
    actor = Actor(member="nec", key=key_id("nec:2"))
    body = founded.state.proposals[proposed].votes[0].body
    result = founded.try_act("nec", body, actor=actor, signers=("nec:2",))
    refused(result, AGAIN, "has voted")


def test_a_proposal_on_a_plan_is_still_a_proposal(founded):
    founded.base_model()
    assert isinstance(founded.try_act("secretariat", proposal()), State)
    assert witness_of("nec").cosigner


# --- leaving and coming back


def without(story, name):
    return amended(story, members=tuple(m for m in story.state.charter.members if m.id != name))


def again_with(story, member):
    members = tuple(sorted((*story.state.charter.members, member), key=lambda m: m.id))
    return amended(story, members=members)


@pytest.fixture
def returned(founded):
    """Sony was dropped by one charter, and is named by a later one with another key."""
    others = ("honda", "nec", "softbank")
    founded.act("coordinator", carry(founded, without(founded, "sony"), others))
    member = member_of("sony", Role.TRAINER, Role.WITNESS, key="sony:2", recovery="sony:r2")
    founded.act("coordinator", carry(founded, again_with(founded, member), others))
    return founded


def come_back(story, key="sony:2", recovery="sony:r2"):
    body = MemberAdmitted(acting=public(key), recovery=public(recovery))
    actor = Actor(member="sony", key=key_id(key))
    return story.try_act("sony", body, actor=actor, signers=(key, recovery))


def test_a_key_of_before_does_not_act_after_a_return(returned):
    with pytest.raises(LocalFault) as caught:
        returned.try_act("sony", dataset("sony"))
    assert caught.value.code == "RNM-SIG-0002"
    assert returned.state.acting_key("sony") is None
    assert isinstance(come_back(returned), State)


def test_who_returns_consents_anew_even_with_the_charter_naming_the_old_key(founded):
    others = ("honda", "nec", "softbank")
    founded.act("coordinator", carry(founded, without(founded, "sony"), others))
    member = member_of("sony", Role.TRAINER, Role.WITNESS)
    founded.act("coordinator", carry(founded, again_with(founded, member), others))
    refused(come_back(founded, "sony", recovery_of("sony")), AGAIN, "is or was on the ledger")


def test_an_expelled_member_can_be_admitted_again(founded):
    others = ("honda", "nec", "softbank")
    founded.act("coordinator", status(founded, "sony", Standing.EXPELLED, others))
    founded.act("coordinator", carry(founded, without(founded, "sony"), others))
    member = member_of("sony", Role.TRAINER, Role.WITNESS, key="sony:2", recovery="sony:r2")
    founded.act("coordinator", carry(founded, again_with(founded, member), others))
    back = come_back(founded)
    assert isinstance(back, State)
    assert back.standing("sony") is Standing.ACTIVE
