"""Corpora: documents of a domain, deduplicated, split by group, in a cache that survives `kill -9`.

Decides which document is for training and which is held out: whole groups, in the order of their
digest, so that near-duplicates never straddle and the order of reading does not matter. Trusts only
archives whose digest is the lock's.
"""

import hashlib
import json
import lzma
import os
import sqlite3
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from base_model import archive
from base_model.fetch import present
from base_model.lockfile import Index, Lock, Source
from base_model.sources import READERS, Document, docstrings, pieces
from base_model.surroundings import Package, installed
from fedproto import jcs
from fedproto.durable import disk_fault, write_atomic
from fedproto.errors import LocalFault
from fedproto.ids import Digest, sha256_hex
from fedproto.jcs import Json

BASE = "base"
COMMON = "common"
DOMAINS = ("honda", "nec", "softbank", "sony")

# Bytes of text that a source may give, and a package's docstrings.
SOURCE_CAP = 3_000_000
DOCSTRING_CAP = 1_500_000
DOCSTRING_PACKAGES = ("numpy", "sqlalchemy", "torch", "transformers")
# Where there is no apt, English docstrings stand in for the Japanese common documents.
COMMON_PACKAGES = ("rich", "pygments")
_VERSION = 2
_UNREADABLE = (
    OSError,
    ValueError,
    EOFError,
    zipfile.BadZipFile,
    tarfile.TarError,
    lzma.LZMAError,
    zlib.error,
    sqlite3.Error,
)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """One thing that a corpus is read from; `archive_sha256` is empty for an installed package."""

    name: str
    licence: str
    archive_sha256: str
    documents: Iterator[Document]


def split(documents: Iterable[Document]) -> tuple[list[Document], list[Document]]:
    """Return training and held-out documents: 10 to 15 % of the bytes are held out, whole groups.

    Groups are taken in the order of their digest; one that would pass 15 % is passed over.
    """
    kept = list(documents)
    sizes: Counter[str] = Counter()
    for document in kept:
        sizes[document.group] += len(document.text.encode())
    total = sizes.total()
    chosen: set[str] = set()
    held = 0
    for group in sorted(sizes, key=_rank):
        if held * 100 >= total * 10:
            break
        if (held + sizes[group]) * 100 <= total * 15:
            chosen.add(group)
            held += sizes[group]
    train = [document for document in kept if document.group not in chosen]
    return train, [document for document in kept if document.group in chosen]


def _rank(group: str) -> bytes:
    return hashlib.sha256(b"renmei/v1/split\0" + group.encode()).digest()


def build_domain(name: str, cache: Path, lock: Lock) -> Split:
    """Return the corpus of a domain, read from the cache or extracted once into it.

    Raises:
        LocalFault: RNM-DATA-0001 a source was not fetched; RNM-DATA-0002 an archive cannot be read;
            RNM-DATA-0003 nothing came out.
    """
    inputs, absent = inputs_of(name, cache, lock)
    # A package that came or changed since makes another corpus.
    made_of = jcs.dumps([_VERSION, lock.digest, [item.name for item in inputs], list(absent)])
    built = cache / "built" / f"{name}-{sha256_hex(made_of)[:16]}"
    if not (built / "manifest.json").exists():
        _extract(name, lock, inputs, absent, built)
    return read_split(built)


def read_split(directory: Path) -> Split:
    """Read an extracted corpus; refuse one whose files are not those of its manifest."""
    manifest = _read(directory / "manifest.json")
    recorded = jcs.loads(manifest)
    parts = {}
    for part in ("train", "test"):
        path = directory / f"{part}.jsonl"
        raw = _read(path)
        if not isinstance(recorded, dict) or recorded.get(f"{part}_sha256") != sha256_hex(raw):
            raise LocalFault(
                "RNM-DATA-0002",
                what=f"{path} was not used",
                why="it is not the file that its manifest names",
                mend=f"remove {directory}; it is extracted again from the cache",
            )
        parts[part] = _documents(path, raw)
    return Split(train=parts["train"], test=parts["test"], manifest=manifest)


def read_documents(path: Path) -> tuple[Document, ...]:
    """Read a file of JSON lines, one {"group", "text"} each: what a silo keeps its data in.

    Raises:
        LocalFault: RNM-DATA-0001 it is missing; RNM-DATA-0002 it cannot be read; RNM-DATA-0003 it
            holds no text.
    """
    documents = _documents(path, _read(path))
    if not any(document.text for document in documents):
        raise LocalFault(
            "RNM-DATA-0003",
            what=f"{path} was not used",
            why="it holds no text",
            mend='put documents there, one {"group": ..., "text": ...} a line',
        )
    return documents


def to_jsonl(documents: Iterable[Document]) -> bytes:
    """Return documents as JSON lines."""
    return b"".join(
        json.dumps({"group": d.group, "text": d.text}, ensure_ascii=False).encode() + b"\n"
        for d in documents
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise LocalFault(
            "RNM-DATA-0001",
            what=f"{path} was not read",
            why="there is no such file",
            mend="make the corpus first, or name the directory that holds it",
        ) from None
    except OSError as error:
        raise LocalFault(
            "RNM-DATA-0002",
            what=f"{path} cannot be read",
            why=os.strerror(error.errno or 0),
            mend="make it a plain file that this user may read",
        ) from None


def _documents(path: Path, raw: bytes) -> tuple[Document, ...]:
    documents = []
    for number, line in enumerate(raw.splitlines(), start=1):
        try:
            item = json.loads(line)
            group, text = item["group"], item["text"]
        except (ValueError, KeyError, TypeError):
            group = text = None
        if not isinstance(group, str) or not isinstance(text, str):
            # The line itself is not shown: it is private data.
            raise LocalFault(
                "RNM-DATA-0002",
                what=f"{path} was not used",
                why=f"line {number} is not a JSON object with the strings group and text",
                mend='write each document as one line: {"group": ..., "text": ...}',
            )
        documents.append(Document(group, text))
    return tuple(documents)


def _extract(
    name: str, lock: Lock, inputs: Sequence[Input], absent: Sequence[str], built: Path
) -> None:
    sources: list[Json] = []
    seen: set[str] = set()
    kept: list[Document] = []
    for item in inputs:
        before = len(kept)
        for document in item.documents:
            if document.text not in seen:
                seen.add(document.text)
                kept.append(document)
        sources.append(_describe(item, kept[before:]))
    train, test = split(kept)
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
            "absent": list(absent),
            "train_sha256": sha256_hex(parts["train"]),
            "train_documents": len(train),
            "test_sha256": sha256_hex(parts["test"]),
            "test_documents": len(test),
        }
    )
    try:
        built.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise disk_fault(built, error) from None
    for part, data in parts.items():
        write_atomic(built / f"{part}.jsonl", data)
    # The manifest comes last: without it the directory counts as absent.
    write_atomic(built / "manifest.json", manifest)


def _describe(item: Input, documents: Sequence[Document]) -> Json:
    return {
        "name": item.name,
        "licence": item.licence,
        "archive_sha256": item.archive_sha256,
        "documents": len(documents),
        "bytes": sum(len(document.text.encode()) for document in documents),
        "text_sha256": sha256_hex(to_jsonl(documents)),
    }


def inputs_of(name: str, cache: Path, lock: Lock) -> tuple[list[Input], list[str]]:
    """Return what a corpus is read from, and the names of the sources that it goes on without.

    Raises:
        LocalFault: RNM-DATA-0001 a source was not fetched.
    """
    inputs: list[Input] = []
    absent: list[str] = []
    for source in lock.of(name):
        if present(source, cache):
            label = f"{source.name} {source.version}"
            inputs.append(
                Input(
                    name=label,
                    licence=source.licence,
                    archive_sha256=source.sha256,
                    documents=_source(source, cache),
                )
            )
        elif source.index is Index.APT:
            absent.append(source.name)
        else:
            raise LocalFault(
                "RNM-DATA-0001",
                what=f"the corpus {name} was not built",
                why=f"{source.filename} is not in {cache}, or its digest differs from the lock",
                mend=f"run: renmei base fetch --cache {cache}",
            )
    if name == BASE:
        inputs += _docstrings(DOCSTRING_PACKAGES)
    elif name == COMMON and not inputs:
        inputs += _docstrings(COMMON_PACKAGES)
    return inputs, absent


def _docstrings(names: Sequence[str]) -> list[Input]:
    return [
        Input(
            name=f"{package.name} {package.version}",
            licence=package.licence,
            archive_sha256="",
            documents=_capped(_modules(package), DOCSTRING_CAP),
        )
        for package in map(installed, names)
        if package is not None
    ]


def _modules(package: Package) -> Iterator[Document]:
    for name in sorted(package.modules, key=archive.order):
        yield from docstrings(f"{package.name}/{name}", (package.root / name).read_bytes())


def _capped(documents: Iterator[Document], cap: int) -> Iterator[Document]:
    total = 0
    for document in documents:
        for piece in pieces(document):
            total += len(piece.text.encode())
            if total > cap:
                return
            yield piece


def _source(source: Source, cache: Path) -> Iterator[Document]:
    def documents() -> Iterator[Document]:
        try:
            for name, data in archive.files(cache / source.filename, source.globs):
                yield from READERS[source.reader](name, data)
        except _UNREADABLE as error:
            raise LocalFault(
                "RNM-DATA-0002",
                what=f"{source.filename} cannot be read",
                why=f"{type(error).__name__} while reading it as {source.reader}",
                mend="remove it from the cache and run `renmei base fetch` again",
            ) from None

    return _capped(documents(), SOURCE_CAP)
