"""The one writer and the publisher: pressure goes back to the caller, and a lag never loses an entry."""

import threading

import pytest
from ledger_kit import LOG_KEY, copy_of, digest, full_story, witness_lines

from audit import merkle, sequencer
from audit.ledger import Ledger
from audit.sequencer import Columns, Job, Sequencer
from audit.store import Head, Store
from audit.tiles import RightEdge
from fedproto.errors import LocalFault

STORY = full_story()


class Anything:
    """A judge that admits all, so that only the writer is under test."""

    def find(self, state, leaf_hash):
        return state.get(leaf_hash)

    def admit(self, state, job):
        if job.leaf == b"refuse":
            raise LocalFault("RNM-GOV-0001", what="w", why="y", mend="m")
        if job.leaf == b"bug":
            raise RuntimeError("a bug in the judge")
        state = {**state, job.leaf_hash: len(state)}
        return state, Columns(event_id=job.leaf_hash, type="x", actor="x")

    def root(self, state):
        return None


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
def parts(tmp_path):
    store = Slow(tmp_path / "ledger.db")
    head = Head(origin=LOG_KEY.name, log_vkey=LOG_KEY.vkey, size=0, root=merkle.EMPTY_ROOT, epoch=1)
    store.start(head)
    writer = Sequencer(
        store, LOG_KEY, Anything(), head=head, edge=RightEdge(), state={}, clock=lambda: 0
    )
    yield store, writer
    writer.close()
    store.close()


def job(text):
    return Job(leaf=text.encode(), leaf_hash=digest(text))


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
