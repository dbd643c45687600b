"""One contract for every database: what is written is whole, in order, by one writer, and stays.

Each test runs on SQLite and on a real PostgreSQL server that these tests start.
"""

import sqlite3
import threading
from dataclasses import replace

import psycopg
import pytest
from store_kit import NEW, Growth, PostgresPlace, SqlitePlace, begin, texts

from audit import merkle, tiles
from audit.checkpoint import TreeHead
from audit.store import Store
from audit.tiles import RightEdge
from audit.tree_check import check_tree
from fedproto.errors import Exit, LocalFault
from fedproto.ids import Digest

REFUSED = (sqlite3.Error, psycopg.Error)


@pytest.fixture
def store(place):
    opened = place.open()
    yield opened
    opened.close()


def refused(code):
    return pytest.raises(LocalFault, match=code)


def everything(place):
    """Every row of every table, in order."""
    return {
        table: place.dba(f"SELECT * FROM {table} ORDER BY 1, 2")
        for table in ("log", "entry", "tile", "checkpoint", "cosignature")
    }


def cosignature(size, name, line=b"line", key_id=b"\0\1\2\3"):
    return {"size": size, "key_id": key_id, "name": name, "timestamp": 1 << 40, "line": line}


def test_a_new_database_has_no_head(store):
    assert store.head() is None
    assert store.entries(0, 10) == []
    assert store.tile(0, 0) == b""
    assert store.checkpoint(0) is None
    assert store.cosignatures(0) == []
    assert store.cosigned_sizes() == []
    assert store.find_entries() == []


@pytest.mark.parametrize("widths", [(1,), (1, 1, 1), (49, 50, 51), (255, 1, 1), (300, 700)])
def test_batches_are_read_as_they_were_written(store, widths):
    growth, written = begin(store), []
    for width in widths:
        leaves = texts(len(written), len(written) + width)
        batch = growth.write(store, leaves)
        written += leaves
        assert store.head() == batch.after
        assert store.checkpoint(len(written)) == batch.note
    assert store.entries(0, len(written)) == written
    assert store.entries(3, 5) == written[3:5]
    assert store.entries(len(written), len(written) + 9) == []
    head = TreeHead(len(written), Digest(merkle.root_of(map(merkle.leaf_hash, written)).hex()))

    def bundle(n, width):
        return tiles.encode_bundle(store.entries(n * 256, n * 256 + width))

    assert check_tree(head, store.tile, bundle) == written


@pytest.mark.parametrize("count", [1, 49, 50, 200])
def test_every_column_is_kept_whether_by_statement_or_by_copy(store, place, count):
    growth = begin(store)
    leaves = [bytes([n % 256]) * 600 + b"\0\r\n\xff%d" % n for n in range(count)]
    batch = growth.write(store, leaves, type="vote.cast", actor="日電", run="ab" * 16)
    columns = "idx, leaf_hash, event_id, type, actor, run, round, received_at, data"
    rows = place.dba(f"SELECT {columns} FROM entry ORDER BY idx")
    names = columns.split(", ")
    assert [dict(zip(names, row, strict=True)) for row in rows] == [
        {name: getattr(entry, name) for name in names} for entry in batch.entries
    ]


def test_entries_of_the_greatest_size_and_of_none_are_kept(store):
    growth = begin(store)
    leaves = [b"", bytes(65_535), b"\xff" * 65_535]
    growth.write(store, leaves)
    assert store.entries(0, 3) == leaves


def test_a_reopened_database_is_as_it_was_left(place):
    with_one = place.open()
    growth = begin(with_one)
    growth.write(with_one, texts(0, 300))
    with_one.close()
    before = everything(place)
    again = place.open()
    assert again.head() == growth.head
    growth.write(again, texts(300, 301))
    again.close()
    assert len(everything(place)["entry"]) == len(before["entry"]) + 1


@pytest.mark.parametrize("change", [{"size": 1}, {"epoch": 2}, {"size": 7, "epoch": 9}])
def test_a_batch_on_another_head_is_refused_whole(store, place, change):
    growth = begin(store)
    growth.write(store, texts(0, 3))
    before = everything(place)
    batch = growth.batch(texts(3, 5))
    with refused("RNM-LEDGER-0005"):
        store.commit(replace(batch, before=replace(batch.before, **change)))
    assert everything(place) == before
    store.commit(batch)


def test_a_new_epoch_fences_off_the_earlier_writer(store, place):
    growth = begin(store)
    growth.write(store, texts(0, 3))
    stale = growth.batch(texts(3, 4))
    taken = store.take_over(growth.head)
    assert taken == replace(growth.head, epoch=2) == store.head()
    before = everything(place)
    with refused("RNM-LEDGER-0005"):
        store.commit(stale)
    with refused("RNM-LEDGER-0005"):
        store.take_over(growth.head)
    assert everything(place) == before
    growth.head = taken
    growth.write(store, texts(3, 4))
    assert store.entries(3, 4) == [b"entry 3"]


@pytest.mark.parametrize("count", [2, 60])
@pytest.mark.parametrize("column", ["idx", "leaf_hash", "event_id"])
def test_an_index_a_leaf_and_an_event_are_there_once(store, place, column, count):
    growth = begin(store)
    first = growth.write(store, texts(0, 2))
    before = everything(place)
    batch = growth.batch(texts(2, 2 + count))
    twice = batch.entries[-1]._replace(**{column: getattr(first.entries[0], column)})
    with refused("RNM-LEDGER-0002"):
        store.commit(replace(batch, entries=[*batch.entries[:-1], twice]))
    assert everything(place) == before
    store.commit(batch)
    assert store.head() == batch.after


@pytest.mark.parametrize("part", ["entries", "tiles", "checkpoint"])
def test_a_batch_is_written_whole_or_not_at_all(store, place, part):
    """The last row of each kind is in the way."""
    growth = begin(store)
    growth.write(store, texts(0, 255))
    batch = growth.batch(texts(255, 600))
    blocks = {
        "entries": "INSERT INTO entry SELECT 599, leaf_hash, 'other', type, actor, run, round, "
        "received_at, data FROM entry WHERE idx = -1",
        "tiles": "INSERT INTO tile SELECT 0, 2, width, data FROM tile WHERE n = 0 AND level = 0",
        "checkpoint": "INSERT INTO checkpoint SELECT 600, root, note, 0 FROM checkpoint",
    }
    if part == "entries":
        mark = place.mark
        place.dba(
            "INSERT INTO entry (idx, leaf_hash, event_id, type, actor, run, round, received_at, data)"
            f" VALUES (599, {mark}, 'other', '', '', '', 0, 0, {mark})",
            b"other",
            b"",
        )
    else:
        place.dba(blocks[part])
    before = everything(place)
    with refused("RNM-LEDGER-0002"):
        store.commit(batch)
    assert everything(place) == before
    assert store.head() == growth.head


def test_a_cosignature_stays_as_it_was_first_kept(store):
    growth = begin(store)
    growth.write(store, texts(0, 3))
    store.add_cosignatures([cosignature(3, "b", b"second", b"\0\0\0\2"), cosignature(3, "a")])
    store.add_cosignatures([cosignature(3, "a", b"another line")])
    store.add_cosignatures([])
    assert store.cosignatures(3) == [b"line", b"second"]
    assert store.cosigned_sizes() == [3]


def test_cosignatures_are_in_the_order_of_bytes_whatever_the_collation(store):
    growth = begin(store)
    growth.write(store, texts(0, 1))
    names = ["a/w", "B/w", "é/w", "a-b/w", "日本/w", "Z/w"]
    rows = [cosignature(1, n, n.encode(), bytes([9 - i] * 4)) for i, n in enumerate(names)]
    store.add_cosignatures(rows)
    assert store.cosignatures(1) == sorted(name.encode() for name in names)


def test_a_cosignature_of_no_checkpoint_is_refused(store):
    begin(store)
    with refused("RNM-LEDGER-0002"):
        store.add_cosignatures([cosignature(3, "a")])
    assert store.cosigned_sizes() == []


def test_the_newest_cosigned_size_comes_first(store):
    growth = begin(store)
    for size in range(1, 12):
        growth.write(store, texts(size - 1, size))
        if size in {2, 9, 11}:
            store.add_cosignatures([cosignature(size, "a"), cosignature(size, "b", key_id=b"1234")])
    assert store.cosigned_sizes() == [11, 9, 2]


def test_entries_are_found_by_type_actor_and_run(store):
    growth = begin(store)
    growth.write(store, texts(0, 2), type="a", actor="nec", run="r1")
    growth.write(store, texts(2, 62), type="b", actor="nec", run="r1")
    growth.write(store, texts(62, 63), type="a", actor="sony", run="r2")
    assert store.find_entries() == list(range(63))
    assert store.find_entries(kind="a") == [0, 1, 62]
    assert store.find_entries(actor="nec", kind="a") == [0, 1]
    assert store.find_entries(run="r1", kind="b") == list(range(2, 62))
    assert store.find_entries(run="r2", actor="nec") == []
    assert store.find_entries(kind="a' OR '1'='1") == []


@pytest.mark.parametrize("table", ["entry", "checkpoint"])
@pytest.mark.parametrize("verb", ["UPDATE", "DELETE", "TRUNCATE"])
def test_an_entry_and_a_checkpoint_are_neither_changed_nor_deleted(store, place, table, verb):
    # SQLite does not know the word; its DELETE without WHERE is the same act.
    why = "append-only" if place.truncates or verb != "TRUNCATE" else "syntax error"
    growth = begin(store)
    growth.write(store, texts(0, 60))
    before = everything(place)
    column = "received_at" if table == "entry" else "created_at"
    statement = {
        "UPDATE": f"UPDATE {table} SET {column} = 1",
        "DELETE": f"DELETE FROM {table}",
        "TRUNCATE": f"TRUNCATE {table} CASCADE",
    }[verb]
    with pytest.raises(REFUSED, match=why):
        place.dba(statement)
    assert everything(place) == before


@pytest.mark.parametrize("dropped", [True, False])
def test_the_guards_come_back_with_the_next_opening(store, place, dropped):
    begin(store)
    store.close()
    if dropped and isinstance(place, PostgresPlace):
        place.dba("DROP FUNCTION renmei_append_only CASCADE")
    else:
        place.disarm()
    again = place.open()
    Growth(NEW, RightEdge()).write(again, texts(0, 1))
    again.close()
    with pytest.raises(REFUSED, match="append-only"):
        place.dba("DELETE FROM entry")


def test_a_second_store_is_refused_and_the_first_goes_on(store, place):
    growth = begin(store)
    growth.write(store, texts(0, 3))
    for _ in range(2):
        with refused("RNM-LEDGER-0005") as caught:
            place.open()
        assert caught.value.exit is Exit.CONFLICT
    growth.write(store, texts(3, 4))
    store.close()
    again = place.open()
    assert again.head() == growth.head
    again.close()


def test_readers_wait_for_no_writer(store):
    """While a batch is half written, they see the last whole one."""
    growth = begin(store)
    growth.write(store, texts(0, 3))
    seen = []
    with store._transaction() as cursor:
        store._swap_head(cursor, growth.head, replace(growth.head, size=9))

        def read():
            seen.append((store.head(), store.entries(0, 9), store.find_entries(kind="x")))

        readers = [threading.Thread(target=read) for _ in range(8)]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join(10)
        assert seen == [(growth.head, texts(0, 3), [0, 1, 2])] * 8
        store._swap_head(cursor, replace(growth.head, size=9), growth.head)


def test_a_reader_cannot_write(store):
    begin(store)
    with pytest.raises(Exception, match=r"readonly|read-only"), store._reader.begin() as reader:
        reader.exec_driver_sql("DELETE FROM log")
    assert store.head() == NEW


def test_writers_of_one_store_take_turns(store):
    growth = begin(store)
    growth.write(store, texts(0, 1))
    faults = []

    def cosign(number):
        try:
            store.add_cosignatures([cosignature(1, str(number), key_id=bytes([number] * 4))])
        except LocalFault as fault:
            faults.append(fault)

    threads = [threading.Thread(target=cosign, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    growth.write(store, texts(1, 200))
    for thread in threads:
        thread.join()
    assert not faults
    assert len(store.cosignatures(1)) == 20
    assert store.head().size == 200


def test_one_store_does_not_hinder_another_database(store, place, tmp_path):
    begin(store)
    other = (
        SqlitePlace(tmp_path / "other.db")
        if isinstance(place, SqlitePlace)
        else PostgresPlace(place.server)
    ).open()
    assert other.head() is None
    other.close()


def test_both_databases_hold_the_same_rows(tmp_path, postgres):
    places = SqlitePlace(tmp_path / "ledger.db"), PostgresPlace(postgres)
    found = []
    for each in places:
        opened = each.open()
        growth = begin(opened)
        growth.write(opened, texts(0, 10))
        growth.write(opened, texts(10, 400))
        opened.add_cosignatures([cosignature(10, "a")])
        opened.close()
        found.append(everything(each))
    assert found[0] == found[1]


def test_a_store_takes_a_path_or_the_url_of_a_database_that_it_knows(tmp_path):
    for url in ("mysql://ledger@db/ledger", "postgresql+asyncpg://ledger@db/ledger", "ledger.db"):
        with refused("RNM-CONF-0001"):
            Store(url)
    Store(f"sqlite:///{tmp_path}/ledger.db").close()
    assert (tmp_path / "ledger.db").exists()
