"""What is written of secure aggregation holds: attacks are tried, and the specification is the code's."""

import ast
import re
from pathlib import Path

import pytest

from fedproto.identity import SIGNATURE_BYTES
from fedproto.secagg import agreement
from fedproto.secagg.params import UPLOAD_CHUNK_BYTES
from fedproto.secagg.prg import CHUNK_BYTES
from fedproto.secagg.shamir import SHARE_BYTES

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "secure-aggregation.md").read_text()
ROWS = re.findall(r"^\| ([^|]+) \| [^|]+ \| `(tests/[^`]+)::(test_[^`]+)` \|$", TEXT, re.MULTILINE)


def test_the_table_is_read() -> None:
    assert len(ROWS) == TEXT.count("`tests/")
    assert len({attack for attack, _, _ in ROWS}) == len(ROWS) > 25


@pytest.mark.parametrize(("path", "name"), [row[1:] for row in ROWS], ids=lambda value: value[-40:])
def test_an_attack_that_is_listed_is_tried(path: str, name: str) -> None:
    tree = ast.parse((ROOT / path).read_text())
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


SPEC = (ROOT / "proto" / "SECAGG.md").read_text()


def test_the_specification_names_every_tag_of_the_code_and_no_other() -> None:
    code = [
        path.read_text()
        for folder in ("proto/fedproto", "member_node", "federation")
        for path in (ROOT / folder).rglob("*.py")
    ]
    used = {tag for text in code for tag in re.findall(r"renmei/v1/sa/[a-z0-9-]+", text)}
    # How a member seeds its rounding is its own affair: nobody checks it.
    used -= {"renmei/v1/sa/rounding"}
    named = set(re.findall(r"renmei/v1/sa/[a-z0-9-]+", SPEC)) | {"renmei/v1/sa/self-share"}
    # Written with a format string in the code.
    assert named - used == {"renmei/v1/sa/mask-share", "renmei/v1/sa/self-share"}
    assert used <= named


def test_the_sizes_in_the_specification_are_those_of_the_code() -> None:
    stated = {name: int(size) for name, size in re.findall(r"^\| ([^|]+) \| (\d+) \|$", SPEC, re.M)}
    assert stated == {
        "X25519 key": agreement.X25519_BYTES,
        "ML-KEM-768 key": agreement.MLKEM_BYTES,
        "KEM ciphertext": agreement.KEM_CIPHERTEXT_BYTES,
        "wrapped KEM secret": agreement.WRAPPED_BYTES,
        "share": SHARE_BYTES,
        "salt": agreement.SALT_BYTES,
        "sealed pair": agreement.SEALED_BYTES,
        "signature": SIGNATURE_BYTES,
        "upload chunk": UPLOAD_CHUNK_BYTES,
        "keystream chunk": CHUNK_BYTES,
    }
