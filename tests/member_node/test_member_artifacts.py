import math
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest

from fedproto import jcs
from fedproto.errors import FederationError
from fedproto.ids import sha256_hex
from fedproto.layout import vector_digest
from fedproto.v1 import artifacts_pb2_grpc
from fedproto.v1.artifacts_pb2 import ArtifactChunk
from member_node.artifact_client import ArtifactClient
from member_node.egress import EgressJournal
from member_node.gate import gated

WEIGHTS = bytes(range(256)) * 9000
CHUNK = 1 << 20
CONFIG = b'{"hidden_size":8}'


def manifest_of(**files):
    entries = [
        {"name": name.replace("_", "."), "sha256": sha256_hex(data), "bytes": len(data)}
        for name, data in sorted(files.items())
    ]
    return jcs.dumps({"v": 1, "files": entries})


class Store(artifacts_pb2_grpc.ArtifactsServicer):
    def __init__(self):
        self.data = {}
        self.asked = []
        # The line is cut at this byte of a file, and each time so many bytes later.
        self.breaks_at, self.then = math.inf, 0

    def add(self, data):
        self.data[sha256_hex(data)] = data
        return sha256_hex(data)

    def Get(self, request, context):  # noqa: N802  # named by the proto
        self.asked.append((request.sha256, request.offset))
        data = self.data.get(request.sha256)
        if data is None:
            context.abort(grpc.StatusCode.UNAVAILABLE, "gone")
        for start in range(request.offset, len(data), CHUNK):
            if start >= self.breaks_at:
                self.breaks_at += self.then
                context.abort(grpc.StatusCode.UNAVAILABLE, "the line is cut")
            yield ArtifactChunk(data=data[start : start + CHUNK])


@pytest.fixture
def store():
    return Store()


@pytest.fixture
def pauses():
    return []


@pytest.fixture
def client(tmp_path, store, pauses):
    server = grpc.server(ThreadPoolExecutor(2))
    artifacts_pb2_grpc.add_ArtifactsServicer_to_server(store, server)
    to = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    with grpc.insecure_channel(to) as channel:
        journal = EgressJournal(tmp_path, lambda: 1)
        made = ArtifactClient(gated(channel, journal, to), tmp_path / "models", pause=pauses.append)
        yield made
    server.stop(0)


def refused(code, call, *arguments):
    with pytest.raises(FederationError) as refusal:
        call(*arguments)
    assert refusal.value.code == code, refusal.value


def test_a_base_model_arrives_whole_under_its_digest_and_is_asked_for_once(client, store, tmp_path):
    digest = store.add(manifest_of(model_safetensors=WEIGHTS, config_json=CONFIG))
    store.add(WEIGHTS)
    store.add(CONFIG)
    directory = client.base_model(digest)
    assert directory == tmp_path / "models" / digest
    assert (directory / "model.safetensors").read_bytes() == WEIGHTS
    assert sorted(path.name for path in directory.iterdir()) == [
        "config.json",
        "manifest.json",
        "model.safetensors",
    ]
    asked = len(store.asked)
    client.base_model(digest)
    assert len(store.asked) == asked


def test_what_pretraining_publishes_is_what_a_member_fetches(client, store, tmp_path):
    from base_model import weights

    source = tmp_path / "published"
    source.mkdir()
    (source / "model.safetensors").write_bytes(WEIGHTS)
    (source / "config.json").write_bytes(CONFIG)
    from fedproto.schema import to_json

    manifest = jcs.dumps(to_json(weights._describe(source)))
    digest = store.add(manifest)
    store.add(WEIGHTS)
    store.add(CONFIG)
    weights.verify(client.base_model(digest), digest)


@pytest.mark.parametrize("broken", ["manifest", "file", "short", "long", "missing"])
def test_a_model_that_differs_anywhere_leaves_nothing_of_it_behind(client, store, tmp_path, broken):
    manifest = manifest_of(config_json=CONFIG, model_safetensors=WEIGHTS)
    digest = store.add(manifest)
    store.add(CONFIG)
    bad = {
        "file": bytes(len(WEIGHTS)),
        "short": WEIGHTS[:-1],
        "long": WEIGHTS + b"x",
    }
    if broken == "manifest":
        store.data[digest] = manifest_of(model_safetensors=CONFIG)
    elif broken in bad:
        store.data[sha256_hex(WEIGHTS)] = bad[broken]
    refused("RNM-TLS-0001" if broken == "missing" else "RNM-MODEL-0001", client.base_model, digest)
    (part,) = (tmp_path / "models").iterdir()
    assert part.name == f".{digest[:16]}.part"
    kept = {path.name: path.read_bytes() for path in part.iterdir()}
    # What was verified is kept for the next call, and the cut-off beginning of what is missing.
    assert kept.pop("config.json", CONFIG) == CONFIG
    assert kept == ({"model.safetensors": b""} if broken == "missing" else {})


@pytest.mark.parametrize(
    "entry",
    [
        {"name": "../../keys/acting.key", "sha256": "a" * 64, "bytes": 1},
        {"name": "/etc/passwd", "sha256": "a" * 64, "bytes": 1},
        {"name": ".hidden", "sha256": "a" * 64, "bytes": 1},
        {"name": "manifest.json", "sha256": "a" * 64, "bytes": 1},
        {"name": "m", "sha256": "../x", "bytes": 1},
        {"name": "m", "sha256": "a" * 64, "bytes": -1},
        {"name": "m", "sha256": "a" * 64},
        "m",
    ],
)
def test_a_manifest_that_names_anything_but_plain_files_is_refused(client, store, entry):
    digest = store.add(jcs.dumps({"v": 1, "files": [entry]}))
    refused("RNM-FORM-0002", client.base_model, digest)


def test_an_adapter_is_believed_by_its_digest_alone(client, store):
    flat = np.arange(1000, dtype=np.float32)
    digest = vector_digest(flat)
    store.data[digest] = flat.astype("<f4").tobytes()
    assert np.array_equal(client.adapter(digest, 1000), flat)
    refused("RNM-MODEL-0001", client.adapter, digest, 999)
    refused("RNM-MODEL-0001", client.adapter, digest, 1001)
    store.data[digest] = (flat + 1).astype("<f4").tobytes()
    refused("RNM-MODEL-0001", client.adapter, digest, 1000)


def with_model(store):
    store.add(WEIGHTS)
    store.add(CONFIG)
    return store.add(manifest_of(config_json=CONFIG, model_safetensors=WEIGHTS))


def offsets(store, data):
    return [offset for digest, offset in store.asked if digest == sha256_hex(data)]


def test_a_line_that_is_cut_again_and_again_costs_no_byte_twice(client, store, pauses):
    digest = with_model(store)
    store.breaks_at = store.then = CHUNK
    directory = client.base_model(digest)
    assert (directory / "model.safetensors").read_bytes() == WEIGHTS
    assert offsets(store, WEIGHTS) == [0, CHUNK, 2 * CHUNK]
    assert pauses == [2.0, 2.0]


def test_a_coordinator_that_brings_nothing_is_asked_six_times_and_the_next_call_goes_on(
    client, store, pauses, tmp_path
):
    digest = with_model(store)
    store.breaks_at = CHUNK
    refused("RNM-TLS-0001", client.base_model, digest)
    # The first try brought a chunk; it and the five after it ended without another.
    assert offsets(store, WEIGHTS) == [0] + [CHUNK] * 5
    assert pauses == [2.0, 4.0, 8.0, 16.0, 32.0]
    store.breaks_at = math.inf
    assert (client.base_model(digest) / "model.safetensors").read_bytes() == WEIGHTS
    assert offsets(store, WEIGHTS)[6:] == [CHUNK]
    assert offsets(store, CONFIG) == [0]


@pytest.mark.parametrize("left", ["changed", "longer", "stranger"])
def test_what_lies_there_from_before_is_verified_like_anything_else(client, store, tmp_path, left):
    digest = with_model(store)
    part = tmp_path / "models" / f".{digest[:16]}.part"
    part.mkdir(parents=True, mode=0o700)
    name, data = {
        "changed": ("model.safetensors", b"x" + WEIGHTS[1:5000]),
        "longer": ("model.safetensors", WEIGHTS + b"x"),
        "stranger": ("modeling.py", b"import os"),
    }[left]
    (part / name).write_bytes(data)
    if left != "stranger":
        refused("RNM-MODEL-0001", client.base_model, digest)
        assert not (part / name).exists()
    directory = client.base_model(digest)
    assert (directory / "model.safetensors").read_bytes() == WEIGHTS
    assert len(list(directory.iterdir())) == 3


def test_a_model_larger_than_the_disk_is_refused_before_its_first_byte(client, store):
    digest = store.add(
        jcs.dumps({"v": 1, "files": [{"name": "m", "sha256": "a" * 64, "bytes": 1 << 52}]})
    )
    refused("RNM-DISK-0001", client.base_model, digest)
    assert [asked for asked, _ in store.asked] == [digest]
