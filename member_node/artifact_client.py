"""Models by digest: fetched from the coordinator, believed only when the digest fits.

Decides whether bytes are the ones that the ledger names. Trusts the coordinator for nothing but the
transport: a base model is its manifest's SHA-256 and the SHA-256 of each file in it; a global adapter is
the digest of its vector. A model directory appears whole, under its digest, or not at all. A shell module.
"""

import hashlib
import os
import shutil
from collections.abc import Iterator
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


class ArtifactClient:
    """Fetches artifacts over the node's gated channel."""

    def __init__(self, channel: GatedChannel, models: Path) -> None:
        self._stub = artifacts_pb2_grpc.ArtifactsStub(channel)
        self._to = channel.to
        self._models = models

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
        make_private_directory(self._models)
        part = self._models / f".{manifest_sha256[:16]}.part"
        shutil.rmtree(part, ignore_errors=True)
        make_private_directory(part)
        try:
            manifest = b"".join(self._chunks(manifest_sha256, limit=MAX_MANIFEST))
            if sha256_hex(manifest) != manifest_sha256:
                raise _other(manifest_sha256, "the manifest has another digest")
            for name, digest, size in _files(manifest):
                self._fetch(part / name, digest, size)
            write_atomic(part / MANIFEST, manifest)
            part.rename(final)
            sync_directory(self._models)
        except OSError as error:
            raise disk_fault(final, error) from None
        finally:
            shutil.rmtree(part, ignore_errors=True)
        return final

    def _fetch(self, path: Path, digest: Digest, size: int) -> None:
        state = hashlib.sha256()
        with path.open("xb") as file:
            for data in self._chunks(digest, limit=size):
                state.update(data)
                file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if state.hexdigest() != digest:
            raise _other(digest, f"{path.name} has another digest")

    def _chunks(self, digest: Digest, *, limit: int) -> Iterator[bytes]:
        received = 0
        try:
            for chunk in self._stub.Get(GetArtifactRequest(sha256=digest), timeout=_PATIENCE_S):
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
