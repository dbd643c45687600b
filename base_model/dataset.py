"""A base model's data, from fetched sources to token streams: built once, in a directory.

Decides the way: extract each source, remove near-duplicates across all of them, split each by group,
train the tokenizer on what is trained on, pack, and write the data manifest last. Series are made from
CAN databases of other makers than the members', and are labelled synthetic. A shell module; a build
that was killed goes on, and its manifest is the same.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from base_model import archive, corpus, duplicates, manifest, packing, series, trajectories
from base_model import tokenizer as tokenizers
from base_model.fetch import file_sha256, present
from base_model.lockfile import Lock, Source
from base_model.manifest import DataManifest
from base_model.mixture import Mixture
from base_model.series import Header, Quantised, Values
from base_model.sources import READERS, Document
from fedproto.durable import write_atomic
from fedproto.errors import LocalFault
from fedproto.ids import Digest, sha256_hex

STREAMS, HELD_OUT = "streams", "held-out"
SERIES = "can-series"
_READER_OF_SERIES = "dbc"
# Honda's own signals are Honda's private corpus.
_PRIVATE = re.compile(r"honda|acura", re.IGNORECASE)
# Rows of a drive, and of a piece of it that stands in the stream with a header of its own.
_DRIVE_ROWS, _PIECE_ROWS = 256, 32
_SERIES_SEED = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a build is asked for; `bins` is 0 where no series are wanted."""

    domains: tuple[str, ...] = (corpus.BASE, corpus.COMMON)
    vocabulary: int = tokenizers.VOCABULARY
    bins: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """One source's documents, as extracted."""

    input: corpus.Input
    label: str
    documents: tuple[Document, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Drives:
    """Series made from one archive: of makers that are trained on, and of makers held out."""

    source: Source
    train: tuple[tuple[Header, Values], ...]
    held_out: tuple[tuple[Header, Values], ...]


Note = Callable[[str], None]


def build(
    lock: Lock, cache: Path, out: Path, options: Options, note: Note = lambda label: None
) -> DataManifest:
    """Build the data of a base model into `out` and return its manifest.

    Raises:
        LocalFault: RNM-DATA-0001 a source was not fetched; RNM-DATA-0002 one cannot be read;
            RNM-DATA-0003 one gave nothing to train on; RNM-DISK-0001 there is no room.
    """
    # What lies there is unfinished from now on, until the new manifest says otherwise.
    (out / manifest.FILE).unlink(missing_ok=True)
    parts, absent = _extracted(lock, cache, options.domains)
    note("near-duplicates")
    found = duplicates.remove([document for part in parts for document in part.documents])
    splits, counts = _split(parts, found)
    note("tokenizer")
    first = options.vocabulary - (
        series.Vocabulary(first=0, bins=options.bins).size if options.bins else 0
    )
    words = tokenizers.train((d.text for train, _ in splits.values() for d in train), first)
    if options.bins:
        tokenizers.with_series(words, options.bins)
    packing.make_directory(out / HELD_OUT)
    entries = []
    for label, (train, test) in splits.items():
        note(label)
        entries.append(_pack_text(label, train, test, words, out))
    drives = _drives(lock, cache) if options.bins else None
    if options.bins and drives is None:
        absent.append(SERIES)
    if drives is not None:
        note(SERIES)
        entries.append(_pack_series(drives, words, out))
    pairs = [[d.place, d.of, round(d.similarity * 1000)] for d in found.removed]
    made = DataManifest(
        v=1,
        lock_sha256=lock.digest,
        sources=tuple(_source_entry(part, counts[part.label]) for part in parts),
        series=(_series_entry(drives, options.bins),) if drives is not None else (),
        absent=tuple(absent),
        near_duplicates=manifest.NearDuplicates(
            shingle=duplicates.SHINGLE,
            threshold_per_mille=round(1000 * duplicates.THRESHOLD),
            removed=len(pairs),
            pairs_sha256=sha256_hex(json.dumps(pairs).encode()),
        ),
        tokenizer=manifest.TokenizerEntry(
            sha256=sha256_hex(words.to_str().encode()),
            vocabulary=words.get_vocab_size(),
            bins=options.bins,
        ),
        parts=tuple(sorted(entries, key=lambda entry: entry.name)),
    )
    write_atomic(out / tokenizers.FILE, words.to_str().encode())
    # The manifest comes last: without it the directory counts as unfinished.
    write_atomic(out / manifest.FILE, made.to_bytes())
    return made


def open_manifest(out: Path, expected: Digest | None = None) -> DataManifest:
    """Read the manifest of a build; raise RNM-DATA-0001 where it has not ended."""
    path = out / manifest.FILE
    if not path.is_file():
        raise LocalFault(
            "RNM-DATA-0001",
            what=f"no data in {out}",
            why=f"{manifest.FILE} is missing: its build has not ended",
            mend=f"run: renmei model data --out {out}",
        )
    return manifest.read_manifest(path.read_bytes(), expected)


def mixture(
    out: Path,
    weights: Mapping[str, int],
    *,
    sequence: int,
    seed: int,
    expected: Digest | None = None,
) -> Mixture:
    """Return the streams of a build as a mixture, each held to the manifest.

    Raises:
        LocalFault: RNM-DATA-0001, RNM-DATA-0002 the build is unfinished or was changed; RNM-DATA-0003
            a weight is of a part that there is not.
    """
    parts = {part.name: part for part in open_manifest(out, expected).parts}
    unknown = sorted(set(weights) - set(parts))
    if unknown:
        raise LocalFault(
            "RNM-DATA-0003",
            what="the mixture was not used",
            why=f"the data has no part {unknown[0]}",
            mend=f"choose among: {', '.join(parts)}",
        )
    streams = {}
    for name in weights:
        stream = packing.Stream.open(out / STREAMS / name)
        if stream.digest != parts[name].train_sha256:
            raise _changed(f"the stream {name}", out)
        streams[name] = stream
    return Mixture(sources=streams, weights=weights, sequence=sequence, seed=seed)


def require_tokenizer(words: Tokenizer, made: DataManifest, out: Path) -> None:
    """Hold a tokenizer to the manifest; raise RNM-DATA-0002 if it is another one."""
    if sha256_hex(words.to_str().encode()) != made.tokenizer.sha256:
        raise _changed(tokenizers.FILE, out)


def held_out_texts(out: Path, made: DataManifest) -> dict[str, list[str]]:
    """Return the held-out texts of each part that has text, held to the manifest."""
    texts = {}
    for part in made.parts:
        path = out / HELD_OUT / f"{part.name}.jsonl"
        if not path.is_file() or file_sha256(path) != part.held_out_sha256:
            raise _changed(path.name, out)
        if part.name != SERIES:
            texts[part.name] = [document.text for document in corpus.read_documents(path)]
    return texts


def _changed(name: str, out: Path) -> LocalFault:
    return LocalFault(
        "RNM-DATA-0002",
        what=f"{name} was not used",
        why="it is not the one that the data manifest names",
        mend=f"remove {out} and build it again",
    )


def held_out_series(path: Path) -> Iterator[tuple[Header, Values]]:
    """Yield the held-out series of a file, with their values as they were before quantisation."""
    for line in path.read_bytes().splitlines():
        item = json.loads(line)
        values = np.asarray(item["values"], np.float64)
        yield series.parse_header(item["header"]), values


def _extracted(lock: Lock, cache: Path, domains: Sequence[str]) -> tuple[list[_Part], list[str]]:
    parts: list[_Part] = []
    absent: list[str] = []
    seen: set[str] = set()
    for name in domains:
        inputs, without = corpus.inputs_of(name, cache, lock)
        absent += without
        for item in inputs:
            texts: list[Document] = []
            for document in item.documents:
                if document.text not in seen:
                    seen.add(document.text)
                    texts.append(document)
            label = re.sub(r"[^a-z0-9]+", "-", item.name.rsplit(" ", 1)[0].lower())
            parts.append(_Part(input=item, label=label, documents=tuple(texts)))
    return parts, absent


Splits = dict[str, tuple[list[Document], list[Document]]]


def _split(parts: Sequence[_Part], found: duplicates.Deduplicated) -> tuple[Splits, dict[str, int]]:
    """Return what of each source is trained on and held out, and how much of it was removed."""
    removed = {duplicate.place for duplicate in found.removed}
    splits: Splits = {}
    counts: dict[str, int] = {}
    place = 0
    for part in parts:
        places = range(place, place + len(part.documents))
        kept = [d for at, d in zip(places, part.documents, strict=True) if at not in removed]
        counts[part.label] = len(part.documents) - len(kept)
        splits[part.label] = corpus.split(kept)
        place = places.stop
        if not all(splits[part.label]):
            raise LocalFault(
                "RNM-DATA-0003",
                what="the data was not built",
                why=f"{part.input.name} gave too little to train on and to hold some out",
                mend="run `renmei base fetch`, then try again",
            )
    return splits, counts


def _pack_text(
    label: str, train: Sequence[Document], test: Sequence[Document], words: Tokenizer, out: Path
) -> manifest.PartEntry:
    packing.pack(train, words, out / STREAMS / label)
    held = corpus.to_jsonl(test)
    write_atomic(out / HELD_OUT / f"{label}.jsonl", held)
    return _part_entry(label, out, len(train), len(test), held)


def _part_entry(
    label: str, out: Path, trained: int, held_items: int, held: bytes
) -> manifest.PartEntry:
    stream = packing.Stream.open(out / STREAMS / label)
    return manifest.PartEntry(
        name=label,
        train_items=trained,
        train_tokens=stream.size,
        train_sha256=stream.digest,
        held_out_items=held_items,
        held_out_sha256=sha256_hex(held),
    )


def _drives(lock: Lock, cache: Path) -> _Drives | None:
    """Return series made from the lock's CAN databases, or nothing where they were not fetched."""
    chosen = [s for s in lock.sources if s.reader == _READER_OF_SERIES and present(s, cache)]
    if not chosen:
        return None
    (source,) = chosen
    made: dict[str, list[tuple[Header, Values]]] = {}
    for number, (name, data) in enumerate(archive.files(cache / source.filename, source.globs)):
        if _PRIVATE.search(name):
            continue
        rng = np.random.default_rng((_SERIES_SEED, number))
        text = data.decode("utf-8", "ignore")
        made.setdefault(next(READERS[source.reader](name, data)).group, []).extend(
            trajectories.telemetry(text, rng, rows=_DRIVE_ROWS)
        )
    # By maker, as the text is: makers copy messages between their own databases.
    makers = sorted(made, key=archive.order)
    held = set(makers[: max(1, len(makers) // 8)])
    return _Drives(
        source=source,
        train=tuple(one for maker in makers if maker not in held for one in made[maker]),
        held_out=tuple(one for maker in makers if maker in held for one in made[maker]),
    )


def _pack_series(drives: _Drives, words: Tokenizer, out: Path) -> manifest.PartEntry:
    vocabulary = tokenizers.series_vocabulary(words)
    assert vocabulary is not None  # noqa: S101  # `build` gave it its bins
    text = tokenizers.HeaderText(words)
    pieces = [
        series.to_tokens(piece, vocabulary, text)
        for one in _quantised(drives.train, vocabulary.bins)
        for piece in series.cut(one, _PIECE_ROWS)
    ]
    packing.pack_tokens(pieces, words.get_vocab_size(), out / STREAMS / SERIES)
    held = b"".join(
        json.dumps({"header": header.to_text(), "values": values.tolist()}).encode() + b"\n"
        for header, values in drives.held_out
    )
    write_atomic(out / HELD_OUT / f"{SERIES}.jsonl", held)
    return _part_entry(SERIES, out, len(pieces), len(drives.held_out), held)


def _quantised(made: Sequence[tuple[Header, Values]], bins: int) -> list[Quantised]:
    return [series.quantise(values, header, bins=bins) for header, values in made]


def _source_entry(part: _Part, near_duplicates: int) -> manifest.SourceEntry:
    texts = [document.text for document in part.documents]
    return manifest.SourceEntry(
        name=part.input.name,
        licence=part.input.licence,
        archive_sha256=part.input.archive_sha256,
        documents=len(texts),
        bytes=sum(len(text.encode()) for text in texts),
        japanese_per_mille=manifest.japanese_per_mille(texts),
        text_sha256=sha256_hex(corpus.to_jsonl(part.documents)),
        near_duplicates=near_duplicates,
    )


def _series_entry(drives: _Drives, bins: int) -> manifest.SeriesEntry:
    made = _quantised([*drives.train, *drives.held_out], bins)
    return manifest.SeriesEntry(
        name=f"telemetry made from the signals of {drives.source.name} {drives.source.version}",
        licence=drives.source.licence,
        archive_sha256=drives.source.sha256,
        origin=series.Origin.SYNTHETIC,
        series=len(made),
        values=sum(one.levels.size for one in made),
        clipped=sum(sum(one.clipped.values()) for one in made),
        gaps=sum(sum(one.gaps.values()) for one in made),
    )
