"""Canonical JSON: one spelling, and every other spelling of the same value is refused."""

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fedproto import jcs
from fedproto.errors import LocalFault

TEXT = st.text(alphabet=st.characters(blacklist_categories=["Cs"])).filter(
    lambda text: __import__("unicodedata").normalize("NFC", text) == text
)
KEYS = st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=126), max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=20,
)


@given(VALUES)
def test_what_was_written_reads_back_as_the_same_value_and_the_same_bytes(value: object) -> None:
    data = jcs.dumps(value)
    assert jcs.loads(data) == value
    assert jcs.dumps(jcs.loads(data)) == data


@given(st.binary(max_size=60))
def test_whatever_parses_writes_back_to_the_very_bytes(data: bytes) -> None:
    try:
        value = jcs.loads(data)
    except LocalFault as fault:
        assert fault.code == "RNM-FORM-0001"  # noqa: PT017  # either outcome is right
        return
    assert jcs.dumps(value) == data


# JSON with whatever a walk through the value would find: odd names, escapes, depth, large numbers.
ODD_TEXT = st.text(
    alphabet=st.sampled_from([*'abe"\\', "\x7f", "\n", "\x00", "\ud800", "\u0301", "車"]),
    max_size=3,
)
ODD = st.recursive(
    st.none() | st.integers() | st.floats() | ODD_TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ODD_TEXT, inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=500)
@example({"車": 1}, 0, False)
@example(["e\u0301"], 0, False)
@example({"\x7f": 1}, 0, False)
@example({"\n": 1}, 0, True)
@example(2**53, 0, True)
@example(1, 25, True)
@given(ODD, st.integers(0, 30), st.booleans())
def test_no_spelling_passes_without_a_walk_that_a_walk_would_refuse(
    value: object, depth: int, ascii_: bool
) -> None:
    for _ in range(depth):
        value = [value]
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=ascii_)
    data = text.encode("utf-8", "surrogatepass")

    def outcome() -> object:
        try:
            return jcs.loads(data)
        except LocalFault as fault:
            return fault.code

    found = outcome()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jcs, "_is_plain", lambda data: False)
        assert repr(outcome()) == repr(found)


REFUSED = {
    "duplicate names": b'{"a":1,"a":1}',
    "duplicate names in a nested object": b'{"a":{"b":1,"b":2}}',
    "an escaped duplicate name": b'{"a":1,"\\u0061":1}',
    "names out of order": b'{"b":1,"a":2}',
    "a space": b'{"a": 1}',
    "a newline at the end": b'{"a":1}\n',
    "trailing bytes": b'{"a":1}x',
    "a second document": b"1 2",
    "a byte order mark": b"\xef\xbb\xbf1",
    "an exponent": b"1e2",
    "a big exponent": b"1E400",
    "minus nought": b"-0",
    "a fraction that is whole": b"1.0",
    "a fraction": b"0.5",
    "a leading nought": b"01",
    "a plus sign": b"+1",
    "not a number": b"NaN",
    "infinity": b"-Infinity",
    "2^53": b"9007199254740992",
    "minus 2^53": b"-9007199254740992",
    "an integer of 5000 digits": b"1" * 5000,
    "a lone surrogate": b'"\\ud800"',
    "a surrogate in UTF-8": b'"\xed\xa0\x80"',
    "an escaped pair of surrogates": b'"\\ud83d\\ude00"',
    "an escape that is not needed": b'"\\u3042"',
    "an escaped solidus": b'"\\/"',
    "an upper-case escape": b'"\\u001F"',
    "a raw control character": b'"\x01"',
    "decomposed text": '"か\u3099"'.encode(),
    "a compatibility character's other form": '"\u212b"'.encode(),
    "a name that is not ASCII": '{"名":1}'.encode(),
    "a name with a control character": b'{"\\n":1}',
    "overlong UTF-8": b'"\xc0\xaf"',
    "Latin-1": b'"\xe9"',
    "UTF-16": '{"a":1}'.encode("utf-16"),
    "a comment": b"/**/1",
    "a single quote": b"'a'",
    "a trailing comma": b"[1,]",
    "nothing": b"",
    "nesting below the limit of the parser": b"[" * 100_000,
    "nesting deeper than any statement": b"[" * 26 + b"]" * 26,
}


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED.keys())
def test_another_spelling_is_refused(data: bytes) -> None:
    with pytest.raises(LocalFault) as caught:
        jcs.loads(data)
    assert caught.value.code == "RNM-FORM-0001"


ACCEPTED = {
    "the largest integer": b"9007199254740991",
    "a control character escaped in lower case": b'"\\u001f"',
    "a short escape": b'"\\n"',
    "Japanese in normal form C": '"が"'.encode(),
    "a character outside the basic plane": '"😀"'.encode(),
    "the deepest nesting": b"[" * 25 + b"]" * 25,
    "an empty object": b"{}",
}


@pytest.mark.parametrize("data", ACCEPTED.values(), ids=ACCEPTED.keys())
def test_the_canonical_spelling_is_accepted(data: bytes) -> None:
    assert jcs.dumps(jcs.loads(data)) == data


@pytest.mark.parametrize("value", [1.0, {"a": 0.5}, [b"x"], {1: 2}, (1,), {"a": object()}, 2**53])
def test_what_has_no_canonical_form_is_not_written(value: object) -> None:
    with pytest.raises(LocalFault):
        jcs.dumps(value)  # type: ignore[arg-type]


def test_names_are_ordered_as_rfc_8785_orders_them() -> None:
    assert jcs.dumps({"b": 1, "a": 2, "A": 3, "1": 4, "": 5}) == b'{"":5,"1":4,"A":3,"a":2,"b":1}'


def test_the_reason_never_holds_the_refused_text() -> None:
    with pytest.raises(LocalFault) as caught:
        jcs.loads(b'{"secret-name":1,"secret-name":2}')
    assert "secret-name" not in str(caught.value)
