"""Artifacts: files by SHA-256, and global adapters by the digest of their vector.

Decides that what is kept under a digest has it. Write-once: a name that is there is never written again.
Momentum vectors stand beside the adapters that they led to and are served to nobody. A shell module.
"""

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fedproto.durable import disk_fault, make_private_directory, sync_directory, write_atomic
from fedproto.errors import LocalFault
from fedproto.ids import Digest, is_digest
from fedproto.layout import MAX_PARAMETERS, FlatVector, vector_digest

CHUNK = 1 << 20
MAX_ARTIFACT = 64 << 30
# What all artifacts together may take: a base model of 10^12 parameters, and adapters beside it.
QUOTA = 4 << 40
_FLOAT = 4
_PART = ".put-"


class ArtifactStore:
    """A directory of artifacts and one of momenta."""

    def __init__(self, directory: Path, *, quota: int = QUOTA) -> None:
        self._quota = quota
        self._files = directory / "files"
        self._momenta = directory / "momenta"
        make_private_directory(self._files)
        make_private_directory(self._momenta)
        for path in self._files.glob(f"{_PART}*"):
            # Being brought when the coordinator was killed; whoever brought it sends it again.
            path.unlink()

    def read(self, digest: str, offset: int = 0) -> Iterator[bytes]:
        """Yield the bytes kept under a digest from an offset; raise RNM-MODEL-0003 if none are."""
        path = self._files / digest
        if not is_digest(digest) or not path.is_file():
            raise LocalFault(
                "RNM-MODEL-0003",
                what=f"artifact {digest[:16]} was not given out",
                why="the coordinator does not hold it",
                mend="have the pretrainer or administrator bring it with `renmei base publish`",
            )
        with path.open("rb") as file:
            # Beyond its end there is nothing, however far.
            file.seek(min(offset, path.stat().st_size))
            while block := file.read(CHUNK):
                yield block

    def put(self, digest: str, blocks: Iterator[bytes], *, vector: bool) -> None:
        """Keep bytes under a digest that they must have (RNM-MODEL-0001)."""
        if not is_digest(digest):
            raise _refused(digest, "its name is not a digest")
        limit, why = MAX_ARTIFACT, f"it has more than {MAX_ARTIFACT} bytes"
        if vector:
            limit, why = _FLOAT * MAX_PARAMETERS, f"it has more than {MAX_PARAMETERS} parameters"
        left = self._quota - self._taken()
        if left < limit:
            limit, why = left, f"all artifacts together may take {self._quota} bytes"
        handle, name = tempfile.mkstemp(dir=self._files, prefix=_PART)
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                size = 0
                for block in blocks:
                    size += len(block)
                    if size > limit:
                        raise _refused(digest, why)
                    file.write(block)
                file.flush()
                os.fsync(file.fileno())
            if _digest_of(temporary, vector=vector) != digest:
                raise _refused(digest, "its bytes have another digest")
            temporary.replace(self._files / digest)
            sync_directory(self._files)
        except OSError as error:
            raise disk_fault(self._files / digest, error) from None
        finally:
            temporary.unlink(missing_ok=True)

    def _taken(self) -> int:
        """Return how many bytes all artifacts take, those that are being brought included."""
        total = 0
        with os.scandir(self._files) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    total += entry.stat().st_size
        return total

    def has(self, digest: str) -> bool:
        """Say whether something is kept under a digest."""
        return is_digest(digest) and (self._files / digest).is_file()

    def adapter(self, digest: Digest, parameters: int) -> FlatVector:
        """Return a global adapter, its digest verified."""
        data = b"".join(self.read(digest))
        if len(data) == _FLOAT * parameters:
            flat = np.frombuffer(data, "<f4").astype(np.float32)
            if vector_digest(flat) == digest:
                return flat
        raise _refused(digest, f"it is not an adapter of {parameters} parameters")

    def keep_round(self, adapter: FlatVector, momentum: FlatVector) -> Digest:
        """Keep an adapter and its momentum durably; return the adapter's digest."""
        digest = vector_digest(adapter)
        write_atomic(self._momenta / digest, _sealed(momentum), mode=0o600)
        write_atomic(self._files / digest, adapter.astype("<f4").tobytes())
        return digest

    def momentum(self, adapter: Digest, parameters: int) -> FlatVector:
        """Return the momentum kept with an adapter; raise RNM-MODEL-0003 or -0001."""
        path = self._momenta / adapter
        if not path.is_file():
            raise LocalFault(
                "RNM-MODEL-0003",
                what=f"the run was not continued from adapter {adapter[:16]}",
                why="the optimiser's momentum is not kept beside it",
                mend="restore artifacts/momenta from the coordinator's backup",
            )
        data = path.read_bytes()
        whole = len(data) == 32 + _FLOAT * parameters
        if not whole or hashlib.sha256(data[32:]).digest() != data[:32]:
            raise _refused(adapter, "the momentum kept beside it is damaged")
        return np.frombuffer(data[32:], "<f4").astype(np.float32)


def _sealed(vector: FlatVector) -> bytes:
    raw = vector.astype("<f4").tobytes()
    return hashlib.sha256(raw).digest() + raw


def _digest_of(path: Path, *, vector: bool) -> str:
    if vector:
        if path.stat().st_size % _FLOAT:
            return "not a vector: its length is no multiple of four bytes"
        return vector_digest(np.fromfile(path, "<f4").astype(np.float32))
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _refused(digest: str, why: str) -> LocalFault:
    return LocalFault(
        "RNM-MODEL-0001",
        what=f"artifact {digest[:16]} was refused",
        why=why,
        mend="send the file that its digest names",
    )
