"""Strict conversion between frozen dataclasses and JSON values.

Decides nothing about meaning: it only makes sure that a value has exactly the fields and types
that its class declares. An unknown field, a missing one or another type is refused: what is not
understood is never ignored. Pure.
"""

import dataclasses
import types
import typing
from collections.abc import Callable
from enum import Enum
from functools import cache
from typing import Any, TypeVar, cast

from fedproto.errors import LocalFault
from fedproto.jcs import Json

T = TypeVar("T")


def _fault(where: str, why: str) -> LocalFault:
    return LocalFault(
        "RNM-FORM-0002",
        what=f"{where or 'the statement'} was refused",
        why=why,
        mend="both sides need versions of Renmei that speak the same format",
    )


def to_json(value: object) -> Json:
    """Return the JSON value of a dataclass, tuple, enum or scalar."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    match value:
        case Enum():
            return cast(Json, value.value)
        case tuple():
            return [to_json(item) for item in value]
        case dict():
            return {key: to_json(item) for key, item in value.items()}
        case bool() | int() | str() | None:
            return value
        case _:
            raise TypeError(f"{type(value).__name__} has no JSON form")


class _Mismatch(Exception):
    """A value that is not what its class declares; each level adds its name on the way out."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why, self.path = why, ""

    def within(self, name: str) -> "_Mismatch":
        dot = "." if self.path and not self.path.startswith("[") else ""
        self.path = f"{name}{dot}{self.path}"
        return self


def from_json(cls: type[T], value: Json, where: str = "") -> T:
    """Build `cls` from a JSON value; refuse any difference (RNM-FORM-0002)."""
    try:
        return _build(cls, value)
    except _Mismatch as found:
        raise _fault((found.within(where) if where else found).path, found.why) from None


def _build(cls: type[T], value: Json) -> T:
    if not isinstance(value, dict):
        raise _Mismatch(f"expected an object, got {type(value).__name__}")
    fields = _fields(cast(Any, cls))
    if fields.keys() != value.keys():
        missing = sorted(fields.keys() - value.keys())
        unknown = sorted(value.keys() - fields.keys())
        raise _Mismatch(f"missing fields {missing}, unknown fields {unknown}")
    arguments = {}
    for name, convert in fields.items():
        try:
            arguments[name] = convert(value[name])
        except _Mismatch as found:
            raise found.within(name) from None
    try:
        return cls(**arguments)
    except ValueError as error:
        raise _Mismatch(str(error)) from None


_Converter = Callable[[Json], Any]


@cache
def _fields(cls: type) -> dict[str, _Converter]:
    """Return how each field of a class is read; looked up once, since every act is read by it."""
    return {name: _converter(hint) for name, hint in typing.get_type_hints(cls).items()}


def _converter(hint: Any) -> _Converter:
    hint = getattr(hint, "__supertype__", hint)
    origin = typing.get_origin(hint)
    if origin is types.UnionType:
        return _union(typing.get_args(hint))
    if origin is tuple:
        return _list(_converter(typing.get_args(hint)[0]))
    if origin is dict:
        return _object(_converter(typing.get_args(hint)[1]))
    if dataclasses.is_dataclass(hint):
        return lambda value: _build(cast(type, hint), value)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return _choice(hint)
    return _scalar(hint)


def _scalar(hint: type) -> _Converter:
    def convert(value: Json) -> Any:
        # bool is a subclass of int: `True` must not pass for 1.
        if type(value) is not hint:
            raise _Mismatch(f"expected {hint.__name__}, got {type(value).__name__}")
        return value

    return convert


def _choice(hint: type[Enum]) -> _Converter:
    def convert(value: Json) -> Any:
        try:
            return hint(value)
        except ValueError:
            raise _Mismatch(f"{value!r} is not one of {[m.value for m in hint]}") from None

    return convert


def _list(item: _Converter) -> _Converter:
    def convert(value: Json) -> Any:
        if not isinstance(value, list):
            raise _Mismatch(f"expected a list, got {type(value).__name__}")
        return tuple(_each(item, found, f"[{i}]") for i, found in enumerate(value))

    return convert


def _object(item: _Converter) -> _Converter:
    def convert(value: Json) -> Any:
        if not isinstance(value, dict):
            raise _Mismatch(f"expected an object, got {type(value).__name__}")
        return {key: _each(item, found, key) for key, found in value.items()}

    return convert


def _each(item: _Converter, value: Json, name: str) -> Any:
    try:
        return item(value)
    except _Mismatch as found:
        raise found.within(name) from None


def _union(options: tuple[Any, ...]) -> _Converter:
    """Read one of several classes, told apart by its fields, or nothing where that is allowed."""
    classes = [option for option in options if option is not type(None)]
    optional = len(classes) < len(options)
    if len(classes) == 1:
        (single,) = map(_converter, classes)
        return lambda value: None if optional and value is None else single(value)

    def convert(value: Json) -> Any:
        if value is None and optional:
            return None
        named = set(value) if isinstance(value, dict) else set()
        for option in classes:
            if _fields(option).keys() == named:
                return _build(option, value)
        raise _Mismatch(f"no statement has just the fields {sorted(named)}")

    return convert
