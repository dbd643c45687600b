"""Proof that a key signed two histories of one log: what anyone can verify, offline, against anyone.

Decides whether two signed checkpoints contradict each other. Where their sizes differ, a consistency
proof shows which root the larger tree had at the smaller size. Trusts nothing but the pinned key: the
log's own, or a witness's. One file, canonical JSON. Pure.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from audit import merkle
from audit.checkpoint import TreeHead, read_text
from audit.faults import unverified
from audit.note import Note, NoteVerifier, parse
from fedproto import jcs
from fedproto.ids import Digest, is_digest
from fedproto.schema import from_json, to_json

FORMAT = "renmei/misbehaviour/v1"
MAX_BYTES = 1 << 20
_WHAT = "the evidence was refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """The file: a key, two notes that it signed, and the root that the larger one had before."""

    format: str
    vkey: str
    larger: str
    smaller: str
    root: Digest
    proof: tuple[Digest, ...]

    def __post_init__(self) -> None:
        if self.format != FORMAT:
            raise ValueError(f"its format is {self.format[:40]!r}, not {FORMAT}")
        if not all(is_digest(item) for item in (self.root, *self.proof)):
            raise ValueError("a hash is not 64 hex digits")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What the evidence proves: `key` signed `said`, and `shown` of another history of the log."""

    key: NoteVerifier
    origin: str
    said: TreeHead
    shown: TreeHead
    larger: TreeHead


def pack(vkey: str, larger: bytes, smaller: bytes, root: Digest, proof: Sequence[bytes]) -> bytes:
    """Return the evidence that a key signed both notes, though their histories differ.

    `root` is the root that the larger note's tree had at the smaller one's size, `proof` shows it.

    Raises:
        LocalFault: RNM-LEDGER-0001 they prove nothing.
    """
    evidence = Evidence(
        format=FORMAT,
        vkey=vkey,
        larger=_text(larger),
        smaller=_text(smaller),
        root=root,
        proof=tuple(Digest(item.hex()) for item in proof),
    )
    data = jcs.dumps(to_json(evidence))
    verify(data)
    return data


def verify(data: bytes, pinned: str | None = None) -> Finding:
    """Return what a file proves, against the pinned key if one is given.

    Raises:
        LocalFault: RNM-LEDGER-0001 it proves nothing, or against another key; RNM-FORM-* it is no such
            file.
    """
    if len(data) > MAX_BYTES:
        raise unverified(_WHAT, f"it has more than {MAX_BYTES} bytes")
    evidence = from_json(Evidence, jcs.loads(data), "evidence")
    if pinned is not None and evidence.vkey != pinned:
        raise unverified(_WHAT, "it is about another key than the one pinned")
    try:
        key = NoteVerifier.from_vkey(evidence.vkey)
    except ValueError as error:
        raise unverified(_WHAT, f"its key is none: {error}") from None
    larger, origin = _signed(evidence.larger.encode(), key)
    smaller, other = _signed(evidence.smaller.encode(), key)
    if origin != other:
        raise unverified(_WHAT, "its notes are of two logs, which may well differ")
    return _judge(evidence, key, origin, larger, smaller)


def _judge(
    evidence: Evidence, key: NoteVerifier, origin: str, larger: TreeHead, smaller: TreeHead
) -> Finding:
    if smaller.size > larger.size or not smaller.size:
        raise unverified(_WHAT, "its notes are not a larger and a smaller tree with entries")
    merkle.verify_consistency(
        smaller.size,
        larger.size,
        bytes.fromhex(evidence.root),
        larger.root_bytes,
        [bytes.fromhex(item) for item in evidence.proof],
    )
    if evidence.root == smaller.root:
        raise unverified(_WHAT, "its notes agree: the larger tree extends the smaller one")
    return Finding(
        key=key,
        origin=origin,
        said=smaller,
        shown=TreeHead(smaller.size, evidence.root),
        larger=larger,
    )


def _signed(data: bytes, key: NoteVerifier) -> tuple[TreeHead, str]:
    """Return the tree head of a note that the key signed, and its log; other lines mean nothing."""
    note: Note = parse(data)
    line = note.find(key)
    if line is None:
        raise unverified(_WHAT, f"a note of it carries no line by {key.name}")
    key.verify(line, note.text)
    checkpoint = read_text(note.text)
    return checkpoint.head, checkpoint.origin


def _text(note: bytes) -> str:
    try:
        return note.decode("utf-8")
    except UnicodeDecodeError:
        raise unverified(_WHAT, "a note of it is not UTF-8") from None
