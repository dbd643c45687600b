"""Bring the locked packages into a cache: the only step of Renmei that uses the network.

A shell module. Downloads with pip and apt, installs nothing, keeps only files whose SHA-256 is the
lock's. pip gets the digest as well (`--require-hashes`), so that it refuses a changed source archive
before it asks that archive for its metadata. A Debian package that this machine cannot get, or that
its distribution built anew, is left out, with a note.
"""

import argparse
import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from base_model.lockfile import Index, Lock, Source, read_lock
from fedproto.durable import disk_fault
from fedproto.errors import FederationError, LocalFault

Note = Callable[[str], None]

# The lock names one file for every Python that Renmei runs on.
_WHEEL = (
    "--only-binary=:all: --python-version 3.11 --implementation cp --abi cp311 --abi abi3 "
    "--abi none --platform manylinux2014_x86_64 --platform any"
).split()
_PARALLEL = 4
_TEMPORARY = ".fetch-"


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file; raise RNM-DATA-0002 if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise LocalFault(
            "RNM-DATA-0002",
            what=f"{path} cannot be read",
            why=os.strerror(error.errno or 0),
            mend="make it readable for this user, or remove it: it is fetched again",
        ) from None


def present(source: Source, cache: Path) -> bool:
    """Say whether the cache holds the file that the lock names."""
    path = cache / source.filename
    return path.is_file() and file_sha256(path) == source.sha256


def fetch(lock: Lock, cache: Path, note: Note) -> list[Source]:
    """Bring every source into `cache`; return those of apt that this machine goes on without.

    What is there already is not fetched again. Raises RNM-DATA-0001 if a download fails,
    RNM-DATA-0002 if a file is not the one that the lock names (it is thrown away), RNM-PROC-0003
    if another process fetches into this cache.
    """
    # pip and apt run in a directory of their own, where a relative path would mean another place.
    cache = cache.absolute()
    with _exclusive(cache):
        missing = [source for source in lock.sources if not present(source, cache)]
        debian = [source for source in missing if source.index is Index.APT]
        total, done = sum(source.bytes for source in missing), 0
        absent: list[Source] = []
        with ThreadPoolExecutor(_PARALLEL) as pool:
            jobs = [
                pool.submit(_fetch_pip, source, cache) for source in missing if source not in debian
            ]
            # One after the other: apt locks its lists.
            jobs.append(pool.submit(_fetch_debian, debian, cache))
            try:
                for job in as_completed(jobs):
                    for source, reason in job.result():
                        done += source.bytes
                        progress = f"{done / 1e6:.0f} of {total / 1e6:.0f} MB"
                        if reason:
                            absent.append(source)
                            note(f"going on without {source.name}: {reason} ({progress})")
                        else:
                            note(f"fetched {source.name} {source.version} ({progress})")
            except FederationError:
                pool.shutdown(cancel_futures=True)
                raise
    return absent


@contextlib.contextmanager
def _exclusive(cache: Path) -> Iterator[None]:
    try:
        cache.mkdir(parents=True, exist_ok=True)
        handle = os.open(cache / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise disk_fault(cache, error) from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # What a fetch that was killed left behind.
        for leftover in cache.glob(f"{_TEMPORARY}*"):
            shutil.rmtree(leftover)
        yield
    except BlockingIOError:
        raise LocalFault(
            "RNM-PROC-0003",
            what=f"nothing was fetched into {cache}",
            why="another process is fetching into it",
            mend="wait until it has ended, then run it again",
        ) from None
    finally:
        os.close(handle)


def _fetch_pip(source: Source, cache: Path) -> list[tuple[Source, str]]:
    kind = _WHEEL if source.index is Index.PIP else ["--no-binary=:all:"]
    with tempfile.TemporaryDirectory(dir=cache, prefix=_TEMPORARY) as temporary:
        target = Path(temporary) / "got"
        target.mkdir()
        requirement = Path(temporary) / "requirement.txt"
        requirement.write_text(f"{source.name}=={source.version} --hash=sha256:{source.sha256}\n")
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        options = ["--no-input", "--no-deps", "--require-hashes", "--dest", str(target)]
        done = _run([*pip, *options, *kind, "--requirement", str(requirement)], target)
        if "DO NOT MATCH THE HASHES" in done.stderr:
            raise _changed(source, "pip refused it: its SHA-256 is not the lock's")
        _keep(source, cache, target, done)
    return [(source, "")]


def _fetch_debian(sources: list[Source], cache: Path) -> list[tuple[Source, str]]:
    if not sources:
        return []
    if shutil.which("apt-get") is None:
        return [(source, "there is no apt here") for source in sources]
    results = []
    updated = False
    for source in sources:
        command = ["apt-get", "-qq", "download", f"{source.name}={source.version}"]
        with tempfile.TemporaryDirectory(dir=cache, prefix=_TEMPORARY) as temporary:
            done = _run(command, Path(temporary))
            if done.returncode != 0 and not updated:
                # A machine that has never updated knows no packages yet; only root may do this.
                updated = True
                _run(["apt-get", "-qq", "update"], Path(temporary))
                done = _run(command, Path(temporary))
            try:
                _keep(source, cache, Path(temporary), done)
                results.append((source, ""))
            except LocalFault as fault:
                # Its version or build is another one in this distribution, and apt has verified it.
                results.append((source, fault.why))
    return results


def _run(command: list[str], directory: Path) -> subprocess.CompletedProcess[str]:
    # The command's words come from the lock that ships with Renmei, and start with no dash.
    return subprocess.run(  # noqa: S603
        command, cwd=directory, capture_output=True, text=True, check=False
    )


def _keep(
    source: Source, cache: Path, directory: Path, done: subprocess.CompletedProcess[str]
) -> None:
    """Move what was downloaded into the cache, if it is what the lock names."""
    found = sorted(directory.iterdir())
    if done.returncode != 0 or len(found) != 1:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise LocalFault(
            "RNM-DATA-0001",
            what=f"{source.name} {source.version} was not fetched",
            why=lines[-1][:300] if lines else "the download gave no file",
            mend="check the network or the package index (pip's own settings hold here), then run "
            "it again: what is there is kept",
        )
    digest = file_sha256(found[0])
    if digest != source.sha256:
        raise _changed(source, f"its SHA-256 is {digest}, the lock names {source.sha256}")
    try:
        found[0].replace(cache / source.filename)
    except OSError as error:
        raise disk_fault(cache / source.filename, error) from None


def _changed(source: Source, why: str) -> LocalFault:
    return LocalFault(
        "RNM-DATA-0002",
        what=f"{source.filename} was thrown away",
        why=why,
        mend="the index served another file than the one that was reviewed: do not use it",
    )


def main() -> int:
    """Fetch into the directory that --cache names."""
    parser = argparse.ArgumentParser(prog="python -m base_model.fetch")
    parser.add_argument("--cache", type=Path, required=True)
    cache = parser.parse_args().cache
    try:
        fetch(read_lock(), cache, lambda text: print(text, file=sys.stderr))  # noqa: T201
    except FederationError as error:
        print(  # noqa: T201
            f"{error.code}: {error.what}\n  why: {error.why}\n  mend: {error.mend}",
            file=sys.stderr,
        )
        return int(error.exit)
    return 0


if __name__ == "__main__":
    sys.exit(main())
