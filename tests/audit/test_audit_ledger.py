"""The coordinator's ledger: durable, ordered, idempotent, and verified again whenever it is opened."""

import sqlite3
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from ledger_kit import (
    FOUNDED,
    LOG_KEY,
    TRAINERS,
    Story,
    base_model,
    charter_of,
    clause,
    copy_of,
    dataset,
    full_story,
    key_of,
    receipt,
    recovery_of,
    seed,
    signed_note,
    witness_lines,
    witness_of,
)

from audit import merkle
from audit.ledger import CharterJudge, Ledger
from audit.note import NoteSigner, parse
from audit.policy import policy_of
from audit.sequencer import Columns, Job, Sequencer
from audit.state import open_next
from audit.store import Head, Store
from audit.tiles import RightEdge
from fedproto.errors import Exit, LocalFault
from fedproto.events.governance import (
    CharterAdopted,
    CharterTerms,
    KeyChanged,
    KeyOperation,
    KeyUse,
)
from fedproto.governance.charter import Action, Role
from fedproto.statements import Actor, leaf_id

STORY = full_story()
# After the founding: the base model, four datasets, the proposal, then a ballot of each trainer.
VOTES = FOUNDED + 6
WORKER = [sys.executable, str(Path(__file__).with_name("ledger_worker.py"))]


def make(directory, leaves=STORY.leaves):
    ledger = Ledger.create(directory, log_key=LOG_KEY, genesis_leaf=leaves[0])
    for leaf in leaves[1:]:
        ledger.append(leaf)
    return ledger


def reopen(directory):
    return Ledger.open(directory, log_key=LOG_KEY)


def cosign(ledger, who=TRAINERS):
    return ledger.add_cosignatures(ledger.head.size, witness_lines(ledger.signed_checkpoint(), who))


@pytest.fixture
def ledger(tmp_path):
    with make(tmp_path / "ledger") as made:
        yield made


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A closed ledger with a cosigned checkpoint; tests copy it."""
    directory = tmp_path_factory.mktemp("finished") / "ledger"
    with make(directory) as made:
        cosign(made)
    return directory


@pytest.fixture
def closed(finished, tmp_path):
    import shutil

    return Path(shutil.copytree(finished, tmp_path / "ledger"))


def refused(code):
    return pytest.raises(LocalFault, match=code)


def test_the_ledger_stands_where_the_rules_say(ledger):
    assert ledger.head == STORY.state.head
    assert ledger.entries(0, ledger.head.size) == STORY.leaves
    assert ledger.signed_checkpoint() == signed_note(STORY.leaves)


def test_the_same_leaf_again_has_the_same_index(ledger):
    for index in (0, 5, len(STORY.leaves) - 1):
        done = ledger.append(STORY.leaves[index])
        assert (done.index, done.leaf_hash) == (index, leaf_id(STORY.leaves[index]))
    assert ledger.head == STORY.state.head


def test_the_same_leaf_from_many_threads_at_once_is_one_entry(tmp_path):
    with make(tmp_path / "ledger", STORY.leaves[:1]) as ledger:
        found, leaf = [], STORY.leaves[1]
        threads = [
            threading.Thread(target=lambda: found.append(ledger.append(leaf))) for _ in range(16)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert {done.index for done in found} == {1}
        assert len(found) == 16
        assert ledger.head.size == 2


def test_a_refused_act_is_not_logged_and_says_why(ledger):
    story = copy_of(STORY)
    leaf = story.leaf("nec", receipt("nec", 1))
    with refused("RNM-GOV-0003"):
        ledger.append(leaf)
    stranger = story.leaf("stranger", base_model())
    with refused("RNM-SIG-0002"):
        ledger.append(stranger)
    with refused("RNM-FORM-0001"):
        ledger.append(b"not an envelope")
    assert ledger.head == STORY.state.head


def test_one_refusal_in_a_batch_does_not_refuse_the_others(tmp_path):
    with make(tmp_path / "ledger", STORY.leaves[: FOUNDED + 1]) as ledger:
        story = Story(state=ledger.state, counter=1000)
        good = [story.leaf(member, dataset(member)) for member in TRAINERS]
        bad = [story.leaf("meti", dataset(f"new {n}")) for n in range(4)]
        outcomes = {}

        def send(leaf):
            try:
                outcomes[leaf] = ledger.append(leaf).index
            except LocalFault as fault:
                outcomes[leaf] = fault.code

        threads = [threading.Thread(target=send, args=(leaf,)) for leaf in (*good, *bad)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert {outcomes[leaf] for leaf in good} == set(range(FOUNDED + 1, FOUNDED + 5))
        assert {outcomes[leaf] for leaf in bad} == {"RNM-GOV-0001"}


def test_an_entry_over_the_limit_is_refused_by_name(ledger):
    with refused("RNM-LEDGER-0007"):
        ledger.append(b"x" * 65_536)


def test_opening_again_finds_the_same_log_and_goes_on(closed):
    with reopen(closed) as ledger:
        assert ledger.head == STORY.state.head
        assert ledger.checkpoint() is not None
        story = copy_of(STORY)
        story.whole_round(3)
        for leaf in story.leaves[len(STORY.leaves) :]:
            ledger.append(leaf)
        assert ledger.head == story.state.head


def test_proofs_are_those_of_the_tree(ledger):
    size, root = ledger.head.size, ledger.head.root_bytes
    for index, leaf in enumerate(STORY.leaves):
        proof = ledger.prove_inclusion(index, size)
        merkle.verify_inclusion(merkle.leaf_hash(leaf), index, size, proof, root)
    for old in range(size + 1):
        proof = ledger.prove_consistency(old, size)
        old_root = bytes.fromhex(STORY.state.root_at(old))
        merkle.verify_consistency(old, size, old_root, root, proof)


def test_reading_beyond_the_end_is_refused(ledger):
    size = ledger.head.size
    for call in (
        lambda: ledger.entries(0, size + 1),
        lambda: ledger.entries(3, 2),
        lambda: ledger.entries(-1, 2),
        lambda: ledger.prove_inclusion(size, size),
        lambda: ledger.prove_inclusion(0, size + 1),
        lambda: ledger.prove_consistency(0, size + 1),
        lambda: ledger.prove_consistency(2, 1),
    ):
        with refused("RNM-FORM-0002"):
            call()


def test_entries_are_found_by_type_actor_and_run(ledger):
    from ledger_kit import RUN

    assert ledger.find_entries(kind="vote.cast", actor="nec") == [VOTES + 1]
    assert ledger.find_entries(kind="run.approved", run=RUN) == [VOTES + 4]
    assert len(ledger.find_entries(actor="coordinator")) == 6


# --- cosignatures


def test_a_checkpoint_appears_with_the_quorum_and_not_before(ledger):
    assert ledger.checkpoint() is None
    cosign(ledger, TRAINERS[:2])
    assert ledger.checkpoint() is None
    cosign(ledger, TRAINERS[2:3])
    note = ledger.checkpoint()
    cosigned = policy_of(charter_of()).open(note)
    assert [item.member for item in cosigned.cosignatures] == sorted(TRAINERS[:3])
    assert ledger.checkpoint(ledger.head.size + 1) is None
    cosign(ledger, TRAINERS[3:])
    assert len(parse(ledger.checkpoint()).lines) == 5


def test_cosignatures_that_come_twice_count_once(ledger):
    for _ in range(3):
        cosign(ledger, TRAINERS[:2])
    assert ledger.checkpoint() is None


def test_forged_and_strange_cosignatures_are_refused(ledger):
    note, size = ledger.signed_checkpoint(), ledger.head.size
    stranger = NoteSigner("witness.sony.example/w1", seed("stranger"), cosigner=True)
    other = signed_note(STORY.leaves[:-1])
    for lines in (
        stranger.cosign(parse(note).text, 5).encode(),
        witness_lines(other),
        witness_lines(note) + witness_lines(note, TRAINERS[:1]),
        witness_of("nec").cosign(parse(note).text, 5).encode()[:-1],
        b"",
    ):
        with refused("RNM-LEDGER-0001"):
            ledger.add_cosignatures(size, lines)
    with refused("RNM-LEDGER-0001"):
        ledger.add_cosignatures(size + 1, witness_lines(note))
    assert ledger.checkpoint() is None


def test_a_late_cosignature_of_an_older_size_does_not_go_back(ledger):
    old_note, old_size = ledger.signed_checkpoint(), ledger.head.size
    story = copy_of(STORY)
    story.start(3)
    ledger.append(story.leaves[-1])
    cosign(ledger)
    ledger.add_cosignatures(old_size, witness_lines(old_note))
    assert int(ledger.checkpoint().split(b"\n")[1]) == old_size + 1


def test_what_is_published_is_what_was_cosigned(closed):
    with reopen(closed) as ledger:
        story = copy_of(STORY)
        story.start(3)
        ledger.append(story.leaves[-1])
        note = ledger.checkpoint()
    public = closed / "public"
    assert (public / "checkpoint").read_bytes() == note
    assert (public / f"tile/0/000.p/{len(STORY.leaves)}").stat().st_size == 32 * len(STORY.leaves)
    assert not (public / f"tile/0/000.p/{len(STORY.leaves) + 1}").exists()


def test_published_files_that_were_changed_are_published_again(closed):
    (closed / "public" / "checkpoint").write_bytes(b"broken")
    tile = closed / f"public/tile/entries/000.p/{len(STORY.leaves)}"
    good = tile.read_bytes()
    tile.write_bytes(b"broken")
    reopen(closed).close()
    assert tile.read_bytes() == good
    policy_of(charter_of()).open((closed / "public" / "checkpoint").read_bytes())


# --- founding and opening


def test_a_ledger_is_founded_once(closed):
    with refused("RNM-CONF-0001"):
        Ledger.create(closed, log_key=LOG_KEY, genesis_leaf=STORY.leaves[0])
    with reopen(closed) as ledger:
        assert ledger.head == STORY.state.head


def test_a_ledger_is_not_opened_where_there_is_none(tmp_path):
    with refused("RNM-CONF-0001"):
        reopen(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("first", "code"), [(1, "RNM-GOV-0001"), (FOUNDED, "RNM-SIG-0002")])
def test_a_ledger_is_founded_on_a_charter_and_nothing_else(tmp_path, first, code):
    """A seat brings its own keys and is read by them; any other act has no key to be read by."""
    with refused(code):
        Ledger.create(tmp_path / "x", log_key=LOG_KEY, genesis_leaf=STORY.leaves[first])
    assert not (tmp_path / "x").exists()


def test_another_log_key_is_refused(closed, tmp_path):
    other = NoteSigner(LOG_KEY.name, seed("another"))
    with refused("RNM-CONF-0001"):
        Ledger.open(closed, log_key=other)
    with refused("RNM-CONF-0001"):
        Ledger.create(tmp_path / "x", log_key=other, genesis_leaf=STORY.leaves[0])


def test_a_founding_that_was_broken_off_is_done_again(tmp_path):
    directory = tmp_path / "ledger"
    directory.mkdir(mode=0o700)
    Store(directory / "ledger.db").close()
    with refused("RNM-CONF-0001"):
        reopen(directory)
    make(directory).close()


def test_a_second_process_is_refused_and_names_the_conflict(closed, monkeypatch):
    holder = subprocess.Popen(
        [*WORKER, "hold", str(closed)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=worker_environment(),
    )
    assert holder.stdout.readline() == b"ready\n"
    with refused("RNM-LEDGER-0005") as caught:
        reopen(closed)
    assert caught.value.exit is Exit.CONFLICT
    holder.communicate(b"")
    assert holder.returncode == 0
    reopen(closed).close()


def worker_environment():
    import os

    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


def test_a_writer_that_was_fenced_off_writes_nothing_more(closed):
    """As after a second coordinator took over the same database, where no lock reaches."""
    with reopen(closed) as ledger:
        connection = sqlite3.connect(closed / "ledger.db")
        connection.execute("UPDATE log SET epoch = epoch + 1")
        connection.commit()
        connection.close()
        story = copy_of(STORY)
        story.start(3)
        with refused("RNM-LEDGER-0005"):
            ledger.append(story.leaves[-1])
        with refused("RNM-LEDGER-0002"):
            ledger.append(story.leaves[-1])
        assert ledger.head == STORY.state.head


def test_a_closed_ledger_takes_nothing(closed):
    ledger = reopen(closed)
    ledger.close()
    story = copy_of(STORY)
    story.start(3)
    with refused("RNM-LEDGER-0002"):
        ledger.append(story.leaves[-1])


# --- a database that was tampered with


def tamper(directory, *statements, guards=True):
    connection = sqlite3.connect(directory / "ledger.db")
    if not guards:
        for (name,) in connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'trigger'"
        ).fetchall():
            connection.execute(f"DROP TRIGGER {name}")
    for statement, *values in statements:
        connection.execute(statement, values)
    connection.commit()
    connection.close()


@pytest.mark.parametrize("table", ["entry", "checkpoint"])
@pytest.mark.parametrize("verb", ["DELETE FROM {}", "UPDATE {} SET rowid = rowid"])
def test_entries_and_checkpoints_are_guarded_against_change(closed, table, verb):
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        tamper(closed, (verb.format(table),))


@pytest.mark.parametrize("index", [0, 7, len(STORY.leaves) - 1])
def test_an_edited_row_is_named(closed, index):
    data = bytearray(STORY.leaves[index])
    data[100] ^= 1
    tamper(closed, ("UPDATE entry SET data = ? WHERE idx = ?", bytes(data), index), guards=False)
    with refused("RNM-LEDGER-0003") as caught:
        reopen(closed)
    assert caught.value.what == f"entry {index} was changed"


def test_an_edited_row_with_its_hash_and_tile_is_still_found(closed):
    data = bytearray(STORY.leaves[7])
    data[100] ^= 1
    changed = merkle.leaf_hash(bytes(data))
    hashes = [merkle.leaf_hash(leaf) for leaf in STORY.leaves]
    hashes[7] = changed
    tamper(
        closed,
        ("UPDATE entry SET data = ?, leaf_hash = ? WHERE idx = 7", bytes(data), changed),
        ("UPDATE tile SET data = ?", b"".join(hashes)),
        guards=False,
    )
    with refused("RNM-LEDGER-0003: entry 7 was changed"):
        reopen(closed)


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM tile",
        "UPDATE tile SET data = zeroblob(length(data))",
        "UPDATE log SET size = size - 1",
        "UPDATE log SET root = zeroblob(32)",
        "DELETE FROM checkpoint WHERE size = (SELECT max(size) FROM checkpoint)",
        "UPDATE checkpoint SET note = replace(note, 'fl-gov', 'xl-gov')",
        "DELETE FROM entry WHERE idx = 3",
    ],
)
def test_any_other_damage_is_refused(closed, statement):
    tamper(closed, ("PRAGMA foreign_keys=OFF",), (statement,), guards=False)
    with pytest.raises(LocalFault) as caught:
        reopen(closed)
    assert caught.value.exit is Exit.VERIFY


@pytest.mark.parametrize("damage", ["header", "middle", "garbage"])
def test_a_damaged_database_file_is_refused_by_name(closed, damage):
    path = closed / "ledger.db"
    data = bytearray(path.read_bytes())
    if damage == "header":
        data[:32] = bytes(32)
    elif damage == "middle":
        data[4096:] = b"\xff" * (len(data) - 4096)
    else:
        data[:] = b"not a database at all" * 1000
    path.write_bytes(bytes(data))
    with pytest.raises(LocalFault) as caught:
        reopen(closed)
    assert caught.value.code.startswith("RNM-LEDGER-000")
    assert caught.value.exit is Exit.VERIFY


def test_an_entry_that_the_charter_does_not_allow_is_found_at_opening(tmp_path):
    """A coordinator that writes past admission, with its own key, still cannot open its ledger."""

    class Anything:
        def find(self, state, leaf_hash):
            return None

        def admit(self, state, job):
            return state, Columns(event_id=job.leaf_hash, type="x", actor="x")

        def root(self, state):
            return None

    story = Story()
    story.genesis()
    forced = story.leaf("meti", base_model())
    directory = tmp_path / "ledger"
    directory.mkdir(mode=0o700)
    store = Store(directory / "ledger.db")
    head = Head(origin=LOG_KEY.name, log_vkey=LOG_KEY.vkey, size=0, root=merkle.EMPTY_ROOT, epoch=1)
    store.start(head)
    sequencer = Sequencer(
        store, LOG_KEY, Anything(), head=head, edge=RightEdge(), state=None, clock=lambda: 0
    )
    for leaf in (*story.leaves, forced):
        sequencer.append(Job(leaf=leaf))
    sequencer.close()
    store.close()
    with refused(f"entry {FOUNDED} does not follow: RNM-GOV-0001"):
        reopen(directory)


def queued(story, leaf):
    """An act as it waits for its place: its signatures were verified when it came in."""
    return Job(leaf=leaf, signed=open_next(story.state, leaf))


def test_the_charter_that_admits_is_the_one_in_force_when_the_act_is_written():
    """An act opened under a charter that changes while it waits is judged under the new one."""
    story, old = Story(), charter_of()
    story.genesis()
    stale = queued(story, story.leaf("pfn", base_model()))
    members = tuple(m for m in old.members if m.id != "pfn")
    actions = {**old.actions, Action.APPROVE_BASE_MODEL.value: clause((Role.TRAINER,))}
    charter = replace(old, version=2, prev_sha256=old.digest, members=members, actions=actions)
    proposed = story.carried(Action.AMEND_CHARTER, CharterTerms(charter=charter))
    body = CharterAdopted(
        sha256=charter.digest, charter=charter, operator_key=None, **story.cited(proposed)
    )
    CharterJudge().admit(story.state, stale)
    story.act("coordinator", body)
    with refused("RNM-GOV-0001"):
        CharterJudge().admit(story.state, stale)
    with refused("RNM-SIG-0002"):
        CharterJudge().admit(story.state, replace(stale, signed=None))


def test_an_act_whose_key_was_ended_while_it_waited_is_refused():
    story = Story()
    story.genesis()
    stale = queued(story, story.leaf("pfn", base_model()))
    CharterJudge().admit(story.state, stale)
    key = key_of("pfn").verify_key.key_id
    story.act(
        "pfn",
        KeyChanged(
            op=KeyOperation.REVOKE,
            use=KeyUse.ACT,
            key=key,
            new=None,
            reason="compromise",
            proposal="",
            votes=(),
        ),
        signers=(recovery_of("pfn"),),
        actor=Actor(member="pfn", key=key_of(recovery_of("pfn")).verify_key.key_id),
    )
    with refused("RNM-GOV-0001"):
        CharterJudge().admit(story.state, stale)
