"""Shamir's secret sharing of 32-byte secrets over the prime 2^256 + 297.

Decides: shares, and recovery with Lagrange coefficients that many secrets with the same holders share.
A share is 33 big-endian bytes below the prime. Python's integers are not constant time: dealing and
recovery belong on a machine of one's own, where nobody else measures them. Trusts its entropy; tells
nothing of a secret from fewer shares than the threshold. Pure.
"""

from collections.abc import Callable, Mapping, Sequence

PRIME = 2**256 + 297
SECRET_BYTES = 32
SHARE_BYTES = 33


def deal(
    secret: bytes, threshold: int, points: Sequence[int], entropy: Callable[[int], bytes]
) -> dict[int, bytes]:
    """Return one share for each point; refuse points that are not distinct and in range."""
    if len(secret) != SECRET_BYTES:
        raise ValueError(f"a secret has {SECRET_BYTES} bytes")
    _require_points(points)
    if not 1 <= threshold <= len(points):
        raise ValueError(f"{len(points)} points cannot reach a threshold of {threshold}")
    # 64 bytes reduced modulo a 257-bit prime are uniform up to 2^-255.
    polynomial = [int.from_bytes(entropy(64), "big") % PRIME for _ in range(threshold - 1)]
    polynomial.append(int.from_bytes(secret, "big"))
    shares = {}
    for point in points:
        value = 0
        for coefficient in polynomial:
            value = (value * point + coefficient) % PRIME
        shares[point] = value.to_bytes(SHARE_BYTES, "big")
    return shares


def lagrange(points: Sequence[int]) -> dict[int, int]:
    """Return the coefficients that turn the shares at `points` into their secrets."""
    _require_points(points)
    coefficients = {}
    for point in points:
        numerator = denominator = 1
        for other in points:
            if other != point:
                numerator = numerator * -other % PRIME
                denominator = denominator * (point - other) % PRIME
        coefficients[point] = numerator * pow(denominator, -1, PRIME) % PRIME
    return coefficients


def recover(shares: Mapping[int, bytes], coefficients: Mapping[int, int]) -> bytes:
    """Return the secret of the shares at exactly the points of `coefficients`.

    Raises:
        ValueError: other points, a share out of range, or shares of no 32-byte secret.
    """
    if shares.keys() != coefficients.keys():
        raise ValueError("shares and coefficients are of other points")
    total = 0
    for point, share in shares.items():
        total += coefficients[point] * share_value(share)
    secret = total % PRIME
    if secret >> (8 * SECRET_BYTES):
        raise ValueError("the shares are not of one 32-byte secret")
    return secret.to_bytes(SECRET_BYTES, "big")


def share_value(share: bytes) -> int:
    """Return a share as a number; refuse one that is not 33 bytes below the prime."""
    value = int.from_bytes(share, "big")
    if len(share) != SHARE_BYTES or value >= PRIME:
        raise ValueError("a share is not 33 bytes below the prime")
    return value


def _require_points(points: Sequence[int]) -> None:
    # Point 0 is the secret itself.
    if len(set(points)) != len(points) or not all(0 < point < 1 << 32 for point in points):
        raise ValueError("points of shares are distinct and positive")
