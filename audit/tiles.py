"""Tiles: how the tree and its entries lie in files, and how any hash is read back from them.

Decides paths and contents. Trusts nothing of what it reads: callers hash it up to a signed root.
Implements C2SP tlog-tiles (tiles of 256 hashes, entry bundles with 16-bit lengths). Pure.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from audit import merkle
from audit.faults import changed_entry, unverified

WIDTH = 256
TILE_HEIGHT = 8
MAX_ENTRY = 65_535
# A proof leads through two tiles of a level at most, and a tree of 2^64 leaves has eight levels.
_OF_A_PROOF = 16

# (level, n) to the bytes of that hash tile, at least as wide as the tree needs.
TileSource = Callable[[int, int], bytes]


def number_path(n: int) -> str:
    """Return a tile number in groups of three digits: 1234067 is x001/x234/067."""
    text = f"{n % 1000:03d}"
    while n >= 1000:
        n //= 1000
        text = f"x{n % 1000:03d}/{text}"
    return text


def tile_path(level: int, n: int, width: int = WIDTH) -> str:
    """Return the path of a hash tile."""
    return _path(f"tile/{level}", n, width)


def bundle_path(n: int, width: int = WIDTH) -> str:
    """Return the path of an entry bundle."""
    return _path("tile/entries", n, width)


def _path(folder: str, n: int, width: int) -> str:
    return f"{folder}/{number_path(n)}" + (f".p/{width}" if width < WIDTH else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class TileId:
    """A hash tile of a tree of a given size; `width` is 1 to 256."""

    level: int
    n: int
    width: int

    @property
    def path(self) -> str:
        """Where the tile lies."""
        return tile_path(self.level, self.n, self.width)


def widths(count: int) -> Iterator[tuple[int, int]]:
    """Yield (n, width) of the tiles that hold `count` items."""
    for n in range(count // WIDTH):
        yield n, WIDTH
    if count % WIDTH:
        yield count // WIDTH, count % WIDTH


def hash_tiles(size: int) -> Iterator[TileId]:
    """Yield every hash tile of a tree, level by level; a level above holds full tiles only."""
    level = 0
    while size:
        for n, width in widths(size):
            yield TileId(level=level, n=n, width=width)
        size //= WIDTH
        level += 1


def encode_bundle(entries: Sequence[bytes]) -> bytes:
    """Return an entry bundle: each entry after its length."""
    if any(len(entry) > MAX_ENTRY for entry in entries):
        raise ValueError(f"an entry is longer than {MAX_ENTRY} bytes")
    return b"".join(len(entry).to_bytes(2, "big") + entry for entry in entries)


def decode_bundle(data: bytes, *, first: int, width: int) -> Iterator[bytes]:
    """Yield the entries of a bundle of exactly `width`.

    Raises:
        LocalFault: RNM-LEDGER-0003 naming the first entry that is cut, or the last if bytes follow it.
    """
    offset = 0
    for index in range(first, first + width):
        if offset + 2 > len(data):
            raise changed_entry(index, "its bundle ends before it")
        end = offset + 2 + int.from_bytes(data[offset : offset + 2], "big")
        if end > len(data):
            raise changed_entry(index, "its bundle ends within it")
        yield data[offset + 2 : end]
        offset = end
    if offset != len(data):
        raise changed_entry(first + width - 1, "bytes follow it in its bundle")


def tile_root(tile: bytes) -> bytes:
    """Return the root over the hashes of a full, aligned piece of a tile."""
    level = split_hashes(tile)
    while len(level) > 1:
        level = [merkle.node_hash(level[i], level[i + 1]) for i in range(0, len(level), 2)]
    return level[0]


def split_hashes(tile: bytes) -> list[bytes]:
    """Return the hashes of a tile."""
    step = merkle.HASH_BYTES
    return [tile[i : i + step] for i in range(0, len(tile), step)]


def node_reader(source: TileSource) -> merkle.Nodes:
    """Return the tree's nodes as read from tiles, for one proof: most of its nodes share a tile."""
    read = lru_cache(_OF_A_PROOF)(source)

    def node(height: int, index: int) -> bytes:
        level, inner = divmod(height, TILE_HEIGHT)
        first = index << inner
        tile = read(level, first // WIDTH)
        start = (first % WIDTH) * merkle.HASH_BYTES
        piece = tile[start : start + (merkle.HASH_BYTES << inner)]
        if len(piece) != merkle.HASH_BYTES << inner:
            raise unverified(
                "a hash could not be read", f"tile {tile_path(level, first // WIDTH)} is too short"
            )
        return tile_root(piece)

    return node


@dataclass(frozen=True, slots=True, kw_only=True)
class Grown:
    """What a batch of leaves makes of a tree; nothing is kept until `RightEdge.accept`."""

    size: int
    frontier: merkle.Frontier
    tiles: dict[tuple[int, int], bytearray]
    created: frozenset[tuple[int, int]]

    @property
    def root(self) -> bytes:
        """The new root."""
        return merkle.frontier_root(self.frontier)


class RightEdge:
    """The unfinished tiles of a tree, to which leaves are added in batches."""

    def __init__(self) -> None:
        self.size = 0
        self._frontier: merkle.Frontier = ()
        self._open: dict[int, bytearray] = {}

    @property
    def root(self) -> bytes:
        """The root of the leaves accepted so far."""
        return merkle.frontier_root(self._frontier)

    def grow(self, leaves: Sequence[bytes]) -> Grown:
        """Return the tree with `leaves` added, without changing this one."""
        peaks, size = list(self._frontier), self.size
        tiles: dict[tuple[int, int], bytearray] = {}
        created: set[tuple[int, int]] = set()
        for leaf in leaves:
            self._place(0, size, leaf, tiles, created)
            # What `merkle.extend` does; on its way up it meets the root of each tile that is full.
            value, height = leaf, 0
            while size >> height & 1:
                value, height = merkle.node_hash(peaks.pop(), value), height + 1
                if height % TILE_HEIGHT == 0:
                    self._place(height // TILE_HEIGHT, size >> height, value, tiles, created)
            peaks.append(value)
            size += 1
        return Grown(size=size, frontier=tuple(peaks), tiles=tiles, created=frozenset(created))

    def _place(
        self,
        level: int,
        index: int,
        value: bytes,
        tiles: dict[tuple[int, int], bytearray],
        created: set[tuple[int, int]],
    ) -> None:
        key = (level, index // WIDTH)
        tile = tiles.get(key)
        if tile is None:
            fresh = index % WIDTH == 0
            tile = tiles[key] = bytearray() if fresh else bytearray(self._open[level])
            if fresh:
                created.add(key)
        tile += value

    def accept(self, grown: Grown) -> None:
        """Make a batch part of the tree, once it is durable."""
        self.size, self._frontier = grown.size, grown.frontier
        for (level, n), tile in grown.tiles.items():
            if n == self.size // WIDTH ** (level + 1):
                self._open[level] = tile
