"""Sharded snapshots: each process writes its parts in safetensors; `state.json` comes last and commits.

Decides what is trusted: a snapshot whose `state.json` lists every file's SHA-256 and whose files have
them. A damaged one is named and left aside, and the one before is used. The rows of a matrix are those
that FSDP2 gives a rank (torch.chunk of dimension 0), so any number of processes can go on from it: each
reads the rows that it needs. Nothing is pickled, which is why torch's own distributed checkpoint is not
used (its index is a pickle). A shell module.
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch.distributed.tensor import DTensor

from base_model.engine import layout
from base_model.fetch import file_sha256
from fedproto.durable import disk_fault, sync_directory, write_atomic
from fedproto.errors import LocalFault
from fedproto.ids import Digest

STATE = "state.json"
_SCALAR = "scalar."
# What a file says of itself: of each of its tensors, where it starts and the shape of the whole.
_PLACES = "places"


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where a training stands: what a snapshot holds besides tensors. Losses are exact."""

    training: Digest
    step: int
    cursor: int
    skipped: tuple[int, ...]
    recent: tuple[float, ...]
    rollbacks: int

    def to_json(self) -> dict[str, Any]:
        """Return JSON; a loss is written in hexadecimal, which keeps every bit."""
        return {
            "v": 2,
            "training": self.training,
            "step": self.step,
            "cursor": self.cursor,
            "skipped": list(self.skipped),
            "recent": [loss.hex() for loss in self.recent],
            "rollbacks": self.rollbacks,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Progress":
        """Read what `to_json` wrote; raises ValueError, KeyError or TypeError on anything else."""
        if value["v"] != 2:
            raise ValueError("another version")
        return cls(
            training=Digest(str(value["training"])),
            step=int(value["step"]),
            cursor=int(value["cursor"]),
            skipped=tuple(int(number) for number in value["skipped"]),
            recent=tuple(float.fromhex(loss) for loss in value["recent"]),
            rollbacks=int(value["rollbacks"]),
        )


def tensors_of(
    objective: torch.nn.Module, steppers: Sequence[torch.optim.Optimizer]
) -> Iterator[tuple[str, torch.Tensor]]:
    """Give every tensor of a training by a name that doesn't depend on the number of processes."""
    names: dict[torch.Tensor, str] = {}
    for name, weight in objective.named_parameters():
        names[weight] = _plain(name)
        yield f"weight.{_plain(name)}", weight
    for stepper in steppers:
        for parameter, state in stepper.state.items():
            for key, value in state.items():
                yield f"{key}.{names[parameter]}", value


def _plain(name: str) -> str:
    return name.replace("_orig_mod.", "").removeprefix("model.")


def warm(steppers: Sequence[torch.optim.Optimizer]) -> None:
    """Make the optimisers' state as their first step would, so that a snapshot can be read into it."""
    for stepper in steppers:
        for group in stepper.param_groups:
            for parameter in group["params"]:
                if stepper.state[parameter]:
                    continue
                if isinstance(stepper, torch.optim.AdamW):
                    stepper.state[parameter] = {
                        "step": torch.zeros((), dtype=torch.float32),
                        "exp_avg": torch.zeros_like(parameter),
                        "exp_avg_sq": torch.zeros_like(parameter),
                    }
                else:
                    stepper.state[parameter] = {"momentum": torch.zeros_like(parameter)}


class Shelf:
    """The snapshots of one training: written beside it in a thread, read at its start.

    `exchange` gives every rank the digest of every rank's file; an empty one says that it failed.
    """

    def __init__(
        self, root: Path, *, rank: int, ranks: int, exchange: Any, keep: int, leads: bool = True
    ) -> None:
        """`leads` is false for a rank that cuts matrices with another one before it."""
        self._root, self._rank, self._ranks, self._keep = root, rank, ranks, keep
        self._leads = leads
        self._exchange = exchange
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="snapshot")
        self._pending: Future[None] | None = None

    def save(self, named: Iterator[tuple[str, torch.Tensor]], progress: Progress) -> None:
        """Copy the tensors and write them behind the training's back; waits for the one before.

        Raises:
            LocalFault: RNM-DISK-0001 the snapshot before was not written.
        """
        self.wait()
        copies: dict[str, torch.Tensor] = {}
        places: dict[str, object] = {}
        for name, tensor in named:
            local = tensor.to_local() if isinstance(tensor, DTensor) else tensor
            # A tensor without dimensions is the same at each rank.
            if local.ndim == 0:
                copies[f"{_SCALAR}{name}"] = local.detach().to("cpu", copy=True)
            elif not layout.is_copy(tensor, leads=self._leads):
                copies[name] = local.detach().to("cpu", copy=True).contiguous()
                starts = [low for low, _ in layout.place_of(tensor)]
                places[name] = [starts, list(tensor.shape)]
        noted = {_PLACES: json.dumps(places)}
        self._pending = self._writer.submit(self._write, copies, noted, progress)

    def wait(self) -> None:
        """Return when what was saved is durable; raise why it is not."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def close(self) -> None:
        """End the writing thread; what was saved is durable, or `wait` has said why not."""
        self._writer.shutdown(wait=True)

    def _write(
        self, copies: dict[str, torch.Tensor], noted: dict[str, str], progress: Progress
    ) -> None:
        target = self._root / f"step-{progress.step:08d}"
        file = target / self._file(self._rank)
        fault: LocalFault | None = None
        try:
            target.mkdir(parents=True, exist_ok=True)
            # A file of an earlier start that was killed here must not be taken for this one.
            (target / STATE).unlink(missing_ok=True)
            save_file(copies, file, metadata=noted)
            with file.open("rb") as written:
                os.fsync(written.fileno())
            digest = file_sha256(file)
        except OSError as error:
            fault, digest = disk_fault(target, error), ""
        except SafetensorError as error:
            # safetensors reports a full disk in its own words.
            fault, digest = _full(target, str(error)), ""
        digests = self._exchange(digest)
        if not all(digests):
            # Half a snapshot is of no use, and its room is needed to say what happened.
            file.unlink(missing_ok=True)
            raise fault or _full(target, "another process could not write its part")
        if self._rank == 0:
            self._commit(target, progress, digests)

    def _commit(self, target: Path, progress: Progress, digests: Sequence[str]) -> None:
        files = {self._file(rank): digest for rank, digest in enumerate(digests)}
        state = {**progress.to_json(), "files": files}
        try:
            write_atomic(target / STATE, json.dumps(state).encode())
            sync_directory(self._root)
        except OSError as error:
            raise disk_fault(target, error) from None
        committed = sorted(path.parent for path in self._root.glob(f"step-*/{STATE}"))
        for old in committed[: -self._keep]:
            # The commit goes first, so that what is half removed is never taken for whole.
            (old / STATE).unlink()
            shutil.rmtree(old)

    def _file(self, rank: int) -> str:
        return f"shard-{rank:05d}-of-{self._ranks:05d}.safetensors"

    def newest(self, training: Digest) -> tuple[Path, Progress, list[LocalFault]] | None:
        """Return the newest whole snapshot and why newer ones were left aside, or nothing.

        Raises:
            LocalFault: RNM-MODEL-0002 it is of another training, or all of them are damaged.
        """
        found: list[LocalFault] = []
        for path in sorted(self._root.glob(f"step-*/{STATE}"), reverse=True):
            try:
                state = json.loads(path.read_bytes())
                progress = Progress.from_json(state)
                damaged = _damaged_file(path.parent, state["files"])
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                found.append(
                    _refused(path.parent, f"its {STATE} is damaged ({type(error).__name__})")
                )
                continue
            if damaged:
                found.append(_refused(path.parent, damaged))
                continue
            if progress.training != training:
                raise _refused(path.parent, "it is of another model, recipe, data or seed")
            return path.parent, progress, found
        if found:
            raise found[0]
        return None


def _damaged_file(snapshot: Path, files: Mapping[str, str]) -> str:
    """Return which file of a snapshot is not what was committed, or nothing."""
    for name, digest in files.items():
        if Path(name).name != name:
            return f"it names {name}, which is no file of it"
        if not (snapshot / name).is_file():
            return f"{name} is missing"
        if file_sha256(snapshot / name) != digest:
            return f"{name} is not the file that was written"
    return ""


def read_into(snapshot: Path, named: Iterator[tuple[str, torch.Tensor]]) -> None:
    """Fill the tensors of a training from a snapshot that `newest` gave, whoever wrote it.

    Raises:
        LocalFault: RNM-MODEL-0002 it lacks a tensor or a part of one, or holds one of another shape.
    """
    pieces = _Pieces(snapshot)
    with torch.no_grad():
        for name, tensor in named:
            if tensor.ndim == 0:
                tensor.copy_(pieces.scalar(f"{_SCALAR}{name}"))
                continue
            local = tensor.to_local() if isinstance(tensor, DTensor) else tensor
            local.copy_(pieces.part(name, tuple(tensor.shape), layout.place_of(tensor)))


class _Pieces:
    """The tensors of a snapshot, each in pieces over its files."""

    def __init__(self, snapshot: Path) -> None:
        self._snapshot = snapshot
        self._files: list[Any] = [
            safe_open(file, framework="pt") for file in sorted(snapshot.glob("shard-*.safetensors"))
        ]
        self._places: list[dict[str, tuple[list[int], list[int]]]] = [
            json.loads((file.metadata() or {}).get(_PLACES, "{}")) for file in self._files
        ]

    def scalar(self, name: str) -> torch.Tensor:
        """Return a tensor without dimensions, which every file has."""
        value: torch.Tensor = self._files[0].get_tensor(name)
        return value

    def part(
        self, name: str, shape: tuple[int, ...], wanted: tuple[tuple[int, int], ...]
    ) -> torch.Tensor:
        """Return what lies between `wanted` of a tensor of this shape."""
        part = torch.empty([high - low for low, high in wanted])
        filled, known = 0, False
        for file, places in zip(self._files, self._places, strict=True):
            if name not in places:
                continue
            known = True
            starts, whole = places[name]
            if tuple(whole) != shape:
                raise _refused(self._snapshot, f"{name} has other dimensions there")
            piece = file.get_slice(name)
            sizes = zip(starts, piece.get_shape(), strict=True)
            shared = [
                (max(low, start), min(high, start + size))
                for (low, high), (start, size) in zip(wanted, sizes, strict=True)
            ]
            if any(low >= high for low, high in shared):
                continue
            theirs = tuple(
                slice(low - start, high - start)
                for (low, high), start in zip(shared, starts, strict=True)
            )
            ours = tuple(
                slice(low - start, high - start)
                for (low, high), (start, _) in zip(shared, wanted, strict=True)
            )
            part[ours] = piece[theirs]
            filled += part[ours].numel()
        if not known or filled != part.numel():
            raise _refused(self._snapshot, f"it holds no {name}, or not all of it")
        return part


def _full(target: Path, why: str) -> LocalFault:
    return LocalFault(
        "RNM-DISK-0001",
        what=f"the snapshot {target} was not written",
        why=why[:200],
        mend="free space there, then run it again: it goes on from the snapshot before",
    )


def _refused(path: Path, why: str) -> LocalFault:
    return LocalFault(
        "RNM-MODEL-0002",
        what=f"the snapshot {path} was not used",
        why=why,
        mend="remove it to go on from an earlier one, or go on with what made it",
    )
