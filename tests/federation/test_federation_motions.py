"""What a person is shown of proposals and drafts, from a story of the ledger; no coordinator."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1] / "audit"))

from ledger_kit import HOUR, T0, TRAINERS, Story, charter_of, clause, clauses, digest, member_of

from federation import drafts, motions
from fedproto.errors import LocalFault
from fedproto.events.governance import (
    TERMS_OF,
    CharterAdopted,
    CharterTerms,
    Choice,
    Standing,
    StandingTerms,
)
from fedproto.governance.charter import Action, Member, Role
from fedproto.schema import to_json


@pytest.fixture
def story():
    made = Story()
    made.genesis()
    return made


def amended(*, gone=(), come=()):
    members = [m for m in charter_of().members if m.id not in gone]
    members += [member_of(name, Role.OBSERVER) for name in come]
    return CharterTerms(
        charter=replace(
            charter_of(),
            version=2,
            prev_sha256=charter_of().digest,
            members=tuple(sorted(members, key=lambda m: m.id)),
        )
    )


@pytest.mark.parametrize("gone", [(), ("meti",), ("meti", "pfn")])
@pytest.mark.parametrize("come", [(), ("aichi",), ("aichi", "kddi")])
def test_each_motion_is_named_by_the_clause_that_it_is_of(story, gone, come):
    leaf = story.open(Action.AMEND_CHARTER, amended(gone=gone, come=come))
    asked = motions.standing(story.state, story.state.proposals[leaf]).asked
    named = [(need.clause, need.proposed, need.subject) for need in asked]
    expected = [("charter.amend", False, ""), ("charter.amend", True, "")]
    expected += [("member.admit", False, "")] if come else []
    assert named == expected + [("member.status", False, name) for name in gone]
    for need in asked:
        rule = charter_of().actions[need.clause].rule
        assert need.rule is rule


def test_a_timelock_is_shown_with_the_log_s_own_clock():
    locked = {
        **clauses(),
        "emergency.resume": clause((Role.TRAINER,), (Role.TRAINER,)),
        "member.status": clause((Role.ADMINISTRATOR,), (Role.TRAINER,), timelock_s=7_200),
    }
    story = Story()
    story.genesis(replace(charter_of(), actions=locked))
    terms = StandingTerms(member="sony", standing=Standing.SUSPENDED)
    leaf = story.carried(Action.CHANGE_STANDING, terms, TRAINERS[:3])

    def shown():
        return motions.standing(story.state, story.state.proposals[leaf])

    assert (shown().stands, shown().timelock_s, shown().ripens_at_s) == ("carried", 7_200, None)
    assert shown().carried == story.state.size - 1
    story.anchor(T0 + HOUR)
    assert shown().ripens_at_s == (T0 + HOUR) // 1000 + 7_200
    assert shown().clock_s == (T0 + HOUR) // 1000


def test_a_proposal_under_an_earlier_charter_has_lapsed(story):
    terms = StandingTerms(member="sony", standing=Standing.SUSPENDED)
    other = story.open(Action.CHANGE_STANDING, terms)
    story.vote("honda", other)
    leaf = story.carried(Action.AMEND_CHARTER, amended())
    body = story.state.proposals[leaf].opened.body
    story.act(
        "coordinator",
        CharterAdopted(
            sha256=body.terms.charter.digest,
            charter=body.terms.charter,
            operator_key=None,
            **story.cited(leaf),
        ),
    )
    lapsed = motions.standing(story.state, story.state.proposals[other])
    assert (lapsed.stands, lapsed.votes, lapsed.asked) == ("lapsed", {"honda": "yes"}, ())
    adopted = motions.standing(story.state, story.state.proposals[leaf])
    assert (adopted.stands, adopted.decided) == ("decided", story.state.size - 1)


def test_an_abstention_counts_as_an_answer_and_as_no_yes(story):
    terms = StandingTerms(member="sony", standing=Standing.SUSPENDED)
    leaf = story.open(Action.CHANGE_STANDING, terms)
    story.vote("honda", leaf, Choice.YES)
    story.vote("nec", leaf, Choice.ABSTAIN)
    shown = motions.standing(story.state, story.state.proposals[leaf])
    (need,) = shown.asked
    assert (need.yes, need.silent, shown.stands) == (("honda",), ("softbank",), "rejected")


# drafts


@pytest.mark.parametrize("action", [action for action in Action if action not in TERMS_OF])
def test_what_is_not_voted_on_by_itself_is_not_proposed(action):
    with pytest.raises(LocalFault, match="RNM-CONF-0001"):
        drafts.read_terms(action, b"{}", "terms")


@given(st.binary(max_size=60))
def test_no_bytes_make_the_reader_of_drafts_fail_without_a_name(data):
    codes = set()
    for read in (drafts.read_keys, drafts.read_member):
        try:
            read(data, "draft")
        except LocalFault as fault:
            codes.add(fault.code)
    assert codes == {"RNM-CONF-0001"}


def test_terms_are_read_whatever_their_layout():
    terms = amended(come=("aichi",))
    text = json.dumps(to_json(terms), indent=3).encode()
    assert drafts.read_terms(Action.AMEND_CHARTER, text, "terms") == terms


def test_the_next_charter_keeps_everything_but_what_was_asked():
    old = charter_of()
    aichi = member_of("aichi", Role.OBSERVER)
    made = drafts.next_charter(old, seats=[aichi], gone=["meti"])
    changed = {d.path: (d.old is None, d.new is None) for d in diff(to_json(old), made)}
    assert changed == {
        "version": (False, False),
        "prev_sha256": (False, False),
        "members.aichi": (True, False),
        "members.meti": (False, True),
    }
    with pytest.raises(LocalFault, match="not a member"):
        drafts.next_charter(old, gone=["nobody"])


diff = drafts.differences


def test_differences_are_none_between_equals_and_name_each_change():
    charter = to_json(charter_of())
    assert diff(charter, charter) == ()
    other = json.loads(json.dumps(charter))
    other["actions"]["charter.amend"]["yes"] = 4
    other["members"][0]["roles"] = ["observer"]
    paths = [change.path for change in diff(charter, other)]
    name = charter["members"][0]["id"]
    assert paths == ["actions.charter.amend.yes", f"members.{name}.roles"]


def test_a_newcomer_that_does_not_witness_brings_no_witness_key():
    keys = drafts.PublicKeys(
        id="aichi", key=digest("a"), recovery=digest("b"), witness="w", validator="v"
    )
    entry = drafts.member_entry(keys, "Aichi", (Role.OBSERVER,))
    assert isinstance(entry, Member)
    assert (entry.witness, entry.validator) == ("", "")
    with pytest.raises(LocalFault, match="RNM-CONF-0001"):
        drafts.member_entry(replace(keys, key="short"), "Aichi", (Role.OBSERVER,))
