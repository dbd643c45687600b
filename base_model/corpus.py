"""Corpora: documents of a domain, deduplicated, split by group, in a cache that survives `kill -9`.

Decides which document is for training and which is held out: by the hash of its group, so that the
split never depends on order. Trusts only archives whose digest is the lock's.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from base_model import archive
from base_model.fetch import present
from base_model.lockfile import Index, Lock, Source
from base_model.sources import READERS, Document, docstrings, pieces
from fedproto import jcs
from fedproto.durable import write_atomic
from fedproto.errors import LocalFault
from fedproto.ids import Digest, sha256_hex
from fedproto.jcs import Json

BASE = "base"
COMMON = "common"
DOMAINS = ("honda", "nec", "softbank", "sony")

# Bytes of text that a source, or the docstrings together, may give.
SOURCE_CAP = 3_000_000
DOCSTRING_PACKAGES = ("numpy", "sqlalchemy", "torch", "transformers")
_HELD_OUT_PERCENT = 12
_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """A domain's documents, and what they were made of (canonical JSON)."""

    train: tuple[Document, ...]
    test: tuple[Document, ...]
    manifest: bytes

    @property
    def digest(self) -> Digest:
        """SHA-256 of the manifest, under which the ledger names this corpus."""
        return sha256_hex(self.manifest)


def held_out(group: str) -> bool:
    """Say whether a group is held out for tests."""
    value = int.from_bytes(
        hashlib.sha256(b"renmei/v1/split\0" + group.encode()).digest()[:8], "big"
    )
    return value % 100 < _HELD_OUT_PERCENT


def build_domain(name: str, cache: Path, lock: Lock) -> Split:
    """Return the corpus of a domain, read from the cache or extracted once into it.

    Raises:
        LocalFault: RNM-DATA-0001 a source was not fetched; RNM-DATA-0002 an archive cannot be read;
            RNM-DATA-0003 nothing came out.
    """
    built = cache / "built" / f"{lock.digest[:16]}-{_VERSION}-{name}"
    if not (built / "manifest.json").exists():
        _extract(name, cache, lock, built)
    return read_split(built)


def read_split(directory: Path) -> Split:
    """Read an extracted corpus; refuse one whose files are not those of its manifest."""
    manifest = (directory / "manifest.json").read_bytes()
    recorded = jcs.loads(manifest)
    parts = {}
    for part in ("train", "test"):
        path = directory / f"{part}.jsonl"
        raw = path.read_bytes() if path.exists() else b""
        if not isinstance(recorded, dict) or recorded.get(f"{part}_sha256") != sha256_hex(raw):
            raise LocalFault(
                "RNM-DATA-0002",
                what=f"{path} was not used",
                why="it is not the file that its manifest names",
                mend=f"remove {directory}; it is extracted again from the cache",
            )
        parts[part] = tuple(_lines(raw))
    return Split(train=parts["train"], test=parts["test"], manifest=manifest)


def _lines(raw: bytes) -> Iterator[Document]:
    for line in raw.splitlines():
        item = json.loads(line)
        yield Document(item["group"], item["text"])


def to_jsonl(documents: Iterable[Document]) -> bytes:
    """Return documents as JSON lines."""
    return b"".join(
        json.dumps({"group": d.group, "text": d.text}, ensure_ascii=False).encode() + b"\n"
        for d in documents
    )


def _extract(name: str, cache: Path, lock: Lock, built: Path) -> None:
    sources: list[Json] = []
    seen: set[str] = set()
    train: list[Document] = []
    test: list[Document] = []
    for label, licence, documents in _inputs(name, cache, lock):
        before = len(train) + len(test)
        for document in documents:
            if document.text not in seen:
                seen.add(document.text)
                (test if held_out(document.group) else train).append(document)
        count = len(train) + len(test) - before
        sources.append({"name": label, "licence": licence, "documents": count})
    if not train or not test:
        raise LocalFault(
            "RNM-DATA-0003",
            what=f"the corpus {name} came out empty",
            why="no source of it gave enough text",
            mend="run `renmei base fetch`, then try again",
        )
    parts = {"train": to_jsonl(train), "test": to_jsonl(test)}
    manifest = jcs.dumps(
        {
            "v": 1,
            "domain": name,
            "lock_sha256": lock.digest,
            "sources": sources,
            "train_sha256": sha256_hex(parts["train"]),
            "test_sha256": sha256_hex(parts["test"]),
        }
    )
    built.mkdir(parents=True, exist_ok=True)
    for part, data in parts.items():
        write_atomic(built / f"{part}.jsonl", data)
    # The manifest comes last: without it the directory counts as absent.
    write_atomic(built / "manifest.json", manifest)


def _inputs(name: str, cache: Path, lock: Lock) -> Iterator[tuple[str, str, Iterator[Document]]]:
    chosen = lock.of(name)
    for source in chosen:
        if not present(source, cache):
            if source.index is Index.APT:
                continue
            raise LocalFault(
                "RNM-DATA-0001",
                what=f"the corpus {name} was not built",
                why=f"{source.filename} is not in {cache}, or its digest differs from the lock",
                mend=f"run: renmei base fetch --cache {cache}",
            )
        yield f"{source.name} {source.version}", source.licence, _read(source, cache)
    if name == BASE or (name == COMMON and not any(present(s, cache) for s in chosen)):
        # Where there is no apt, English docstrings stand in for the Japanese common documents.
        for package in DOCSTRING_PACKAGES if name == BASE else ("rich", "requests"):
            yield _package(package), "BSD/Apache-2.0/MIT (see the package)", _docstrings(package)


def _package(name: str) -> str:
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:
        return f"{name} (absent)"


def _capped(documents: Iterator[Document], cap: int) -> Iterator[Document]:
    total = 0
    for document in documents:
        for piece in pieces(document):
            total += len(piece.text.encode())
            if total > cap:
                return
            yield piece


def _read(source: Source, cache: Path) -> Iterator[Document]:
    def documents() -> Iterator[Document]:
        try:
            for name, data in archive.files(cache / source.filename, source.globs):
                yield from READERS[source.reader](name, data)
        except (OSError, ValueError, EOFError) as error:
            raise LocalFault(
                "RNM-DATA-0002",
                what=f"{source.filename} cannot be read",
                why=f"{type(error).__name__} while reading it as {source.reader}",
                mend="remove it from the cache and run `renmei base fetch` again",
            ) from None

    return _capped(documents(), SOURCE_CAP)


def _docstrings(package: str) -> Iterator[Document]:
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return iter(())

    def documents() -> Iterator[Document]:
        root = Path(next(iter(spec.submodule_search_locations or ())))
        for folder, folders, names in os.walk(root):
            folders.sort()
            for name in sorted(names):
                if name.endswith(".py") and "test" not in folder:
                    path = Path(folder) / name
                    yield from docstrings(f"{package}/{path.relative_to(root)}", path.read_bytes())

    return _capped(documents(), SOURCE_CAP // 2)
