"""A row edited in the database is found at opening and named, without help of any published file.

On SQLite and on PostgreSQL: guards are disarmed as a DBA can, one row is edited, the ledger is opened.
"""

import shutil

import pytest
from ledger_kit import FOUNDED, LOG_KEY, Story, base_model, full_story, witness_lines

from audit import merkle
from audit.alteration import name_change
from audit.ledger import Ledger
from audit.tiles import RightEdge
from fedproto.errors import Exit, LocalFault

STORY = full_story()
SIZE = len(STORY.leaves)
HASHES = [merkle.leaf_hash(leaf) for leaf in STORY.leaves]
DERIVED = ("leaf_hash", "event_id", "type", "actor", "run", "round")


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "ledger"


@pytest.fixture
def ledger(place, directory):
    """A whole story, appended act by act on this database, closed and without its files."""
    ledger = Ledger.create(
        directory, log_key=LOG_KEY, genesis_leaf=STORY.leaves[0], database=url_of(place)
    )
    for leaf in STORY.leaves[1:]:
        ledger.append(leaf)
    ledger.add_cosignatures(SIZE, witness_lines(ledger.signed_checkpoint()))
    ledger.close()
    shutil.rmtree(directory / "public")
    return place


def url_of(place):
    return place.place if isinstance(place.place, str) else f"sqlite:///{place.place}"


def reopen(directory, place):
    return Ledger.open(directory, log_key=LOG_KEY, database=url_of(place))


def refused(code):
    return pytest.raises(LocalFault, match=code)


def flipped(data, at=100):
    changed = bytearray(data)
    changed[at] ^= 1
    return bytes(changed)


def edit(place, table, column, value, where, *keys):
    place.disarm()
    place.dba(f"UPDATE {table} SET {column} = {place.mark} WHERE {where}", value, *keys)


def edit_entry(place, index, data):
    edit(place, "entry", "data", data, f"idx = {index}")


def agree(place, index, data):
    """Make everything that is not signed agree with an edited entry."""
    edit_entry(place, index, data)
    leaf = merkle.leaf_hash(data)
    place.dba(f"UPDATE entry SET leaf_hash = {place.mark} WHERE idx = {index}", leaf)
    leaves = [*HASHES[:index], leaf, *HASHES[index + 1 :]]
    for (level, n), tile in RightEdge().grow(leaves).tiles.items():
        sql = f"UPDATE tile SET data = {place.mark} WHERE level = {level} AND n = {n}"
        place.dba(sql, bytes(tile))


def test_an_untouched_ledger_opens_and_goes_on(ledger, directory):
    with reopen(directory, ledger) as again:
        assert again.state == STORY.state
        assert again.head == STORY.state.head
        assert again.entries(0, SIZE) == STORY.leaves


@pytest.mark.parametrize("index", [0, 7, SIZE - 1])
@pytest.mark.parametrize("at", [0, 100, -1])
def test_one_byte_of_an_entry_is_found_and_named(ledger, directory, index, at):
    edit_entry(ledger, index, flipped(STORY.leaves[index], at))
    with refused(f"RNM-LEDGER-0003: entry {index} was changed") as caught:
        reopen(directory, ledger)
    assert caught.value.exit is Exit.VERIFY


@pytest.mark.parametrize("index", [0, 7, SIZE - 1])
def test_an_entry_whose_hash_and_tiles_were_made_to_agree_is_named(ledger, directory, index):
    agree(ledger, index, flipped(STORY.leaves[index]))
    with refused(f"RNM-LEDGER-0003: entry {index} was changed"):
        reopen(directory, ledger)


def test_a_genuine_act_in_the_place_of_another_is_named(ledger, directory):
    """Its signatures hold; the checkpoint that the log signed at that size does not."""
    other = Story()
    other.genesis()
    agree(ledger, FOUNDED, other.leaf("pfn", base_model("another")))
    with refused(f"RNM-LEDGER-0003: entry {FOUNDED} was changed"):
        reopen(directory, ledger)


def test_without_the_older_checkpoints_a_broken_signature_still_names_the_entry(ledger, directory):
    agree(ledger, 7, flipped(STORY.leaves[7]))
    ledger.dba("DELETE FROM cosignature")
    ledger.dba(f"DELETE FROM checkpoint WHERE size < {SIZE}")
    with refused("RNM-LEDGER-0003: entry 7 was changed"):
        reopen(directory, ledger)


def test_two_entries_in_each_others_place_are_named(ledger, directory):
    ledger.disarm()
    ledger.dba("UPDATE entry SET idx = -1 WHERE idx = 5")
    ledger.dba("UPDATE entry SET idx = 5 WHERE idx = 6")
    ledger.dba("UPDATE entry SET idx = 6 WHERE idx = -1")
    with refused("RNM-LEDGER-0003: entry 5 was changed"):
        reopen(directory, ledger)


@pytest.mark.parametrize("index", [0, 7, SIZE - 1])
def test_an_entry_that_was_deleted_is_found(ledger, directory, index):
    ledger.disarm()
    ledger.dba(f"DELETE FROM entry WHERE idx = {index}")
    with refused("RNM-LEDGER-0003"):
        reopen(directory, ledger)


@pytest.mark.parametrize("column", DERIVED)
def test_a_column_that_no_longer_says_what_the_entry_says_is_named(ledger, directory, column):
    value = {"leaf_hash": bytes(32), "round": 99}.get(column, "0" * 32)
    edit(ledger, "entry", column, value, "idx = 9")
    with refused(f"RNM-LEDGER-0003: entry 9 was changed: its column {column}"):
        reopen(directory, ledger)


@pytest.mark.parametrize(
    ("table", "column", "where"),
    [
        ("log", "root", "id = 1"),
        ("log", "size", "id = 1"),
        ("tile", "data", "level = 0 AND n = 0"),
        ("checkpoint", "note", "size = 3"),
        ("checkpoint", "note", f"size = {SIZE}"),
    ],
)
def test_any_other_row_that_was_edited_is_found(ledger, directory, table, column, where):
    ((old,),) = ledger.dba(f"SELECT {column} FROM {table} WHERE {where}")
    edit(ledger, table, column, 3 if column == "size" else flipped(bytes(old), 20), where)
    with refused("RNM-LEDGER-0001"):
        reopen(directory, ledger)


def test_a_head_that_was_set_back_is_found_by_the_entries_after_it(ledger, directory):
    """The older checkpoint is genuine: without this, the tail would be forgotten in silence."""
    root = merkle.root_of(HASHES[:12])
    edit(ledger, "log", "root", root, "id = 1")
    ledger.dba("UPDATE log SET size = 12 WHERE id = 1")
    with refused(f"RNM-LEDGER-0001: .*entry {SIZE - 1} is beyond its head of size 12"):
        reopen(directory, ledger)


def test_an_older_checkpoint_in_the_place_of_a_newer_is_found(ledger, directory):
    ((note,),) = ledger.dba("SELECT note FROM checkpoint WHERE size = 3")
    edit(ledger, "checkpoint", "note", bytes(note), "size = 4")
    with refused("RNM-LEDGER-0001: .*checkpoint of size 4 is of other entries"):
        reopen(directory, ledger)


def test_a_batch_is_named_where_no_signature_tells_which_of_its_entries():
    """A re-signed act in a large batch: the log's checkpoints say between which sizes it lies."""
    entries = [*STORY.leaves[:10], STORY.leaves[11], STORY.leaves[10], *STORY.leaves[12:]]
    signed = {size: merkle.root_of(HASHES[:size]) for size in (5, SIZE)}
    forged = [*STORY.leaves[:10]]
    fault = name_change([*forged, *forged[-1:], *STORY.leaves[11:]], signed)
    assert fault.code == "RNM-LEDGER-0003"
    assert name_change(entries, signed).code == "RNM-LEDGER-0003"
    late = name_change(STORY.leaves[:9], {5: signed[5], 9: bytes(32)})
    assert (late.code, late.what) == ("RNM-LEDGER-0003", "one of the entries 5 to 8 was changed")


def test_a_ledger_remembers_the_database_that_it_was_founded_in(ledger, directory):
    kept = directory / "database.url"
    assert kept.read_text() == f"{url_of(ledger)}\n"
    assert kept.stat().st_mode & 0o777 == 0o600
    with Ledger.open(directory, log_key=LOG_KEY) as again:
        assert again.state == STORY.state
    with refused("RNM-CONF-0001: .*names another database"):
        Ledger.open(directory, log_key=LOG_KEY, database="sqlite:///other.db")


def test_a_new_host_opens_the_ledger_of_a_database_by_its_url(ledger, tmp_path):
    with reopen(tmp_path / "new", ledger) as moved:
        assert moved.state == STORY.state
    assert (tmp_path / "new" / "database.url").exists()


def test_a_url_that_others_may_read_is_refused(ledger, directory):
    (directory / "database.url").chmod(0o644)
    with refused("RNM-KEY-0002"):
        Ledger.open(directory, log_key=LOG_KEY)


def test_a_url_with_a_password_is_not_kept(directory):
    url = "postgresql+psycopg://ledger:secret@127.0.0.1:1/ledger"
    with refused("RNM-CONF-0001") as caught:
        Ledger.create(directory, log_key=LOG_KEY, genesis_leaf=STORY.leaves[0], database=url)
    assert "secret" not in f"{caught.value!r} {caught.value.mend}"
    assert not (directory / "database.url").exists()


def test_another_consortium_is_not_founded_over_a_ledger(ledger, tmp_path):
    with refused("RNM-CONF-0001: .*one is there already"):
        Ledger.create(
            tmp_path / "new", log_key=LOG_KEY, genesis_leaf=STORY.leaves[0], database=url_of(ledger)
        )
