"""The corpus lock: which packages the corpora are read from, by version and SHA-256.

Decides nothing about text. Trusts only files whose digest is the lock's.
"""

import tomllib
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

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
    sha256: Digest
    index: Index
    licence: str
    domain: str
    reader: str
    globs: tuple[str, ...]

    def __post_init__(self) -> None:
        if not is_digest(self.sha256) or "/" in self.filename or not self.globs:
            raise ValueError(
                f"corpus.lock: {self.name} needs a digest, a plain file name and globs"
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
    """Read the lock that ships with Renmei, or another one."""
    raw = path.read_bytes()
    sources = tuple(
        Source(
            **{
                **entry,
                "index": Index(entry["index"]),
                "globs": tuple(entry["globs"]),
            }
        )
        for entry in tomllib.loads(raw.decode())["source"]
    )
    return Lock(sources=sources, digest=sha256_hex(raw))
