"""One process at a time in a directory: an fcntl lock that ends with its process.

Decides who writes. Trusts the kernel of this machine; across machines the head's epoch decides.
"""

import fcntl
import os
from pathlib import Path
from typing import Self

from fedproto.durable import disk_fault
from fedproto.errors import LocalFault


class DirectoryLock:
    """Held from `take` to `release`, or while used as a context."""

    def __init__(
        self, directory: Path, *, code: str = "RNM-LEDGER-0005", name: str = "lock"
    ) -> None:
        self._path = directory / name
        self._code = code
        self._handle: int | None = None

    def take(self) -> None:
        """Take the lock; raise its code (RNM-LEDGER-0005) if another process holds it."""
        try:
            handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise disk_fault(self._path, error) from None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(handle)
            raise LocalFault(
                self._code,
                what=f"{self._path.parent} was not opened",
                why="another process holds its lock",
                mend="stop the other process, or wait until it has ended; do not remove the lock",
            ) from None
        self._handle = handle

    def release(self) -> None:
        """Give the lock back."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def __enter__(self) -> Self:
        self.take()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
