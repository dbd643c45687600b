"""Read files out of wheels, source archives and Debian packages without unpacking or running them.

Trusts nothing in an archive: names only select, nothing is written to disk. Pure but for reading.
"""

import hashlib
import io
import tarfile
import zipfile
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

_AR_MAGIC = b"!<arch>\n"
_AR_HEADER = 60


def order(name: str) -> bytes:
    """Return what files are sorted by: a digest, so that a capped source is a sample of the whole."""
    return hashlib.sha256(b"renmei/v1/order\0" + name.encode(errors="surrogateescape")).digest()


def files(path: Path, globs: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of the files that a glob matches, in `order`; `*` crosses slashes."""
    if path.suffix in (".whl", ".zip"):
        with zipfile.ZipFile(path) as wheel:
            for name in sorted(wheel.namelist(), key=order):
                if any(fnmatchcase(name, glob) for glob in globs):
                    yield name, wheel.read(name)
    elif path.suffix == ".deb":
        yield from _tar(io.BytesIO(_deb_data(path.read_bytes())), globs)
    else:
        with path.open("rb") as file:
            yield from _tar(io.BytesIO(file.read()), globs)


def _tar(file: io.BytesIO, globs: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
    chosen: dict[str, bytes] = {}
    with tarfile.open(fileobj=file) as archive:
        # Once through from the start: going back in a compressed archive begins it again.
        for member in archive:
            if member.isfile() and any(fnmatchcase(member.name, glob) for glob in globs):
                content = archive.extractfile(member)
                if content is not None:
                    chosen[member.name] = content.read()
    for name in sorted(chosen, key=order):
        yield name, chosen[name]


def _deb_data(data: bytes) -> bytes:
    """Return the data.tar.* member of a Debian package (an `ar` archive)."""
    if not data.startswith(_AR_MAGIC):
        raise ValueError("not a Debian package")
    position = len(_AR_MAGIC)
    while position + _AR_HEADER <= len(data):
        header = data[position : position + _AR_HEADER]
        size = int(header[48:58])
        start = position + _AR_HEADER
        if header.startswith(b"data.tar"):
            return data[start : start + size]
        position = start + size + size % 2
    raise ValueError("a Debian package without data")
