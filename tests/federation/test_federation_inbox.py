"""Acts on their way from the loop into the ledger: whoever sent one hears what became of it, whatever it was."""

import asyncio
import sys
import threading
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "audit"))

from ledger_kit import LOG_KEY, copy_of, dataset, full_story
from ledger_worker import approval
from loop_kit import until

from audit.faults import unwritable
from audit.ledger import Ledger
from federation import inbox
from federation.inbox import Inbox
from fedproto.errors import LocalFault

STORY = full_story()
NEXT = STORY.leaves[1:]
FORGED = NEXT[0].replace(b'"sig":"', b'"sig":"A', 1)


@pytest.fixture
def ledger(tmp_path):
    with Ledger.create(
        tmp_path / "ledger", log_key=LOG_KEY, genesis_leaf=STORY.leaves[0]
    ) as opened:
        yield opened


@pytest.fixture
def told(ledger):
    """The ledger with the whole story."""
    for leaf in NEXT:
        ledger.append(leaf)
    return ledger


def acts(count):
    """Return acts that may follow the whole story in any order."""
    story = copy_of(STORY)
    return [approval(story, f"act {number}") for number in range(count)]


def anything(_):
    """Take whatever verifies."""


def not_its_author(signed):
    """Refuse an act as a service does whose caller is somebody else."""
    why = f"it is by {signed.event.actor.member}"
    raise LocalFault("RNM-AUTH-0001", what="an act was refused", why=why, mend="send your own")


def play(ledger, scene, grown=lambda: None):
    """Run a scene with an inbox in a loop, and end what it started."""

    async def all_of_it():
        box = Inbox(ledger, grown)
        try:
            return await asyncio.wait_for(scene(box), 60)
        finally:
            await asyncio.to_thread(box.close)

    return asyncio.run(all_of_it())


async def together(box, leaves):
    """Send acts at once; return what became of each."""
    return await asyncio.gather(
        *(box.admit(leaf, anything) for leaf in leaves), return_exceptions=True
    )


class Stuck:
    """A disk that takes until it is let go."""

    def __init__(self, ledger, monkeypatch):
        self.entered, self.go_on, self.batches = threading.Event(), threading.Event(), []
        commit = ledger._store.commit

        def slow(batch):
            self.batches.append(len(batch.entries))
            self.entered.set()
            assert self.go_on.wait(30)
            commit(batch)

        monkeypatch.setattr(ledger._store, "commit", slow)

    async def is_entered(self):
        await until(self.entered.is_set)


def test_the_check_sees_what_was_verified_before_anything_comes_of_it(ledger):
    seen = []

    async def scene(box):
        done = await box.admit(NEXT[0], seen.append)
        assert done.index == 1
        (signed,) = seen
        assert signed.event.actor.key in signed.signers
        with pytest.raises(LocalFault, match="RNM-AUTH-0001"):
            await box.admit(NEXT[1], not_its_author)
        assert ledger.head.size == 2
        assert (await box.admit(NEXT[1], anything)).index == 2

    play(ledger, scene)


def test_what_does_not_verify_never_comes_to_the_check(ledger):
    seen = []

    async def scene(box):
        for leaf in (b"not an envelope", FORGED, copy_of(STORY).leaf("stranger", dataset("nec"))):
            with pytest.raises(LocalFault, match=r"RNM-(FORM|SIG)-"):
                await box.admit(leaf, seen.append)

    play(ledger, scene)
    assert seen == []
    assert ledger.head.size == 1


def test_an_act_that_is_there_is_checked_again_and_has_the_same_index(ledger):
    # Else whoever has seen an entry could send it as its own and be told that it was admitted.
    async def scene(box):
        await box.admit(NEXT[0], anything)
        with pytest.raises(LocalFault, match="it is by "):
            await box.admit(NEXT[0], not_its_author)
        assert (await box.admit(NEXT[0], anything)).index == 1
        assert [done.index for done in await together(box, [NEXT[0]] * 3)] == [1] * 3

    play(ledger, scene)
    assert ledger.head.size == 2


def test_a_check_that_breaks_breaks_its_own_call_alone(ledger):
    def broken(_):
        raise ZeroDivisionError("a bug")

    async def scene(box):
        for _ in range(5):
            with pytest.raises(ZeroDivisionError, match="a bug"):
                await box.admit(NEXT[0], broken)
        assert (await box.admit(NEXT[0], anything)).index == 1

    play(ledger, scene)


def test_many_callers_get_an_answer_each_and_share_batches(told, monkeypatch):
    size, sent, rung = told.head.size, acts(96), []
    monkeypatch.setattr(inbox, "_PATIENCE_S", 0.2)

    async def scene(box):
        due = iter(sent)
        found = {}

        async def caller():
            for act in due:
                found[act] = await box.admit(act, anything)

        await asyncio.gather(*(caller() for _ in range(16)))
        return found

    found = play(told, scene, lambda: rung.append(told.head.size))
    assert sorted(item.index for item in found.values()) == list(range(size, size + len(sent)))
    for act, item in found.items():
        assert told.entries(item.index, item.index + 1) == [act]
    # What came together was written together, and whoever waits for the ledger was woken after each batch.
    sizes = {item.size for item in found.values()}
    assert len(sizes) < 40
    assert sorted(sizes) == rung


def test_nobody_waits_for_an_act_that_comes_alone(told, monkeypatch):
    # It would take until the test is ended.
    monkeypatch.setattr(inbox, "_PATIENCE_S", 1000.0)

    async def scene(box):
        for act in acts(8):
            await box.admit(act, anything)

    play(told, scene)


def test_who_was_left_alone_waits_once_and_no_more(told, monkeypatch):
    *many, last, after = acts(42)
    waits = []

    async def scene(box):
        monkeypatch.setattr(inbox, "_PATIENCE_S", 0.5)
        for start in range(0, len(many), 8):
            await together(box, many[start : start + 8])
        expected = box._company.expected
        assert expected > 1
        for act in (last, after):
            began = time.monotonic()
            await box.admit(act, anything)
            waits.append(time.monotonic() - began)
            monkeypatch.setattr(inbox, "_PATIENCE_S", 1000.0)

    play(told, scene)
    assert waits[0] >= 0.5


def test_who_sends_nothing_but_forgeries_holds_up_nobody(told):
    good = acts(4)
    size = told.head.size

    async def scene(box):
        bad = asyncio.gather(*(together(box, [FORGED] * 8) for _ in range(4)))
        done = await together(box, good)
        assert sorted(item.index for item in done) == list(range(size, size + 4))
        for outcomes in await bad:
            assert all(isinstance(each, LocalFault) for each in outcomes)

    play(told, scene)
    assert told.head.size == size + 4


def test_a_disk_that_is_stuck_holds_up_no_call_and_what_comes_meanwhile_is_written_next(told, monkeypatch):  # fmt: skip
    disk = Stuck(told, monkeypatch)
    first, *others = acts(12)
    size = told.head.size

    async def scene(box):
        began = asyncio.ensure_future(box.admit(first, anything))
        await disk.is_entered()
        rest = asyncio.ensure_future(together(box, others))
        # The loop goes on: it verifies, refuses, and lets its other callers have their turn.
        with pytest.raises(LocalFault, match=r"RNM-(FORM|SIG)-"):
            await box.admit(FORGED, anything)
        await until(lambda: len(box._verified) == len(others))
        assert not began.done()
        disk.go_on.set()
        assert (await began).index == size
        assert {done.size for done in await rest} == {size + 12}

    play(told, scene)
    assert disk.batches == [1, 11]


def test_more_than_are_written_together_are_all_written_though_nobody_comes_after_them(told, monkeypatch):  # fmt: skip
    disk = Stuck(told, monkeypatch)
    first, *others = acts(12)
    monkeypatch.setattr(inbox, "MAX_TOGETHER", 4)

    async def scene(box):
        began = asyncio.ensure_future(box.admit(first, anything))
        await disk.is_entered()
        rest = asyncio.ensure_future(together(box, others))
        await until(lambda: len(box._verified) == len(others))
        disk.go_on.set()
        await asyncio.gather(began, rest)

    monkeypatch.setattr(inbox, "_STILL_S", 0.5)
    play(told, scene)
    assert disk.batches == [1, 4, 4, 3]


def test_a_disk_that_is_slow_has_the_loop_stand_still_once_until_it_is_quick_again(told, monkeypatch):  # fmt: skip
    disk = Stuck(told, monkeypatch)
    first, second, *others = acts(6)
    waited = []
    are_done = inbox._are_done
    monkeypatch.setattr(
        inbox, "_are_done", lambda jobs, s: waited.append(len(jobs)) or are_done(jobs, s)
    )

    async def stuck(box, act):
        disk.entered.clear()
        disk.go_on.clear()
        began = asyncio.ensure_future(box.admit(act, anything))
        await disk.is_entered()
        await asyncio.sleep(2 * inbox._STILL_S)
        disk.go_on.set()
        await began

    async def scene(box):
        await stuck(box, first)
        assert waited == [1]
        await stuck(box, second)
        assert waited == [1]
        # The next one shows that it is quick again, so the loop waits for those after it.
        for act in others:
            await box.admit(act, anything)

    # What is quick enough here may take long on a busy machine.
    monkeypatch.setattr(inbox, "_STILL_S", 0.5)
    play(told, scene)
    assert waited == [1] * len(others)


def test_who_hangs_up_while_the_disk_is_stuck_takes_nobody_along(told, monkeypatch):
    disk = Stuck(told, monkeypatch)
    first, *others = acts(4)
    size = told.head.size

    async def scene(box):
        began = asyncio.ensure_future(box.admit(first, anything))
        await disk.is_entered()
        rest = [asyncio.ensure_future(box.admit(act, anything)) for act in others]
        await until(lambda: len(box._verified) == len(others))
        began.cancel()
        rest[1].cancel()
        disk.go_on.set()
        done = await asyncio.gather(began, *rest, return_exceptions=True)
        assert [isinstance(each, asyncio.CancelledError) for each in done] == [
            True,
            False,
            True,
            False,
        ]

    play(told, scene)
    # Verified, so written: an answer that nobody hears changes nothing.
    assert told.head.size == size + 4


def test_a_refusal_by_the_charter_is_heard_by_its_own_caller_alone(told):
    # The same event id in another act: the second of a batch does not follow from the first.
    story = copy_of(STORY)
    twice = story.leaf("pfn", dataset("nec"))
    good = acts(3)
    size = told.head.size

    async def scene(box):
        done = await together(box, [good[0], twice, good[1], twice, good[2]])
        assert [type(each) is LocalFault for each in done] == [False, True, False, True, False]
        assert {each.code for each in done if isinstance(each, LocalFault)} <= {
            "RNM-GOV-0001",
            "RNM-GOV-0002",
        }

    play(told, scene)
    assert told.head.size == size + 3


def test_no_act_is_taken_while_the_ledger_is_held(ledger):
    held = unwritable("it waits for its witnesses", "wait")

    async def scene(box):
        await box.admit(NEXT[0], anything)
        ledger.hold(held)
        with pytest.raises(LocalFault, match="waits for its witnesses"):
            await box.admit(NEXT[1], anything)
        # Nothing is signed for what is there already.
        assert (await box.admit(NEXT[0], anything)).index == 1
        ledger.release()
        assert (await box.admit(NEXT[1], anything)).index == 2

    play(ledger, scene)


def test_what_comes_after_the_close_is_refused(ledger):
    async def scene(box):
        await box.admit(NEXT[0], anything)
        await asyncio.to_thread(ledger.close)
        outcomes = await together(box, NEXT[1:3])
        assert [each.code for each in outcomes] == ["RNM-LEDGER-0002"] * 2

    play(ledger, scene)
