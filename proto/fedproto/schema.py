"""Strict conversion between frozen dataclasses and JSON values.

Decides nothing about meaning: it only makes sure that a value has exactly the fields and types
that its class declares. An unknown field, a missing one or another type is refused: what is not
understood is never ignored. Pure.
"""

import dataclasses
import types
import typing
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


@cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


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


def from_json(cls: type[T], value: Json, where: str = "") -> T:
    """Build `cls` from a JSON value; refuse any difference (RNM-FORM-0002)."""
    if not isinstance(value, dict):
        raise _fault(where, f"expected an object, got {type(value).__name__}")
    hints = _hints(cast(Any, cls))
    missing = sorted(hints.keys() - value.keys())
    unknown = sorted(value.keys() - hints.keys())
    if missing or unknown:
        raise _fault(where, f"missing fields {missing}, unknown fields {unknown}")
    arguments = {
        name: _convert(hint, value[name], f"{where}.{name}" if where else name)
        for name, hint in hints.items()
    }
    try:
        return cls(**arguments)
    except ValueError as error:
        raise _fault(where, str(error)) from None


def _convert(hint: Any, value: Json, where: str) -> Any:
    hint = getattr(hint, "__supertype__", hint)
    origin = typing.get_origin(hint)
    if origin is types.UnionType:
        return _convert_union(hint, value, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise _fault(where, f"expected a list, got {type(value).__name__}")
        item_hint = typing.get_args(hint)[0]
        return tuple(_convert(item_hint, item, f"{where}[{i}]") for i, item in enumerate(value))
    if origin is dict:
        if not isinstance(value, dict):
            raise _fault(where, f"expected an object, got {type(value).__name__}")
        item_hint = typing.get_args(hint)[1]
        return {key: _convert(item_hint, item, f"{where}.{key}") for key, item in value.items()}
    if dataclasses.is_dataclass(hint):
        return from_json(cast(type, hint), value, where)
    if isinstance(hint, type) and issubclass(hint, Enum):
        try:
            return hint(value)
        except ValueError:
            raise _fault(where, f"{value!r} is not one of {[m.value for m in hint]}") from None
    # bool is a subclass of int: `True` must not pass for 1.
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise _fault(where, f"expected {hint.__name__}, got {type(value).__name__}")
    return value


def _convert_union(hint: Any, value: Json, where: str) -> Any:
    """Read one of several classes, told apart by its fields, or nothing where that is allowed."""
    options = typing.get_args(hint)
    if value is None and type(None) in options:
        return None
    classes = [option for option in options if option is not type(None)]
    if len(classes) > 1:
        named = set(value) if isinstance(value, dict) else set()
        classes = [option for option in classes if _hints(option).keys() == named]
        if not classes:
            raise _fault(where, f"no statement has just the fields {sorted(named)}")
    return _convert(classes[0], value, where)
