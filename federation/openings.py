"""Salted commitments of a party, and what opens them: text and salt, in a file of its owner alone.

Decides what an act may say of a reason or a report: a number that says nothing without the salt, and
nothing at all once the salt is erased. The file is durable before the act is sent. A shell module.
"""

import base64
import hashlib
import hmac
import os
from dataclasses import dataclass, field
from pathlib import Path

from fedproto import jcs
from fedproto.durable import make_private_directory, read_private, sync_directory, write_atomic
from fedproto.errors import LocalFault
from fedproto.ids import Digest
from fedproto.schema import from_json

DIRECTORY = "openings"
_TAG = b"renmei/v1/commit"
_SALT_BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """What opens a commitment; only the number leaves the party's directory."""

    commitment: Digest
    kind: str
    salt: bytes = field(repr=False)
    content: bytes = field(repr=False)


def commitment(salt: bytes, kind: str, content: bytes) -> Digest:
    """Return HMAC-SHA-256 under `salt` of a tag, the kind of content and the content."""
    message = b"\x00".join((_TAG, kind.encode("ascii"), content))
    return Digest(hmac.new(salt, message, hashlib.sha256).hexdigest())


def seal(kind: str, content: bytes) -> Opening:
    """Commit to a content under a fresh salt; nothing is kept yet."""
    salt = os.urandom(_SALT_BYTES)
    made = commitment(salt, kind, content)
    return Opening(commitment=made, kind=kind, salt=salt, content=content)


def keep(root: Path, opening: Opening) -> Path:
    """Keep an opening below a party's directory (0600), durably; return its file."""
    directory = root / DIRECTORY
    make_private_directory(directory)
    path = directory / f"{opening.commitment}.json"
    value: dict[str, jcs.Json] = {
        "commitment": opening.commitment,
        "kind": opening.kind,
        "salt": opening.salt.hex(),
        "content": base64.b64encode(opening.content).decode("ascii"),
    }
    write_atomic(path, jcs.dumps(value), mode=0o600)
    return path


def verify(opening: Opening) -> None:
    """Raise RNM-FORM-0002 unless an opening opens its commitment: what a party shows to an auditor."""
    made = commitment(opening.salt, opening.kind, opening.content)
    if not hmac.compare_digest(made, opening.commitment):
        raise LocalFault(
            "RNM-FORM-0002",
            what=f"commitment {opening.commitment[:16]} was not opened",
            why="its salt, kind and content make another number",
            mend="ask its party for the opening that it kept",
        )


def find(root: Path, name: str) -> Opening:
    """Return the kept opening whose commitment begins with `name`, verified; raise RNM-CONF-0001."""
    paths = [path for path in _files(root) if name and path.stem.startswith(name)]
    if len(paths) != 1:
        raise LocalFault(
            "RNM-CONF-0001",
            what="no commitment was opened",
            why=f"{len(paths)} openings below {root / DIRECTORY} begin with {name[:16]!r}",
            mend="name more of its digits; what was erased cannot be opened by anyone",
        )
    value = jcs.loads(read_private(paths[0]))
    kept = from_json(_Kept, value, paths[0].name)
    opening = Opening(
        commitment=kept.commitment,
        kind=kept.kind,
        salt=bytes.fromhex(kept.salt),
        content=base64.b64decode(kept.content, validate=True),
    )
    verify(opening)
    return opening


def is_kept(root: Path, commitment: Digest) -> bool:
    """Say whether something opens a commitment here; a file that was being erased does not."""
    path = root / DIRECTORY / f"{commitment}.json"
    return path.is_file() and path.read_bytes()[:1] == b"{"


def erase(root: Path, commitment: Digest) -> None:
    """Remove salt and content for good; after it, the commitment on the ledger is linked to nothing.

    The file is overwritten before it is unlinked, so that a copy of the directory made meanwhile
    holds nothing; a disk may keep older blocks, which is for its encryption to cover. What is gone
    already stays gone.
    """
    path = root / DIRECTORY / f"{commitment}.json"
    if not path.is_file():
        return
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.write(b"\0" * size)
        file.flush()
        os.fsync(file.fileno())
    path.unlink()
    sync_directory(path.parent)


def _files(root: Path) -> list[Path]:
    directory = root / DIRECTORY
    return sorted(directory.glob("*.json")) if directory.is_dir() else []


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    """The file's form."""

    commitment: Digest
    kind: str
    salt: str
    content: str
