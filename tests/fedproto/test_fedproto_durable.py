"""Files that are absent or complete, and keys that only their owner may read."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fedproto.durable import make_private_directory, read_private, write_atomic
from fedproto.errors import LocalFault


def test_a_file_is_written_whole_with_the_mode_that_was_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "acting.key"
    write_atomic(path, b"new", mode=0o600)
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_loose_umask_does_not_widen_a_key(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        write_atomic(tmp_path / "k", b"x", mode=0o600)
        make_private_directory(tmp_path / "party")
    finally:
        os.umask(before)
    assert (tmp_path / "k").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "party").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
@pytest.mark.parametrize(
    ("number", "code"), [(errno.ENOSPC, "RNM-DISK-0001"), (errno.EROFS, "RNM-CONF-0001")]
)
def test_a_failing_call_leaves_the_old_content_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int, code: str
) -> None:
    path = tmp_path / "state"
    write_atomic(path, b"old")

    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(LocalFault) as caught:
        write_atomic(path, b"new")
    assert caught.value.code == code
    assert str(path) in caught.value.what
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("parent", ["absent", "file"])
def test_a_parent_that_is_no_directory_is_named(tmp_path: Path, parent: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(LocalFault) as caught:
        write_atomic(tmp_path / parent / "state", b"x")
    assert caught.value.code == "RNM-CONF-0001"


def test_a_planted_symlink_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"keep")
    path = tmp_path / "state"
    path.with_name(f".state.{os.getpid()}.part").symlink_to(victim)
    with pytest.raises(LocalFault):
        write_atomic(path, b"x")
    assert victim.read_bytes() == b"keep"


def test_kill_9_leaves_one_of_the_contents_that_were_written(tmp_path: Path) -> None:
    path = tmp_path / "state"
    program = (
        "import itertools, pathlib, sys\n"
        "from fedproto.durable import write_atomic\n"
        "for n in itertools.count():\n"
        "    write_atomic(pathlib.Path(sys.argv[1]), bytes([n % 251]) * 200_000)\n"
    )
    for pause in (0.15, 0.2, 0.25):
        process = subprocess.Popen([sys.executable, "-c", program, str(path)])
        deadline = time.monotonic() + 20
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(pause)
        process.send_signal(signal.SIGKILL)
        process.wait()
        data = path.read_bytes()
        assert len(data) == 200_000
        assert len(set(data)) == 1


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(LocalFault) as caught:
        read_private(tmp_path / "acting.key")
    assert caught.value.code == "RNM-KEY-0001"
    assert "acting.key" in caught.value.what


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o610, 0o777])
def test_a_key_that_others_may_touch_is_not_used(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "acting.key"
    path.write_bytes(b"secret-seed")
    path.chmod(mode)
    with pytest.raises(LocalFault) as caught:
        read_private(path)
    assert caught.value.code == "RNM-KEY-0002"
    assert "chmod 600" in caught.value.mend
    assert "secret-seed" not in str(caught.value)


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_key_of_its_owner_alone_is_read(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "acting.key"
    path.write_bytes(b"seed")
    path.chmod(mode)
    assert read_private(path) == b"seed"


def test_a_key_behind_a_symlink_is_not_used(tmp_path: Path) -> None:
    target = tmp_path / "real"
    target.write_bytes(b"x")
    target.chmod(0o600)
    link = tmp_path / "acting.key"
    link.symlink_to(target)
    with pytest.raises(LocalFault) as caught:
        read_private(link)
    assert caught.value.code == "RNM-KEY-0003"
