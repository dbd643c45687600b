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
from fedproto.durable import make_private_directory, write_atomic
from fedproto.ids import Digest

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
