"""The member's own corpus: read, packed once, and given out as batches of tokens.

Decides what a dataset is called outside: a salted commitment that its member alone can open, and can
erase. Nothing here returns text upwards, and no error shows any. A shell module.
"""

import hashlib
import hmac
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

from base_model import corpus, packing
from base_model.packing import Batches
from base_model.sources import Document
from fedproto.durable import make_private_directory, read_private, write_atomic
from fedproto.errors import LocalFault
from fedproto.ids import Digest

TRAIN, TEST = "train.jsonl", "test.jsonl"
PACKED = "packed"
SALT = "dataset.salt"
_SALT_BYTES = 32
_TAG = b"renmei/v1/commit/dataset\0"


def read_documents(paths: Sequence[Path]) -> tuple[Document, ...]:
    """Read files of JSON lines, one {"group", "text"} each.

    Raises:
        LocalFault: RNM-DATA-0001 one is missing; RNM-DATA-0002 one cannot be read (the line is named,
            its text never shown); RNM-DATA-0003 one holds no text.
    """
    return tuple(document for path in paths for document in _read(path))


def _read(path: Path) -> tuple[Document, ...]:
    try:
        documents = corpus.read_documents(path)
    except RecursionError:
        raise _unreadable(path, "a line of it is nested too deep") from None
    for number, document in enumerate(documents, 1):
        # JSON can name half a surrogate pair, which no encoder of text takes.
        if any("\ud800" <= letter <= "\udfff" for letter in document.group + document.text):
            raise _unreadable(path, f"line {number} holds half a surrogate pair")
    return documents


def _unreadable(path: Path, why: str) -> LocalFault:
    return LocalFault(
        "RNM-DATA-0002",
        what=f"{path} was not used",
        why=why,
        mend='write each document as one line: {"group": ..., "text": ...}',
    )


def digest(documents: Sequence[Document]) -> bytes:
    """Return SHA-256 of documents in one form, however their file was spaced."""
    return hashlib.sha256(corpus.to_jsonl(documents)).digest()


def batches(
    documents: Sequence[Document],
    tokenizer: Tokenizer,
    directory: Path,
    *,
    sequence: int,
    seed: int,
) -> Batches:
    """Return the batches of a corpus, packed once below `directory`.

    Tokens of an earlier corpus or tokenizer are erased: what a member withdraws is not kept.
    """
    words = hashlib.sha256(tokenizer.to_str().encode()).digest()
    name = hashlib.sha256(digest(documents) + words).hexdigest()[:16]
    make_private_directory(directory)
    for other in directory.iterdir():
        if other.name != name:
            shutil.rmtree(other)
    make_private_directory(directory / name)
    stream = packing.pack(documents, tokenizer, directory / name)
    return Batches(stream=stream, sequence=sequence, seed=seed)


def commitment(documents: Sequence[Document], directory: Path) -> Digest:
    """Return HMAC-SHA-256 of the documents under a salt of the member's own, made once in `directory`.

    Without the salt it is linked to nothing: erasing the salt erases what the ledger says of the data.

    Raises:
        LocalFault: RNM-KEY-0002 the salt is open to others; RNM-KEY-0003 it is damaged.
    """
    path = directory / SALT
    if not path.exists():
        write_atomic(path, os.urandom(_SALT_BYTES), mode=0o600)
    salt = read_private(path)
    if len(salt) != _SALT_BYTES:
        raise LocalFault(
            "RNM-KEY-0003",
            what=f"{path} was not used",
            why=f"it has {len(salt)} bytes, not {_SALT_BYTES}",
            mend="restore it from your own backup; with a new one the dataset gets a new name",
        )
    return Digest(hmac.new(salt, _TAG + digest(documents), hashlib.sha256).hexdigest())
