"""Acts are verified in a thread of its own: whoever sent one hears what became of it, whatever it was."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from ledger_kit import LOG_KEY, copy_of, dataset, full_story
from ledger_worker import approval

from audit.ledger import Ledger
from audit.sequencer import MAX_TOGETHER
from fedproto.errors import LocalFault

STORY = full_story()
NEXT = STORY.leaves[1:]


@pytest.fixture
def ledger(tmp_path):
    with Ledger.create(
        tmp_path / "ledger", log_key=LOG_KEY, genesis_leaf=STORY.leaves[0]
    ) as opened:
        yield opened


def not_its_author(signed):
    """Refuse an act as a service does whose caller is somebody else."""
    why = f"it is by {signed.event.actor.member}"
    raise LocalFault("RNM-AUTH-0001", what="an act was refused", why=why, mend="send your own")


class Slow:
    """A check that takes until it is told to go on."""

    def __init__(self):
        self.begun, self.go_on = threading.Event(), threading.Event()

    def __call__(self, _):
        self.begun.set()
        assert self.go_on.wait(30)


def await_waiting(ledger, count):
    """Return once so many acts wait behind the one that is being verified."""
    poll = threading.Event()
    while ledger._intake._waiting.qsize() < count:
        poll.wait(0.001)


def told_and_to_come(ledger, count):
    """Tell the ledger the whole story; return its size then, and acts that may follow in any order."""
    for leaf in NEXT:
        ledger.append(leaf)
    story = copy_of(STORY)
    return ledger.head.size, [approval(story, f"act {number}") for number in range(count)]


def test_the_check_sees_what_was_verified_before_anything_comes_of_it(ledger):
    seen = []
    done = ledger.append(NEXT[0], seen.append)
    assert done.index == 1
    (signed,) = seen
    assert signed.event.actor.key in signed.signers
    with pytest.raises(LocalFault, match="RNM-AUTH-0001"):
        ledger.append(NEXT[1], not_its_author)
    assert ledger.head.size == 2
    assert ledger.append(NEXT[1]).index == 2


def test_what_does_not_verify_never_comes_to_the_check(ledger):
    seen = []
    forged = NEXT[0].replace(b'"sig":"', b'"sig":"A', 1)
    for leaf in (b"not an envelope", forged, copy_of(STORY).leaf("stranger", dataset("nec"))):
        with pytest.raises(LocalFault, match=r"RNM-(FORM|SIG)-"):
            ledger.append(leaf, seen.append)
    assert seen == []
    assert ledger.head.size == 1


def test_an_act_that_is_there_is_checked_again(ledger):
    # Else whoever has seen an entry could send it as its own and be told that it was admitted.
    ledger.append(NEXT[0])
    with pytest.raises(LocalFault, match="it is by "):
        ledger.append(NEXT[0], not_its_author)
    assert ledger.append(NEXT[0], [].append).index == 1
    assert ledger.head.size == 2


def test_a_check_that_breaks_breaks_its_own_call_alone(ledger):
    def broken(_):
        raise ZeroDivisionError("a bug")

    # The thread goes on all the same.
    for _ in range(5):
        with pytest.raises(ZeroDivisionError, match="a bug"):
            ledger.append(NEXT[0], broken)
    assert ledger.append(NEXT[0]).index == 1


def test_what_waits_at_the_close_is_still_written_and_what_comes_later_refused(tmp_path):
    ledger = Ledger.create(tmp_path / "ledger", log_key=LOG_KEY, genesis_leaf=STORY.leaves[0])
    slow = Slow()
    with ThreadPoolExecutor(2) as pool:
        waiting = pool.submit(ledger.append, NEXT[0], slow)
        assert slow.begun.wait(30)
        closing = pool.submit(ledger.close)
        assert not waiting.done()
        slow.go_on.set()
        assert waiting.result(30).index == 1
        closing.result(30)
    with pytest.raises(LocalFault, match="RNM-LEDGER-0002"):
        ledger.append(NEXT[1])
    with Ledger.open(tmp_path / "ledger", log_key=LOG_KEY) as again:
        assert again.head.size == 2
    assert not [thread for thread in threading.enumerate() if thread.name == "verifier"]


def test_many_callers_get_an_answer_each(ledger):
    size, acts = told_and_to_come(ledger, 64)
    with ThreadPoolExecutor(16) as pool:
        done = list(pool.map(ledger.append, acts))
    assert sorted(item.index for item in done) == list(range(size, size + len(acts)))
    for act, item in zip(acts, done, strict=True):
        assert ledger.entries(item.index, item.index + 1) == [act]


def test_what_waits_while_one_is_verified_is_written_together(ledger):
    size, acts = told_and_to_come(ledger, MAX_TOGETHER)
    slow = Slow()
    with ThreadPoolExecutor(len(acts)) as pool:
        done = [pool.submit(ledger.append, acts[0], slow)]
        assert slow.begun.wait(30)
        done += [pool.submit(ledger.append, act) for act in acts[1:]]
        await_waiting(ledger, len(acts) - 1)
        slow.go_on.set()
        # One transaction: each of them is told the same size.
        assert {item.result(30).size for item in done} == {size + len(acts)}


def test_who_sends_nothing_but_forgeries_holds_up_nobody(ledger):
    # More of them than are verified together stand behind the act that holds.
    forged = NEXT[0].replace(b'"sig":"', b'"sig":"A', 1)
    slow = Slow()
    behind = Slow()
    with ThreadPoolExecutor(MAX_TOGETHER + 6) as pool:
        good = pool.submit(ledger.append, NEXT[0], slow)
        assert slow.begun.wait(30)
        bad = [pool.submit(ledger.append, forged) for _ in range(MAX_TOGETHER + 4)]
        await_waiting(ledger, len(bad))
        # Whatever stands behind the sweep stays where it is until the good act is written.
        last = pool.submit(ledger.append, NEXT[1], behind)
        await_waiting(ledger, len(bad) + 1)
        slow.go_on.set()
        assert good.result(30).index == 1
        assert not last.done()
        behind.go_on.set()
        assert last.result(30).index == 2
        assert all(isinstance(item.exception(30), LocalFault) for item in bad)


def test_nobody_waits_for_an_act_that_comes_alone(ledger):
    told = threading.Event()
    job = ledger.submit(NEXT[0], [].append, told.set)
    assert told.wait(10)
    assert job.wait().index == 1
    # What is there already is told at once.
    again = threading.Event()
    assert ledger.submit(NEXT[0], None, again.set).wait().index == 1
    assert again.is_set()
