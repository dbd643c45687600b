"""Models by digest: fetched from the coordinator, believed only when the digest fits.

Decides whether bytes are the ones that the ledger names. Trusts the coordinator for nothing but the
transport: a base model is its manifest's SHA-256 and the SHA-256 of each file in it; a global adapter is
the digest of its vector. A model directory appears whole, under its digest, or not at all; what was cut
off goes on from its last byte, in this call or the next. Memory: a chunk, whatever the size. A shell module.
"""

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import numpy as np

from fedproto import jcs
from fedproto.durable import disk_fault, make_private_directory, sync_directory, write_atomic
from fedproto.errors import LocalFault, PeerFault
from fedproto.ids import Digest, is_digest, sha256_hex
from fedproto.layout import FlatVector, vector_digest
from fedproto.transport import from_rpc_error
from fedproto.v1 import artifacts_pb2_grpc
from fedproto.v1.artifacts_pb2 import GetArtifactRequest
from member_node.gate import GatedChannel

MANIFEST = "manifest.json"
MAX_MANIFEST = 1 << 20
_PATIENCE_S = 600.0
# A connection that broke, a deadline: worth another try, which goes on where this one ended.
_PASSING = {"RNM-TLS-0001", "RNM-ROUND-0002"}
# So many tries in a row may bring nothing; the pauses between them are a minute in all.
_TRIES = 6
_BLOCK = 1 << 20


class ArtifactClient:
    """Fetches artifacts over the node's gated channel."""

    def __init__(
        self, channel: GatedChannel, models: Path, *, pause: Callable[[float], None] = time.sleep
    ) -> None:
        self._stub = artifacts_pb2_grpc.ArtifactsStub(channel)
        self._to = channel.to
        self._models, self._pause = models, pause

    def adapter(self, digest: Digest, parameters: int) -> FlatVector:
        """Fetch a global adapter; refuse other bytes than `digest` names (RNM-MODEL-0001)."""
        raw = b"".join(self._chunks(digest, limit=4 * parameters))
        if len(raw) != 4 * parameters:
            raise _other(digest, f"it has {len(raw)} bytes, not {4 * parameters}")
        flat = np.frombuffer(raw, "<f4").astype(np.float32)
        if vector_digest(flat) != digest:
            raise _other(digest, "its bytes have another digest")
        return flat

    def base_model(self, manifest_sha256: Digest) -> Path:
        """Return the directory of a base model, fetched and verified if it is not there yet."""
        final = self._models / manifest_sha256
        if final.is_dir():
            return final
        part = self._models / f".{manifest_sha256[:16]}.part"
        try:
            make_private_directory(self._models)
            # What an earlier call brought is kept: each file is verified before it counts.
            make_private_directory(part)
            manifest = b"".join(self._chunks(manifest_sha256, limit=MAX_MANIFEST))
            if sha256_hex(manifest) != manifest_sha256:
                raise _other(manifest_sha256, "the manifest has another digest")
            files = list(_files(manifest))
            self._require_room(part, sum(size for _, _, size in files))
            for stranger in {path.name for path in part.iterdir()} - {name for name, _, _ in files}:
                (part / stranger).unlink()
            for name, digest, size in files:
                self._fetch(part / name, digest, size)
            write_atomic(part / MANIFEST, manifest)
            part.rename(final)
            sync_directory(self._models)
        except OSError as error:
            raise disk_fault(final, error) from None
        return final

    def _require_room(self, part: Path, size: int) -> None:
        """Refuse before the first byte what the disk can't hold (RNM-DISK-0001)."""
        left = size - sum(path.stat().st_size for path in part.iterdir())
        free = shutil.disk_usage(part).free
        if left > free:
            raise LocalFault(
                "RNM-DISK-0001",
                what="the base model was not fetched",
                why=f"{left / 1e9:.1f} GB are to come, and {self._models} has {free / 1e9:.1f} GB free",
                mend="free space there, or move the node's models to a larger disk",
            )

    def _fetch(self, path: Path, digest: Digest, size: int) -> None:
        """Bring a file, from where it was cut off; one that turns out to be another is removed."""
        try:
            with path.open("a+b") as file:
                state, held = hashlib.sha256(), 0
                file.seek(0)
                while block := file.read(_BLOCK):
                    state.update(block)
                    held += len(block)
                for data in self._persistently(digest, held, size):
                    state.update(data)
                    file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if state.hexdigest() != digest:
                raise _other(digest, f"{path.name} has another digest")
        except PeerFault:
            path.unlink()
            raise

    def _persistently(self, digest: Digest, held: int, size: int) -> Iterator[bytes]:
        """Yield the bytes from `held` to `size`, over as many connections as it takes."""
        idle = 0
        while held < size:
            try:
                for data in self._chunks(digest, limit=size - held, offset=held):
                    held, idle = held + len(data), 0
                    yield data
            except LocalFault as fault:
                idle += 1
                if fault.code not in _PASSING or idle == _TRIES:
                    raise
                self._pause(2.0**idle)
                continue
            if held < size:
                raise _other(digest, f"it ends after {held} bytes of {size}")

    def _chunks(self, digest: Digest, *, limit: int, offset: int = 0) -> Iterator[bytes]:
        received = 0
        try:
            request = GetArtifactRequest(sha256=digest, offset=offset)
            for chunk in self._stub.Get(request, timeout=_PATIENCE_S):
                received += len(chunk.data)
                if received > limit:
                    raise _other(digest, f"it has more than {limit} bytes")
                yield chunk.data
        except grpc.RpcError as error:
            raise from_rpc_error(error, self._to) from None


def _files(manifest: bytes) -> Iterator[tuple[str, Digest, int]]:
    """Yield name, digest and size of each file that a manifest names; refuse names that climb."""
    value = jcs.loads(manifest)
    files = value.get("files") if isinstance(value, dict) else None
    if not isinstance(files, list) or not files:
        raise _malformed("it lists no files")
    for entry in files:
        if not isinstance(entry, dict):
            raise _malformed("a file is not described")
        name, digest, size = entry.get("name"), entry.get("sha256"), entry.get("bytes")
        if not isinstance(name, str) or not isinstance(digest, str) or not isinstance(size, int):
            raise _malformed("a file lacks its name, digest or size")
        if Path(name).name != name or name.startswith(".") or name == MANIFEST:
            raise _malformed("a file's name leaves the model's directory")
        if not is_digest(digest) or size < 0:
            raise _malformed("a file's digest or size is not one")
        yield name, Digest(digest), size


def _malformed(why: str) -> LocalFault:
    return LocalFault(
        "RNM-FORM-0002",
        what="the manifest of a base model was refused",
        why=why,
        mend="ask the pretrainer to release the model again",
    )


def _other(digest: Digest, why: str) -> PeerFault:
    return PeerFault(
        "RNM-MODEL-0001",
        peer="coordinator",
        what=f"artifact {digest[:16]} was refused",
        why=why,
        mend="nothing at this node; the coordinator has to serve what the ledger names",
    )
