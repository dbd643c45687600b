from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audit.state import Rejected, apply, open_next
from fedproto.authorisation import recovery_threshold
from fedproto.errors import FederationError
from fedproto.events.governance import Choice, MemberStatus, Standing
from fedproto.events.rounds import Outcome, ParticipationSigned, RunApproved, Verdict
from fedproto.ids import sha256_hex
from fedproto.statements import leaf_id
from member_node.consent import authenticate, check, check_model, grounds_of
from member_node.marks import Mark

RUN = "7" * 32
NOW = 1_800_000_000_000
HOUR = 3_600_000
OTHER = sha256_hex(b"something else")


def refused(code, call, *arguments):
    with pytest.raises(FederationError) as refusal:
        call(*arguments)
    assert refusal.value.code == code, refusal.value
    return refusal.value


def consent(world, content, site, *, now=NOW, signer="coordinator"):
    authorisation = authenticate(world.sign(content, signer), world.state)
    return check(authorisation, grounds_of(world.state, content.run), site, now)


def recorded(world, **changes):
    """Record and return the authorisation of the next attempt, with `changes`."""
    content = world.authorisation(**changes)
    world.start(authenticate(world.sign(content), world.state))
    return content


def test_an_authorisation_that_follows_from_the_mandate_is_consented_to(approved, site):
    content = recorded(approved)
    given_consent = consent(approved, content, site)
    assert given_consent.content == content
    assert given_consent.mark == Mark(1, 1)


def test_round_after_round_follows_from_the_ledger(approved, site):
    for number in (1, 2, 3):
        content = recorded(approved)
        assert consent(approved, content, site).mark == Mark(number, 1)
        approved.close(model_out=sha256_hex(f"model {number}".encode()))


def test_a_round_whose_sum_too_few_audited_is_not_built_upon(approved, site):
    recorded(approved)
    approved.close(model_out=OTHER, auditors=("honda", "sony"))
    refusal = refused("RNM-CONSENT-0007", consent, approved, recorded(approved), site)
    assert "2 members audited its sum, fewer than 3" in refusal.why


def test_an_audit_that_came_after_the_close_counts(approved, site):
    recorded(approved)
    approved.close(model_out=OTHER, auditors=("honda", "sony"))
    approved.audit("softbank")
    assert consent(approved, recorded(approved), site).mark == Mark(2, 1)


def test_no_node_goes_on_from_a_sum_that_a_member_refused_after_the_close(approved, site):
    recorded(approved)
    approved.close(model_out=OTHER)
    content = recorded(approved)
    grounds = grounds_of(approved.state, RUN)
    approved.audit("nec")
    refusing = grounds_of(approved.state, RUN).attempts[1].audits[0]
    refusing = replace(refusing, body=replace(refusing.body, verdict=Verdict.REFUSED))
    first = replace(grounds.attempts[0], audits=(*grounds.attempts[0].audits, refusing))
    disputed = replace(grounds, attempts=(first, *grounds.attempts[1:]))
    authorisation = authenticate(approved.sign(content), approved.state)
    refused("RNM-CONSENT-0007", check, authorisation, disputed, site, approved.clock)


def test_a_new_attempt_follows_an_aborted_one(approved, site):
    recorded(approved)
    approved.close(Outcome.ABORTED)
    content = recorded(approved)
    assert consent(approved, content, site).mark == Mark(1, 2)


def test_a_member_that_voted_and_left_stops_nobody_else(world, site):
    """A node counts the votes as the ledger did at the mandate: without the one that had left."""
    world.propose()
    world.vote("sony")
    leave = MemberStatus(member="sony", standing=Standing.WITHDRAWN, proposal="", votes=())
    world.act("sony", leave)
    world.approve(("honda", "nec", "softbank"))
    assert consent(world, recorded(world), site).mark == Mark(1, 1)


@pytest.mark.parametrize("signer", ["honda", "secretariat", "pfn", "stranger"])
def test_an_authorisation_that_the_operator_did_not_sign_is_forged(approved, signer):
    raw = approved.sign(approved.authorisation(), signer)
    refused("RNM-CONSENT-0005", authenticate, raw, approved.state)


@given(st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_changed_byte_makes_an_authorisation_forged(approved, data):
    raw = bytearray(approved.sign(approved.authorisation()))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    refused("RNM-CONSENT-0005", authenticate, bytes(raw), approved.state)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"consortium": "other"}, "RNM-CONSENT-0005"),
        ({"charter": OTHER}, "RNM-CONSENT-0005"),
        ({"mandate": OTHER}, "RNM-CONSENT-0001"),
        ({"prev": OTHER}, "RNM-CONSENT-0005"),
        ({"run": "8" * 32}, "RNM-CONSENT-0001"),
        ({"round": 2}, "RNM-CONSENT-0005"),
        ({"round": 99}, "RNM-CONSENT-0001"),
        ({"attempt": 2}, "RNM-CONSENT-0001"),
        ({"members": ("honda", "nec", "sony")}, "RNM-CONSENT-0005"),
        ({"members": ("honda", "nec", "softbank", "sony", "sybil")}, "RNM-CONSENT-0005"),
        (
            {"tolerated": 2, "recovery_threshold": recovery_threshold(4, 2)},
            "RNM-CONSENT-0005",
        ),
        ({"parameters": 9}, "RNM-CONSENT-0005"),
        ({"layout_sha256": OTHER}, "RNM-CONSENT-0005"),
        ({"plan_sha256": OTHER}, "RNM-CONSENT-0005"),
        ({"model_in": OTHER}, "RNM-CONSENT-0006"),
        ({"bits": 24}, "RNM-CONSENT-0005"),
        ({"clip_milli": 10**9}, "RNM-CONSENT-0005"),
        ({"not_after": NOW}, "RNM-CONSENT-0002"),
        ({"not_after": NOW + HOUR + 1}, "RNM-CONSENT-0002"),
        ({"nonce": OTHER}, "RNM-CONSENT-0001"),
        ({"passes": 2}, "RNM-CONSENT-0005"),
        ({"passes": 2, "pass_no": 2}, "RNM-CONSENT-0005"),
    ],
)
def test_a_field_that_the_operator_changed_is_refused_even_with_its_genuine_signature(
    approved, site, changes, code
):
    """The ledger records the honest authorisation; the member is sent another one."""
    honest = recorded(approved)
    members = changes.get("members", honest.members)
    if "members" in changes:
        changes = {**changes, "recovery_threshold": recovery_threshold(len(members), 1)}
    refused(code, consent, approved, replace(honest, **changes), site)


def test_every_field_of_an_authorisation_is_tried_by_the_attack_above():
    from fedproto.authorisation import Authorisation

    marks = test_a_field_that_the_operator_changed_is_refused_even_with_its_genuine_signature
    cases = marks.pytestmark[0].args[1]
    tried = {name for changes, _ in cases for name in changes}
    # These admit one value alone, groups in a cohort of four: Authorisation itself refuses every other.
    # A larger cohort's are tried in test_member_groups.py.
    assert tried | {"v", "suite", "word_bits", "recovery_threshold", "groups"} == set(
        Authorisation.__dataclass_fields__
    )


def test_a_threshold_that_would_open_one_member_has_no_form_at_all(approved):
    with pytest.raises(ValueError, match="recovery threshold"):
        approved.authorisation(recovery_threshold=2)


def test_without_a_mandate_there_is_no_consent(world, site):
    world.propose()
    world.mandate_leaf = OTHER
    world.mandate = type("Mandate", (), {"members": ("honda", "nec", "softbank", "sony")})
    refused("RNM-CONSENT-0001", consent, world, world.authorisation(), site)


def test_an_attempt_that_is_not_in_the_ledger_is_refused(approved, site):
    refused("RNM-CONSENT-0001", consent, approved, approved.authorisation(), site)


def test_a_second_authorisation_for_one_attempt_is_refused(approved, site):
    """Two members with two authorisations would be two key lists."""
    content = recorded(approved)
    refused("RNM-CONSENT-0001", consent, approved, replace(content, nonce=OTHER), site)


def test_an_attempt_that_the_ledger_has_as_closed_is_refused(approved, site):
    content = recorded(approved)
    approved.close(Outcome.ABORTED)
    code = consent_code(approved, content, site)
    assert code in {"RNM-CONSENT-0001", "RNM-CONSENT-0005"}


def consent_code(world, content, site):
    with pytest.raises(FederationError) as refusal:
        consent(world, content, site)
    return refusal.value.code


def test_a_mandate_below_the_quorum_is_refused_by_the_ledger_and_again_by_the_node(world, site):
    """Even if the coordinator got such an entry past its own admission and past the mirror."""
    world.propose()
    votes = [world.vote("nec"), world.vote("honda"), world.vote("sony", Choice.NO)]
    mandate = RunApproved(
        run=RUN,
        proposal=world.proposal,
        votes=tuple(sorted(votes[:2])),
        members=("honda", "nec"),
        plan=replace(world.plan),
        plan_sha256=world.plan.digest,
        not_before=NOW,
        not_after=NOW + HOUR,
    )
    leaf = world.seal("coordinator", mandate)
    rejected = apply(world.state, leaf_id(leaf), open_next(world.state, leaf))
    assert isinstance(rejected, Rejected)
    assert rejected.code == "RNM-GOV-0002"
    good = type(world)()
    good.propose()
    good.approve()
    content = recorded(good)
    grounds = grounds_of(good.state, RUN)
    forced = replace(
        grounds,
        proposal=replace(grounds.proposal, votes=grounds.proposal.votes[:2]),
    )
    authorisation = authenticate(good.sign(content), good.state)
    fault = refused("RNM-CONSENT-0001", check, authorisation, forced, site, NOW)
    assert "2 of 3 votes" in fault.why


def test_a_mandate_that_binds_a_member_without_its_yes_is_refused_again_by_the_node(
    make_world, site
):
    world = make_world()
    world.propose()
    world.approve(("honda", "softbank", "sony"))
    content = world.authorisation()
    world.start(authenticate(world.sign(content), world.state))
    fault = refused("RNM-CONSENT-0001", consent, world, content, site)
    assert "nec is not among the members" in fault.why
    grounds = grounds_of(world.state, RUN)
    everyone = ("honda", "nec", "softbank", "sony")
    mandate = replace(grounds.mandate, body=replace(grounds.mandate.body, members=everyone))
    forced = replace(grounds, mandate=mandate)
    authorisation = authenticate(world.sign(content), world.state)
    fault = refused("RNM-CONSENT-0001", check, authorisation, forced, site, NOW)
    assert "did not vote yes" in fault.why


def test_a_base_model_that_nobody_approved_is_refused(approved, site):
    content = recorded(approved)
    authorisation = authenticate(approved.sign(content), approved.state)
    grounds = replace(grounds_of(approved.state, RUN), base_approved=False)
    refused("RNM-CONSENT-0001", check, authorisation, grounds, site, NOW)


@pytest.mark.parametrize("now", [NOW - 1, NOW + 600_000, NOW + HOUR, NOW + 24 * HOUR])
def test_outside_its_term_a_mandate_is_worth_nothing(approved, site, now):
    content = recorded(approved)
    refused_code = "RNM-CONSENT-0002"
    with pytest.raises(FederationError) as refusal:
        consent(approved, content, site, now=now)
    assert refusal.value.code == refused_code


@pytest.mark.parametrize("last", [Mark(1, 1), Mark(1, 2), Mark(2, 1), Mark(9, 9)])
def test_an_attempt_at_or_below_the_mark_is_a_replay(approved, site, last):
    content = recorded(approved)
    fault = refused("RNM-CONSENT-0003", consent, approved, content, replace(site, last=last))
    assert "answered" in fault.why


def test_an_older_round_is_not_answered_again_after_the_ledger_moved_on(approved, site):
    old = recorded(approved)
    approved.close(model_out=OTHER)
    recorded(approved)
    refused("RNM-CONSENT-0005", consent, approved, old, replace(site, last=Mark(1, 1)))


def test_a_node_whose_marks_were_set_back_notices_it_by_its_own_receipts(approved, site):
    dataset = sha256_hex(b"dataset")
    approved.declare("nec", dataset)
    first = recorded(approved)
    approved.act(
        "nec",
        ParticipationSigned(
            run=RUN,
            round=1,
            attempt=1,
            authorisation_sha256=authenticate(approved.sign(first), approved.state).digest,
            dataset=dataset,
            upload_sha256=OTHER,
            upload_bytes=36,
        ),
    )
    approved.close(model_out=OTHER)
    content = recorded(approved)
    refused("RNM-STATE-0001", consent, approved, content, site)
    assert consent(approved, content, replace(site, last=Mark(1, 1))).mark == Mark(2, 1)


def test_another_adapter_than_the_last_round_led_to_is_refused(approved, site):
    """Model inconsistency: one member trains from an adapter made for it alone."""
    recorded(approved)
    approved.close(model_out=OTHER)
    content = recorded(approved)
    bait = replace(content, model_in=sha256_hex(b"made for nec alone"))
    refused("RNM-CONSENT-0006", consent, approved, bait, site)


def test_a_first_round_from_another_adapter_is_refused_by_the_ledger_and_by_the_node(
    approved, site
):
    content = approved.authorisation(model_in=OTHER)
    authorisation = authenticate(approved.sign(content), approved.state)
    with pytest.raises(AssertionError, match="adapter that is due"):
        approved.start(authorisation)
    recorded(approved)
    grounds = grounds_of(approved.state, RUN)
    attempt = grounds.attempts[0]
    said = replace(attempt.started.body, model_in=OTHER, authorisation_sha256=authorisation.digest)
    forced = replace(attempt, started=replace(attempt.started, body=said))
    refused(
        "RNM-CONSENT-0006", check, authorisation, replace(grounds, attempts=(forced,)), site, NOW
    )


@pytest.mark.parametrize(
    "tightened",
    [
        {"purposes": ()},
        {"base_models": ()},
        {"max_rank": 3},
        {"max_rounds": 2},
        {"max_steps": 9},
        {"min_members": 4},
        {"min_tolerated": 2},
        {"max_phase_timeout_s": 59},
        {"dataset": None},
    ],
)
def test_the_silos_own_policy_has_the_last_word_over_a_carried_vote(approved, site, tightened):
    content = recorded(approved)
    strict = replace(site, policy=replace(site.policy, **tightened))
    refused("RNM-CONSENT-0004", consent, approved, content, strict)


@pytest.mark.parametrize(
    "changes",
    [
        {"layout_sha256": OTHER},
        {"parameters": 9},
        {"initial": None},
    ],
)
def test_a_model_that_the_own_trainer_does_not_find_is_refused(approved, site, found, changes):
    given_consent = consent(approved, recorded(approved), site)
    check_model(given_consent, found)
    if "initial" in changes:
        changes = {"initial": found.initial + 1}
    refused("RNM-CONSENT-0006", check_model, given_consent, replace(found, **changes))
