"""The corpus lock: which packages the corpora are read from, by version and SHA-256.

Decides nothing about text. Trusts only files whose digest is the lock's.
"""

import tomllib
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from fedproto.errors import LocalFault
from fedproto.ids import Digest, is_digest, sha256_hex

LOCK = Path(__file__).with_name("corpus.lock")


class Index(Enum):
    """Where a package comes from."""

    PIP = "pip"
    PIP_SDIST = "pip-sdist"
    APT = "apt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One package: where it comes from, its licence, and which of its files are read, by what."""

    name: str
    version: str
    filename: str
    bytes: int
    sha256: Digest
    index: Index
    licence: str
    domain: str
    reader: str
    globs: tuple[str, ...]

    def __post_init__(self) -> None:
        plain = self.filename and "/" not in self.filename and not self.filename.startswith(".")
        # What begins with "-" would be an option of pip or apt.
        words = not any(word.startswith("-") or " " in word for word in (self.name, self.version))
        if not (is_digest(self.sha256) and plain and words and self.globs and self.licence):
            raise ValueError(
                f"{self.name} needs a digest, a licence, a plain file name, a version and globs"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock:
    """All sources, in file order, and the digest of the lock itself."""

    sources: tuple[Source, ...]
    digest: Digest

    def of(self, domain: str) -> tuple[Source, ...]:
        """Return the sources of a domain."""
        return tuple(source for source in self.sources if source.domain == domain)


def read_lock(path: Path = LOCK) -> Lock:
    """Read the lock that ships with Renmei, or another one; raise RNM-DATA-0002 if it is damaged."""
    try:
        raw = path.read_bytes()
        entries = tomllib.loads(raw.decode())["source"]
        sources = tuple(_source(entry) for entry in entries)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LocalFault(
            "RNM-DATA-0002",
            what=f"the corpus lock {path} was not used",
            why=f"{type(error).__name__}: {error}",
            mend="put back the file that came with Renmei; it is checked in",
        ) from None
    return Lock(sources=sources, digest=sha256_hex(raw))


def _source(entry: dict[str, Any]) -> Source:
    return Source(**{**entry, "index": Index(entry["index"]), "globs": tuple(entry["globs"])})
