"""Acting keys: both schemes count, secrets stay out of words, a key has one spelling."""

import base64

import pytest

from fedproto.errors import LocalFault
from fedproto.identity import PUBLIC_BYTES, SIGNATURE_BYTES, SigningKey, VerifyKey

KEY = SigningKey(bytes(range(64)))


def test_a_signature_verifies_and_has_the_length_of_both_schemes() -> None:
    signature = KEY.sign(b"renmei/v1/test message")
    assert len(signature) == SIGNATURE_BYTES == 64 + 3309
    KEY.verify_key.verify(signature, b"renmei/v1/test message")


@pytest.mark.parametrize("position", [0, 63, 64, 3372])
def test_a_flipped_bit_anywhere_is_refused(position: int) -> None:
    signature = bytearray(KEY.sign(b"m"))
    signature[position] ^= 1
    with pytest.raises(LocalFault) as caught:
        KEY.verify_key.verify(bytes(signature), b"m")
    assert caught.value.code == "RNM-SIG-0001"


def test_another_message_or_another_key_is_refused() -> None:
    signature = KEY.sign(b"m")
    for key, message in ((KEY, b"n"), (SigningKey(bytes(64)), b"m")):
        with pytest.raises(LocalFault):
            key.verify_key.verify(signature, message)


def test_the_seed_is_in_no_repr() -> None:
    assert KEY.seed.hex() not in repr(KEY)
    assert repr(KEY.seed) not in repr(KEY)


@pytest.mark.parametrize("length", [0, 32, 63, 65])
def test_a_seed_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match="64 bytes"):
        SigningKey(bytes(length))


def test_a_verify_key_reads_back_and_keeps_its_id() -> None:
    key = KEY.verify_key
    assert len(key.raw) == PUBLIC_BYTES
    assert VerifyKey.from_text(key.to_text()) == key
    assert VerifyKey.from_text(key.to_text()).key_id == key.key_id


@pytest.mark.parametrize("tail", ["\n", " ", "=", "AA=="])
def test_a_second_spelling_of_a_verify_key_is_refused(tail: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        VerifyKey.from_text(KEY.verify_key.to_text() + tail)


def test_spare_bits_of_base64_do_not_make_a_second_spelling() -> None:
    text = KEY.verify_key.to_text()
    assert len(base64.b64decode(text)) == PUBLIC_BYTES
    if text.endswith("="):
        other = text.rstrip("=")[:-1] + "B" + "=" * text.count("=")
        with pytest.raises(ValueError, match=r"."):
            VerifyKey.from_text(other if other != text else text[:-1])


def test_a_key_id_depends_on_both_halves() -> None:
    raw = KEY.verify_key.raw
    other = SigningKey(bytes(64)).verify_key.raw
    ids = {VerifyKey(a + b).key_id for a in (raw[:32], other[:32]) for b in (raw[32:], other[32:])}
    assert len(ids) == 4


def test_two_acting_keys_of_one_seed_are_the_same_key() -> None:
    assert SigningKey(KEY.seed).verify_key == KEY.verify_key
