"""Deterministic CBOR, as far as a COSE receipt needs it: integers, bytes, text, nil, arrays, maps, one tag.

Decides the one encoding of a value; what has another encoding, or holds anything else, is refused.
Implements the core deterministic encoding of RFC 8949 section 4.2.1 with integer map keys. Pure.
"""

from dataclasses import dataclass
from typing import TypeAlias

_UNSIGNED, _NEGATIVE, _BYTES, _TEXT, _ARRAY, _MAP, _TAG = range(7)
_NIL = 0xF6
_MAX_DEPTH = 8
_MAX_INTEGER = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Tagged:
    """A value under a tag."""

    tag: int
    value: "Value"


Value: TypeAlias = "int | bytes | str | list[Value] | dict[int, Value] | Tagged | None"


def encode(value: Value) -> bytes:
    """Return the one encoding of a value."""
    match value:
        case None:
            return bytes([_NIL])
        case int() if value < 0:
            return _head(_NEGATIVE, -1 - value)
        case int():
            return _head(_UNSIGNED, value)
        case bytes():
            return _head(_BYTES, len(value)) + value
        case str():
            text = value.encode()
            return _head(_TEXT, len(text)) + text
        case list():
            return _head(_ARRAY, len(value)) + b"".join(map(encode, value))
        case dict():
            pairs = sorted((encode(key), encode(item)) for key, item in value.items())
            return _head(_MAP, len(pairs)) + b"".join(key + item for key, item in pairs)
        case Tagged():
            return _head(_TAG, value.tag) + encode(value.value)


def decode(data: bytes) -> Value:
    """Return the value whose one encoding `data` is; raise ValueError if it is none's."""
    reader = _Reader(data)
    value = reader.value(_MAX_DEPTH)
    # Long integers, unsorted or repeated keys and bytes after the end all end here.
    if encode(value) != data:
        raise ValueError("it is not in deterministic CBOR")
    return value


def _head(major: int, number: int) -> bytes:
    if number > _MAX_INTEGER:
        raise ValueError("an integer has more than 64 bits")
    if number < 24:
        return bytes([major << 5 | number])
    size = next(size for size in (1, 2, 4, 8) if number < 1 << (8 * size))
    return bytes([major << 5 | 23 + size.bit_length()]) + number.to_bytes(size, "big")


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data, self._offset = data, 0

    def value(self, depth: int) -> Value:
        if depth == 0:
            raise ValueError("it is nested too deep")
        major, number = self._read_head()
        match major:
            case 0:
                return number
            case 1:
                return -1 - number
            case 2:
                return self._take(number)
            case 3:
                return self._take(number).decode("utf-8")
            case 4:
                return [self.value(depth - 1) for _ in range(self._bounded(number))]
            case 5:
                return self._map(number, depth)
            case 6:
                return Tagged(number, self.value(depth - 1))
            case _ if number == _NIL & 31:
                return None
            case _:
                raise ValueError("it holds a value of a kind that is not known here")

    def _map(self, count: int, depth: int) -> Value:
        found: dict[int, Value] = {}
        for _ in range(self._bounded(count)):
            key = self.value(depth - 1)
            if not isinstance(key, int):
                raise ValueError("a key of a map is not an integer")  # noqa: TRY004
            found[key] = self.value(depth - 1)
        return found

    def _read_head(self) -> tuple[int, int]:
        first = self._take(1)[0]
        major, short = first >> 5, first & 31
        if short < 24:
            return major, short
        if short > 27:
            raise ValueError("it has a length that is not known here")
        return major, int.from_bytes(self._take(1 << (short - 24)), "big")

    def _bounded(self, count: int) -> int:
        # Each item has a byte at least, so that a short input cannot ask for a long loop.
        if count > len(self._data) - self._offset:
            raise ValueError("it is cut")
        return count

    def _take(self, count: int) -> bytes:
        piece = self._data[self._offset : self._offset + self._bounded(count)]
        self._offset += count
        return piece
