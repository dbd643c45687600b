"""Chunks of masked uploads on disk, so that the coordinator's memory doesn't grow with the cohort.

Decides where a chunk lies: one sparse file a member, of its owner alone. Sees only masked words.
Nothing is synced to disk and nothing survives: after a crash of the coordinator the attempt is void, and
the next one starts with other keys. What a killed process left is removed before the next attempt. A
shell module.
"""

import os
import shutil
from pathlib import Path
from types import TracebackType
from typing import Self

from fedproto.durable import PRIVATE_DIR, PRIVATE_FILE, disk_fault
from fedproto.errors import LocalFault
from fedproto.ids import MemberId
from fedproto.secagg.params import UPLOAD_CHUNK_BYTES

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Spool:
    """The uploads of one attempt in a directory that is the attempt's alone."""

    def __init__(self, directory: Path) -> None:
        """Begin empty; raise RNM-DISK-0001 or RNM-CONF-0001."""
        self._directory = directory
        self._files: dict[MemberId, int] = {}
        self._opened = 0
        try:
            if directory.exists():
                shutil.rmtree(directory)
            directory.mkdir(mode=PRIVATE_DIR, parents=True)
        except OSError as error:
            raise disk_fault(directory, error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def write(self, member: MemberId, index: int, data: bytes) -> None:
        """Keep a chunk; raise RNM-DISK-0001 or RNM-CONF-0001."""
        try:
            self._write(self._file(member), index * UPLOAD_CHUNK_BYTES, data)
        except OSError as error:
            raise disk_fault(self._directory, error) from error

    def read(self, member: MemberId, index: int, size: int) -> bytes:
        """Return a chunk that was kept; raise RNM-CONF-0001 if it cannot be read."""
        try:
            return os.pread(self._files[member], size, index * UPLOAD_CHUNK_BYTES)
        except (OSError, KeyError) as error:
            # A late reader may ask for what is gone: the attempt is over.
            errno = error.errno if isinstance(error, OSError) else 0
            raise LocalFault(
                "RNM-CONF-0001",
                what=f"a chunk of {member} could not be read from {self._directory}",
                why=os.strerror(errno) if errno else "it is not kept any more",
                mend="check the file system; the round is tried again with a new attempt",
            ) from error

    def forget(self, member: MemberId) -> None:
        """Give back the room that a member's chunks take."""
        handle = self._files.pop(member, None)
        if handle is not None:
            os.ftruncate(handle, 0)
            os.close(handle)

    def close(self) -> None:
        """Remove everything."""
        for member in list(self._files):
            self.forget(member)
        shutil.rmtree(self._directory, ignore_errors=True)

    def _file(self, member: MemberId) -> int:
        handle = self._files.get(member)
        if handle is None:
            # Numbered: no member's name ever becomes part of a path.
            path = self._directory / f"{self._opened}.masked"
            handle = os.open(path, _FLAGS, PRIVATE_FILE)
            self._opened += 1
            self._files[member] = handle
        return handle

    @staticmethod
    def _write(handle: int, offset: int, data: bytes) -> None:
        view = memoryview(data)
        while view:
            written = os.pwrite(handle, view, offset)
            view, offset = view[written:], offset + written
