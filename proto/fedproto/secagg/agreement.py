"""Keys of one attempt: hybrid X25519 + ML-KEM-768 mask seeds.

Decides how every seed derives. A pair seed needs both exchanges broken, so a recording stays closed
to a later quantum computer. Mask keys derive from the mask secret z_u alone, and z_u also opens the
KEM secrets that u sent, so recovering z_u recovers all pair seeds of a dropout and nothing of its self
seed. ctx, h1, h2 in each derivation turn any list shown twice into noise. Implements FIPS 203,
RFC 7748, RFC 5869. Never sees a delta. Pure.
"""

from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fedproto.ids import MemberId, tagged_hash
from fedproto.secagg.shamir import SHARE_BYTES
from fedproto.secagg.stages import MaskSeed, Secret

X25519_BYTES = 32
MLKEM_BYTES = 1184
KEM_CIPHERTEXT_BYTES = 1088
WRAPPED_BYTES = 32 + 16
SALT_BYTES = 16
PAIR_BYTES = 2 * SHARE_BYTES + 2 * SALT_BYTES
SEALED_BYTES = 1120 + PAIR_BYTES + 16

# A key that seals one message ever may use the zero nonce.
_ONCE = bytes(12)


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicKeys:
    """An X25519 and an ML-KEM-768 public key, raw."""

    x25519: bytes
    mlkem: bytes

    def require_usable(self) -> None:
        """Raise ValueError for a point of small order or a key that is no ML-KEM-768 key."""
        X25519PrivateKey.from_private_bytes(bytes(32)).exchange(
            X25519PublicKey.from_public_bytes(self.x25519)
        )
        MLKEM768PublicKey.from_public_bytes(self.mlkem)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class KeyPair(Secret):
    """The private halves of a mask key or a channel key."""

    x25519: X25519PrivateKey
    mlkem: MLKEM768PrivateKey

    @classmethod
    def from_seed(cls, seed: bytes) -> "KeyPair":
        """Read 32 bytes of X25519 and 64 of ML-KEM seed."""
        return cls(
            x25519=X25519PrivateKey.from_private_bytes(seed[:32]),
            mlkem=MLKEM768PrivateKey.from_seed_bytes(seed[32:]),
        )

    @property
    def public(self) -> PublicKeys:
        """The public halves."""
        return PublicKeys(
            x25519=self.x25519.public_key().public_bytes_raw(),
            mlkem=self.mlkem.public_key().public_bytes_raw(),
        )


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class KemSecret(Secret):
    """The post-quantum half of one edge: the shared secret, and the ciphertext that carries it."""

    secret: bytes
    ciphertext: bytes


def mask_keys(mask_secret: bytes, ctx: bytes, member: MemberId) -> KeyPair:
    """Derive a member's mask keys from its mask secret z_u."""
    info = tagged_hash("renmei/v1/sa/mask-keys", ctx, member.encode())
    return KeyPair.from_seed(_derive(mask_secret, info, 96))


def self_mask(
    self_secret: bytes, ctx: bytes, h2: bytes, member: MemberId, *, add: bool
) -> MaskSeed:
    """Derive the mask that b_u stands for: a member adds it, the coordinator takes it off."""
    info = tagged_hash("renmei/v1/sa/self", ctx, h2, member.encode())
    return MaskSeed(seed=_derive(self_secret, info, 32), add=add)


def encapsulate(peer_mlkem: bytes) -> KemSecret:
    """Return a fresh shared secret for a peer's mask key, with its ciphertext."""
    secret, ciphertext = MLKEM768PublicKey.from_public_bytes(peer_mlkem).encapsulate()
    return KemSecret(secret=secret, ciphertext=ciphertext)


def decapsulate(own: KeyPair, ciphertext: bytes) -> KemSecret:
    """Return the shared secret of a ciphertext to one's mask key."""
    return KemSecret(secret=own.mlkem.decapsulate(ciphertext), ciphertext=ciphertext)


def wrap(kem_secret: bytes, mask_secret: bytes, info: bytes) -> bytes:
    """Seal an outgoing KEM secret so that z_u alone opens it again."""
    return AESGCM(_derive(mask_secret, info, 32)).encrypt(_ONCE, kem_secret, None)


def unwrap(wrapped: bytes, mask_secret: bytes, info: bytes) -> bytes:
    """Open what `wrap` sealed; raise ValueError where its dealer sealed something else."""
    try:
        return AESGCM(_derive(mask_secret, info, 32)).decrypt(_ONCE, wrapped, None)
    except InvalidTag:
        raise ValueError("a KEM secret does not open with its dealer's mask secret") from None


def exchange(own: KeyPair, peer_x25519: bytes) -> bytes:
    """Return the X25519 half of an edge's secret; raise ValueError for a point of small order."""
    return own.x25519.exchange(X25519PublicKey.from_public_bytes(peer_x25519))


def pair_mask(
    member: MemberId, peer: MemberId, classic: bytes, kem: KemSecret, info: bytes
) -> MaskSeed:
    """Return the mask that `member` applies for one neighbour; the neighbour's has the other sign."""
    context = tagged_hash("renmei/v1/sa/pair", info, kem.ciphertext)
    return MaskSeed(seed=_derive(classic + kem.secret, context, 32), add=member < peer)


def pair_info(ctx: bytes, h2: bytes, one: MemberId, other: MemberId) -> bytes:
    """Return the derivation input of an edge, the same from both ends."""
    low, high = sorted((one, other))
    return tagged_hash("renmei/v1/sa/edge", ctx, h2, low.encode(), high.encode())


def _derive(secret: bytes, info: bytes, length: int) -> bytes:
    return HKDF(hashes.SHA256(), length, None, info).derive(secret)
