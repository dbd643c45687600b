"""Bringing a base model to a member: `python benchmarks/distribution.py`.

The coordinator's artifact service and a member's client over mutual TLS on loopback, each in a process of
its own, for models of growing size in shards. Peak memory of each process above what it had before the
first byte: it must not grow with the model. Speed beside its limit in the same run: one core's SHA-256,
which the member computes over every byte.
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import resource
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fedproto import transport  # sets gRPC's cipher suites before gRPC loads

import grpc  # isort: skip

from fedproto import jcs
from fedproto.ids import sha256_hex
from fedproto.party import utc_now
from fedproto.process import free_ports
from fedproto.v1 import artifacts_pb2_grpc
from renmei.consortium import found

MIB = 1 << 20
SHARD = 256 * MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Brought:
    """One model: its size, MB/s, its share of SHA-256's, and peak MiB above the start."""

    gib: float
    mb_per_s: float
    of_sha256: float
    member_mib: float
    coordinator_mib: float


def peak_mib() -> float:
    """Return the most memory that this process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def publish(files: Path, size: int) -> str:
    """Lay out a model of `size` bytes in shards as the coordinator keeps it; return its digest."""
    files.mkdir(parents=True, exist_ok=True)
    entries: list[jcs.Json] = []
    for number in range(-(-size // SHARD)):
        block = os.urandom(MIB)
        state, path = hashlib.sha256(), files / f"part-{number}"
        length = min(SHARD, size - number * SHARD)
        with path.open("wb") as file:
            for start in range(0, length, MIB):
                piece = (start.to_bytes(8, "big") + block)[: min(MIB, length - start)]
                state.update(piece)
                file.write(piece)
        path.rename(files / state.hexdigest())
        name = f"model-{number + 1:05d}.safetensors"
        entries.append({"name": name, "sha256": state.hexdigest(), "bytes": length})
    manifest = jcs.dumps({"v": 1, "files": entries})
    (files / sha256_hex(manifest)).write_bytes(manifest)
    return sha256_hex(manifest)


def serve(root: Path, port: int, told: Any) -> None:
    """Be the coordinator's artifact service until told to stop; answer with peak memory."""
    from federation.artifacts import ArtifactStore
    from federation.services import ArtifactService
    from federation.serving import Server
    from fedproto.ids import MemberId

    server = Server(lambda *_: MemberId("honda"))
    artifacts_pb2_grpc.add_ArtifactsServicer_to_server(
        ArtifactService(ArtifactStore(root / "artifacts")), server
    )
    credentials = transport.Credentials.load(root / "coordinator" / "keys", utc_now)
    server.add_secure_port(f"127.0.0.1:{port}", credentials.server())
    server.start()
    before = peak_mib()
    told.send("ready")
    told.recv()
    told.send(peak_mib() - before)
    server.stop()


def fetch(root: Path, port: int, digest: str, told: Any) -> None:
    """Be the member; answer with seconds and peak memory."""
    from fedproto.ids import Digest
    from member_node.artifact_client import ArtifactClient
    from member_node.egress import EgressJournal
    from member_node.gate import gated

    credentials = transport.Credentials.load(root / "honda" / "keys", utc_now)
    address = f"127.0.0.1:{port}"
    with grpc.secure_channel(address, credentials.client(), options=transport.OPTIONS) as channel:
        grpc.channel_ready_future(channel).result(30)
        journal = EgressJournal(root, lambda: 1)
        client = ArtifactClient(gated(channel, journal, address), root / "models")
        before, began = peak_mib(), time.perf_counter()
        client.base_model(Digest(digest))
        told.send((time.perf_counter() - began, peak_mib() - before))


def bring(root: Path, size: int) -> Brought:
    """Bring one model over, and measure SHA-256 beside it."""
    digest = publish(root / "artifacts" / "files", size)
    (port,) = free_ports(1)
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    answer, answers = spawn.Pipe(duplex=False)
    server = spawn.Process(target=serve, args=(root, port, theirs))
    server.start()
    ours.recv()
    client = spawn.Process(target=fetch, args=(root, port, digest, answers))
    client.start()
    seconds, member_mib = answer.recv()
    client.join()
    ours.send("stop")
    coordinator_mib = ours.recv()
    server.join()
    return Brought(
        gib=size / (1 << 30),
        mb_per_s=size / seconds / 1e6,
        of_sha256=size / seconds / sha256_rate(),
        member_mib=member_mib,
        coordinator_mib=coordinator_mib,
    )


def sha256_rate() -> float:
    """Return bytes a second of one core."""
    block, began = bytes(MIB), time.perf_counter()
    state = hashlib.sha256()
    for _ in range(512):
        state.update(block)
    return 512 * MIB / (time.perf_counter() - began)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, nargs="*", default=[64, 512, 2048])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found_rows = []
    for mib in options.mib:
        with tempfile.TemporaryDirectory() as directory:
            root = Path(directory) / "c"
            found(root, consortium="bench", coordinator="127.0.0.1:1", gateway="127.0.0.1:2")
            found_rows.append(bring(root, mib * MIB))
    if options.json:
        print(json.dumps([asdict(row) for row in found_rows]))
        return
    print("    GiB     MB/s  of SHA-256  member MiB  coordinator MiB (above the start)")
    for row in found_rows:
        print(
            f"{row.gib:>7.2f}{row.mb_per_s:>9,.0f}{row.of_sha256:>12.0%}"
            f"{row.member_mib:>12,.0f}{row.coordinator_mib:>17,.0f}"
        )


if __name__ == "__main__":
    main()
