"""Shamir's sharing: any threshold of shares recovers, fewer tell nothing, bad ones are refused."""

import secrets

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedproto.secagg.shamir import PRIME, SHARE_BYTES, deal, lagrange, recover


def is_probable_prime(number: int) -> bool:
    odd, twos = number - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for _ in range(40):
        x = pow(secrets.randbelow(number - 3) + 2, odd, number)
        if x in (1, number - 1):
            continue
        for _ in range(twos - 1):
            x = x * x % number
            if x == number - 1:
                break
        else:
            return False
    return True


def test_the_modulus_is_a_prime_that_holds_every_secret():
    assert PRIME > 2**256
    assert is_probable_prime(PRIME)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_threshold_of_shares_recovers_the_secret(data):
    n = data.draw(st.integers(1, 20))
    threshold = data.draw(st.integers(1, n))
    secret = data.draw(st.binary(min_size=32, max_size=32))
    points = data.draw(st.lists(st.integers(1, 200), min_size=n, max_size=n, unique=True))
    shares = deal(secret, threshold, points, secrets.token_bytes)
    chosen = data.draw(st.permutations(points))[:threshold]
    coefficients = lagrange(chosen)
    assert recover({x: shares[x] for x in chosen}, coefficients) == secret
    assert all(len(share) == SHARE_BYTES for share in shares.values())


@pytest.mark.parametrize("secret", [bytes(32), b"\xff" * 32])
def test_the_extreme_secrets_come_back(secret):
    shares = deal(secret, 2, [1, 2], secrets.token_bytes)
    assert recover(shares, lagrange([1, 2])) == secret


def test_one_set_of_coefficients_serves_many_secrets():
    coefficients = lagrange([2, 5, 9])
    for _ in range(5):
        secret = secrets.token_bytes(32)
        shares = deal(secret, 3, range(1, 10), secrets.token_bytes)
        assert recover({x: shares[x] for x in (2, 5, 9)}, coefficients) == secret


def test_fewer_shares_than_the_threshold_fit_every_secret():
    """For two of three shares each secret has a polynomial: they tell nothing."""
    shares = deal(bytes(32), 3, [1, 2, 3], secrets.token_bytes)
    values = {x: int.from_bytes(shares[x], "big") for x in (1, 2)}
    for secret in (0, 1, 2**255):
        points = [0, 1, 2]
        third = 0
        for x, y in ((0, secret), *values.items()):
            numerator = denominator = 1
            for other in points:
                if other != x:
                    numerator = numerator * (3 - other) % PRIME
                    denominator = denominator * (x - other) % PRIME
            third += y * numerator * pow(denominator, -1, PRIME)
        made_up = {**shares, 3: (third % PRIME).to_bytes(33, "big")}
        assert recover(made_up, lagrange([1, 2, 3])) == secret.to_bytes(32, "big")


def test_too_few_shares_give_another_secret_or_a_refusal():
    # Fixed coefficients, so that the outcome of both lines is known.
    shares = deal(bytes(32), 3, [1, 2, 3], lambda count: bytes(count - 1) + b"\x05")
    two = {x: shares[x] for x in (1, 2)}
    with pytest.raises(ValueError, match="secret"):
        recover(two, lagrange([1, 2]))
    shares = deal(bytes(32), 3, [1, 2, 3], lambda count: (PRIME - 5).to_bytes(count, "big"))
    two = {x: shares[x] for x in (1, 2)}
    assert recover(two, lagrange([1, 2])) == (10).to_bytes(32, "big")


@pytest.mark.parametrize("points", [[1, 1], [0, 1], [-1, 2], [1, 2**32]])
def test_points_that_are_not_distinct_and_in_range_are_refused(points):
    with pytest.raises(ValueError, match="distinct"):
        deal(bytes(32), 2, points, secrets.token_bytes)
    with pytest.raises(ValueError, match="distinct"):
        lagrange(points)


@pytest.mark.parametrize("threshold", [0, 4])
def test_a_threshold_that_the_points_cannot_reach_is_refused(threshold):
    with pytest.raises(ValueError, match="threshold"):
        deal(bytes(32), threshold, [1, 2, 3], secrets.token_bytes)


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_secret_of_another_length_is_refused(length):
    with pytest.raises(ValueError, match="32 bytes"):
        deal(bytes(length), 1, [1], secrets.token_bytes)


def test_shares_of_other_points_than_the_coefficients_are_refused():
    shares = deal(bytes(32), 2, [1, 2, 3], secrets.token_bytes)
    with pytest.raises(ValueError, match="other points"):
        recover(shares, lagrange([1, 2]))
