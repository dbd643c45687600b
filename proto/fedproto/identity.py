"""Acting keys: a hybrid Ed25519 + ML-DSA-65 pair of which both signatures must verify.

Implements FIPS 204 (ML-DSA) beside RFC 8032 (Ed25519), so a statement stays unforgeable while either
scheme stands. Trusts `cryptography`. Secrets never appear in a repr.
"""

import base64
from dataclasses import dataclass, field
from functools import lru_cache

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey, MLDSA65PublicKey

from fedproto.errors import LocalFault
from fedproto.ids import Digest, KeyId, tagged_hash

ALGORITHM = "ed25519+mldsa65"
SIGNATURE_BYTES = 64 + 3309
PUBLIC_BYTES = 32 + 1952
_CONTEXT = b"renmei/v1"


# The keys of a roster verify again and again: each is decoded once.
@lru_cache(maxsize=256)
def _opened(raw: bytes) -> tuple[Ed25519PublicKey, MLDSA65PublicKey]:
    classic = Ed25519PublicKey.from_public_bytes(raw[:32])
    return classic, MLDSA65PublicKey.from_public_bytes(raw[32:])


@dataclass(frozen=True, slots=True)
class VerifyKey:
    """The public half: 32 bytes of Ed25519, then 1,952 of ML-DSA-65."""

    raw: bytes

    def __post_init__(self) -> None:
        if len(self.raw) != PUBLIC_BYTES:
            raise ValueError(f"a verify key has {PUBLIC_BYTES} bytes, not {len(self.raw)}")

    @property
    def key_id(self) -> KeyId:
        """Sixteen bytes of the tagged hash, in hex."""
        return KeyId(tagged_hash("renmei/v1/key-id", self.raw)[:16].hex())

    @property
    def digest(self) -> Digest:
        """The whole tagged hash, by which a charter names a key that is not yet on the ledger."""
        return Digest(tagged_hash("renmei/v1/key-id", self.raw).hex())

    def verify(self, signature: bytes, message: bytes) -> None:
        """Raise RNM-SIG-0001 unless both signatures over `message` verify."""
        try:
            if len(signature) != SIGNATURE_BYTES:
                raise InvalidSignature
            classic, lattice = _opened(self.raw)
            classic.verify(signature[:64], message)
            lattice.verify(signature[64:], message, _CONTEXT)
        except InvalidSignature:
            raise LocalFault(
                "RNM-SIG-0001",
                what="a signature was refused",
                why=f"it was not made over these bytes by key {self.key_id}",
                mend="do not use the message; ask its sender for it over another way",
            ) from None

    def to_text(self) -> str:
        """Return the base64 that stands in a charter."""
        return base64.b64encode(self.raw).decode("ascii")

    @classmethod
    def from_text(cls, text: str) -> "VerifyKey":
        """Read what `to_text` wrote; raise ValueError on any other spelling."""
        raw = base64.b64decode(text, validate=True)
        if base64.b64encode(raw).decode("ascii") != text:
            raise ValueError("a verify key is not in canonical base64")
        return cls(raw)


@dataclass(frozen=True, slots=True)
class SigningKey:
    """The private half, kept as two 32-byte seeds."""

    seed: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.seed) != 64:
            raise ValueError("a signing key is 64 bytes of seed")

    def _halves(self) -> tuple[Ed25519PrivateKey, MLDSA65PrivateKey]:
        return (
            Ed25519PrivateKey.from_private_bytes(self.seed[:32]),
            MLDSA65PrivateKey.from_seed_bytes(self.seed[32:]),
        )

    @property
    def verify_key(self) -> VerifyKey:
        """The public half."""
        classic, lattice = self._halves()
        return VerifyKey(
            classic.public_key().public_bytes_raw() + lattice.public_key().public_bytes_raw()
        )

    def sign(self, message: bytes) -> bytes:
        """Return Ed25519 || ML-DSA-65 over `message`, which must start with a domain tag."""
        classic, lattice = self._halves()
        return classic.sign(message) + lattice.sign(message, _CONTEXT)
