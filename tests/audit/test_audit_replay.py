"""The auditor's replay lists each violation and goes on; the state is a value and stays one."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ledger_kit import (
    RUN,
    TRAINERS,
    Story,
    base_model,
    charter_of,
    closed,
    dataset,
    described_base,
    digest,
    full_story,
    started,
)

from audit.replay import replay
from audit.summary import state_digest, summarise
from audit.trie import Trie
from fedproto.errors import LocalFault
from fedproto.events.rounds import Excluded, Outcome


def test_a_sound_log_has_no_violation_and_gives_the_same_state():
    story = full_story()
    found = replay(story.leaves, genesis_sha256=charter_of().digest)
    assert found.violations == ()
    assert state_digest(found.state) == state_digest(story.state)
    assert [signed.event.type for signed in found.events][:9] == [
        "charter.adopted",
        *["member.admitted"] * 7,
        "base_model.approved",
    ]


def test_each_violation_is_listed_by_index_and_the_rest_is_still_judged():
    story = Story()
    story.genesis()
    forced = story.leaf("meti", base_model())
    strange = story.leaf("stranger", base_model())
    good = [story.leaf(member, dataset(member)) for member in TRAINERS]
    found = replay([*story.leaves, forced, b"noise", strange, *good, good[0]])
    assert [(v.index, v.code) for v in found.violations] == [
        (8, "RNM-GOV-0001"),
        (9, "RNM-FORM-0001"),
        (10, "RNM-SIG-0002"),
        (15, "RNM-GOV-0003"),
    ]
    assert len(found.state.datasets) == 4
    assert found.state.base_models == {}
    assert found.state.size == 16
    assert found.events[8] is None
    assert found.events[11] is not None


def test_another_first_charter_than_the_pinned_is_refused():
    with pytest.raises(LocalFault, match="RNM-LEDGER-0001"):
        replay(full_story().leaves, genesis_sha256=digest("other"))


def test_a_log_without_a_charter_is_all_violations():
    found = replay(full_story().leaves[1:4])
    assert [v.index for v in found.violations] == [0, 1, 2]


def test_an_aborted_round_and_an_open_one_are_summarised():
    story = Story()
    story.approved()
    story.start(1)
    excluded = tuple(Excluded(member=m, reason="RNM-ROUND-0001") for m in TRAINERS)
    story.act(
        "coordinator",
        closed(
            story.state,
            1,
            outcome=Outcome.ABORTED,
            reason="RNM-ROUND-0001",
            model_out=digest("adapter:0"),
            included=(),
            excluded=excluded,
        ),
    )
    story.act("coordinator", started(story.state, 1, 2))
    (run,) = summarise(story.state)
    assert run.run == RUN
    aborted, still_open = run.rounds
    assert (aborted.outcome, aborted.included, aborted.closed) == (Outcome.ABORTED, (), 20)
    assert (still_open.attempt, still_open.outcome, still_open.closed) == (2, None, None)
    assert run.model_out == digest("adapter:0")


def test_the_state_digest_tells_states_apart():
    story, seen = Story(), set()
    story.genesis()
    seen.add(state_digest(story.state))
    story.base_model()
    seen.add(state_digest(story.state))
    story.datasets()
    seen.add(state_digest(story.state))
    other = Story()
    other.genesis()
    other.act(
        "pfn",
        replace(base_model(), model=replace(described_base(), manifest_sha256=digest("other"))),
    )
    seen.add(state_digest(other.state))
    assert len(seen) == 4


keys = st.text("0123456789abcdef", min_size=4, max_size=4)


@given(st.lists(st.tuples(keys, st.integers())))
def test_a_persistent_map_is_a_dictionary_that_remembers_every_version(items):
    trie, reference, versions = Trie(), {}, []
    for key, value in items:
        versions.append((trie, dict(reference)))
        trie, reference[key] = trie.with_item(key, value), value
    versions.append((trie, reference))
    for version, expected in versions:
        assert dict(version.items()) == expected
        assert list(version) == sorted(expected)
        assert len(version) == len(expected)
        for key, _ in items:
            assert (key in version) == (key in expected)
            assert version.get(key) == expected.get(key)


def test_a_map_has_no_other_spelling_of_a_key():
    trie = Trie().with_item("ab", 1)
    assert "AB" not in trie
    assert "a" not in trie
    assert "" not in trie
    with pytest.raises(KeyError):
        trie["abc"]
