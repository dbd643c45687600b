"""Packing: documents to one stream of tokens on disk, resumable, and batches that depend only on
(seed, step).

Decides the order of training. The stream is written in shards; the index comes last, so a crash
leaves shards that the next start takes over, and never half a stream that looks whole.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer

from base_model.fetch import file_sha256
from base_model.sources import Document
from base_model.tokenizer import BOS, EOS
from fedproto.durable import disk_fault, write_atomic
from fedproto.errors import LocalFault
from fedproto.ids import Digest, sha256_hex

Tokens = np.ndarray[Any, np.dtype[np.unsignedinteger[Any]]]

_INDEX = "index.json"
_SHARD = 500


def pack(
    documents: Sequence[Document],
    tokenizer: Tokenizer,
    directory: Path,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Tokens:
    """Return the token stream of documents (BOS text EOS ...), packed once into `directory`.

    A directory that was made from other documents or another tokenizer is made again.
    """
    key = _key(documents, tokenizer)
    index = directory / _INDEX
    if not index.exists() or _recorded(index).get("key") != key:
        make_directory(directory)

        def encoded(start: int, stop: int) -> list[list[int]]:
            texts = [document.text for document in documents[start:stop]]
            return [list(found.ids) for found in tokenizer.encode_batch_fast(texts)]

        kind = _kind(tokenizer.get_vocab_size())
        _write_shards(_Work(len(documents), encoded, kind, key), directory, on_progress)
    return read(directory)


def pack_tokens(pieces: Sequence[Sequence[int]], vocabulary: int, directory: Path) -> Tokens:
    """Return the stream of pieces that are tokens already, such as series, packed like documents."""
    key = sha256_hex(json.dumps([vocabulary, [list(piece) for piece in pieces]]).encode())
    index = directory / _INDEX
    if not index.exists() or _recorded(index).get("key") != key:
        make_directory(directory)

        def given(start: int, stop: int) -> list[list[int]]:
            return [list(piece) for piece in pieces[start:stop]]

        work = _Work(len(pieces), given, _kind(vocabulary), key)
        _write_shards(work, directory, lambda done, total: None)
    return read(directory)


def make_directory(directory: Path) -> None:
    """Make a directory and what is above it; raise RNM-DISK-0001 where there is no room."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise disk_fault(directory, error) from None


def _kind(vocabulary: int) -> str:
    """Return how a token is stored: two bytes wherever they suffice."""
    return "<u2" if vocabulary <= 2**16 else "<u4"


def read(directory: Path) -> Tokens:
    """Read a packed stream; raise RNM-DATA-0001 or RNM-DATA-0002 if it is not there or damaged."""
    recorded = _index(directory)
    try:
        shards = [(directory / name).read_bytes() for name in recorded["shards"]]
    except OSError as error:
        raise _damaged(directory, f"a shard cannot be read ({type(error).__name__})") from None
    if [sha256_hex(shard) for shard in shards] != recorded["sha256"]:
        raise _damaged(directory, "a shard is not the one that the index names")
    return np.frombuffer(b"".join(shards), recorded["kind"])


class Stream:
    """A token stream in shards that are mapped, not read: memory doesn't grow with the corpus.

    Each shard is verified against the index when the first window touches it.
    """

    def __init__(self, *, sizes: Sequence[int], digest: Digest, load: Callable[[int], Tokens]):
        self._ends = np.cumsum(np.asarray([0, *sizes], np.int64))
        self._load = load
        self._loaded: dict[int, Tokens] = {}
        self.digest = digest

    @classmethod
    def of(cls, tokens: Tokens) -> "Stream":
        """Return a stream of tokens that are in memory."""
        digest = sha256_hex(tokens.tobytes())
        return cls(sizes=[tokens.size], digest=digest, load=lambda _: tokens)

    @classmethod
    def open(cls, directory: Path) -> "Stream":
        """Return the stream packed into a directory.

        Raises:
            LocalFault: RNM-DATA-0001 it is not there; RNM-DATA-0002 it is damaged, here or, for a
                shard's content, once a window touches it.
        """
        recorded = _index(directory)
        paths = [directory / name for name in recorded["shards"]]
        try:
            width = np.dtype(recorded["kind"]).itemsize
            sizes = [path.stat().st_size // width for path in paths]
        except OSError as error:
            raise _damaged(directory, f"a shard cannot be read ({type(error).__name__})") from None

        def load(number: int) -> Tokens:
            if file_sha256(paths[number]) != recorded["sha256"][number]:
                raise _damaged(
                    directory, f"{paths[number].name} is not the one that the index names"
                )
            return np.memmap(paths[number], recorded["kind"], "r")

        digests = " ".join([recorded["kind"], *recorded["sha256"]])
        return cls(sizes=sizes, digest=sha256_hex(digests.encode()), load=load)

    @property
    def size(self) -> int:
        """How many tokens it has."""
        return int(self._ends[-1])

    def window(self, start: int, length: int) -> Tokens:
        """Return `length` tokens from `start` on, across shards."""
        if start < 0 or start + length > self.size:
            raise ValueError(
                f"tokens {start} to {start + length} are not in a stream of {self.size}"
            )
        first = int(np.searchsorted(self._ends, start, side="right")) - 1
        parts: list[Tokens] = []
        while length > 0:
            begin = start - int(self._ends[first])
            part = self._shard(first)[begin : begin + length]
            parts.append(part)
            start, length, first = start + len(part), length - len(part), first + 1
        return np.concatenate(parts)

    def _shard(self, number: int) -> Tokens:
        if number not in self._loaded:
            self._loaded[number] = self._load(number)
        return self._loaded[number]


def _index(directory: Path) -> dict[str, Any]:
    index = directory / _INDEX
    if not index.is_file():
        raise LocalFault(
            "RNM-DATA-0001",
            what=f"no packed tokens in {directory}",
            why=f"{_INDEX} is missing: packing has not ended",
            mend="run it again; finished shards are kept",
        )
    return _recorded(index)


def _recorded(index: Path) -> dict[str, Any]:
    try:
        content = json.loads(index.read_bytes())
        recorded = {name: content[name] for name in ("key", "shards", "sha256")}
        # Packed before there were larger vocabularies: two bytes a token.
        recorded["kind"] = content.get("kind", "<u2")
        if recorded["kind"] not in {"<u2", "<u4"}:
            raise ValueError
        return recorded
    except (OSError, ValueError, KeyError, TypeError):
        raise _damaged(index.parent, f"{_INDEX} cannot be read") from None


def _damaged(directory: Path, why: str) -> LocalFault:
    return LocalFault(
        "RNM-DATA-0002",
        what=f"packed tokens in {directory} were not used",
        why=why,
        mend=f"remove {directory}; it is packed again",
    )


def _key(documents: Sequence[Document], tokenizer: Tokenizer) -> Digest:
    texts = "\0".join(document.text for document in documents)
    return sha256_hex((tokenizer.to_str() + "\0\0" + texts).encode())


@dataclass(frozen=True, slots=True)
class _Work:
    """What is packed: `pieces(start, stop)` gives the tokens of each piece, without its marks."""

    count: int
    pieces: Callable[[int, int], list[list[int]]]
    kind: str
    key: Digest


def _write_shards(work: _Work, directory: Path, on_progress: Callable[[int, int], None]) -> None:
    names: list[str] = []
    digests: list[str] = []
    for start in range(0, work.count, _SHARD):
        stop = min(start + _SHARD, work.count)
        # The key in the name: a shard of other documents is never taken for one of these.
        path = directory / f"{work.key[:16]}-{start // _SHARD:05d}.bin"
        if not path.exists():
            ids: list[int] = []
            for piece in work.pieces(start, stop):
                ids += [BOS, *piece, EOS]
            write_atomic(path, np.asarray(ids, work.kind).tobytes())
        names.append(path.name)
        digests.append(sha256_hex(path.read_bytes()))
        on_progress(stop, work.count)
    content = {"key": work.key, "kind": work.kind, "shards": names, "sha256": digests}
    write_atomic(directory / _INDEX, json.dumps(content).encode())


@dataclass(frozen=True, slots=True, kw_only=True)
class Batches:
    """Windows of a stream in an order that `seed` fixes; independent of processes and restarts."""

    stream: Tokens
    sequence: int
    seed: int

    def __post_init__(self) -> None:
        if self.windows < 1:
            raise LocalFault(
                "RNM-DATA-0003",
                what="the corpus was not used",
                why=f"it has {self.stream.size} tokens, fewer than one window of {self.sequence}",
                mend="add documents to it, or train with a shorter sequence",
            )

    @property
    def windows(self) -> int:
        """How many windows an epoch has."""
        return (self.stream.size - 1) // self.sequence

    @property
    def digest(self) -> Digest:
        """What a snapshot remembers: which tokens, cut and ordered how."""
        content = sha256_hex(self.stream.tobytes())
        return sha256_hex(f"{content} {self.sequence} {self.seed}".encode())

    def batch(self, step: int, size: int, *, rank: int = 0, ranks: int = 1) -> torch.Tensor:
        """Return the int64 tokens (size / ranks, sequence + 1) of a step, counted from 0.

        Sample number i of a step is the same however many ranks share it: rank r takes every
        `ranks`-th sample, from r on.
        """
        rows = []
        for sample in range(step * size + rank, (step + 1) * size, ranks):
            epoch, position = divmod(sample, self.windows)
            start = int(_order(self.seed, epoch, self.windows)[position]) * self.sequence
            rows.append(self.stream[start : start + self.sequence + 1])
        return torch.from_numpy(np.stack(rows).astype(np.int64))


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, windows: int) -> "np.ndarray[Any, np.dtype[np.int64]]":
    return np.random.default_rng((seed, epoch)).permutation(windows)
