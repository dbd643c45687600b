from pathlib import Path

import pytest

from base_model.corpus import BASE, COMMON, DOMAINS
from base_model.lockfile import LOCK, read_lock
from base_model.sources import READERS
from fedproto.errors import LocalFault


def test_the_lock_that_ships_names_a_reader_and_a_licence_for_each_source() -> None:
    lock = read_lock()
    assert {source.domain for source in lock.sources} == {BASE, COMMON, *DOMAINS}
    assert all(source.reader in READERS for source in lock.sources)
    assert all(len(source.licence) > 2 for source in lock.sources)


def test_no_song_given_for_non_commercial_use_is_in_the_lock() -> None:
    globs = [glob for source in read_lock().sources for glob in source.globs]
    assert not [glob for glob in globs if "essen" in glob]
    assert all(
        g.startswith("music21/corpus/")
        for s in read_lock().of("sony")
        for g in s.globs
        if s.name == "music21"
    )


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('[[source]]\nname = "jamdict-data"', '[[source]]\nname = "--index-url=x"'),
        ('version = "1.5"', 'version = "-1"'),
        ('filename = "jamdict_data-1.5.tar.gz"', 'filename = "../jamdict_data"'),
        ('filename = "jamdict_data-1.5.tar.gz"', 'filename = ".lock"'),
        ('index = "pip-sdist"', 'index = "npm"'),
        ('sha256 = "a4247', 'sha256 = "zz'),
        ('reader = "jmdict"\n', ""),
        ('reader = "jmdict"\n', 'reader = "jmdict"\nextra = 1\n'),
        ("[[source]]", "[[source"),
    ],
)
def test_a_damaged_lock_is_refused_by_name(tmp_path: Path, old: str, new: str) -> None:
    text = LOCK.read_text()
    assert old in text
    path = tmp_path / "corpus.lock"
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(LocalFault) as caught:
        read_lock(path)
    assert caught.value.code == "RNM-DATA-0002"


def test_a_missing_lock_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(LocalFault, match="FileNotFoundError"):
        read_lock(tmp_path / "corpus.lock")


def test_any_change_of_the_lock_changes_its_digest(tmp_path: Path) -> None:
    path = tmp_path / "corpus.lock"
    path.write_text(LOCK.read_text() + "\n")
    assert read_lock(path).digest != read_lock().digest
