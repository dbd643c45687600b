"""The one writer and the publisher: pressure goes back to the caller, and a lag never loses an entry."""

import threading

import pytest
from ledger_kit import LOG_KEY, copy_of, full_story, witness_lines
from store_kit import job, sequencer_of, verified

from audit import merkle, sequencer
from audit.faults import unwritable
from audit.ledger import Ledger
from audit.sequencer import Job
from audit.store import Store
from fedproto.errors import LocalFault

STORY = full_story()


class Slow(Store):
    """A store whose disk waits until it is let go, and counts its transactions."""

    gate = None
    batches = ()

    def hold(self):
        self.gate, self.entered = threading.Event(), threading.Event()

    def commit(self, batch):
        if self.gate is not None:
            self.entered.set()
            self.gate.wait(30)
        self.batches = (*self.batches, len(batch.entries))
        super().commit(batch)


@pytest.fixture
def parts(place):
    store = place.open(Slow)
    writer = sequencer_of(store)
    yield store, writer
    writer.close()
    store.close()


def together(writer, texts):
    found = {}

    def send(text):
        try:
            found[text] = writer.append(job(text)).index
        except LocalFault as fault:
            found[text] = fault.code

    threads = [threading.Thread(target=send, args=(text,)) for text in texts]
    for thread in threads:
        thread.start()
    return threads, found


def test_what_gathers_during_a_write_is_one_transaction(parts):
    store, writer = parts
    store.hold()
    first, _ = together(writer, ["first"])
    assert store.entered.wait(30)
    threads, found = together(writer, [f"entry {n}" for n in range(50)])
    poll = threading.Event()
    while writer._waiting.qsize() < 50:
        poll.wait(0.001)
    store.gate.set()
    for thread in (*first, *threads):
        thread.join()
    assert store.batches == (1, 50)
    assert sorted(found.values()) == list(range(1, 51))
    assert writer.head.size == 51


def test_what_is_queued_together_is_written_together(parts):
    store, writer = parts
    jobs = [job(f"entry {n}") for n in range(sequencer.MAX_TOGETHER)]
    writer.submit(*jobs)
    assert [item.wait().index for item in jobs] == list(range(sequencer.MAX_TOGETHER))
    assert store.batches == (sequencer.MAX_TOGETHER,)


def test_who_waits_for_a_while_is_told_whether_it_was_long_enough(parts):
    _, writer = parts
    first = Job(leaf=b"one")
    assert not first.await_done(0.001)
    assert not first.is_done
    writer.submit(first)
    assert first.await_done(10)
    # As often as one likes; and what it waited for is still there.
    assert first.await_done()
    assert first.await_done(0)
    assert first.wait().index == 0
    refused = Job(leaf=b"two")
    refused.give(unwritable("no", "mend"))
    assert refused.await_done(0)


def test_pressure_goes_back_to_the_caller(parts, monkeypatch, tmp_path):
    store, writer = parts
    writer._room = 1
    store.hold()
    threads, _ = together(writer, ["first"])
    assert store.entered.wait(30)
    with pytest.raises(LocalFault, match="RNM-LEDGER-0002"):
        writer.append(job("second"), timeout_s=0.01)
    store.gate.set()
    threads[0].join()
    assert writer.append(job("second")).index == 1
    assert sequencer.MAX_WAITING > sequencer.MAX_BATCH


def test_nobody_waits_for_a_writer_that_failed(parts, monkeypatch):
    _, writer = parts
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    threads, found = together(writer, ["bug", *(f"entry {n}" for n in range(5))])
    for thread in threads:
        thread.join(10)
    assert found["bug"] == "RNM-LEDGER-0002"
    with pytest.raises(LocalFault, match="RNM-LEDGER-0002"):
        writer.append(job("later"))


def test_a_refusal_leaves_no_gap(parts):
    _, writer = parts
    assert writer.append(job("one")).index == 0
    with pytest.raises(LocalFault, match="RNM-GOV-0001"):
        writer.append(job("refuse"))
    assert writer.append(job("two")).index == 1
    assert writer.append(job("one")).index == 0


def test_a_failed_transaction_is_as_if_it_had_never_been(parts, monkeypatch):
    store, writer = parts
    writer.append(job("one"))

    def fail(batch):
        raise LocalFault("RNM-DISK-0001", what="w", why="y", mend="m")

    monkeypatch.setattr(store, "commit", fail)
    for _ in range(3):
        with pytest.raises(LocalFault, match="RNM-DISK-0001"):
            writer.append(job("two"))
    monkeypatch.undo()
    assert writer.append(job("two")).index == 1
    leaves = [merkle.leaf_hash(text) for text in (b"one", b"two")]
    assert writer.head.root_bytes == merkle.root_of(leaves)


def test_a_batch_whose_answer_alone_was_lost_counts_once(parts):
    """The database has it, the writer was told of an error: whoever sends it again learns its index."""
    store, writer = parts
    writer.append(job("one"))
    real = store.commit

    def commit_and_fail(batch):
        real(batch)
        raise LocalFault("RNM-LEDGER-0002", what="w", why="the line broke", mend="m")

    store.commit = commit_and_fail
    with pytest.raises(LocalFault, match="the line broke"):
        writer.append(job("two"))
    assert writer.head.size == 1
    store.commit = real
    assert writer.append(job("two")).index == 1
    assert writer.append(job("three")).index == 2
    assert verified(store) == [b"one", b"two", b"three"]


def test_a_writer_waits_for_a_database_that_does_not_answer_and_then_goes_on(parts):
    store, writer = parts
    writer.append(job("one"))

    def fail(*_):
        raise LocalFault("RNM-LEDGER-0002", what="w", why="nobody answers", mend="m")

    real = store.commit, store.head
    store.commit = store.head = fail
    for _ in range(3):
        with pytest.raises(LocalFault, match="nobody answers"):
            writer.append(job("two"))
    store.commit, store.head = real
    assert writer.append(job("two")).index == 1
    assert verified(store) == [b"one", b"two"]


def test_a_writer_whose_head_was_moved_stops_for_good(parts):
    store, writer = parts
    writer.append(job("one"))
    store.take_over(store.head())
    with pytest.raises(LocalFault, match="RNM-LEDGER-0005"):
        writer.append(job("two"))
    for _ in range(2):
        with pytest.raises(LocalFault, match=r"RNM-LEDGER-0002.*moved"):
            writer.append(job("three"))
    assert verified(store) == [b"one"]


def test_a_closed_writer_refuses_and_lets_nobody_wait(parts):
    store, writer = parts
    writer.append(job("one"))
    writer.close()
    with pytest.raises(LocalFault, match=r"RNM-LEDGER-0002: .*closed"):
        writer.append(job("two"))
    writer.close()
    assert verified(store) == [b"one"]


def test_whoever_waits_for_room_is_let_go_when_the_writer_stops(parts):
    store, writer = parts
    writer._room = 1
    store.hold()
    threads, found = together(writer, ["first"])
    assert store.entered.wait(30)
    more, refused = together(writer, ["second"])
    closing = threading.Thread(target=writer.close)
    closing.start()
    more[0].join(30)
    store.gate.set()
    closing.join(30)
    threads[0].join(30)
    assert (found, refused) == ({"first": 0}, {"second": "RNM-LEDGER-0002"})


def test_an_answer_is_given_to_each_of_many_in_one_batch(parts):
    store, writer = parts
    jobs = [job(f"entry {number}") for number in range(3000)]
    for each in jobs:
        writer.submit(each)
    assert [each.wait().index for each in jobs] == list(range(3000))
    assert verified(store) == [each.leaf for each in jobs]
    assert max(store.batches) <= sequencer.MAX_BATCH


def test_a_ledger_goes_on_while_its_files_cannot_be_published(tmp_path):
    directory = tmp_path / "ledger"
    with Ledger.create(directory, log_key=LOG_KEY, genesis_leaf=STORY.leaves[0]) as ledger:
        (directory / "public").write_bytes(b"in the way")
        ledger.add_cosignatures(1, witness_lines(ledger.signed_checkpoint()))
        for leaf in STORY.leaves[1:]:
            ledger.append(leaf)
        assert ledger.head == STORY.state.head
        assert ledger.checkpoint() is not None
    assert ledger.publish_fault is not None
    assert ledger.publish_fault.code == "RNM-CONF-0001"
    (directory / "public").unlink()
    with Ledger.open(directory, log_key=LOG_KEY) as ledger:
        ledger.add_cosignatures(ledger.head.size, witness_lines(ledger.signed_checkpoint()))
    assert ledger.publish_fault is None
    assert (directory / "public" / "checkpoint").exists()
    assert copy_of(STORY).state.size == len(STORY.leaves)
