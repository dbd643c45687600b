"""Identifiers and digests: their one spelling, and domain-separated hashing.

Decides what a well-formed identifier is. Pure.
"""

import hashlib
import re
from typing import NewType

MemberId = NewType("MemberId", str)
RunId = NewType("RunId", str)
Digest = NewType("Digest", str)
KeyId = NewType("KeyId", str)

ZERO_DIGEST = Digest("0" * 64)

_MEMBER = re.compile(r"[a-z][a-z0-9-]{0,30}")
_HEX32 = re.compile(r"[0-9a-f]{32}")
_HEX64 = re.compile(r"[0-9a-f]{64}")


def is_member_id(text: str) -> bool:
    """Say whether `text` spells a member: lower case, digits and hyphens, at most 31."""
    return _MEMBER.fullmatch(text) is not None


def is_run_id(text: str) -> bool:
    """Say whether `text` spells a 128-bit identifier in lower-case hex."""
    return _HEX32.fullmatch(text) is not None


def is_digest(text: str) -> bool:
    """Say whether `text` spells a SHA-256 digest in lower-case hex."""
    return _HEX64.fullmatch(text) is not None


def sha256_hex(data: bytes) -> Digest:
    """Return the SHA-256 of `data` in hex; for files and ledger leaves, whose formats are fixed."""
    return Digest(hashlib.sha256(data).hexdigest())


def tagged_hash(tag: str, *parts: bytes | memoryview | int) -> bytes:
    """Return SHA-256 over a domain tag and length-prefixed parts.

    Each part, the tag first, is preceded by its length as eight big-endian bytes, so no two
    different lists of parts hash the same input. Integers are eight big-endian bytes.
    """
    state = hashlib.sha256()
    for part in (tag.encode("ascii"), *parts):
        data = part.to_bytes(8, "big") if isinstance(part, int) else part
        state.update(len(data).to_bytes(8, "big"))
        state.update(data)
    return state.digest()
