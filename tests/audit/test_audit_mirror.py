"""A mirror takes what is signed, cosigned, consistent and valid; it never goes back or sideways."""

import contextlib

import pytest
from ledger_kit import (
    FOUNDED,
    LOG_KEY,
    ORIGIN,
    TRAINERS,
    Story,
    base_model,
    charter_of,
    copy_of,
    cosign,
    cosigned_note,
    digest,
    full_story,
    seed,
    signed_note,
)

from audit.directory_lock import DirectoryLock
from audit.mirror import Mirror
from audit.note import NoteSigner
from audit.summary import state_digest
from fedproto.errors import Exit, LocalFault

STORY = full_story()
LEAVES = STORY.leaves
SIZE = len(LEAVES)
GENESIS = charter_of().digest


def open_mirror(directory, log_vkey=LOG_KEY.vkey, origin=ORIGIN, genesis=GENESIS):
    return Mirror(directory, log_vkey=log_vkey, origin=origin, genesis_sha256=genesis)


@pytest.fixture
def mirror(tmp_path):
    return open_mirror(tmp_path / "mirror")


def feed(mirror, size, leaves=LEAVES):
    return mirror.update(cosigned_note(leaves[:size]), leaves[mirror.head.size : size])


def refused(mirror, code, note, entries):
    before = (mirror.head, mirror.note, state_digest(mirror.state))
    with pytest.raises(LocalFault, match=code) as caught:
        mirror.update(note, entries)
    assert before == (mirror.head, mirror.note, state_digest(mirror.state))
    return caught.value


@pytest.mark.parametrize(
    "steps", [(SIZE,), (1, 2, 3, SIZE), (11, 12, SIZE), tuple(range(1, SIZE + 1))]
)
def test_a_mirror_follows_in_any_steps(mirror, steps):
    for size in steps:
        feed(mirror, size)
    assert state_digest(mirror.state) == state_digest(STORY.state)
    assert [mirror.leaf(i) for i in range(SIZE)] == LEAVES


def test_a_mirror_opens_again_where_it_was_and_goes_on(tmp_path):
    feed(open_mirror(tmp_path / "m"), 10)
    again = open_mirror(tmp_path / "m")
    assert again.head.size == 10
    feed(again, SIZE)
    assert open_mirror(tmp_path / "m").head == STORY.state.head


def test_a_mirror_over_several_bundles_keeps_every_entry(tmp_path):
    story = Story()
    story.genesis()
    while len(story.leaves) < 521:
        story.act("pfn", base_model(f"base {len(story.leaves)}"))
    mirror, sizes = open_mirror(tmp_path / "m"), (1, 255, 256, 257, 511, 512, 513, 521)
    for size in sizes:
        feed(mirror, size, story.leaves)
    again = open_mirror(tmp_path / "m")
    assert again.entries(0, 521) == story.leaves
    assert again.entries(250, 260) == story.leaves[250:260]
    assert again.head == story.state.head
    names = {str(p.relative_to(tmp_path / "m")) for p in (tmp_path / "m").rglob("*") if p.is_file()}
    assert "tile/0/000" in names
    assert "tile/1/000.p/2" in names
    assert not any(name.startswith(("tile/0/000.p", "tile/entries/001.p")) for name in names)


def test_the_same_checkpoint_again_changes_nothing(mirror):
    feed(mirror, 10)
    note = mirror.note
    assert mirror.update(note, []) is mirror.state
    assert mirror.note == note


def test_a_checkpoint_below_the_quorum_is_refused(mirror):
    refused(mirror, "RNM-LEDGER-0006", cosigned_note(LEAVES[:10], TRAINERS[:2]), LEAVES[:10])
    refused(mirror, "RNM-LEDGER-0006", signed_note(LEAVES[:10]), LEAVES[:10])


def test_a_checkpoint_by_another_log_key_is_refused(mirror):
    forger = NoteSigner(ORIGIN, seed("forger"))
    refused(mirror, "RNM-LEDGER-0001", cosign(signed_note(LEAVES, forger)), LEAVES)


def test_a_mirror_never_goes_back(mirror):
    feed(mirror, SIZE)
    fault = refused(mirror, "RNM-LEDGER-0001", cosigned_note(LEAVES[:10]), [])
    assert "goes back to size 10" in fault.why


def forked(at):
    """Another valid history that shares the first `at` entries."""
    story = Story(counter=5000)
    for leaf in LEAVES[:at]:
        from audit.replay import advance

        story.state, _ = advance(story.state, leaf)
        story.leaves.append(leaf)
    while len(story.leaves) < SIZE:
        story.act("pfn", base_model(f"fork {story.counter}"))
    return story.leaves


def test_a_fork_is_refused_even_with_every_cosignature(mirror):
    followed = FOUNDED + 6
    feed(mirror, followed)
    fork = forked(FOUNDED + 2)
    for size in (FOUNDED + 4, followed):
        fault = refused(mirror, "RNM-LEDGER-0004", cosigned_note(fork[:size]), [])
        assert fault.exit is Exit.VERIFY
    refused(mirror, "RNM-LEDGER-0001", cosigned_note(fork), fork[followed:])
    feed(mirror, SIZE)


def test_entries_that_are_not_those_under_the_root_are_refused(mirror):
    feed(mirror, 5)
    note, rest = cosigned_note(LEAVES), LEAVES[5:]
    changed = [*rest[:3], rest[3][:-1] + b" ", *rest[4:]]
    for entries in (rest[:-1], [*rest, b"more"], rest[::-1], changed, []):
        refused(mirror, "RNM-LEDGER-0001", note, entries)
    mirror.update(note, rest)


def test_an_entry_that_the_charter_does_not_allow_is_refused_though_all_signed_the_root(mirror):
    story = Story()
    story.genesis()
    forced = story.leaf("meti", base_model())
    leaves = [*story.leaves, forced]
    fault = refused(mirror, "RNM-LEDGER-0001", cosigned_note(leaves), leaves)
    assert f"entry {FOUNDED} does not follow: RNM-GOV-0001" in fault.why


def test_another_consortiums_first_charter_is_refused(tmp_path):
    mirror = open_mirror(tmp_path / "m", genesis=digest("another charter"))
    refused(mirror, "RNM-LEDGER-0001", cosigned_note(LEAVES), LEAVES)


def test_a_charter_that_names_another_log_key_is_refused(tmp_path):
    other = NoteSigner(ORIGIN, seed("other"))
    mirror = open_mirror(tmp_path / "m", log_vkey=other.vkey)
    note = cosign(signed_note(LEAVES, other))
    fault = refused(mirror, "RNM-LEDGER-0001", note, LEAVES)
    assert "another log key" in fault.why


def test_a_bad_pin_is_refused_by_name(tmp_path):
    with pytest.raises(LocalFault, match="RNM-CONF-0001"):
        open_mirror(tmp_path / "m", log_vkey=LOG_KEY.vkey[:-3])


def test_files_of_a_mirror_that_were_changed_are_found_when_it_opens(tmp_path):
    directory = tmp_path / "m"
    feed(open_mirror(directory), SIZE)
    bundle, tile = directory / f"tile/entries/000.p/{SIZE}", directory / f"tile/0/000.p/{SIZE}"
    for path, code in ((bundle, "0003"), (tile, "0001"), (directory / "checkpoint", "0001")):
        good = path.read_bytes()
        path.write_bytes(good[:70] + bytes([good[70] ^ 1]) + good[71:])
        with pytest.raises(LocalFault, match=f"RNM-LEDGER-{code}"):
            open_mirror(directory)
        path.write_bytes(good)
    tile.unlink()
    with pytest.raises(LocalFault, match="RNM-LEDGER-0001"):
        open_mirror(directory)


def test_an_entry_that_was_changed_under_an_open_mirror_is_not_handed_out(tmp_path):
    mirror = open_mirror(tmp_path / "m")
    feed(mirror, SIZE)
    path = tmp_path / f"m/tile/entries/000.p/{SIZE}"
    good = path.read_bytes()
    path.write_bytes(good[:70] + bytes([good[70] ^ 1]) + good[71:])
    with pytest.raises(LocalFault, match="RNM-LEDGER-0001"):
        mirror.leaf(0)
    assert mirror.leaf(1) == LEAVES[1]


@pytest.mark.parametrize("failing", range(1, 12))
def test_an_update_that_cannot_be_written_leaves_the_mirror_as_it_was(
    tmp_path, monkeypatch, failing
):
    import os

    mirror, calls, real = open_mirror(tmp_path / "m"), [], os.fsync
    feed(mirror, 10)

    def fsync(handle):
        calls.append(handle)
        if len(calls) == failing:
            raise OSError(28, "No space left on device")
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    note = cosigned_note(LEAVES)
    with contextlib.suppress(LocalFault):
        mirror.update(note, LEAVES[10:])
        assert len(calls) < failing, "a failed write was not noticed"
    monkeypatch.undo()
    assert open_mirror(tmp_path / "m").head.size in {10, SIZE}
    again = open_mirror(tmp_path / "m")
    again.update(note, LEAVES[again.head.size :])
    assert open_mirror(tmp_path / "m").head == STORY.state.head


def test_two_processes_do_not_write_one_mirror(tmp_path):
    first, second = open_mirror(tmp_path / "m"), open_mirror(tmp_path / "m")
    feed(first, 10)
    refused(second, "RNM-PROC-0003", cosigned_note(LEAVES), LEAVES)
    with DirectoryLock(tmp_path / "m"):
        refused(first, "RNM-PROC-0003", cosigned_note(LEAVES), LEAVES[10:])
    feed(first, SIZE)


def test_reading_beyond_the_end_is_refused(mirror):
    feed(mirror, 10)
    for call in (lambda: mirror.leaf(10), lambda: mirror.leaf(-1), lambda: mirror.entries(3, 2)):
        with pytest.raises(LocalFault, match="RNM-FORM-0002"):
            call()


def test_a_story_goes_on_through_a_mirror(mirror):
    feed(mirror, SIZE)
    story = copy_of(STORY)
    story.whole_round(3)
    feed(mirror, len(story.leaves), story.leaves)
    assert state_digest(mirror.state) == state_digest(story.state)
