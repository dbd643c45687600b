import json
from pathlib import Path

import pytest
from base_kit import make_deb, make_lock, make_source, make_zip
from hypothesis import given
from hypothesis import strategies as st

from base_model.corpus import build_domain, read_documents, read_split, split, to_jsonl
from base_model.lockfile import Index, Lock
from base_model.sources import Document
from fedproto import jcs
from fedproto.errors import LocalFault

FILES = {
    f"dbc/{maker}{number % 26}_{number}.dbc": f"BO_ {number} {maker}: 8 XXX\n".encode() * 6
    for number, maker in enumerate(["alpha", "bravo", "charlie", "delta"] * 12)
}
SAME = {"dbc/copy_of_alpha.dbc": FILES["dbc/alpha0_0.dbc"]}


def prepare(cache: Path, data: bytes, **changes: object) -> Lock:
    source = make_source(data, **changes)
    cache.mkdir(exist_ok=True)
    (cache / source.filename).write_bytes(data)
    return make_lock(source)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def refused(cache: Path, lock: Lock, domain: str = "honda") -> LocalFault:
    with pytest.raises(LocalFault) as caught:
        build_domain(domain, cache, lock)
    return caught.value


def test_a_corpus_names_digest_licence_and_count_of_each_source(cache: Path) -> None:
    data = make_zip(FILES | SAME)
    lock = prepare(cache, data)
    made = build_domain("honda", cache, lock)
    manifest = jcs.loads(made.manifest)
    (source,) = manifest["sources"]
    assert source["licence"] == "MIT"
    assert source["archive_sha256"] == lock.sources[0].sha256
    # The copy is left out.
    assert source["documents"] == len(made.train) + len(made.test) == len(FILES)
    assert manifest["lock_sha256"] == lock.digest


def test_a_corpus_is_the_same_wherever_it_is_made(tmp_path: Path) -> None:
    data = make_zip(FILES)
    splits = [
        build_domain("honda", tmp_path / name, prepare(tmp_path / name, data)) for name in "ab"
    ]
    assert splits[0] == splits[1]
    assert splits[0].digest == splits[1].digest


@given(
    st.lists(
        st.tuples(st.integers(0, 30), st.text(min_size=1, max_size=40)), min_size=40, max_size=120
    ),
    st.randoms(),
)
def test_no_group_straddles_training_and_held_out_and_order_does_not_matter(items, rng) -> None:
    documents = [Document(f"g{group}", text) for group, text in items]
    train, test = split(documents)
    assert not {d.group for d in train} & {d.group for d in test}
    assert len(train) + len(test) == len(documents)
    size = sum(len(d.text.encode()) for d in documents)
    assert sum(len(d.text.encode()) for d in test) <= 0.15 * size
    rng.shuffle(documents)
    assert {d.group for d in split(documents)[1]} == {d.group for d in test}


def test_a_second_start_reads_what_the_first_has_made(cache: Path) -> None:
    lock = prepare(cache, make_zip(FILES))
    first = build_domain("honda", cache, lock)
    (built,) = (cache / "built").iterdir()
    times = {path: path.stat().st_mtime_ns for path in built.iterdir()}
    assert build_domain("honda", cache, lock) == first
    assert {path: path.stat().st_mtime_ns for path in built.iterdir()} == times


def test_what_a_killed_extraction_left_is_made_again(cache: Path) -> None:
    lock = prepare(cache, make_zip(FILES))
    first = build_domain("honda", cache, lock)
    (built,) = (cache / "built").iterdir()
    (built / "manifest.json").unlink()
    (built / "train.jsonl").write_bytes(b"half")
    assert build_domain("honda", cache, lock) == first


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_changed_byte_in_an_extracted_corpus_is_refused(cache: Path, part: str) -> None:
    lock = prepare(cache, make_zip(FILES))
    build_domain("honda", cache, lock)
    (built,) = (cache / "built").iterdir()
    path = built / f"{part}.jsonl"
    path.write_bytes(path.read_bytes().replace(b"8 XXX", b"8 YYY", 1))
    assert refused(cache, lock).code == "RNM-DATA-0002"


def test_a_source_that_was_not_fetched_is_named(cache: Path) -> None:
    lock = make_lock(make_source(b"x"))
    fault = refused(cache, lock)
    assert fault.code == "RNM-DATA-0001"
    assert "renmei base fetch" in fault.mend
    assert not cache.exists()


def test_a_source_with_another_digest_is_never_read(cache: Path) -> None:
    lock = prepare(cache, make_zip(FILES))
    (cache / lock.sources[0].filename).write_bytes(make_zip(FILES | {"dbc/new.dbc": b"x" * 99}))
    assert refused(cache, lock).code == "RNM-DATA-0001"


@pytest.mark.parametrize(
    ("data", "changes"),
    [
        (b"not a zip", {}),
        (b"not a tar", {"filename": "t.tar.gz"}),
        (make_zip({"a.json": b"{"}), {"reader": "prowler", "globs": ("*.json",)}),
        (make_zip({"a.gz": b"not gzip"}), {"reader": "man", "globs": ("*.gz",)}),
        (make_zip({"a.xz": b"not xz"}), {"reader": "jmdict", "globs": ("*.xz",)}),
    ],
)
def test_an_archive_that_cannot_be_read_is_named_and_nothing_is_left(
    cache: Path, data: bytes, changes: dict[str, object]
) -> None:
    assert refused(cache, prepare(cache, data, **changes)).code == "RNM-DATA-0002"
    assert not (cache / "built").exists()


def test_a_corpus_without_text_is_refused_and_nothing_is_left(cache: Path) -> None:
    assert refused(cache, prepare(cache, make_zip({}))).code == "RNM-DATA-0003"
    assert not (cache / "built").exists()


def test_without_apt_the_common_corpus_is_of_docstrings_and_says_what_is_absent(
    cache: Path,
) -> None:
    deb = make_deb({})
    lock = make_lock(make_source(deb, name="debian-reference-ja", domain="common", index=Index.APT))
    made = build_domain("common", cache, lock)
    manifest = jcs.loads(made.manifest)
    assert manifest["absent"] == ["debian-reference-ja"]
    assert [source["name"].split()[0] for source in manifest["sources"]] == ["rich", "pygments"]
    assert all(source["licence"] for source in manifest["sources"])


def test_a_silo_reads_back_the_documents_that_were_written(tmp_path: Path) -> None:
    documents = (Document("g", "一行\u2028目\nとその次"), Document("h", '"\\'))
    path = tmp_path / "train.jsonl"
    path.write_bytes(to_jsonl(documents))
    assert read_documents(path) == documents


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (None, "RNM-DATA-0001"),
        ("directory", "RNM-DATA-0002"),
        (b"", "RNM-DATA-0003"),
        (b'{"group": "g", "text": ""}\n', "RNM-DATA-0003"),
        (b'{"group": "g"}\n', "RNM-DATA-0002"),
        (b'{"group": "g", "text": 1}\n', "RNM-DATA-0002"),
        (b"[1]\n", "RNM-DATA-0002"),
        (b"\xff\xfe\n", "RNM-DATA-0002"),
        (b"not json, and secret\n", "RNM-DATA-0002"),
    ],
)
def test_a_missing_unreadable_or_empty_corpus_is_named_and_its_text_is_not_shown(
    tmp_path: Path, content: bytes | str | None, code: str
) -> None:
    path = tmp_path / "train.jsonl"
    if content == "directory":
        path.mkdir()
    elif isinstance(content, bytes):
        path.write_bytes(content)
    with pytest.raises(LocalFault) as caught:
        read_documents(path)
    assert caught.value.code == code
    assert "secret" not in str(caught.value)


def test_a_corpus_that_was_never_made_is_named(tmp_path: Path) -> None:
    with pytest.raises(LocalFault) as caught:
        read_split(tmp_path)
    assert caught.value.code == "RNM-DATA-0001"


def test_documents_are_one_json_object_a_line() -> None:
    (line,) = to_jsonl([Document("g", "a\nb")]).splitlines()
    assert json.loads(line) == {"group": "g", "text": "a\nb"}
