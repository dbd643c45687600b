"""Filters, citations and readings: which entries are found, and how each is proven alone."""

import shutil
from pathlib import Path

import ledger_kit as kit
import pytest
import question_kit as cases

from audit import proof, reading
from audit.bundle import Pinned
from audit.citation import Citations
from audit.policy import policy_of
from audit.query import Filter, search
from audit.reading import open_reading
from fedproto.errors import Exit, LocalFault
from fedproto.ids import Digest

YEAR = cases.year()
AT = YEAR.at
HISTORY = YEAR.history
PINNED = Pinned(log_vkey=kit.LOG_KEY.vkey, genesis_sha256=kit.charter_of().digest)
T0_S = kit.T0 // 1000


def cited(witnessed: int | None = None) -> Citations:
    return Citations(
        entries=YEAR.leaves,
        events=HISTORY.events,
        state=HISTORY.state,
        note=kit.cosigned_note(list(YEAR.leaves)),
        witnessed=len(YEAR.leaves) if witnessed is None else witnessed,
    )


def found(**asked: object) -> list[int]:
    return list(search(HISTORY, Filter(**asked), cited().bracket))  # type: ignore[arg-type]


def test_an_empty_filter_finds_every_entry() -> None:
    assert found() == list(range(len(YEAR.leaves)))


def test_a_type_and_a_member_narrow_each_other() -> None:
    votes = found(type="vote.cast", member="nec")
    assert AT["no:nec"] in votes
    assert all(HISTORY.event(i).actor.member == "nec" for i in votes)
    assert len(votes) < len(found(type="vote.cast"))


def test_a_run_is_found_by_its_proposal_votes_evaluations_and_release() -> None:
    hits = found(run=kit.RUN)
    expected = ("mandate", "started:1", "closed:2", "evaluated:nec", "release", "revoked")
    assert {AT[name] for name in expected} <= set(hits)
    types = {HISTORY.event(i).type for i in hits}
    assert {"proposal.opened", "vote.cast", "budget.spent", "participation.signed"} <= types
    assert AT["rejected"] not in hits
    assert found(run="cd" * 16) == []


def test_a_round_is_found_with_all_its_attempts() -> None:
    hits = found(run=kit.RUN, round=2)
    assert {AT["started:2.1"], AT["aborted"], AT["closed:2"], AT["spent:2"]} <= set(hits)
    assert AT["closed:1"] not in hits


@pytest.mark.parametrize("length", [8, 20, 64])
def test_an_artifact_is_found_wherever_it_is_named_also_by_its_first_digits(length: int) -> None:
    adapter = kit.digest("adapter:2")[:length]
    expected = [AT["closed:2"], AT["evaluated:nec"], AT["evaluated:sony"]]
    assert found(artifact=adapter) == [*expected, AT["release:proposed"], AT["release"]]


@pytest.mark.parametrize(
    ("outcome", "names"),
    [
        ("no", ("no:honda", "no:nec")),
        ("aborted", ("aborted",)),
        ("aggregated", ("closed:1", "closed:2")),
        ("rejected", ("rejected", "closed:rejected")),
        ("refused", ("refused",)),
        ("withdrawn", ("left",)),
    ],
)
def test_an_outcome_is_found_in_the_act_that_decided_it(
    outcome: str, names: tuple[str, ...]
) -> None:
    assert found(outcome=outcome) == [AT[name] for name in names]


def test_a_proposal_that_was_carried_out_is_found_as_such() -> None:
    assert AT["release:proposed"] in found(outcome="carried-out", type="proposal.opened")


def test_time_is_witnessed_time_and_leaves_out_only_what_is_proven_to_be_outside() -> None:
    first, second = T0_S + 600, T0_S + 1200
    later = found(since_s=first + 1)
    assert later[0] == AT["anchor:founded"]
    early = found(until_s=first - 1)
    assert early == list(range(AT["anchor:founded"]))
    # Its bracket reaches into the second asked for, so it is not left out.
    assert AT["closed:2"] in found(since_s=second, until_s=second)
    # No anchor bounds the last entries from above: nothing proves them to be earlier.
    assert AT["left"] in found(since_s=T0_S + 10**6)


def test_a_signers_clock_does_not_hide_an_act() -> None:
    story = kit.copy_of(kit.full_story(1))
    lied = story.act("nec", cases.spent("nec", 1, 1, 1), at=kit.T0 - 10**12)
    story.now += 60_000
    story.anchor(story.now)
    state, index = story.state, story.state.leaves[lied]
    after, before = state.bracket_s(index)
    assert (after, before) == (None, story.now // 1000)


@pytest.mark.parametrize("index", [0, 1, 31, 32, 63, 64, len(YEAR.leaves) - 1])
def test_each_hit_is_proven_alone_under_the_pinned_policy(index: int) -> None:
    policy = policy_of(HISTORY.state.charter)
    made = cited().tlog_proof(index)
    cosigned = proof.verify(made, YEAR.leaves[index], policy)
    assert cosigned.signed.head.size == len(YEAR.leaves)
    with pytest.raises(LocalFault):
        proof.verify(made, YEAR.leaves[index - 1], policy)


def test_brackets_by_bisection_are_those_of_the_state() -> None:
    citations = cited()
    for index in range(len(YEAR.leaves)):
        assert citations.bracket(index) == HISTORY.state.bracket_s(index)


def test_a_reading_of_a_bundle_and_of_a_directory_say_the_same(tmp_path: Path) -> None:
    bundle = open_reading(str(YEAR.bundle(tmp_path / "year.bundle")), pinned=PINNED)
    files = open_reading(str(cases.published(list(YEAR.leaves), tmp_path / "log")), pinned=PINNED)
    assert bundle.entries == files.entries == YEAR.leaves
    assert bundle.state.root == files.state.root
    assert bundle.witnessed == files.witnessed == len(YEAR.leaves)
    assert bundle.unpinned == files.unpinned == ()


def test_reading_a_directory_writes_nothing_into_it(tmp_path: Path) -> None:
    folder = cases.published(list(YEAR.leaves), tmp_path / "log")
    before = sorted(path for path in folder.rglob("*"))
    for path in before:
        path.chmod(0o500 if path.is_dir() else 0o400)
    open_reading(str(folder), pinned=PINNED)
    assert sorted(folder.rglob("*")) == before


def test_entries_without_a_quorum_are_pending_from_the_last_anchor_on(tmp_path: Path) -> None:
    folder = cases.published(list(YEAR.leaves), tmp_path / "log", witnesses=("nec", "sony"))
    reading = open_reading(str(folder), pinned=PINNED)
    # The anchor itself is after what it covers.
    assert reading.witnessed == AT["anchor:ripe"]
    assert reading.citations.row(AT["anchor:ripe"] - 1).witnessed
    assert not reading.citations.row(AT["left"]).witnessed


def test_a_directory_without_pins_says_what_it_took_from_itself(tmp_path: Path) -> None:
    folder = cases.published(list(YEAR.leaves), tmp_path / "log")
    assert open_reading(str(folder), pinned=Pinned()).unpinned == ("log_vkey", "genesis_sha256")


def changed_entry(folder: Path) -> None:
    path = next((folder / "tile/entries/000.p").iterdir())
    data = bytearray(path.read_bytes())
    data[40] ^= 1
    path.write_bytes(data)


def changed_tile(folder: Path) -> None:
    path = next((folder / "tile/0/000.p").iterdir())
    path.write_bytes(bytes(32) + path.read_bytes()[32:])


def missing_checkpoint(folder: Path) -> None:
    (folder / "checkpoint").unlink()


def missing_bundle(folder: Path) -> None:
    next((folder / "tile/entries/000.p").iterdir()).unlink()


@pytest.mark.parametrize(
    ("attack", "code"),
    [
        (changed_entry, "RNM-LEDGER-0003"),
        (changed_tile, "RNM-LEDGER-0001"),
        (missing_checkpoint, "RNM-LEDGER-0001"),
        (missing_bundle, "RNM-LEDGER-0003"),
    ],
)
def test_a_directory_that_was_tampered_with_is_refused(
    tmp_path: Path, attack: object, code: str
) -> None:
    folder = cases.published(list(YEAR.leaves), tmp_path / "log")
    attack(folder)  # type: ignore[operator]
    with pytest.raises(LocalFault) as caught:
        open_reading(str(folder), pinned=PINNED)
    assert caught.value.code == code
    assert caught.value.exit is Exit.VERIFY


@pytest.mark.parametrize(
    "pins",
    [
        Pinned(genesis_sha256=Digest("0" * 64)),
        Pinned(log_vkey=kit.NoteSigner("other.example/log", bytes(32)).vkey),
    ],
)
def test_a_directory_of_another_consortium_is_refused(tmp_path: Path, pins: Pinned) -> None:
    folder = cases.published(list(YEAR.leaves), tmp_path / "log")
    with pytest.raises(LocalFault) as caught:
        open_reading(str(folder), pinned=pins)
    assert caught.value.code == "RNM-LEDGER-0001"


def test_a_log_with_an_act_that_was_not_allowed_is_refused(tmp_path: Path) -> None:
    story = kit.copy_of(kit.full_story(1))
    forged = story.leaf("coordinator", kit.started(story.state, 3))
    folder = cases.published([*story.leaves, forged], tmp_path / "log")
    with pytest.raises(LocalFault, match=f"entry {len(story.leaves)} does not follow"):
        open_reading(str(folder), pinned=PINNED)


def test_nothing_to_read_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(LocalFault) as caught:
        open_reading(str(tmp_path / "absent"), pinned=Pinned())
    assert caught.value.exit is Exit.USAGE


def test_a_mirror_that_grows_while_it_is_read_is_no_alarm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = cases.published(list(YEAR.leaves[:60]), tmp_path / "log")
    whole = reading.check_tree

    def grown_meanwhile(*words: object) -> list[bytes]:
        monkeypatch.setattr(reading, "check_tree", whole)
        # Its newer checkpoint is there, and the partial tiles of the older one are gone.
        shutil.rmtree(folder)
        cases.published(list(YEAR.leaves), folder)
        return whole(*words)

    monkeypatch.setattr(reading, "check_tree", grown_meanwhile)
    assert open_reading(str(folder), pinned=PINNED).size == len(YEAR.leaves)
