"""Cosignatures: what exactly a witness signs over a checkpoint, and at which time.

Decides the signed bytes of both kinds, and whether a signature over them holds. Trusts nothing but the
public key it is given. Implements C2SP tlog-cosignature: Ed25519 `cosignature/v1` (type 04) and
ML-DSA-44 `subtree/v1` (type 06) over a whole tree. Pure.
"""

from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from audit.checkpoint_body import read_body
from audit.faults import unverified

ED25519_TYPE = 0x04
MLDSA_TYPE = 0x06
TYPES = frozenset({ED25519_TYPE, MLDSA_TYPE})
# What `opaque<1..2^8-1>` of subtree/v1 holds.
MAX_NAME = 255
_LABEL = b"subtree/v1\n\x00"
_TIMESTAMP_BYTES = 8
_MAX_TIMESTAMP = 2**63 - 1
_PUBLIC_BYTES = {ED25519_TYPE: 32, MLDSA_TYPE: 1312}
_SIGNATURE_BYTES = {ED25519_TYPE: 64, MLDSA_TYPE: 2420}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cosigner:
    """A cosigner's public half: the name that it signs under, the kind of its key, and the key."""

    name: str
    kind: int
    public: bytes

    def verify(self, signature: bytes, text: bytes) -> int:
        """Return the timestamp of a signature field made over a checkpoint's text.

        Raises:
            InvalidSignature: it was not.
            LocalFault: RNM-LEDGER-0001 the text is no checkpoint.
        """
        timestamp = int.from_bytes(signature[:_TIMESTAMP_BYTES], "big")
        if len(signature) != _TIMESTAMP_BYTES + _SIGNATURE_BYTES[self.kind]:
            raise InvalidSignature
        # A quorum's times bracket acts, and zero says "at no time".
        if not 1 <= timestamp <= _MAX_TIMESTAMP:
            raise InvalidSignature
        message = signed_message(self, timestamp, text)
        _verify(self, signature[_TIMESTAMP_BYTES:], message)
        return timestamp


def check_public(kind: int, name: str, public: bytes) -> None:
    """Raise ValueError unless a key and its name fit their kind."""
    if len(public) != _PUBLIC_BYTES[kind]:
        raise ValueError(f"a key of type {kind:02x} has {_PUBLIC_BYTES[kind]} bytes")
    if kind == MLDSA_TYPE and len(name.encode()) > MAX_NAME:
        raise ValueError(f"the name of an ML-DSA cosigner has at most {MAX_NAME} bytes")


def public_of(kind: int, seed: bytes) -> bytes:
    """Return the public key that a 32-byte seed makes."""
    if kind == ED25519_TYPE:
        return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
    from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

    return MLDSA44PrivateKey.from_seed_bytes(seed).public_key().public_bytes_raw()


def cosign(cosigner: Cosigner, seed: bytes, timestamp: int, text: bytes) -> bytes:
    """Return the signature field over a checkpoint's text, at a Unix time in seconds.

    Raises:
        ValueError: the time is none that a cosignature carries.
        LocalFault: RNM-LEDGER-0001 the text is no checkpoint (ML-DSA, which signs its parts).
    """
    if not 1 <= timestamp <= _MAX_TIMESTAMP:
        raise ValueError("a cosignature's time lies after 1970")
    message = signed_message(cosigner, timestamp, text)
    return timestamp.to_bytes(_TIMESTAMP_BYTES, "big") + _sign(cosigner.kind, seed, message)


def signed_message(cosigner: Cosigner, timestamp: int, text: bytes) -> bytes:
    """Return the bytes under a cosignature; raise RNM-LEDGER-0001 if there are none for the text."""
    if cosigner.kind == ED25519_TYPE:
        return f"cosignature/v1\ntime {timestamp}\n".encode() + text
    body = read_body(text)
    origin = body.origin.encode()
    if len(origin) > MAX_NAME:
        raise unverified(
            "a cosignature was refused",
            f"ML-DSA covers an origin of at most {MAX_NAME} bytes; this one has {len(origin)}",
        )
    return b"".join(
        (
            _LABEL,
            _opaque(cosigner.name.encode()),
            timestamp.to_bytes(8, "big"),
            _opaque(origin),
            (0).to_bytes(8, "big"),
            body.size.to_bytes(8, "big"),
            body.root,
        )
    )


def _opaque(data: bytes) -> bytes:
    return bytes([len(data)]) + data


def _sign(kind: int, seed: bytes, message: bytes) -> bytes:
    if kind == ED25519_TYPE:
        return Ed25519PrivateKey.from_private_bytes(seed).sign(message)
    from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

    return MLDSA44PrivateKey.from_seed_bytes(seed).sign(message)


def _verify(cosigner: Cosigner, signature: bytes, message: bytes) -> None:
    if cosigner.kind == ED25519_TYPE:
        Ed25519PublicKey.from_public_bytes(cosigner.public).verify(signature, message)
        return
    from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PublicKey

    MLDSA44PublicKey.from_public_bytes(cosigner.public).verify(signature, message)
