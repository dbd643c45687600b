"""Lineage: which datasets fed an adapter, and which adapters a dataset fed."""

import ledger_kit as kit
import pytest
import question_kit as cases

from audit import lineage
from audit.history import History
from fedproto.errors import Exit, LocalFault
from fedproto.ids import Digest
from fedproto.statements import leaf_id

YEAR = cases.year()
AT, HISTORY = YEAR.at, YEAR.history
SECOND = lineage.trace(HISTORY, kit.digest("adapter:2"))


def told(story: kit.Story) -> History:
    return cases.Year(leaves=tuple(story.leaves), at={}).history


def dataset(member: str) -> Digest:
    return kit.digest(f"dataset:{member}")


def test_every_dataset_in_a_sum_is_named_with_its_declaration_and_receipts() -> None:
    fed = {source.member: source for source in SECOND.sources}
    assert set(fed) == set(kit.TRAINERS)
    assert fed["nec"].commitment == dataset("nec")
    assert fed["nec"].receipts == (AT["receipt:1:nec"], AT["receipt:2:nec"])
    assert fed["nec"].epsilon_micro == 900_000
    assert HISTORY.event(fed["nec"].declared).type == "dataset.declared"


def test_a_receipt_of_an_excluded_member_feeds_nothing() -> None:
    # honda signed for the second round, but is not in its sum.
    honda = next(source for source in SECOND.sources if source.member == "honda")
    assert honda.receipts == (AT["receipt:1:honda"],)
    assert "honda" not in SECOND.steps[-1].included


def test_an_aborted_attempt_is_no_step() -> None:
    assert [(step.round, step.attempt) for step in SECOND.steps] == [(1, 1), (2, 2)]
    assert SECOND.steps[0].model_out == SECOND.steps[1].model_in
    assert AT["aborted"] not in SECOND.cites


def test_an_earlier_adapter_has_only_the_rounds_before_it() -> None:
    first = lineage.trace(HISTORY, kit.digest("adapter:1"))
    assert [step.round for step in first.steps] == [1]
    assert not first.releases


def test_a_withdrawn_dataset_flags_what_it_fed() -> None:
    assert [source.commitment for source in SECOND.withdrawn] == [dataset("sony")]
    assert SECOND.withdrawn[0].withdrawn == AT["withdrawn"]
    assert SECOND.remedies == (AT["remedied"],)


def test_base_mandate_votes_evaluations_and_releases_are_named_by_entry() -> None:
    assert SECOND.base.manifest_sha256 == kit.digest("base")
    assert HISTORY.event(SECOND.base.approved).type == "base_model.approved"
    (mandate,) = SECOND.mandates
    assert mandate.index == AT["mandate"]
    assert {HISTORY.event(i).body.choice.value for i in mandate.votes} == {"yes"}
    assert [e.index for e in SECOND.evaluations] == [AT["evaluated:nec"], AT["evaluated:sony"]]
    (release,) = SECOND.releases
    assert (release.index, release.revoked) == (AT["release"], AT["revoked"])


def test_everything_that_is_named_is_cited_in_order() -> None:
    named = ("mandate", "closed:1", "closed:2", "release", "revoked", "withdrawn", "remedied")
    assert {AT[name] for name in named} <= set(SECOND.cites)
    assert list(SECOND.cites) == sorted(set(SECOND.cites))


def test_a_member_in_the_sum_without_a_receipt_is_named() -> None:
    story = kit.Story()
    story.approved()
    story.start(1)
    for member in ("honda", "nec", "softbank"):
        story.receipt(member, 1)
    story.close(1)
    found = lineage.trace(told(story), kit.digest("adapter:1"))
    assert found.steps[0].silent == ("sony",)
    assert dataset("sony") not in {source.commitment for source in found.sources}


def test_a_run_that_starts_from_another_runs_adapter_inherits_its_sources() -> None:
    story = kit.copy_of(kit.full_story(1))
    plan = kit.plan_of(purpose="second", initial_adapter=kit.digest("adapter:1"))
    proposed = story.proposal(plan)
    for member in ("nec", "softbank", "sony"):
        story.vote(member, proposed)
    other = "cd" * 16
    story.mandate(proposed, other)
    members = ("nec", "softbank", "sony")
    begun = {"run": other, "model_in": kit.digest("adapter:1"), "invited": members}
    story.act("coordinator", kit.started(story.state, 1, **begun))
    for member in members:
        story.act(member, kit.receipt(member, 1, run=other))
    done = {"run": other, "model_in": kit.digest("adapter:1"), "included": members}
    story.act(
        "coordinator", kit.closed(story.state, 1, model_out=kit.digest("second adapter"), **done)
    )
    found = lineage.trace(told(story), kit.digest("second adapter"))
    assert [step.run for step in found.steps] == [kit.RUN, other]
    assert [mandate.run for mandate in found.mandates] == [kit.RUN, other]
    # honda took part in the first run only: its data are in the second one's adapter all the same.
    assert dataset("honda") in {source.commitment for source in found.sources}


def test_a_dataset_names_the_adapters_that_it_fed() -> None:
    both = (kit.digest("adapter:1"), kit.digest("adapter:2"))
    assert lineage.fed_by(HISTORY.state, dataset("honda")) == both
    assert lineage.fed_by(HISTORY.state, kit.digest("unknown")) == ()


def test_a_ledger_that_repeats_an_adapter_does_not_loop_the_reader() -> None:
    story = kit.Story()
    story.approved()
    story.start(1)
    story.close(1, model_out=kit.digest("adapter:0"))
    story.start(2)
    story.close(2, model_out=kit.digest("adapter:0"))
    assert len(lineage.trace(told(story), kit.digest("adapter:0")).steps) == 1


def test_an_adapter_that_no_round_led_to_is_a_usage_error() -> None:
    with pytest.raises(LocalFault) as caught:
        lineage.trace(HISTORY, kit.digest("elsewhere"))
    assert caught.value.exit is Exit.USAGE


def test_a_digest_is_resolved_by_its_first_digits_only_if_it_is_the_only_one() -> None:
    known = ["aa11", "aa22", "bb33"]
    assert lineage.resolve("bb", known, "adapter") == "bb33"
    for named in ("aa", "cc", ""):
        with pytest.raises(LocalFault):
            lineage.resolve(named, known, "adapter")


def test_leaves_of_the_history_are_those_of_the_entries() -> None:
    assert HISTORY.leaves == tuple(map(leaf_id, YEAR.leaves))
