"""Canonical JSON: the subset of RFC 8785 (JCS) that signed statements use.

Objects with ASCII keys, arrays, NFC strings, integers below 2^53 in magnitude, booleans and null.
No floats: a number that can be written in two ways can be signed twice. Pure.
"""

import json
import unicodedata
from typing import Any, TypeAlias

from fedproto.errors import LocalFault

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | bool | None"

_SAFE_INTEGER = 2**53 - 1
_DEPTH = 24


def _fault(why: str) -> LocalFault:
    return LocalFault(
        "RNM-FORM-0001",
        what="a JSON text was refused",
        why=why,
        mend="ask its author to encode it again in canonical form (RFC 8785, no floats)",
    )


def _check(value: Json, depth: int) -> None:
    if depth > _DEPTH:
        raise _fault(f"it is nested deeper than {_DEPTH} levels")
    match value:
        case None | bool():
            return
        case int():
            _check_integer(value)
        case str():
            _check_text(value)
        case list():
            for item in value:
                _check(item, depth + 1)
        case dict():
            for key, item in value.items():
                if not _is_name(key):
                    raise _fault("a key is not printable ASCII")
                _check(item, depth + 1)
        case _:
            raise _fault(f"a value is a {type(value).__name__}, which has no canonical form")


def _check_integer(value: int) -> None:
    if abs(value) > _SAFE_INTEGER:
        raise _fault("an integer is 2^53 or more, which JSON readers do not agree on")


def _is_name(key: object) -> bool:
    # A caller without type checks may pass other keys: json.dumps would make text of them.
    return isinstance(key, str) and key.isascii() and key.isprintable()


def _check_text(text: str) -> None:
    if text.isascii():
        return
    if any("\ud800" <= char <= "\udfff" for char in text):
        raise _fault("a string holds a lone surrogate")
    if unicodedata.normalize("NFC", text) != text:
        raise _fault("a string is not in Unicode normal form C")


def dumps(value: Json) -> bytes:
    """Return the canonical bytes of `value`; refuse what has none (RNM-FORM-0001)."""
    _check(value, 0)
    return _encode(value)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise _fault("a name stands twice in one object")
    return result


def _number(text: str) -> int:
    raise _fault(f"{text[:20]} is not an integer")


def _integer(text: str) -> int:
    value = int(text)
    _check_integer(value)
    return value


# Made once: every act that a log admits is read and compared by them.
# With ASCII keys, code point order equals the UTF-16 order that RFC 8785 asks for.
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)
_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_integer, parse_float=_number, parse_constant=_number
)


def _encode(value: Json) -> bytes:
    return _ENCODER.encode(value).encode()


def loads(data: bytes) -> Json:
    """Parse canonical bytes; refuse any other spelling of the same value (RNM-FORM-0001)."""
    try:
        value: Json = _DECODER.decode(data.decode("utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise _fault(f"it is not JSON ({type(error).__name__})") from None
    except ValueError:
        # Python refuses integers of more than 4300 digits.
        raise _fault("an integer is too long") from None
    if not _is_plain(data):
        _check(value, 0)
    if _encode(value) != data:
        raise _fault("it is JSON, but not in canonical form")
    return value


def _is_plain(data: bytes) -> bool:
    """Whether no text in JSON of these bytes can fail `_check`, told without a walk through it.

    Every text is printable ASCII, and there are too few brackets to nest too deep. Most acts are so.
    """
    return (
        data.isascii()
        and b"\\" not in data
        and b"\x7f" not in data
        and data.count(b"{") + data.count(b"[") <= _DEPTH
    )
