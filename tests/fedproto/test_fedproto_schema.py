"""Strict fields: nothing unknown, nothing missing, no type for another."""

from dataclasses import dataclass
from enum import Enum

import pytest

from fedproto.errors import LocalFault
from fedproto.ids import Digest
from fedproto.schema import from_json, to_json


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True, slots=True, kw_only=True)
class Inner:
    size: int

    def __post_init__(self) -> None:
        if self.size < 0:
            raise ValueError("size is negative")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outer:
    name: str
    flag: bool
    digest: Digest
    colour: Colour
    inner: Inner
    items: tuple[Inner, ...]
    table: dict[str, Inner]
    maybe: int | None


GOOD = Outer(
    name="n",
    flag=True,
    digest=Digest("d"),
    colour=Colour.RED,
    inner=Inner(size=1),
    items=(Inner(size=2), Inner(size=3)),
    table={"k": Inner(size=4)},
    maybe=None,
)


def good() -> dict[str, object]:
    value = to_json(GOOD)
    assert isinstance(value, dict)
    return dict(value)


def test_a_value_reads_back_as_itself() -> None:
    assert from_json(Outer, to_json(GOOD)) == GOOD


WRONG = {
    "an unknown field": {"extra": 1},
    "a bool for an int": {"inner": {"size": True}},
    "a string for an int": {"inner": {"size": "1"}},
    "an int for a bool": {"flag": 1},
    "an int for a string": {"name": 1},
    "nothing for a string": {"name": None},
    "a value outside the enum": {"colour": "green"},
    "a number for an enum": {"colour": 1},
    "an object for a list": {"items": {}},
    "a string for a list": {"items": "ab"},
    "a list for an object": {"inner": []},
    "a list for a table": {"table": []},
    "an unknown field deep inside": {"items": [{"size": 1, "extra": 1}]},
    "a missing field deep inside": {"table": {"k": {}}},
    "a value that its class refuses": {"inner": {"size": -1}},
    "a bool for an optional int": {"maybe": False},
    "a number for a digest": {"digest": 1},
}


@pytest.mark.parametrize("fields", WRONG.values(), ids=WRONG.keys())
def test_what_does_not_fit_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(LocalFault) as caught:
        from_json(Outer, {**good(), **fields})  # type: ignore[arg-type]
    assert caught.value.code == "RNM-FORM-0002"


@pytest.mark.parametrize("field", list(Outer.__dataclass_fields__))
def test_a_missing_field_is_refused_even_an_optional_one(field: str) -> None:
    value = good()
    del value[field]
    with pytest.raises(LocalFault):
        from_json(Outer, value)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [None, 1, "x", [], True])
def test_what_is_no_object_is_refused(value: object) -> None:
    with pytest.raises(LocalFault):
        from_json(Outer, value)  # type: ignore[arg-type]


def test_the_error_names_the_place() -> None:
    with pytest.raises(LocalFault, match=r"outer\.items\[1\]\.size"):
        from_json(Outer, {**good(), "items": [{"size": 1}, {"size": "2"}]}, "outer")  # type: ignore[arg-type]


def test_a_float_has_no_json_form() -> None:
    with pytest.raises(TypeError):
        to_json(1.5)
