"""Packing: documents to one stream of tokens on disk, resumable, and batches that depend only on
(seed, step).

Decides the order of training. The stream is written in shards; the index comes last, so a crash
leaves shards that the next start takes over, and never half a stream that looks whole.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer

from base_model.sources import Document
from base_model.tokenizer import BOS, EOS
from fedproto.durable import write_atomic
from fedproto.errors import LocalFault
from fedproto.ids import Digest, sha256_hex

Tokens = np.ndarray[Any, np.dtype[np.uint16]]

_SHARD = 2000


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
    index = directory / "index.json"
    if not index.exists() or json.loads(index.read_bytes()).get("key") != key:
        directory.mkdir(parents=True, exist_ok=True)
        _write_shards(documents, tokenizer, directory, key, on_progress)
    recorded = json.loads(index.read_bytes())
    shards = [np.fromfile(directory / name, "<u2") for name in recorded["shards"]]
    stream: Tokens = np.concatenate(shards)
    if stream.size != recorded["tokens"]:
        raise LocalFault(
            "RNM-DATA-0002",
            what=f"packed tokens in {directory} were not used",
            why="they are fewer or more than the index says",
            mend=f"remove {directory}; it is packed again",
        )
    return stream


def _key(documents: Sequence[Document], tokenizer: Tokenizer) -> Digest:
    texts = "\0".join(document.text for document in documents)
    return sha256_hex((tokenizer.to_str() + "\0\0" + texts).encode())


def _write_shards(
    documents: Sequence[Document],
    tokenizer: Tokenizer,
    directory: Path,
    key: Digest,
    on_progress: Callable[[int, int], None],
) -> None:
    names = []
    total = 0
    for start in range(0, len(documents), _SHARD):
        # The key in the name: a shard of other documents is never taken for one of these.
        name = f"{key[:12]}-{start // _SHARD:05d}.bin"
        path = directory / name
        if not path.exists():
            texts = [document.text for document in documents[start : start + _SHARD]]
            ids: list[int] = []
            for encoding in tokenizer.encode_batch_fast(texts):
                ids += [BOS, *encoding.ids, EOS]
            write_atomic(path, np.asarray(ids, "<u2").tobytes())
        total += path.stat().st_size // 2
        names.append(name)
        on_progress(min(start + _SHARD, len(documents)), len(documents))
    content = {"key": key, "shards": names, "tokens": total}
    write_atomic(directory / "index.json", json.dumps(content).encode())


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

    def batch(self, step: int, size: int) -> torch.Tensor:
        """Return the int64 tokens (size, sequence + 1) of a step, counted from 0."""
        rows = []
        for sample in range(step * size, (step + 1) * size):
            epoch, position = divmod(sample, self.windows)
            start = int(self._order(epoch)[position]) * self.sequence
            rows.append(self.stream[start : start + self.sequence + 1])
        return torch.from_numpy(np.stack(rows).astype(np.int64))

    def _order(self, epoch: int) -> "np.ndarray[Any, np.dtype[np.int64]]":
        return np.random.default_rng((self.seed, epoch)).permutation(self.windows)
