"""Re-hashing: finds which entry, tile or root differs from what the log signed.

Decides where the difference lies, which a bare comparison of roots cannot. Trusts only the tree head
that it is given, whose signature the caller verified. Pure.
"""

from collections.abc import Callable
from typing import NoReturn

from audit import merkle, tiles
from audit.checkpoint import TreeHead
from audit.faults import changed_entry, unverified

# (n, width) to the bytes of that entry bundle.
BundleSource = Callable[[int, int], bytes]


def check_tree(head: TreeHead, tile: tiles.TileSource, bundle: BundleSource) -> list[bytes]:
    """Return the entries, each verified up to the signed root; tiles have exactly the tree's width.

    Raises:
        LocalFault: RNM-LEDGER-0003 naming the first changed entry; RNM-LEDGER-0001 naming a tile.
    """
    hashes = _leaf_tiles(head.size, tile)
    if merkle.root_of(hashes).hex() != head.root:
        _refuse_tiles(head, bundle, hashes)
    entries = _entries(head.size, bundle, hashes)
    _check_upper_tiles(head.size, tile, hashes)
    return entries


def _leaf_tiles(size: int, tile: tiles.TileSource) -> list[bytes]:
    hashes: list[bytes] = []
    for n, width in tiles.widths(size):
        hashes += tiles.split_hashes(_sized(tile, tiles.TileId(level=0, n=n, width=width)))
    return hashes


def _sized(tile: tiles.TileSource, wanted: tiles.TileId) -> bytes:
    data = tile(wanted.level, wanted.n)
    # Bytes that lead to no root would be carried along as if they were verified.
    if len(data) != wanted.width * merkle.HASH_BYTES:
        raise unverified(
            "the ledger was refused",
            f"{wanted.path} is missing or cut, or bytes follow its {wanted.width} hashes",
        )
    return data


def _entries(size: int, bundle: BundleSource, hashes: list[bytes]) -> list[bytes]:
    entries: list[bytes] = []
    for n, width in tiles.widths(size):
        first = n * tiles.WIDTH
        for entry in tiles.decode_bundle(bundle(n, width), first=first, width=width):
            index = len(entries)
            if merkle.leaf_hash(entry) != hashes[index]:
                raise changed_entry(index, "its hash is not the one under the signed root")
            entries.append(entry)
    return entries


def _refuse_tiles(head: TreeHead, bundle: BundleSource, hashes: list[bytes]) -> NoReturn:
    """Say what differs when the tiles do not lead to the signed root."""
    found: list[bytes] = []
    for n, width in tiles.widths(head.size):
        data = bundle(n, width)
        first = n * tiles.WIDTH
        found += map(merkle.leaf_hash, tiles.decode_bundle(data, first=first, width=width))
    differing = [i for i, (a, b) in enumerate(zip(found, hashes, strict=True)) if a != b]
    if merkle.root_of(found).hex() == head.root:
        n, item = divmod(differing[0], tiles.WIDTH)
        raise unverified(
            "a hash tile was changed",
            f"item {item} of {tiles.tile_path(0, n)} is not the hash of entry {differing[0]}, "
            "and the entries lead to the signed root",
        )
    where = f"; first at entry {differing[0]}" if differing else ""
    raise unverified(
        "the ledger was refused",
        f"neither its entries nor its tiles lead to the signed root of size {head.size}{where}",
    )


def _check_upper_tiles(size: int, tile: tiles.TileSource, hashes: list[bytes]) -> None:
    level = hashes
    for wanted in tiles.hash_tiles(size):
        if wanted.level == 0:
            continue
        if wanted.n == 0:
            full = len(level) // tiles.WIDTH
            level = [
                tiles.tile_root(b"".join(level[i * tiles.WIDTH : (i + 1) * tiles.WIDTH]))
                for i in range(full)
            ]
        start = wanted.n * tiles.WIDTH
        if _sized(tile, wanted) != b"".join(level[start : start + wanted.width]):
            raise unverified(
                "a hash tile was changed",
                f"{wanted.path} does not hold the roots of the tiles below it",
            )
