"""A log as files: tiles and entry bundles first, the checkpoint last, each written whole.

Decides the order of writing, so that a reader never finds a checkpoint whose tiles are not there.
Trusts its caller for the contents. Layout: C2SP tlog-tiles; also that of a mirror's directory.
"""

import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from audit import tiles
from fedproto.durable import disk_fault, sync_directory, write_atomic
from fedproto.errors import LocalFault

CHECKPOINT = "checkpoint"


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What is to be published: a note of a size, and where its entries and tiles come from."""

    size: int
    note: bytes
    entries: Callable[[int, int], Sequence[bytes]]
    tile: tiles.TileSource


def publish(root: Path, content: Content, *, after: int) -> None:
    """Bring the files from size `after` to the content's; raise RNM-DISK-0001 or RNM-CONF-0001."""
    for path, data in _files(content, after):
        _write(root / path, data)
    _write(root / CHECKPOINT, content.note)
    _prune(root, content.size, after)


def _files(content: Content, after: int) -> Iterator[tuple[str, bytes]]:
    for n, width in tiles.widths(content.size):
        if n >= after // tiles.WIDTH:
            entries = content.entries(n * tiles.WIDTH, n * tiles.WIDTH + width)
            yield tiles.bundle_path(n, width), tiles.encode_bundle(entries)
    for tile in tiles.hash_tiles(content.size):
        if tile.n >= after // tiles.WIDTH ** (tile.level + 1):
            yield tile.path, content.tile(tile.level, tile.n)[: tile.width * 32]


def _write(path: Path, data: bytes) -> None:
    try:
        if path.is_file() and path.read_bytes() == data:
            return
        missing = [parent for parent in path.parents if not parent.exists()]
        path.parent.mkdir(parents=True, exist_ok=True)
        for parent in missing:
            sync_directory(parent.parent)
    except OSError as error:
        raise disk_fault(path, error) from None
    write_atomic(path, data)


def _prune(root: Path, size: int, after: int) -> None:
    """Remove partial tiles that a full one, or two newer partial ones, replace."""
    count, level = size, 0
    while count:
        span = tiles.WIDTH ** (level + 1)
        for n in range(after // span, size // span + 1):
            folders = [root / (tiles.tile_path(level, n) + ".p")]
            if level == 0:
                folders.append(root / (tiles.bundle_path(n) + ".p"))
            for folder in folders:
                _prune_folder(folder, full=n < count // tiles.WIDTH)
        count, level = count // tiles.WIDTH, level + 1


def _prune_folder(folder: Path, *, full: bool) -> None:
    if not folder.is_dir():
        return
    if full:
        shutil.rmtree(folder, ignore_errors=True)
        return
    try:
        # A reader may hold the checkpoint before this one.
        for path in sorted(folder.iterdir(), key=_width)[:-2]:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise disk_fault(folder, error) from None


class Publisher:
    """Publishes the newest content in a thread of its own; what is asked for meanwhile is merged."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._changed = threading.Condition()
        self._wanted: Content | None = None
        self._stopping = False
        self._size = 0
        # Publishing may lag behind (a full disk); the ledger itself does not depend on it.
        self.fault: LocalFault | None = None
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)
        self._thread.start()

    def request(self, content: Content) -> None:
        """Have a content published; an older one that still waits is skipped."""
        with self._changed:
            self._wanted = content
            self._changed.notify()

    def close(self) -> None:
        """Publish what waits, then stop."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                while self._wanted is None and not self._stopping:
                    self._changed.wait()
                content, self._wanted = self._wanted, None
            if content is None:
                return
            try:
                publish(self._root, content, after=self._size)
            except LocalFault as fault:
                self.fault = fault
            else:
                self.fault, self._size = None, content.size


def _width(path: Path) -> int:
    return int(path.name) if path.name.isdigit() else 0
