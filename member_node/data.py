"""The member's own corpus: read, packed once, and given out as batches of tokens.

Nothing here returns text upwards, and no error shows any. The dataset is named by a salted commitment
that its member can erase. A shell module.
"""

import hashlib
import hmac
import json
import os
from pathlib import Path

from tokenizers import Tokenizer

from base_model import packing
from base_model.packing import Batches
from base_model.sources import Document
from fedproto.durable import read_private, write_atomic
from fedproto.errors import LocalFault
from fedproto.ids import Digest

TRAIN, TEST = "train.jsonl", "test.jsonl"
_SALT = "dataset.salt"


def read_documents(path: Path) -> list[Document]:
    """Read a JSON-lines corpus of {"group", "text"}.

    Raises:
        LocalFault: RNM-DATA-0001 missing; RNM-DATA-0002 unreadable (the line is named, its text never
            shown); RNM-DATA-0003 empty.
    """
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise LocalFault(
            "RNM-DATA-0001",
            what=f"the corpus {path} was not found",
            why="there is no such file",
            mend='put it there: one {"group": …, "text": …} a line, UTF-8',
        ) from None
    except OSError as error:
        raise LocalFault(
            "RNM-DATA-0002",
            what=f"the corpus {path} cannot be read",
            why=os.strerror(error.errno or 0),
            mend="let the trainer's user read it",
        ) from None
    documents = [_document(path, number, line) for number, line in enumerate(raw.splitlines(), 1)]
    if not any(document.text for document in documents):
        raise LocalFault(
            "RNM-DATA-0003",
            what=f"the corpus {path} was not used",
            why="it holds no text",
            mend='add documents: one {"group": …, "text": …} a line',
        )
    return documents


def _document(path: Path, number: int, line: bytes) -> Document:
    try:
        item = json.loads(line)
        group, text = item["group"], item["text"]
    except (ValueError, KeyError, TypeError):
        group = text = None
    if not isinstance(group, str) or not isinstance(text, str):
        raise LocalFault(
            "RNM-DATA-0002",
            what=f"the corpus {path} cannot be read",
            why=f'line {number} is not a JSON object with the texts "group" and "text"',
            mend=f"look at it with: sed -n {number}p {path}",
        )
    return Document(group, text)


def batches(directory: Path, tokenizer: Tokenizer, sequence: int, seed: int) -> Batches:
    """Return the batches of a member's corpus, packed once beside it."""
    documents = read_documents(directory / TRAIN)
    stream = packing.pack(documents, tokenizer, directory / "packed")
    return Batches(stream=stream, sequence=sequence, seed=seed)


def commitment(directory: Path) -> Digest:
    """Return HMAC-SHA-256 of the corpus under a salt of the member's own.

    Erasing the salt leaves a number that is linked to nothing.
    """
    salt = directory / _SALT
    if not salt.exists():
        write_atomic(salt, os.urandom(32), mode=0o600)
    with (directory / TRAIN).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").digest()
    tag = b"renmei/v1/commit/dataset\0"
    return Digest(hmac.new(read_private(salt), tag + digest, hashlib.sha256).hexdigest())
