"""Checkpoints: a log's signed statement of its size and root.

Decides which size and root a log's key stands for. Trusts only the verifier key that is passed in.
Implements C2SP tlog-checkpoint without extension lines. Pure.
"""

import base64
from dataclasses import dataclass

from audit import note
from audit.faults import unverified
from audit.merkle import HASH_BYTES
from fedproto.ids import Digest


@dataclass(frozen=True, slots=True)
class TreeHead:
    """The size and root (hex) of a tree."""

    size: int
    root: Digest

    @property
    def root_bytes(self) -> bytes:
        """The root as 32 bytes."""
        return bytes.fromhex(self.root)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a checkpoint says; `origin` names the log."""

    origin: str
    head: TreeHead

    @property
    def text(self) -> bytes:
        """The signed text."""
        root = base64.b64encode(self.head.root_bytes).decode("ascii")
        return f"{self.origin}\n{self.head.size}\n{root}\n".encode()


@dataclass(frozen=True, slots=True)
class SignedCheckpoint:
    """A checkpoint whose log signature was verified, and the note that carries it."""

    checkpoint: Checkpoint
    note: note.Note

    @property
    def head(self) -> TreeHead:
        """Its tree head."""
        return self.checkpoint.head


def sign(checkpoint: Checkpoint, log_key: note.NoteSigner) -> bytes:
    """Return the checkpoint as a note that the log signed."""
    return note.Note(checkpoint.text, (log_key.sign(checkpoint.text),)).encode()


def read_text(text: bytes) -> Checkpoint:
    """Read a checkpoint's text without any signature; raise RNM-LEDGER-0001."""
    lines = text.decode("utf-8", "replace").split("\n")
    if len(lines) != 4 or lines[3] or not lines[0]:
        raise _malformed("it is not origin, size and root")
    origin, size, root, _ = lines
    if not (size.isascii() and size.isdigit()) or len(size) > 18:
        raise _malformed("its size is not a number")
    try:
        root_bytes = base64.b64decode(root, validate=True)
    except ValueError:
        raise _malformed("its root is not base64") from None
    if len(root_bytes) != HASH_BYTES:
        raise _malformed(f"its root is not {HASH_BYTES} bytes long")
    checkpoint = Checkpoint(origin, TreeHead(int(size), Digest(root_bytes.hex())))
    # A leading zero or spare base64 bits would be a second spelling.
    if checkpoint.text != text:
        raise _malformed("it is not in canonical form")
    return checkpoint


def open_checkpoint(data: bytes, log: note.NoteVerifier, origin: str) -> SignedCheckpoint:
    """Verify the log's signature, then read.

    Raises:
        LocalFault: RNM-LEDGER-0001.
    """
    parsed = note.parse(data)
    line = parsed.find(log)
    if line is None or log.kind != note.NOTE_TYPE:
        raise unverified(
            "a checkpoint was refused",
            f"the log key {log.vkey.rsplit('+', 1)[0]} did not sign it",
        )
    log.verify(line, parsed.text)
    checkpoint = read_text(parsed.text)
    if checkpoint.origin != origin:
        raise unverified(
            "a checkpoint was refused",
            f"it is of the log {checkpoint.origin!r}, not of {origin!r}",
        )
    return SignedCheckpoint(checkpoint, parsed)


def _malformed(why: str) -> Exception:
    return unverified("a checkpoint was refused", why)
