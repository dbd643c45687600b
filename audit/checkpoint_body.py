"""A checkpoint's body: origin, size and root as the text that a log signs.

Decides the one spelling of a body. Trusts nothing: signatures are judged elsewhere. Implements the text
of C2SP tlog-checkpoint without extension lines. Pure.
"""

import base64
from dataclasses import dataclass

from audit.faults import unverified

ROOT_BYTES = 32
# No log is that long, and no reader must hold more.
MAX_SIZE_DIGITS = 18


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """What the three lines say."""

    origin: str
    size: int
    root: bytes

    def encode(self) -> bytes:
        """Return the text that `read_body` reads."""
        root = base64.b64encode(self.root).decode("ascii")
        return f"{self.origin}\n{self.size}\n{root}\n".encode()


def read_body(text: bytes) -> Body:
    """Read a body strictly: every accepted input is what `Body.encode` writes.

    Raises:
        LocalFault: RNM-LEDGER-0001.
    """
    lines = text.decode("utf-8", "replace").split("\n")
    if len(lines) != 4 or lines[3] or not lines[0]:
        raise _malformed("it is not origin, size and root")
    origin, size, root, _ = lines
    if not (size.isascii() and size.isdigit()) or len(size) > MAX_SIZE_DIGITS:
        raise _malformed("its size is not a number")
    try:
        root_bytes = base64.b64decode(root, validate=True)
    except ValueError:
        raise _malformed("its root is not base64") from None
    if len(root_bytes) != ROOT_BYTES:
        raise _malformed(f"its root is not {ROOT_BYTES} bytes long")
    body = Body(origin=origin, size=int(size), root=root_bytes)
    # A leading zero or spare base64 bits would be a second spelling.
    if body.encode() != text:
        raise _malformed("it is not in canonical form")
    return body


def _malformed(why: str) -> Exception:
    return unverified("a checkpoint was refused", why)
