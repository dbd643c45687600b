"""Time, snapshots, budgets, commitments and the acts by which the ledger answers for itself."""

from dataclasses import replace

import pytest
from ledger_kit import (
    HOUR,
    LOG_KEY,
    RUN,
    T0,
    TRAINERS,
    Story,
    adopted,
    anchored,
    charter_of,
    cosign,
    digest,
    signed_note,
)

from audit.note import NoteSigner
from audit.records import Anchor
from audit.replay import replay
from audit.state import Rejected
from audit.summary import state_digest
from fedproto.events.oversight import (
    AccessGranted,
    AnchorKind,
    AnchorMade,
    Authority,
    ErasureDone,
    ExportIssued,
    IncidentReported,
    LogContinued,
    Method,
    RemediationDone,
    SoftwareDeployed,
    StatementAttached,
    StateSnapshot,
)
from fedproto.events.rounds import Accountant, BudgetSpent, UpdateCommitted

RULE, QUORUM, AGAIN, SPENT = "RNM-GOV-0001", "RNM-GOV-0002", "RNM-GOV-0003", "RNM-GOV-0005"


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
def started():
    story = Story()
    story.approved()
    story.start(1)
    return story


# --- the log's own clock


def test_an_anchor_sets_the_clock_to_the_median_of_its_witnesses(founded):
    note = signed_note(founded.leaves)
    for member, seconds in zip(TRAINERS[:3], (100, 200, 10_000_000), strict=True):
        note = cosign(note, (member,), seconds)
    body = AnchorMade(
        kind=AnchorKind.WITNESSED, size=len(founded.leaves), note=note.decode(), token_sha256=""
    )
    founded.act("coordinator", body)
    # One witness far ahead moves nothing.
    assert founded.state.anchors == (Anchor(index=8, size=8, time_s=200),)
    assert founded.state.clock_s == 200


def test_an_entry_stands_between_two_witnessed_times(founded):
    founded.anchor(T0)
    index = founded.state.size
    founded.base_model()
    assert founded.state.bracket_s(index) == (T0 // 1000, None)
    founded.anchor(T0 + HOUR)
    assert founded.state.bracket_s(index) == (T0 // 1000, (T0 + HOUR) // 1000)
    assert founded.state.bracket_s(0) == (None, T0 // 1000)


def test_an_anchor_below_the_quorum_is_refused(founded):
    body = anchored(founded.leaves, T0, TRAINERS[:2])
    refused(founded.try_act("coordinator", body), RULE, "does not verify")


def test_an_anchor_by_other_witnesses_is_refused(founded):
    note = cosign(signed_note(founded.leaves), TRAINERS)
    stranger = NoteSigner("stranger/w1", b"s" * 32, cosigner=True)
    text, _, _ = note.partition(b"\n\n")
    extra = note + stranger.cosign(text + b"\n", T0 // 1000).encode()
    body = AnchorMade(kind=AnchorKind.WITNESSED, size=8, note=extra.decode(), token_sha256="")
    refused(founded.try_act("coordinator", body), RULE, "not its witnesses'")


def test_an_anchor_of_another_history_is_refused(founded):
    other = [*founded.leaves[:-1], b"another entry"]
    refused(founded.try_act("coordinator", anchored(other)), RULE, "another tree")
    forged = cosign(signed_note(founded.leaves, NoteSigner(LOG_KEY.name, b"x" * 32)))
    body = AnchorMade(kind=AnchorKind.WITNESSED, size=8, note=forged.decode(), token_sha256="")
    refused(founded.try_act("coordinator", body), RULE, "does not verify")


def test_the_clock_never_goes_back(founded):
    founded.anchor(T0 + HOUR)
    founded.base_model()
    refused(founded.try_act("coordinator", anchored(founded.leaves, T0)), RULE, "clock back")
    same = anchored(founded.leaves[:8], T0 + 2 * HOUR)
    refused(founded.try_act("coordinator", same), AGAIN, "size 8")


def test_an_anchor_beyond_the_log_or_by_a_trainer_is_refused(founded):
    body = replace(anchored(founded.leaves), size=99)
    refused(founded.try_act("coordinator", body), RULE, "covers 99")
    refused(founded.try_act("nec", anchored(founded.leaves)), RULE, "open to")


def test_a_token_by_others_moves_no_clock(founded):
    body = AnchorMade(kind=AnchorKind.RFC3161, size=8, note="", token_sha256=digest("token"))
    founded.act("meti", body)
    assert founded.state.clock_s == 0


# --- snapshots


def test_a_snapshot_is_admitted_only_if_it_is_the_digest_of_this_state(founded):
    body = StateSnapshot(size=8, state_sha256=state_digest(founded.state))
    refused(
        founded.try_act("coordinator", replace(body, state_sha256=digest("x"))), RULE, "not the"
    )
    refused(founded.try_act("coordinator", replace(body, size=7)), RULE, "of size 7")
    refused(founded.try_act("nec", body), RULE, "open to operator")
    founded.act("coordinator", body)
    assert replay(founded.leaves).violations == ()


# --- a log that goes on from another


def continuation(**changes):
    body = LogContinued(
        origin="old.example/ledger",
        size=7,
        root=digest("old"),
        log_vkey=NoteSigner("old.example/ledger", b"o" * 32).vkey,
    )
    return replace(body, **changes)


def test_a_log_says_where_it_goes_on_from_before_anyone_consents(founded):
    refused(founded.try_act("coordinator", continuation()), RULE, "in its second entry")
    story = Story()
    story.act("coordinator", adopted())
    own = continuation(origin=charter_of().origin)
    refused(story.try_act("coordinator", own), RULE, "does not continue itself")
    story.act("coordinator", continuation())
    story.seat("nec")
    refused(story.try_act("coordinator", continuation()), RULE, "in its second entry")


# --- privacy budgets


def spending(number=1, **changes):
    body = BudgetSpent(
        run=RUN,
        round=number,
        dataset=digest("dataset:nec"),
        mechanism="dp-sgd",
        sigma_micro=1_100_000,
        q_ppm=10_000,
        steps=5,
        delta_exp=6,
        epsilon_micro=600_000,
        total_epsilon_micro=600_000,
        accountant=Accountant.PLD,
    )
    return replace(body, **changes)


def test_a_budget_is_spent_to_its_limit_and_not_beyond(started):
    started.act("nec", spending())
    refused(started.try_act("nec", spending()), AGAIN, "has spent on round 1")
    started.close(1)
    started.start(2)
    less = spending(2, total_epsilon_micro=600_000, epsilon_micro=1)
    started.act("nec", less)
    assert started.state.datasets[digest("dataset:nec")].epsilon_micro == 600_000
    started.close(2)
    started.start(3)
    greedy = spending(3, epsilon_micro=1_400_000, total_epsilon_micro=2_000_000)
    refused(started.try_act("nec", greedy), SPENT, "the run would spend")
    full = spending(3, epsilon_micro=1_399_999, total_epsilon_micro=3_000_001)
    refused(started.try_act("nec", full), SPENT, "the dataset would")
    started.act("nec", replace(full, total_epsilon_micro=3_000_000))


def test_a_total_never_falls(started):
    started.act("nec", spending())
    started.close(1)
    started.start(2)
    forgetful = spending(2, epsilon_micro=1, total_epsilon_micro=1)
    refused(started.try_act("nec", forgetful), RULE, "less than what was spent")


def test_a_total_at_another_delta_is_refused(started):
    started.act("nec", spending())
    started.close(1)
    started.start(2)
    refused(started.try_act("nec", spending(2, delta_exp=5)), RULE, "another delta")


def test_a_budget_is_its_members_and_its_rounds(started):
    refused(started.try_act("sony", spending()), RULE, "sony has not declared")
    refused(started.try_act("nec", spending(2)), RULE, "not invited to round 2")
    refused(started.try_act("nec", spending(run="cd" * 16)), RULE, "not invited")


# --- commitments to updates


def commitment(number=1, **changes):
    body = UpdateCommitted(
        run=RUN,
        round=number,
        attempt=1,
        commitment=digest("salted"),
        clip_milli=1000,
        size_bucket=12,
        steps_bucket=2,
    )
    return replace(body, **changes)


def test_an_update_is_committed_to_once_before_the_close(started):
    started.act("nec", commitment())
    refused(started.try_act("nec", commitment()), AGAIN, "has committed")
    refused(started.try_act("meti", commitment()), RULE, "not invited")
    refused(started.try_act("sony", commitment(clip_milli=9)), RULE, "not clipped as the plan")
    refused(started.try_act("sony", commitment(2)), RULE, "was not started")
    started.close(1)
    refused(started.try_act("sony", commitment()), RULE, "closed")


# --- access, exports, incidents, remedies, erasure, statements, software


def test_access_is_granted_within_the_charters_disclosure(founded):
    body = AccessGranted(grantee="meti", content="report", until=T0 + HOUR)
    refused(founded.try_act("nec", body), RULE, "open to")
    refused(founded.try_act("secretariat", replace(body, grantee="nec")), RULE, "none of these")
    refused(founded.try_act("secretariat", replace(body, grantee="who")), RULE, "not a member")
    refused(founded.try_act("secretariat", replace(body, content="weights")), RULE, "no class")
    refused(founded.try_act("secretariat", replace(body, until=T0)), RULE, "ends before")
    founded.act("secretariat", body)


def test_an_export_is_of_what_is_there(founded):
    refused(
        founded.try_act("meti", ExportIssued(recipient="meti", bundle_sha256=digest("b"), size=9)),
        RULE,
        "holds 9",
    )
    founded.act("meti", ExportIssued(recipient="meti", bundle_sha256=digest("b"), size=8))


def test_a_remedy_names_an_entry(founded):
    leaf = founded.act(
        "meti", IncidentReported(category="leak", severity=3, report=digest("report"))
    )
    body = RemediationDone(cause=digest("none"), method=Method.ACCEPTED, evidence=digest("e"))
    refused(founded.try_act("nec", body), RULE, "no entry")
    founded.act("nec", replace(body, cause=leaf))


def test_a_commitment_is_erased_once_and_a_datasets_by_its_member(founded):
    founded.datasets()
    body = ErasureDone(commitment=digest("dataset:nec"), authority=Authority.DATA_SUBJECT)
    refused(founded.try_act("sony", body), RULE, "belongs to nec")
    founded.act("nec", body)
    refused(founded.try_act("nec", body), AGAIN, "erased already")


def test_statements_and_software_are_kept_by_digest(founded):
    founded.act(
        "pfn",
        StatementAttached(
            subject=digest("base"),
            predicate_type="https://slsa.dev/provenance/v1",
            sha256=digest("statement"),
        ),
    )
    founded.act(
        "nec",
        SoftwareDeployed(
            component="renmei-node",
            image_sha256=digest("image"),
            provenance_sha256=digest("provenance"),
            size_bucket=28,
        ),
    )


def test_the_state_digest_tells_every_kind_of_change(started):
    """Two states that differ in anything that an act changed have different digests."""
    seen = {state_digest(started.state)}
    acts = [
        ("nec", spending()),
        ("nec", commitment()),
        ("nec", ErasureDone(commitment=digest("x"), authority=Authority.RETENTION)),
        ("meti", IncidentReported(category="leak", severity=1, report=digest("r"))),
    ]
    for actor, body in acts:
        started.act(actor, body)
        seen.add(state_digest(started.state))
    started.anchor(T0)
    seen.add(state_digest(started.state))
    assert len(seen) == len(acts) + 2
