"""Who approved it, was it there, who got it, what is spent, what was refused, what changed."""

from dataclasses import replace

import ledger_kit as kit
import pytest
import question_kit as cases

from audit.answers.budget import curves
from audit.answers.handover import handovers
from audit.answers.integrity import integrity
from audit.answers.presence import presence
from audit.answers.reason import reason
from audit.answers.refusals import refusals
from audit.difference import difference
from fedproto.errors import Exit, LocalFault
from fedproto.events.governance import CharterAdopted, CharterTerms, Choice
from fedproto.events.models import ReleaseTerms
from fedproto.governance.charter import Action, Charter

YEAR = cases.year()
AT, HISTORY = YEAR.at, YEAR.history
STATE = HISTORY.state


def test_a_round_was_approved_by_its_mandates_votes_under_its_clause() -> None:
    found = reason(HISTORY, AT["started:2.2"])
    assert (found.basis, found.decided_by) == ("vote", AT["mandate"])
    assert {vote.member: vote.choice for vote in found.votes} == dict.fromkeys(kit.TRAINERS, "yes")
    (asked,) = found.asked
    assert (asked.action, asked.yes, asked.needed, asked.under) == ("run.approve", 4, 3, 1)
    assert asked.clause == kit.charter_of().clause(Action.APPROVE_RUN)
    assert found.charter_sha256 == kit.charter_of().digest
    assert {0, AT["mandate"], *(vote.index for vote in found.votes)} <= set(found.cites)


def test_every_kind_of_act_has_a_reason_that_cites_it() -> None:
    for index in range(len(HISTORY.events)):
        found = reason(HISTORY, index)
        assert index in found.cites, found
        assert found.charter_index in found.cites
        assert found.roles, found


@pytest.mark.parametrize(
    ("name", "basis"),
    [("stop", "direct"), ("refused", "role"), ("release", "vote"), ("revoked", "vote")],
)
def test_what_needs_no_vote_names_what_leaves_it_to_its_actor(name: str, basis: str) -> None:
    found = reason(HISTORY, AT[name])
    assert found.basis == basis
    assert bool(found.votes) == (basis == "vote")


def test_the_founding_is_by_everyones_consent() -> None:
    assert reason(HISTORY, 0).basis == "founding"
    assert reason(HISTORY, kit.FOUNDED - 1).basis == "founding"


def test_a_rejected_proposal_shows_who_said_no() -> None:
    found = reason(HISTORY, AT["closed:rejected"])
    assert [vote.choice for vote in found.votes] == ["no", "no"]
    assert found.asked[0].yes == 0
    assert found.carried is None


def amended() -> tuple[kit.Story, Charter]:
    """An amendment of one limit, adopted."""
    story = kit.Story()
    story.genesis()
    old = story.state.charter
    new = replace(old, version=2, prev_sha256=old.digest, limits=replace(old.limits, max_rounds=7))
    proposed = story.carried(Action.AMEND_CHARTER, CharterTerms(charter=new))
    body = CharterAdopted(
        sha256=new.digest, charter=new, operator_key=None, **story.cited(proposed)
    )
    story.act("coordinator", body)
    return story, new


def test_an_amendment_shows_what_the_old_and_the_new_charter_asked() -> None:
    story, _ = amended()
    history = cases.Year(leaves=tuple(story.leaves), at={}).history
    found = reason(history, len(story.leaves) - 1)
    assert [(asked.action, asked.under) for asked in found.asked] == [
        ("charter.amend", 1),
        ("charter.amend", 2),
    ]
    # It stands under the charter before it, not under the one that it brings.
    assert found.charter_version == 1


def test_a_difference_names_the_charter_fields_that_changed() -> None:
    story, new = amended()
    history = cases.Year(leaves=tuple(story.leaves), at={}).history
    size = len(story.leaves)
    changed = {c.field: (c.before, c.after) for c in _of(history, size - 1, size, "charter")}
    assert changed["limits.max_rounds"] == ("5", "7")
    assert changed["version"] == ("1", "2")
    assert changed["sha256"][1] == new.digest
    assert not any(field.startswith("members") for field in changed)


def _of(history, old: int, new: int, kind: str):
    found = difference(history.state_at(old), history.state_at(new))
    return [change for change in found if change.kind == kind]


def test_a_difference_between_two_sizes_names_seats_runs_releases_budgets_and_stops() -> None:
    changes = difference(HISTORY.state_at(AT["started:1"]), STATE)
    told = {(c.kind, c.field): (c.before, c.after) for c in changes}
    assert told["seat", "standing"] == ("active", "withdrawn")
    assert told["run", "aggregated"] == ("0", "2")
    assert told["run", "adapter"] == ("", kit.digest("adapter:2"))
    assert told["release", "revoked"] == ("", f"entry {AT['revoked']}")
    assert told["dataset", "epsilon_micro"] == ("0", "900000")
    assert told["dataset", "withdrawn"] == ("", str(AT["withdrawn"]))
    assert told["refusal", "recorded"] == ("", f"entry {AT['refused']}")
    stopped = _of(HISTORY, AT["stop"], AT["stop"] + 1, "stop")
    assert [(c.before, c.after) for c in stopped] == [("", f"entry {AT['stop']}")]
    assert _of(HISTORY, AT["stop"] + 1, AT["resumed"] + 1, "stop")[0].after == ""


def test_a_state_does_not_differ_from_itself() -> None:
    assert difference(STATE, HISTORY.state_at(len(YEAR.leaves))) == ()


def test_presence_tells_the_sum_from_a_receipt() -> None:
    first, second = presence(STATE, run=kit.RUN, number=2, member="honda")
    assert (first.standing, first.receipt) == ("aborted", None)
    assert (second.standing, second.reason) == ("excluded", "RNM-ROUND-0002")
    assert second.receipt == AT["receipt:2:honda"]
    (one,) = presence(STATE, run=kit.RUN, number=1, member="honda")
    assert (one.standing, one.dataset) == ("in-sum", kit.digest("dataset:honda"))
    assert one.cites == (AT["started:1"], AT["receipt:1:honda"], AT["closed:1"])


def test_presence_of_one_who_was_not_invited_is_shown_by_the_invitation() -> None:
    (found,) = presence(STATE, run=kit.RUN, number=1, member="meti")
    assert (found.standing, found.cites) == ("absent", (AT["started:1"], AT["closed:1"]))


@pytest.mark.parametrize(
    "asked", [{"run": "cd" * 16}, {"run": kit.RUN, "number": 9}, {"run": kit.RUN, "member": "x"}]
)
def test_presence_in_what_does_not_exist_is_a_usage_error(asked: dict[str, object]) -> None:
    with pytest.raises(LocalFault) as caught:
        presence(STATE, **asked)  # type: ignore[arg-type]
    assert caught.value.exit is Exit.USAGE


def test_a_budget_is_a_curve_against_the_charters_limit() -> None:
    (curve,) = curves(STATE, kit.digest("dataset:nec"))
    assert [p.total_epsilon_micro for p in curve.points] == [500_000, 900_000]
    assert (curve.epsilon_micro, curve.limit_micro, curve.left_micro) == (
        900_000,
        3_000_000,
        2_100_000,
    )
    assert curve.cites == (curve.declared, AT["spent:1"], AT["spent:2"])
    assert len(list(curves(STATE))) == len(kit.TRAINERS)


def test_weights_name_rounds_evaluators_releases_grants_and_exports() -> None:
    found = {item.index: item for item in handovers(HISTORY)}
    assert found[AT["started:1"]].to == kit.TRAINERS
    assert found[AT["release"]].to == ("internal", "member-products")
    assert found[AT["release"]].ended == AT["revoked"]
    assert found[AT["access"]].to == ("meti",)
    assert found[AT["export"]].to == ("meti",)


def test_weights_of_one_adapter_leave_out_the_others() -> None:
    found = handovers(HISTORY, kit.digest("adapter:2"))
    assert [item.index for item in found] == [
        AT["evaluated:nec"],
        AT["evaluated:sony"],
        AT["release"],
    ]
    started = handovers(HISTORY, kit.digest("adapter:1"))
    assert [item.index for item in started] == [AT["started:2.1"], AT["started:2.2"]]


def test_all_refusals_are_found_with_who_what_and_why() -> None:
    found = {(item.kind, item.index): item for item in refusals(HISTORY)}
    assert found["act", AT["refused"]].whom == "sony"
    assert found["act", AT["refused"]].reason == "RNM-GOV-0001"
    assert {key for key in found if key[0] == "vote"} == {
        ("vote", AT["no:honda"]),
        ("vote", AT["no:nec"]),
    }
    assert found["proposal", AT["closed:rejected"]].reason == "rejected"
    assert found["abort", AT["aborted"]].reason == "RNM-SECAGG-0002"
    assert found["exclusion", AT["closed:2"]].whom == "honda"
    for kind, name in (("stop", "stop"), ("withdrawal", "withdrawn"), ("revocation", "revoked")):
        assert (kind, AT[name]) in found


def vetoed() -> tuple[kit.Story, int]:
    """A release that three carried, and that sony vetoed while its timelock held."""
    story = kit.copy_of(kit.full_story(1))
    for member in ("nec", "sony"):
        story.act(member, cases.evaluated(1, "0.5"))
    terms = ReleaseTerms(
        artifact=kit.digest("adapter:1"),
        made_by=kit.RUN,
        channels=("internal",),
        conditions_sha256=kit.digest("conditions"),
    )
    proposed = story.carried(Action.APPROVE_RELEASE, terms, ("honda", "nec", "softbank"))
    story.vote("sony", proposed, Choice.VETO)
    return story, story.state.leaves[proposed]


def test_a_veto_is_a_refusal_and_ends_what_was_carried() -> None:
    story, proposal = vetoed()
    history = cases.Year(leaves=tuple(story.leaves), at={}).history
    found = {(item.kind, item.reason): item for item in refusals(history)}
    assert found["vote", "veto"].by == "sony"
    assert found["proposal", "vetoed"].index == proposal
    assert reason(history, proposal).vetoed == len(story.leaves) - 1


def test_a_proposal_that_time_passed_over_is_listed_as_lapsed() -> None:
    story = kit.copy_of(kit.full_story(1))
    proposed = story.proposal(kit.plan_of(purpose="second"))
    history = cases.Year(leaves=tuple(story.leaves), at={}).history
    assert not [item for item in refusals(history) if item.kind == "lapse"]
    story.now += 2 * kit.HOUR
    story.anchor(story.now)
    history = cases.Year(leaves=tuple(story.leaves), at={}).history
    (lapsed,) = [item for item in refusals(history) if item.kind == "lapse"]
    assert (lapsed.index, lapsed.reason) == (story.state.leaves[proposed], "term-over")


def test_a_proposal_that_an_amendment_ended_is_listed_as_lapsed() -> None:
    story = kit.Story()
    story.genesis()
    story.base_model()
    lapsed = story.proposal()
    old = story.state.charter
    new = replace(old, version=2, prev_sha256=old.digest, limits=replace(old.limits, max_rounds=7))
    proposed = story.carried(Action.AMEND_CHARTER, CharterTerms(charter=new))
    cited = story.cited(proposed)
    story.act(
        "coordinator",
        CharterAdopted(sha256=new.digest, charter=new, operator_key=None, **cited),
    )
    found = refusals(cases.Year(leaves=tuple(story.leaves), at={}).history)
    assert [(i.kind, i.index) for i in found] == [("lapse", story.state.leaves[lapsed])]
    history = cases.Year(leaves=tuple(story.leaves), at={}).history
    # It is judged under the charter under which it could be voted on.
    assert reason(history, story.state.leaves[lapsed]).charter_version == 1


LOG = kit.LOG_KEY.verifier


def test_integrity_names_the_last_head_that_each_member_had_verified() -> None:
    found = integrity(HISTORY, log=LOG)
    assert found.heads == len(YEAR.leaves) - 1
    vouched = {item.member: item for item in found.vouched}
    assert vouched["honda"].index == AT["left"]
    assert vouched["honda"].size == AT["left"]
    assert found.anchors[0] == AT["anchor:founded"]


def test_a_checkpoint_that_was_kept_agrees_with_the_history_that_it_was_of() -> None:
    note = kit.cosigned_note(list(YEAR.leaves[:30]))
    beyond = kit.cosigned_note([*YEAR.leaves, b"later"])
    found = integrity(HISTORY, log=LOG, kept=[("old", note), ("new", beyond)])
    assert [item.verdict for item in found.kept] == ["agrees", "beyond"]
    assert found.rewritten == ()


def test_a_checkpoint_of_another_history_proves_that_the_log_was_rewritten() -> None:
    other = list(YEAR.leaves[:30])
    other[12] = b"another act"
    found = integrity(HISTORY, log=LOG, kept=[("kept", kit.cosigned_note(other))])
    assert [item.name for item in found.rewritten] == ["kept"]


def test_a_checkpoint_that_the_log_did_not_sign_proves_nothing() -> None:
    stranger = kit.NoteSigner(kit.ORIGIN, bytes(32))
    with pytest.raises(LocalFault) as caught:
        integrity(HISTORY, log=LOG, kept=[("x", kit.signed_note(list(YEAR.leaves), stranger))])
    assert caught.value.code == "RNM-LEDGER-0001"


def test_a_state_beyond_the_log_is_a_usage_error() -> None:
    for size in (-1, len(YEAR.leaves) + 1):
        with pytest.raises(LocalFault) as caught:
            HISTORY.state_at(size)
        assert caught.value.exit is Exit.USAGE
