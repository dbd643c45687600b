"""Signed notes: verifier keys, note signatures and their strict text form.

Decides which bytes a key signed. Trusts only the verifier keys that the caller passes; lines by other
keys are kept apart and mean nothing. Implements C2SP signed-note (Ed25519, type 01); what a cosigner's
key (types 04 and 06) signs is decided in `audit.cosignature`. Pure; a seed never appears in a repr.
"""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from audit import cosignature
from audit.faults import unverified

NOTE_TYPE = 0x01
# Room for 64 witnesses that cosign with both kinds of key (3.5 kB and 0.4 kB a line) and the text.
MAX_NOTE = 262_144
MAX_SIGNATURES = 130
_DASH = "— "


@dataclass(frozen=True, slots=True)
class SignatureLine:
    """One line under a note, not yet verified."""

    name: str
    key_id: bytes
    signature: bytes

    def encode(self) -> bytes:
        """Return the line with its newline."""
        return f"{_DASH}{self.name} {_encode64(self.key_id + self.signature)}\n".encode()


@dataclass(frozen=True, slots=True)
class Note:
    """A parsed note: its signed text (with the last newline) and its signature lines."""

    text: bytes
    lines: tuple[SignatureLine, ...]

    def encode(self) -> bytes:
        """Return the bytes that `parse` reads."""
        return self.text + b"\n" + b"".join(line.encode() for line in self.lines)

    def find(self, verifier: "NoteVerifier") -> SignatureLine | None:
        """Return the line that claims to be by a key, or nothing."""
        wanted = (verifier.name, verifier.key_id)
        return next((line for line in self.lines if (line.name, line.key_id) == wanted), None)


@dataclass(frozen=True, slots=True)
class NoteVerifier:
    """A verifier key: a log's (type 01) or a cosigner's (04 Ed25519, 06 ML-DSA-44)."""

    name: str
    kind: int
    public: bytes

    def __post_init__(self) -> None:
        _check_name(self.name)
        if self.cosigns:
            cosignature.check_public(self.kind, self.name, self.public)
        elif self.kind != NOTE_TYPE:
            raise ValueError(f"signature type {self.kind:02x} is not known here")
        elif len(self.public) != 32:
            raise ValueError("an Ed25519 key has 32 bytes")

    @property
    def cosigns(self) -> bool:
        """Whether this is a witness's key."""
        return self.kind in cosignature.TYPES

    @property
    def key_id(self) -> bytes:
        """Four bytes that tell keys of one name apart."""
        data = self.name.encode() + b"\n" + bytes([self.kind]) + self.public
        return hashlib.sha256(data).digest()[:4]

    @property
    def vkey(self) -> str:
        """The key's one text form."""
        return f"{self.name}+{self.key_id.hex()}+{_encode64(bytes([self.kind]) + self.public)}"

    @classmethod
    def from_vkey(cls, text: str) -> "NoteVerifier":
        """Read a verifier key; raise ValueError unless it is exactly what `vkey` writes."""
        parts = text.split("+", 2)
        if len(parts) != 3:
            raise ValueError("a verifier key is name+keyid+key")
        data = _decode64(parts[2])
        if not data:
            raise ValueError("a verifier key holds no key")
        verifier = cls(parts[0], data[0], data[1:])
        # The printed id is what people compare by eye.
        if verifier.vkey != text:
            raise ValueError(f"the id {parts[1][:16]} does not belong to its key")
        return verifier

    def verify(self, line: SignatureLine, text: bytes) -> int:
        """Verify a line over a note's text; return its timestamp (0 for a log's own signature).

        Raises:
            LocalFault: RNM-LEDGER-0001.
        """
        try:
            if (line.name, line.key_id) != (self.name, self.key_id):
                raise InvalidSignature
            if self.cosigns:
                return self._cosigner.verify(line.signature, text)
            if len(line.signature) != 64:
                raise InvalidSignature
            Ed25519PublicKey.from_public_bytes(self.public).verify(line.signature, text)
        except (InvalidSignature, ValueError):
            raise unverified(
                f"a signature in the name of {self.name} was refused",
                f"it was not made over this checkpoint by key {self.key_id.hex()}",
            ) from None
        return 0

    @property
    def _cosigner(self) -> cosignature.Cosigner:
        return cosignature.Cosigner(name=self.name, kind=self.kind, public=self.public)


@dataclass(frozen=True, slots=True)
class NoteSigner:
    """A signing key: a log's, or with `cosigner` a witness's, then with `post_quantum` ML-DSA-44."""

    name: str
    seed: bytes = field(repr=False)
    cosigner: bool = field(default=False, kw_only=True)
    post_quantum: bool = field(default=False, kw_only=True)
    # Derived once: a log signs with every batch, and deriving takes longer than signing.
    verifier: NoteVerifier = field(init=False, compare=False)
    _key: Ed25519PrivateKey | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check_name(self.name)
        if len(self.seed) != 32:
            raise ValueError("a note key is 32 bytes of seed")
        if self.post_quantum and not self.cosigner:
            raise ValueError("a log signs with Ed25519; only a cosigner's key is ML-DSA")
        if self.cosigner:
            key = None
            kind = cosignature.MLDSA_TYPE if self.post_quantum else cosignature.ED25519_TYPE
            public = cosignature.public_of(kind, self.seed)
        else:
            key, kind = Ed25519PrivateKey.from_private_bytes(self.seed), NOTE_TYPE
            public = key.public_key().public_bytes_raw()
        object.__setattr__(self, "_key", key)
        object.__setattr__(self, "verifier", NoteVerifier(self.name, kind, public))

    @property
    def vkey(self) -> str:
        """The public half as text."""
        return self.verifier.vkey

    def sign(self, text: bytes) -> SignatureLine:
        """Sign a note's text as the log."""
        if self._key is None:
            raise ValueError("a witness key signs cosignatures only")
        return SignatureLine(self.name, self.verifier.key_id, self._key.sign(text))

    def cosign(self, text: bytes, timestamp: int) -> SignatureLine:
        """Cosign a checkpoint as a witness, at a Unix time in seconds."""
        if not self.cosigner:
            raise ValueError("a log key makes no cosignatures")
        public = self.verifier
        cosigner = cosignature.Cosigner(name=self.name, kind=public.kind, public=public.public)
        signature = cosignature.cosign(cosigner, self.seed, timestamp, text)
        return SignatureLine(self.name, public.key_id, signature)


def parse(data: bytes) -> Note:
    """Read a note strictly: every accepted input is what `Note.encode` writes.

    Raises:
        LocalFault: RNM-LEDGER-0001.
    """
    if len(data) > MAX_NOTE:
        raise _malformed(f"it has more than {MAX_NOTE} bytes")
    body, separator, tail = data.rpartition(b"\n\n")
    if not separator:
        raise _malformed("no empty line stands between text and signatures")
    text = body + b"\n"
    try:
        decoded = text.decode("utf-8")
    except UnicodeDecodeError:
        raise _malformed("it is not UTF-8") from None
    if any(char < " " and char != "\n" for char in decoded):
        raise _malformed("it holds a control character")
    return Note(text, parse_lines(tail))


def parse_lines(data: bytes) -> tuple[SignatureLine, ...]:
    """Read signature lines; refuse none, a cut line, or one key twice (RNM-LEDGER-0001)."""
    if not data.endswith(b"\n"):
        raise _malformed("its last signature line is cut")
    rows = data[:-1].split(b"\n")
    if len(rows) > MAX_SIGNATURES:
        raise _malformed(f"it has more than {MAX_SIGNATURES} signatures")
    lines = tuple(_parse_line(row) for row in rows)
    # Counting one key twice is how a quorum is forged.
    if len({(line.name, line.key_id) for line in lines}) != len(lines):
        raise _malformed("one key signs twice")
    return lines


def _parse_line(row: bytes) -> SignatureLine:
    try:
        text = row.decode("utf-8")
        if not text.startswith(_DASH):
            raise ValueError("a signature line does not start with its dash")
        name, separator, encoded = text.removeprefix(_DASH).partition(" ")
        _check_name(name)
        data = _decode64(encoded)
        if not separator or len(data) < 5:
            raise ValueError("a signature line holds no signature")
    except (ValueError, UnicodeDecodeError) as error:
        reason = "a signature line is not UTF-8"
        raise _malformed(reason if isinstance(error, UnicodeDecodeError) else str(error)) from None
    return SignatureLine(name, data[:4], data[4:])


def merge(lines: Sequence[SignatureLine]) -> tuple[SignatureLine, ...]:
    """Return lines with one of each key, the first that was given."""
    kept = {(line.name, line.key_id): line for line in reversed(lines)}
    return tuple(kept[key] for key in dict.fromkeys((line.name, line.key_id) for line in lines))


def _check_name(name: str) -> None:
    if not name or "+" in name or any(char.isspace() or char < " " for char in name):
        raise ValueError("a key name is not empty and has no space and no plus")


def _encode64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _decode64(text: str) -> bytes:
    data = base64.b64decode(text, validate=True)
    if _encode64(data) != text:
        raise ValueError("base64 is not in canonical form")
    return data


def _malformed(why: str) -> Exception:
    return unverified("a signed note was refused", why)
