"""Real pip against a directory of wheels; apt is played by a script, since its answers vary."""

import fcntl
import subprocess
import sys
from pathlib import Path

import pytest
from base_kit import make_deb, make_lock, make_source, make_zip

from base_model.fetch import fetch, present
from base_model.lockfile import Index
from fedproto.errors import LocalFault

WHEEL = make_zip(
    {
        "tiny/a.dbc": b"BO_ 1 A: 8",
        "tiny-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n",
        "tiny-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "tiny-1.0.dist-info/RECORD": b"",
    }
)
DEB = make_deb({"./usr/share/man/ja/man1/ls.1.gz": b"x"})


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that pip takes wheels from, and nowhere else."""
    folder = tmp_path / "index"
    folder.mkdir()
    (folder / "tiny-1.0-py3-none-any.whl").write_bytes(WHEEL)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An `apt-get` that answers with the file that lies beside it, and fails without one."""
    folder = tmp_path / "bin"
    folder.mkdir()
    script = folder / "apt-get"
    script.write_text(
        f'#!/bin/sh\n[ -f {folder}/answer ] || {{ echo "E: no such version" >&2; exit 100; }}\n'
        f"/bin/cp {folder}/answer ./got.deb\n"
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    return folder


def debian():
    return make_source(
        DEB, name="manpages-ja", filename="m.deb", index=Index.APT, domain="base", reader="man"
    )


def test_pip_brings_the_file_that_the_lock_names_and_only_once(
    index: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_source(WHEEL)
    notes: list[str] = []
    assert fetch(make_lock(source), cache, notes.append) == []
    assert (cache / source.filename).read_bytes() == WHEEL
    assert notes == ["fetched tiny 1.0 (0 of 0 MB)"]
    # Neither pip nor anything else is started for what is there.
    monkeypatch.setattr(subprocess, "run", None)
    assert fetch(make_lock(source), cache, notes.append) == []


def test_a_relative_cache_is_where_the_caller_stands(
    index: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_source(WHEEL)
    monkeypatch.chdir(cache.parent)
    assert fetch(make_lock(source), Path(cache.name), lambda note: None) == []
    assert (cache / source.filename).read_bytes() == WHEEL


def test_another_file_than_the_locked_one_is_thrown_away(index: Path, cache: Path) -> None:
    source = make_source(WHEEL, sha256="a" * 64)
    with pytest.raises(LocalFault) as caught:
        fetch(make_lock(source), cache, print)
    assert caught.value.code == "RNM-DATA-0002"
    assert [path.name for path in cache.iterdir()] == [".lock"]


def test_a_package_that_the_index_lacks_is_named(index: Path, cache: Path) -> None:
    with pytest.raises(LocalFault) as caught:
        fetch(make_lock(make_source(WHEEL, version="2.0")), cache, print)
    assert caught.value.code == "RNM-DATA-0001"
    assert "tiny==2.0" in caught.value.why


def test_a_damaged_file_in_the_cache_is_fetched_again(index: Path, cache: Path) -> None:
    source = make_source(WHEEL)
    cache.mkdir()
    (cache / source.filename).write_bytes(WHEEL[:-1])
    assert not present(source, cache)
    fetch(make_lock(source), cache, print)
    assert present(source, cache)


def test_what_a_killed_fetch_left_is_removed_and_the_rest_kept(index: Path, cache: Path) -> None:
    source = make_source(WHEEL)
    (cache / ".fetch-killed").mkdir(parents=True)
    (cache / ".fetch-killed" / "half.whl").write_bytes(WHEEL[:100])
    (cache / "other").write_bytes(b"kept")
    fetch(make_lock(source), cache, print)
    assert sorted(p.name for p in cache.iterdir()) == [".lock", "other", source.filename]


def test_two_fetches_into_one_cache_are_refused(index: Path, cache: Path) -> None:
    cache.mkdir()
    with (cache / ".lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(LocalFault) as caught:
            fetch(make_lock(make_source(WHEEL)), cache, print)
    assert caught.value.code == "RNM-PROC-0003"


def test_a_cache_that_is_a_file_is_named(index: Path, cache: Path) -> None:
    cache.write_bytes(b"")
    with pytest.raises(LocalFault) as caught:
        fetch(make_lock(make_source(WHEEL)), cache, print)
    assert caught.value.code == "RNM-CONF-0001"


def test_apt_brings_the_file_that_the_lock_names(apt: Path, cache: Path) -> None:
    (apt / "answer").write_bytes(DEB)
    assert fetch(make_lock(debian()), cache, print) == []
    assert (cache / "m.deb").read_bytes() == DEB


@pytest.mark.parametrize(
    ("answer", "reason"),
    [(None, "no such version"), (DEB + b"rebuilt elsewhere", "SHA-256")],
)
def test_where_a_distribution_has_another_build_the_fetch_goes_on_without_it_and_says_so(
    apt: Path, cache: Path, answer: bytes | None, reason: str
) -> None:
    if answer is not None:
        (apt / "answer").write_bytes(answer)
    notes: list[str] = []
    assert fetch(make_lock(debian()), cache, notes.append) == [debian()]
    assert "going on without manpages-ja" in notes[0]
    assert reason in notes[0]
    assert not (cache / "m.deb").exists()


def test_where_there_is_no_apt_the_fetch_goes_on_without_it_and_says_so(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    notes: list[str] = []
    assert fetch(make_lock(debian()), cache, notes.append) == [debian()]
    assert "there is no apt here" in notes[0]


def test_the_command_ends_with_the_status_of_its_fault(tmp_path: Path) -> None:
    (tmp_path / "cache").write_bytes(b"a file")
    done = subprocess.run(
        [sys.executable, "-m", "base_model.fetch", "--cache", tmp_path / "cache"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "RNM-CONF-0001" in done.stderr
    assert "Traceback" not in done.stderr
