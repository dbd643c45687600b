"""The data manifest of a base model: what it was trained on, by licence and digest.

Decides what a manifest says: every source with its licence and the digest of its archive and text, the
tokenizer, what was removed as a near-duplicate of what, and the digest of each part that is trained on
or held out. Its own digest is the `corpus_sha256` that the ledger approves base weights with. It shows
no text. Pure.
"""

from dataclasses import dataclass

from base_model.series import Origin
from fedproto import jcs
from fedproto.errors import LocalFault
from fedproto.events.codes import require_digests
from fedproto.ids import Digest, sha256_hex
from fedproto.schema import from_json, to_json

FILE = "data.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceEntry:
    """Where text came from. `archive_sha256` is empty for an installed package.

    `text_sha256` is of all that was extracted, before near-duplicates were removed;
    `japanese_per_mille` is the share of kana and kanji among its letters.
    """

    name: str
    licence: str
    archive_sha256: str
    documents: int
    bytes: int
    japanese_per_mille: int
    text_sha256: Digest
    near_duplicates: int

    def __post_init__(self) -> None:
        if not self.licence or not self.name:
            raise ValueError("a source has a name and a licence")
        require_digests(self.text_sha256, *([self.archive_sha256] if self.archive_sha256 else []))
        if not 0 <= self.near_duplicates <= self.documents:
            raise ValueError(f"{self.name} has fewer documents than were removed")


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesEntry:
    """Where series came from; a synthetic one says what it was made from, and how."""

    name: str
    licence: str
    archive_sha256: Digest
    origin: Origin
    series: int
    values: int
    clipped: int
    gaps: int

    def __post_init__(self) -> None:
        if not self.licence or not self.name:
            raise ValueError("a source has a name and a licence")
        require_digests(self.archive_sha256)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizerEntry:
    """The tokenizer that the parts were packed with; `bins` is 0 where it has no series."""

    sha256: Digest
    vocabulary: int
    bins: int

    def __post_init__(self) -> None:
        require_digests(self.sha256)


@dataclass(frozen=True, slots=True, kw_only=True)
class NearDuplicates:
    """How near-duplicates were found, and the digest of the list of pairs."""

    shingle: int
    threshold_per_mille: int
    removed: int
    pairs_sha256: Digest

    def __post_init__(self) -> None:
        require_digests(self.pairs_sha256)


@dataclass(frozen=True, slots=True, kw_only=True)
class PartEntry:
    """One source's training stream and what is held out of it."""

    name: str
    train_items: int
    train_tokens: int
    train_sha256: Digest
    held_out_items: int
    held_out_sha256: Digest

    def __post_init__(self) -> None:
        require_digests(self.train_sha256, self.held_out_sha256)


@dataclass(frozen=True, slots=True, kw_only=True)
class DataManifest:
    """Everything that a base model was trained on. `absent` names sources that it went on without."""

    v: int
    lock_sha256: Digest
    sources: tuple[SourceEntry, ...]
    series: tuple[SeriesEntry, ...]
    absent: tuple[str, ...]
    near_duplicates: NearDuplicates
    tokenizer: TokenizerEntry
    parts: tuple[PartEntry, ...]

    def __post_init__(self) -> None:
        require_digests(self.lock_sha256)
        names = [part.name for part in self.parts]
        if self.v != 1 or not names or names != sorted(set(names)):
            raise ValueError("a data manifest lists its parts once, sorted")
        if sum(source.near_duplicates for source in self.sources) != self.near_duplicates.removed:
            raise ValueError("the near-duplicates of the sources do not add up")

    def to_bytes(self) -> bytes:
        """Return the manifest in its one form."""
        return jcs.dumps(to_json(self))

    @property
    def digest(self) -> Digest:
        """SHA-256 of the manifest: what the ledger calls the corpus of a base model."""
        return sha256_hex(self.to_bytes())

    @property
    def licences(self) -> tuple[str, ...]:
        """Every licence that some of the data is under."""
        found = {source.licence for source in self.sources} | {made.licence for made in self.series}
        return tuple(sorted(found))


def read_manifest(raw: bytes, expected: Digest | None = None) -> DataManifest:
    """Read a manifest strictly, and hold it to the digest that the ledger names.

    Raises:
        LocalFault: RNM-DATA-0002 it has another digest; RNM-FORM-0001 or RNM-FORM-0002 it is not one.
    """
    if expected is not None and sha256_hex(raw) != expected:
        raise LocalFault(
            "RNM-DATA-0002",
            what="the data manifest was not used",
            why=f"it has digest {sha256_hex(raw)}, not {expected}",
            mend="take the manifest that was published with the base model",
        )
    return from_json(DataManifest, jcs.loads(raw), FILE)


def japanese_per_mille(texts: list[str]) -> int:
    """Return the share of kana and kanji among the letters of texts, in thousandths."""
    letters = [letter for text in texts for letter in text if not letter.isspace()]
    japanese = sum("\u3040" <= one <= "\u30ff" or "\u4e00" <= one <= "\u9fff" for one in letters)
    return round(1000 * japanese / max(len(letters), 1))
