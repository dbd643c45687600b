"""Paths and contents of tiles, as C2SP tlog-tiles has them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit import merkle, tiles
from audit.checkpoint import TreeHead
from audit.tree_check import check_tree
from fedproto.errors import LocalFault


@pytest.mark.parametrize(
    ("n", "path"),
    [(0, "000"), (7, "007"), (999, "999"), (1000, "x001/000"), (1234067, "x001/x234/067")],
)
def test_numbers_are_grouped_in_threes(n, path):
    assert tiles.number_path(n) == path


def test_the_tiles_of_seventy_thousand_entries_are_those_of_the_specification():
    last = {}
    for tile in tiles.hash_tiles(70_000):
        last[tile.level] = (tile.n, tile.width, tile.path)
    assert last == {
        0: (273, 112, "tile/0/273.p/112"),
        1: (1, 17, "tile/1/001.p/17"),
        2: (0, 1, "tile/2/000.p/1"),
    }


@given(st.lists(st.integers(1, 300), min_size=1, max_size=5))
def test_batches_of_any_size_make_the_same_tiles(batches):
    leaves = [merkle.leaf_hash(b"%d" % i) for i in range(sum(batches))]
    whole = tiles.RightEdge().grow(leaves)
    edge, kept, start = tiles.RightEdge(), {}, 0
    for count in batches:
        grown = edge.grow(leaves[start : start + count])
        # A tile is created once, and afterwards only widened.
        assert grown.created == grown.tiles.keys() - kept.keys()
        kept |= grown.tiles
        edge.accept(grown)
        start += count
    assert kept == whole.tiles
    assert edge.root == whole.root == merkle.root_of(leaves)


def test_growing_without_accepting_changes_nothing():
    edge = tiles.RightEdge()
    edge.accept(edge.grow([merkle.leaf_hash(b"a")]))
    root = edge.root
    edge.grow([merkle.leaf_hash(b"b")] * 300)
    assert (edge.size, edge.root) == (1, root)
    assert edge.grow([merkle.leaf_hash(b"c")]).root == merkle.root_of(
        [merkle.leaf_hash(b"a"), merkle.leaf_hash(b"c")]
    )


def test_entries_up_to_the_limit_fit_a_bundle_and_one_more_byte_does_not():
    entries = [b"", b"x" * 65_535]
    data = tiles.encode_bundle(entries)
    assert list(tiles.decode_bundle(data, first=0, width=2)) == entries
    with pytest.raises(ValueError, match="longer"):
        tiles.encode_bundle([b"x" * 65_536])


class Log:
    """A log of `size` entries in memory, whose files a test may change."""

    def __init__(self, size):
        self.entries = [b"entry %d" % i for i in range(size)]
        grown = tiles.RightEdge().grow([merkle.leaf_hash(e) for e in self.entries])
        self.tiles = {key: bytes(value) for key, value in grown.tiles.items()}
        self.bundles = {
            n: tiles.encode_bundle(self.entries[n * 256 : n * 256 + width])
            for n, width in tiles.widths(size)
        }
        self.head = TreeHead(size, grown.root.hex())

    def check(self):
        return check_tree(
            self.head,
            lambda level, n: self.tiles.get((level, n), b""),
            lambda n, width: self.bundles.get(n, b""),
        )

    def refused(self):
        with pytest.raises(LocalFault) as caught:
            self.check()
        return caught.value


def flip(data, at):
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@pytest.mark.parametrize("size", [1, 3, 255, 256, 257, 600])
def test_a_whole_log_is_found_whole(size):
    log = Log(size)
    assert log.check() == log.entries


@given(st.integers(0, 599), st.data())
def test_a_changed_entry_is_named_whatever_byte_of_it_changed(index, data):
    log = Log(600)
    n, place = divmod(index, 256)
    start = sum(2 + len(entry) for entry in log.entries[n * 256 : n * 256 + place])
    at = start + data.draw(st.integers(0, 1 + len(log.entries[index])))
    log.bundles[n] = flip(log.bundles[n], at)
    fault = log.refused()
    assert fault.code == "RNM-LEDGER-0003"
    assert fault.what == f"entry {index} was changed"


@pytest.mark.parametrize("key", [(0, 0), (0, 2), (1, 0)])
def test_a_changed_tile_is_named_and_no_entry_is_accused(key):
    log = Log(600)
    log.tiles[key] = flip(log.tiles[key], 40)
    fault = log.refused()
    assert fault.code == "RNM-LEDGER-0001"
    assert fault.what == "a hash tile was changed"
    assert tiles.tile_path(*key) in fault.why


def test_entries_and_tiles_changed_together_do_not_pass_the_signed_root():
    log, other = Log(10), Log(11)
    log.bundles = {0: flip(log.bundles[0], 3)}
    entries = list(tiles.decode_bundle(log.bundles[0], first=0, width=10))
    log.tiles = {(0, 0): b"".join(merkle.leaf_hash(entry) for entry in entries)}
    assert "neither its entries nor its tiles" in log.refused().why
    log = Log(10)
    log.head = other.head
    assert log.refused().code == "RNM-LEDGER-0001"


def test_bytes_after_the_last_entry_are_refused():
    log = Log(5)
    log.bundles[0] += b"x"
    assert log.refused().code == "RNM-LEDGER-0003"


def test_a_proof_reads_no_tile_twice():
    size = 70_000
    grown = tiles.RightEdge().grow([merkle.leaf_hash(b"%d" % i) for i in range(size)])
    read = []

    def source(level, n):
        read.append((level, n))
        return bytes(grown.tiles[level, n])

    for at in (1, 255, 65_535, 65_536, size - 1):
        for prove in (merkle.prove_inclusion, merkle.prove_consistency):
            read.clear()
            prove(tiles.node_reader(source), at, size)
            assert 0 < len(read) == len(set(read))
