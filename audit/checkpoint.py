"""Checkpoints: a log's signed statement of its size and root.

Decides which size and root a log's key stands for. Trusts only the verifier key that is passed in.
Implements C2SP tlog-checkpoint without extension lines. Pure.
"""

from dataclasses import dataclass

from audit import note
from audit.checkpoint_body import Body, read_body
from audit.faults import unverified
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
        body = Body(origin=self.origin, size=self.head.size, root=self.head.root_bytes)
        return body.encode()


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
    body = read_body(text)
    return Checkpoint(body.origin, TreeHead(body.size, Digest(body.root.hex())))


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
