"""The worked examples of proto/README.md are what the code computes."""

import re
from pathlib import Path

import numpy as np
import pytest

from fedproto import envelope, jcs
from fedproto.identity import SigningKey
from fedproto.ids import sha256_hex, tagged_hash
from fedproto.layout import AdapterLayout, vector_digest
from fedproto.statements import BODIES

TEXT = (Path(__file__).parents[2] / "proto/README.md").read_text()


def vector(name: str) -> dict[str, str]:
    block = re.search(rf"```vector {name}\n(.*?)```", TEXT, re.DOTALL)
    assert block is not None, name
    return dict(re.split(r"\s+", line, maxsplit=1) for line in block[1].strip().splitlines())


def test_the_tagged_hash_example_holds() -> None:
    example = vector("tagged")
    digest = tagged_hash(example["tag"], bytes.fromhex(example["part"]))
    assert digest.hex() == example["digest"]


def test_the_key_example_holds() -> None:
    example = vector("key")
    key = SigningKey(bytes.fromhex(example["seed"])).verify_key
    assert sha256_hex(key.raw) == example["sha256"]
    assert key.key_id == example["key_id"]


def test_the_envelope_example_holds() -> None:
    example = vector("envelope")
    payload = bytes.fromhex(example["payload"])
    kind = example["type"].encode()
    pae = b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)
    assert pae.hex() == example["pae"]
    key = SigningKey(bytes.fromhex(vector("key")["seed"]))
    assert key.sign(pae)[:64].hex() == example["ed25519"]
    sealed = envelope.seal(example["type"], jcs.loads(payload), (key,))
    opened = envelope.open_envelope(
        sealed, example["type"], {key.verify_key.key_id: key.verify_key}.get
    )
    assert opened.payload_bytes == payload


def test_the_layout_example_holds() -> None:
    example = vector("layout")
    layout = AdapterLayout.from_bytes(example["json"].encode())
    assert layout.digest == example["digest"]
    flat = np.frombuffer(bytes.fromhex(example["flat"]), "<f4").astype(np.float32)
    assert layout.size == len(flat)
    assert vector_digest(flat) == example["adapter"]


def test_every_event_type_has_its_row() -> None:
    rows = set(re.findall(r"^\| `([a-z_]+\.[a-z]+)` \|", TEXT, re.MULTILINE))
    assert rows == set(BODIES)


@pytest.mark.parametrize("kind", [envelope.EVENT_TYPE, envelope.AUTHORISATION_TYPE])
def test_every_payload_type_is_listed(kind: str) -> None:
    assert f"`{kind}`" in TEXT
