"""The adapter's layout: one order, one size; tensors that differ in anything are refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedproto.errors import LocalFault
from fedproto.layout import MAX_PARAMETERS, AdapterLayout, TensorSpec, vector_digest

TENSORS = {
    "layers.0.q.lora_B": np.arange(6, dtype=np.float32).reshape(3, 2),
    "layers.0.q.lora_A": np.arange(8, dtype=np.float32).reshape(2, 4),
}
LAYOUT = AdapterLayout.of(TENSORS)


def test_the_flat_vector_is_in_name_order_row_by_row() -> None:
    flat = LAYOUT.flatten(TENSORS)
    assert flat.tolist() == [*range(8), *range(6)]
    assert LAYOUT.size == 14


@given(st.lists(st.integers(1, 4), min_size=1, max_size=3), st.integers(0, 2**31))
def test_unflatten_undoes_flatten(shape: list[int], seed: int) -> None:
    tensors = {"t": np.random.default_rng(seed).normal(size=shape).astype(np.float32)}
    layout = AdapterLayout.of(tensors)
    assert np.array_equal(layout.unflatten(layout.flatten(tensors))["t"], tensors["t"])


def test_a_layout_reads_back_with_its_digest() -> None:
    again = AdapterLayout.from_bytes(LAYOUT.to_bytes())
    assert again == LAYOUT
    assert again.digest == LAYOUT.digest


def test_every_part_of_a_layout_changes_its_digest() -> None:
    name = AdapterLayout.of({"other" + k: v for k, v in TENSORS.items()})
    shape = AdapterLayout.of({k: v.T for k, v in TENSORS.items()})
    fewer = AdapterLayout.of({"layers.0.q.lora_A": TENSORS["layers.0.q.lora_A"]})
    assert len({LAYOUT.digest, name.digest, shape.digest, fewer.digest}) == 4


def _with(**change: object) -> dict[str, np.ndarray]:
    return {**TENSORS, **change}  # type: ignore[dict-item]


WRONG = {
    "a missing tensor": {"layers.0.q.lora_A": TENSORS["layers.0.q.lora_A"]},
    "an extra tensor": _with(router=np.zeros(1, np.float32)),
    "another shape of the same size": {
        **TENSORS,
        "layers.0.q.lora_A": TENSORS["layers.0.q.lora_A"].T,
    },
    "another type": {**TENSORS, "layers.0.q.lora_A": np.zeros((2, 4), np.float64)},
    "not a number": {**TENSORS, "layers.0.q.lora_A": np.full((2, 4), np.nan, np.float32)},
    "infinity": {**TENSORS, "layers.0.q.lora_A": np.full((2, 4), np.inf, np.float32)},
}


@pytest.mark.parametrize("tensors", WRONG.values(), ids=WRONG.keys())
def test_tensors_that_differ_are_refused(tensors: dict[str, np.ndarray]) -> None:
    with pytest.raises(LocalFault) as caught:
        LAYOUT.flatten(tensors)
    assert caught.value.code == "RNM-MODEL-0002"


@pytest.mark.parametrize(
    "flat",
    [
        np.zeros(13, np.float32),
        np.zeros(15, np.float32),
        np.zeros(14, np.float64),
        np.zeros((14, 1), np.float32),
        np.full(14, np.inf, np.float32),
    ],
    ids=["short", "long", "float64", "2-d", "inf"],
)
def test_a_vector_that_differs_is_refused(flat: np.ndarray) -> None:
    with pytest.raises(LocalFault) as caught:
        LAYOUT.unflatten(flat)
    assert caught.value.code == "RNM-MODEL-0002"


BAD_LAYOUTS = {
    "unsorted": b'{"tensors":[{"name":"b","shape":[1]},{"name":"a","shape":[1]}]}',
    "a name twice": b'{"tensors":[{"name":"a","shape":[1]},{"name":"a","shape":[1]}]}',
    "empty": b'{"tensors":[]}',
    "no shape": b'{"tensors":[{"name":"a","shape":[]}]}',
    "a side of nought": b'{"tensors":[{"name":"a","shape":[0]}]}',
    "a negative side": b'{"tensors":[{"name":"a","shape":[-2,-2]}]}',
    "a bool for a side": b'{"tensors":[{"name":"a","shape":[true]}]}',
    "a huge tensor": b'{"tensors":[{"name":"a","shape":[65536,65536]}]}',
    "an unknown field": b'{"tensors":[{"name":"a","shape":[1]}],"x":1}',
    "no name": b'{"tensors":[{"name":"","shape":[1]}]}',
}


@pytest.mark.parametrize("data", BAD_LAYOUTS.values(), ids=BAD_LAYOUTS.keys())
def test_a_bad_layout_is_refused_before_anything_is_allocated(data: bytes) -> None:
    with pytest.raises(LocalFault) as caught:
        AdapterLayout.from_bytes(data)
    assert caught.value.code == "RNM-FORM-0002"


def test_the_size_limit_is_exact() -> None:
    AdapterLayout(tensors=(TensorSpec(name="a", shape=(MAX_PARAMETERS,)),))
    with pytest.raises(ValueError, match="at most"):
        AdapterLayout(tensors=(TensorSpec(name="a", shape=(MAX_PARAMETERS + 1,)),))


def test_a_vectors_digest_is_over_its_numbers_whatever_the_byte_order() -> None:
    flat = np.arange(4, dtype=np.float32)
    assert vector_digest(flat) == vector_digest(flat.astype(">f4"))
    assert vector_digest(flat) != vector_digest(flat + 1)
    assert vector_digest(flat) != vector_digest(flat[:3])
