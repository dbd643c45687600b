"""Keys of one attempt: hybrid X25519 + ML-KEM-768 pair seeds and the share channel.

Decides how every seed derives. A pair seed needs both exchanges broken, so a recording stays closed
to a later quantum computer. Mask keys derive from the mask secret z_u alone, and z_u also opens the
KEM secrets that u sent, so recovering z_u recovers all pair seeds of a dropout and nothing of its self
seed. ctx, h1, h2 in each derivation turn any list shown twice into noise. Implements FIPS 203,
RFC 7748, RFC 5869, RFC 9180 with MLKEM768-X25519. Never sees a delta. Pure.
"""

from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fedproto.ids import MemberId, tagged_hash
from fedproto.secagg.shamir import SHARE_BYTES
from fedproto.secagg.stages import Secret, SharePair

X25519_BYTES = 32
MLKEM_BYTES = 1184
KEM_CIPHERTEXT_BYTES = 1088
WRAPPED_BYTES = 32 + 16
SALT_BYTES = 16
PAIR_BYTES = 2 * SHARE_BYTES + 2 * SALT_BYTES
SEALED_BYTES = 1120 + PAIR_BYTES + 16

_SUITE = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
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


def mask_keys(mask_secret: bytes, ctx: bytes, member: MemberId) -> KeyPair:
    """Derive a member's mask keys from its mask secret z_u."""
    info = tagged_hash("renmei/v1/sa/mask-keys", ctx, member.encode())
    return KeyPair.from_seed(_derive(mask_secret, info, 96))


def self_seed(self_secret: bytes, ctx: bytes, h2: bytes, member: MemberId) -> bytes:
    """Derive the seed of a member's own mask from b_u."""
    return _derive(self_secret, tagged_hash("renmei/v1/sa/self", ctx, h2, member.encode()), 32)


def encapsulate(peer_mlkem: bytes) -> tuple[bytes, bytes]:
    """Return a fresh shared secret for a peer's mask key, and its ciphertext."""
    return MLKEM768PublicKey.from_public_bytes(peer_mlkem).encapsulate()


def wrap(kem_secret: bytes, mask_secret: bytes, info: bytes) -> bytes:
    """Seal an outgoing KEM secret so that z_u alone opens it again."""
    return AESGCM(_derive(mask_secret, info, 32)).encrypt(_ONCE, kem_secret, None)


def unwrap(wrapped: bytes, mask_secret: bytes, info: bytes) -> bytes:
    """Open what `wrap` sealed; raise ValueError where its dealer sealed something else."""
    try:
        return AESGCM(_derive(mask_secret, info, 32)).decrypt(_ONCE, wrapped, None)
    except InvalidTag:
        raise ValueError("a KEM secret does not open with its dealer's mask secret") from None


def wrap_info(ctx: bytes, h1: bytes, dealer: MemberId, holder: MemberId) -> bytes:
    """Return the derivation input of one edge's wrapping key."""
    return tagged_hash("renmei/v1/sa/wrap", ctx, h1, dealer.encode(), holder.encode())


def pair_seed(
    own: KeyPair, peer_x25519: bytes, kem_secret: bytes, kem_ciphertext: bytes, info: bytes
) -> bytes:
    """Derive the seed that two neighbours share; both halves of the hybrid enter."""
    classic = own.x25519.exchange(X25519PublicKey.from_public_bytes(peer_x25519))
    context = tagged_hash("renmei/v1/sa/pair", info, kem_ciphertext)
    return _derive(classic + kem_secret, context, 32)


def pair_info(ctx: bytes, h2: bytes, one: MemberId, other: MemberId) -> bytes:
    """Return the derivation input of an edge, the same from both ends."""
    low, high = sorted((one, other))
    return tagged_hash("renmei/v1/sa/edge", ctx, h2, low.encode(), high.encode())


def seal_pair(pair: SharePair, channel: PublicKeys, info: bytes) -> bytes:
    """Seal a pair of shares to its holder's channel key."""
    plain = pair.mask_share + pair.self_share + pair.mask_salt + pair.self_salt
    key = MLKEM768X25519PublicKey(
        MLKEM768PublicKey.from_public_bytes(channel.mlkem),
        X25519PublicKey.from_public_bytes(channel.x25519),
    )
    return _SUITE.encrypt(plain, key, info=info)


def open_pair(ciphertext: bytes, channel: KeyPair, info: bytes) -> SharePair:
    """Open a sealed pair; raise ValueError if it is not one for this channel."""
    try:
        plain = _SUITE.decrypt(
            ciphertext, MLKEM768X25519PrivateKey(channel.mlkem, channel.x25519), info=info
        )
    except InvalidTag:
        raise ValueError("a share does not open with its holder's channel key") from None
    if len(plain) != PAIR_BYTES:
        raise ValueError(f"a sealed pair has {PAIR_BYTES} bytes")
    salts = 2 * SHARE_BYTES
    return SharePair(
        mask_share=plain[:SHARE_BYTES],
        self_share=plain[SHARE_BYTES:salts],
        mask_salt=plain[salts : salts + SALT_BYTES],
        self_salt=plain[salts + SALT_BYTES :],
    )


def channel_info(ctx: bytes, h1: bytes, dealer: MemberId, holder: MemberId) -> bytes:
    """Return the HPKE info of one dealt pair."""
    return tagged_hash("renmei/v1/sa/channel", ctx, h1, dealer.encode(), holder.encode())


def _derive(secret: bytes, info: bytes, length: int) -> bytes:
    return HKDF(hashes.SHA256(), length, None, info).derive(secret)
