from dataclasses import replace

import pytest

from base_model.manifest import (
    DataManifest,
    NearDuplicates,
    PartEntry,
    SeriesEntry,
    SourceEntry,
    TokenizerEntry,
    japanese_per_mille,
    read_manifest,
)
from base_model.series import Origin
from fedproto import jcs
from fedproto.errors import FederationError, LocalFault
from fedproto.events.models import BaseModel
from fedproto.ids import Digest, sha256_hex


def digest(text: str) -> Digest:
    return sha256_hex(text.encode())


def source(name: str, **changes: object) -> SourceEntry:
    made = SourceEntry(
        name=name,
        licence="MIT",
        archive_sha256=digest(name),
        documents=10,
        bytes=1000,
        japanese_per_mille=500,
        text_sha256=digest("text"),
        near_duplicates=2,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def part(name: str) -> PartEntry:
    return PartEntry(
        name=name,
        train_items=7,
        train_tokens=900,
        train_sha256=digest("train"),
        held_out_items=1,
        held_out_sha256=digest("held"),
    )


def some_manifest() -> DataManifest:
    return DataManifest(
        v=1,
        lock_sha256=digest("lock"),
        sources=(source("a 1.0"), source("b 2", licence="CC-BY-SA-4.0", archive_sha256="")),
        series=(
            SeriesEntry(
                name="telemetry made from c 3",
                licence="MIT",
                archive_sha256=digest("c"),
                origin=Origin.SYNTHETIC,
                series=3,
                values=99,
                clipped=1,
                gaps=2,
            ),
        ),
        absent=("d",),
        near_duplicates=NearDuplicates(
            shingle=5, threshold_per_mille=800, removed=4, pairs_sha256=digest("pairs")
        ),
        tokenizer=TokenizerEntry(sha256=digest("words"), vocabulary=4096, bins=256),
        parts=(part("a"), part("b"), part("can-series")),
    )


def test_a_manifest_comes_back_and_its_digest_is_of_its_one_form() -> None:
    made = some_manifest()
    assert read_manifest(made.to_bytes(), made.digest) == made
    assert made.digest == sha256_hex(made.to_bytes())
    assert made.licences == ("CC-BY-SA-4.0", "MIT")


def test_the_ledger_takes_its_digest_as_the_corpus_of_base_weights() -> None:
    made = some_manifest()
    terms = BaseModel(
        name="base",
        manifest_sha256=digest("weights"),
        corpus_sha256=made.digest,
        licence="CC-BY-SA-4.0",
        parameters=1,
    )
    assert read_manifest(made.to_bytes(), terms.corpus_sha256) == made


def test_a_manifest_other_than_the_ledgers_is_refused() -> None:
    made = some_manifest()
    changed = replace(made, sources=(source("a 1.0", licence="GPL"), made.sources[1]))
    with pytest.raises(LocalFault) as caught:
        read_manifest(changed.to_bytes(), made.digest)
    assert caught.value.code == "RNM-DATA-0002"
    assert made.digest in caught.value.why


@pytest.mark.parametrize(
    "change",
    [
        {"v": 2},
        {"parts": []},
        {"more": 1},
        {"lock_sha256": "x" * 64},
        {"absent": "d"},
    ],
)
def test_what_is_no_manifest_is_refused(change: dict[str, object]) -> None:
    raw = jcs.loads(some_manifest().to_bytes())
    assert isinstance(raw, dict)
    with pytest.raises(FederationError) as caught:
        read_manifest(jcs.dumps({**raw, **change}))  # type: ignore[dict-item]
    assert caught.value.code == "RNM-FORM-0002"


def test_bytes_in_another_form_are_refused() -> None:
    with pytest.raises(FederationError) as caught:
        read_manifest(some_manifest().to_bytes().replace(b",", b", ", 1))
    assert caught.value.code.startswith("RNM-FORM")


@pytest.mark.parametrize(
    "wrong",
    [
        lambda m: replace(m, parts=m.parts[::-1]),
        lambda m: replace(m, parts=(part("a"), part("a"))),
        lambda m: replace(m, sources=m.sources[:1]),
        lambda m: replace(m, sources=(source("a", licence=""), m.sources[1])),
        lambda m: replace(m, sources=(source("a", archive_sha256="0"), m.sources[1])),
        lambda m: replace(m, sources=(source("a", near_duplicates=11), m.sources[1])),
        lambda m: replace(m, series=(replace(m.series[0], licence=""),)),
        lambda m: replace(m, tokenizer=replace(m.tokenizer, sha256=Digest(""))),
    ],
)
def test_a_manifest_that_contradicts_itself_cannot_be_made(wrong) -> None:
    with pytest.raises(ValueError, match=r"."):
        wrong(some_manifest())


def test_the_share_of_japanese_counts_letters_and_not_spaces() -> None:
    assert japanese_per_mille(["車速 ab\n", "  "]) == 500
    assert japanese_per_mille([]) == 0
    assert japanese_per_mille(["カナ、漢字"]) == 800
