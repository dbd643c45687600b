"""Files that survive `kill -9`: absent or complete, never half written; keys only for their owner.

A shell module: touches the file system. Never shows a file's content in an error.
"""

import contextlib
import errno
import os
from pathlib import Path

from fedproto.errors import LocalFault

PRIVATE_FILE = 0o600
PRIVATE_DIR = 0o700


def disk_fault(path: Path, error: OSError) -> LocalFault:
    """Name what went wrong when a file could not be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return LocalFault(
            "RNM-DISK-0001",
            what=f"{path} could not be written",
            why="the file system has no room left",
            mend=f"free space on the file system of {path.parent}, then run the command again; "
            "nothing was half written",
        )
    return LocalFault(
        "RNM-CONF-0001",
        what=f"{path} could not be written",
        why=os.strerror(error.errno or 0),
        mend=f"make {path.parent} a directory that this user may write",
    )


def sync_directory(path: Path) -> None:
    """Make a rename or unlink in a directory durable."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomic(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Write a file so that a crash leaves the old content or the new; raise RNM-DISK-0001."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode)
        try:
            os.fchmod(handle, mode)
            view = memoryview(data)
            while view:
                view = view[os.write(handle, view) :]
            os.fsync(handle)
        finally:
            os.close(handle)
        os.replace(temporary, path)
        sync_directory(path.parent)
    except OSError as error:
        # The cleaning up may fail as well (a parent that is no directory); the first error counts.
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise disk_fault(path, error) from None


def make_private_directory(path: Path) -> None:
    """Create a directory that only its owner may enter (0700)."""
    try:
        path.mkdir(mode=PRIVATE_DIR, parents=True, exist_ok=True)
        path.chmod(PRIVATE_DIR)
    except OSError as error:
        raise disk_fault(path, error) from None


def read_private(path: Path) -> bytes:
    """Read a key file; refuse one that is missing, or open to group or others (T43)."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        raise LocalFault(
            "RNM-KEY-0001",
            what=f"key file {path} was not found",
            why="this node was not set up here, or the file was moved",
            mend="set the directory with --dir, or run the `init` command of this party",
        ) from None
    except OSError as error:
        raise LocalFault(
            "RNM-KEY-0003",
            what=f"key file {path} cannot be opened",
            why=os.strerror(error.errno or 0),
            mend="restore it from your own backup; a key file is a plain file of its owner",
        ) from None
    with os.fdopen(handle, "rb") as file:
        status = os.fstat(file.fileno())
        if status.st_mode & 0o077:
            raise LocalFault(
                "RNM-KEY-0002",
                what=f"key file {path} was not used",
                why=f"its mode is {status.st_mode & 0o777:04o}: others on this machine may read it",
                mend=f"run: chmod 600 {path}   (and replace the key if others had access)",
            )
        return file.read()
