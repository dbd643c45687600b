"""Identifiers have one spelling; tagged hashes separate domains and parts."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedproto.ids import is_digest, is_member_id, is_run_id, sha256_hex, tagged_hash

PARTS = st.lists(st.binary(max_size=12), max_size=4)


@given(PARTS, PARTS)
def test_two_lists_of_parts_never_hash_the_same_input(
    left: list[bytes], right: list[bytes]
) -> None:
    same = tagged_hash("t", *left) == tagged_hash("t", *right)
    assert same is (left == right)


def test_a_tag_separates_domains_even_where_bytes_could_move_between_tag_and_part() -> None:
    assert tagged_hash("ab", b"c") != tagged_hash("a", b"bc")
    assert tagged_hash("a", b"") != tagged_hash("a")


def test_an_integer_is_its_eight_big_endian_bytes() -> None:
    assert tagged_hash("t", 258) == tagged_hash("t", bytes([0, 0, 0, 0, 0, 0, 1, 2]))


@pytest.mark.parametrize("value", [-1, 1 << 64])
def test_an_integer_that_does_not_fit_is_refused(value: int) -> None:
    with pytest.raises(OverflowError):
        tagged_hash("t", value)


def test_the_plain_digest_is_sha_256() -> None:
    assert sha256_hex(b"abc") == hashlib.sha256(b"abc").hexdigest()


@pytest.mark.parametrize("text", ["nec", "n", "member-2", "a" * 31])
def test_a_member_id_is_accepted(text: str) -> None:
    assert is_member_id(text)


@pytest.mark.parametrize(
    "text", ["", "NEC", "2nec", "-nec", "nec_2", "nec\n", "ｎｅｃ", "日本", "a" * 32, "../x", "a b"]
)
def test_any_other_spelling_of_a_member_id_is_refused(text: str) -> None:
    assert not is_member_id(text)


@pytest.mark.parametrize(
    "text", ["", "0" * 63, "0" * 65, "G" * 64, "A" * 64, "0" * 64 + "\n", "٣" * 64]
)
def test_any_other_spelling_of_a_digest_is_refused(text: str) -> None:
    assert not is_digest(text)
    assert is_digest("0a" * 32)


@pytest.mark.parametrize("text", ["", "0" * 31, "0" * 33, "F" * 32, "0" * 32 + "\n"])
def test_any_other_spelling_of_a_run_id_is_refused(text: str) -> None:
    assert not is_run_id(text)
    assert is_run_id("0f" * 16)
