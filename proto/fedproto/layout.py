"""The adapter's layout: ordered names and shapes, and the one flat vector that is aggregated.

Decides the order and size of the vector that every member masks and the coordinator sums. Trusts
nothing: tensors that differ from the layout in name, shape or type are refused. Pure (numpy only).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt

from fedproto import jcs
from fedproto.errors import LocalFault
from fedproto.ids import Digest, tagged_hash
from fedproto.schema import from_json, to_json

FlatVector = npt.NDArray[np.float32]

MAX_PARAMETERS = 1 << 31


def _fault(why: str) -> LocalFault:
    return LocalFault(
        "RNM-MODEL-0002",
        what="an adapter was refused",
        why=why,
        mend="train with the rank, targets and base model that the mandate names",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """One tensor: its name in the adapter and its shape."""

    name: str
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.name or not self.shape or any(side <= 0 for side in self.shape):
            raise ValueError("a tensor needs a name and positive sides")

    @property
    def size(self) -> int:
        """How many numbers the tensor holds."""
        return prod(self.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterLayout:
    """Tensors sorted by name; their concatenation in this order is the flat vector."""

    tensors: tuple[TensorSpec, ...]

    def __post_init__(self) -> None:
        names = [tensor.name for tensor in self.tensors]
        if not names or names != sorted(set(names)):
            raise ValueError("layout names must be sorted and stand once")
        if self.size > MAX_PARAMETERS:
            raise ValueError(f"a layout has at most {MAX_PARAMETERS} parameters")

    @property
    def size(self) -> int:
        """The length d of the flat vector."""
        return sum(tensor.size for tensor in self.tensors)

    @property
    def digest(self) -> Digest:
        """The digest by which a plan names this layout."""
        return Digest(tagged_hash("renmei/v1/layout", self.to_bytes()).hex())

    def to_bytes(self) -> bytes:
        """Return the canonical JSON form."""
        return jcs.dumps(to_json(self))

    @classmethod
    def from_bytes(cls, data: bytes) -> "AdapterLayout":
        """Read what `to_bytes` wrote."""
        return from_json(cls, jcs.loads(data), "layout")

    @classmethod
    def of(cls, tensors: Mapping[str, npt.NDArray[np.float32]]) -> "AdapterLayout":
        """Return the layout of a set of tensors."""
        return cls(
            tensors=tuple(
                TensorSpec(name=name, shape=tuple(int(side) for side in tensors[name].shape))
                for name in sorted(tensors)
            )
        )

    def flatten(self, tensors: Mapping[str, npt.NDArray[np.float32]]) -> FlatVector:
        """Concatenate tensors in layout order; refuse any difference (RNM-MODEL-0002)."""
        if tensors.keys() != {tensor.name for tensor in self.tensors}:
            raise _fault("it has other tensors than the layout names")
        flat = np.empty(self.size, np.float32)
        start = 0
        for spec in self.tensors:
            tensor = tensors[spec.name]
            if tensor.shape != spec.shape or tensor.dtype != np.float32:
                raise _fault(
                    f"{spec.name} is {tensor.dtype}{tensor.shape}, not float32{spec.shape}"
                )
            flat[start : start + spec.size] = tensor.reshape(-1)
            start += spec.size
        if not np.isfinite(flat).all():
            raise _fault("it holds a value that is not finite")
        return flat

    def unflatten(self, flat: FlatVector) -> dict[str, npt.NDArray[np.float32]]:
        """Cut a flat vector into named tensors (views of it)."""
        if flat.shape != (self.size,) or flat.dtype != np.float32:
            raise _fault(f"the vector is {flat.dtype}{flat.shape}, not float32({self.size},)")
        if not np.isfinite(flat).all():
            raise _fault("it holds a value that is not finite")
        tensors: dict[str, npt.NDArray[np.float32]] = {}
        start = 0
        for spec in self.tensors:
            tensors[spec.name] = flat[start : start + spec.size].reshape(spec.shape)
            start += spec.size
        return tensors


def vector_digest(flat: FlatVector) -> Digest:
    """Return the digest of a global adapter's flat vector: over little-endian float32 bytes."""
    return Digest(tagged_hash("renmei/v1/adapter", flat.astype("<f4").tobytes()).hex())
