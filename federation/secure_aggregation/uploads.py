"""Masked uploads as they arrive: each chunk checked at once, kept and added to the sum once.

Decides what is in the masked sum: chunks that carry the digests of their signed header, and, when the
phase closes, nothing of an upload that is not complete: it is taken out again, chunk by chunk. Holds
one sum and a bit for each chunk; the chunks themselves lie where the caller says. Sees only masked
words. Pure.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from fedproto.errors import LocalFault
from fedproto.ids import MemberId
from fedproto.secagg.faults import not_genuine
from fedproto.secagg.masking_messages import MaskedHeader
from fedproto.secagg.params import Params, Words
from fedproto.secagg.stages import chunk_digest


class Chunks(Protocol):
    """Where chunks lie while the attempt lasts."""

    def write(self, member: MemberId, index: int, data: bytes) -> None:
        """Keep a chunk."""

    def read(self, member: MemberId, index: int, size: int) -> bytes:
        """Return a chunk that was kept."""

    def forget(self, member: MemberId) -> None:
        """Keep nothing of a member."""


class ChunksInMemory:
    """Chunks of a small attempt; a coordinator keeps them on disk instead."""

    def __init__(self) -> None:
        self._kept: dict[tuple[MemberId, int], bytes] = {}

    def write(self, member: MemberId, index: int, data: bytes) -> None:
        """Keep a chunk."""
        self._kept[member, index] = data

    def read(self, member: MemberId, index: int, size: int) -> bytes:
        """Return a chunk that was kept."""
        return self._kept[member, index][:size]

    def forget(self, member: MemberId) -> None:
        """Keep nothing of a member."""
        for key in [key for key in self._kept if key[0] == member]:
            del self._kept[key]


@dataclass(slots=True, kw_only=True)
class _Upload:
    """The digests of the chunks that are in the sum, and, when it has come, the header that signs them."""

    header: MaskedHeader | None = None
    added: dict[int, bytes] = field(default_factory=dict)


class Uploads:
    """The masked sum of one attempt."""

    def __init__(self, params: Params, chunks: Chunks) -> None:
        self._params = params
        self._chunks = chunks
        self._under_way: dict[MemberId, _Upload] = {}
        self.complete: dict[MemberId, MaskedHeader] = {}
        self.total: Words = np.zeros(params.words, params.word)

    def begin(self, member: MemberId) -> None:
        """Expect the chunks of a member; its header names them when all are masked."""
        self._under_way.setdefault(member, _Upload())

    def open(self, member: MemberId, header: MaskedHeader) -> bool:
        """Take a verified header; refuse a vector of another length, or other chunks than came.

        Returns whether the upload is complete now.
        """
        if header.words != self._params.words:
            raise not_genuine(
                member, f"its vector has {header.words} words, not {self._params.words}"
            )
        if len(header.chunk_digests) != self._params.upload_chunks:
            raise not_genuine(member, "its header names another number of chunks")
        upload = self._under_way.setdefault(member, _Upload())
        for index, digest in upload.added.items():
            if digest != header.chunk_digests[index]:
                raise not_genuine(member, f"chunk {index} is not the one that its header signs")
        upload.header = header
        return self._is_complete(member, upload)

    def is_known(self, member: MemberId) -> bool:
        """Say whether a member's upload is under way or complete."""
        return member in self._under_way or member in self.complete

    def add(self, member: MemberId, index: int, data: bytes) -> bool:
        """Take one chunk, in any order; return whether the upload is complete now.

        Raises:
            PeerFault: the chunk is not the one that the header signs.
            LocalFault: it could not be kept; nothing of it is in the sum.
        """
        digest = self._require_due(member, index, data)
        upload = self._under_way.get(member)
        if upload is None:
            return True
        if index not in upload.added:
            # Kept first: what is in the sum can always be taken out again.
            self._chunks.write(member, index, data)
            part = self._part(index)
            np.add(part, np.frombuffer(data, self._params.word), out=part)
            upload.added[index] = digest
        return self._is_complete(member, upload)

    def _is_complete(self, member: MemberId, upload: _Upload) -> bool:
        if upload.header is None or len(upload.added) < self._params.upload_chunks:
            return False
        self.complete[member] = upload.header
        del self._under_way[member]
        return True

    def missing(self, member: MemberId) -> tuple[int, ...]:
        """Return the chunks that an upload under way still lacks."""
        upload = self._under_way.get(member)
        if upload is None:
            return ()
        return tuple(i for i in range(self._params.upload_chunks) if i not in upload.added)

    def read_chunk(self, member: MemberId, index: int) -> bytes:
        """Return a chunk that is in the sum, checked again against its signed header.

        Raises:
            LocalFault: RNM-CONF-0001, what was kept is not what was written.
        """
        signed = self._digests(member)[index]
        data = self._chunks.read(
            member, index, self._params.word.itemsize * self._params.chunk_words(index)
        )
        if chunk_digest(index, data) != signed:
            raise LocalFault(
                "RNM-CONF-0001",
                what=f"chunk {index} of {member} cannot be used",
                why="what was read is not what was written",
                mend="check the file system; the round is tried again with a new attempt",
            )
        return data

    def drop_incomplete(self) -> None:
        """Take every upload that did not arrive whole out of the sum again."""
        for member, upload in list(self._under_way.items()):
            for index in sorted(upload.added):
                part, data = self._part(index), self.read_chunk(member, index)
                np.subtract(part, np.frombuffer(data, self._params.word), out=part)
                del upload.added[index]
            del self._under_way[member]
            self._chunks.forget(member)

    def _part(self, index: int) -> Words:
        start = index * self._params.chunk_size
        return self.total[start : start + self._params.chunk_words(index)]

    def _digests(self, member: MemberId) -> Mapping[int, bytes]:
        """Return the digests by which a member's chunks are known, by place."""
        if member in self.complete:
            return dict(enumerate(self.complete[member].chunk_digests))
        upload = self._under_way.get(member)
        if upload is None:
            raise not_genuine(member, "a chunk came before its upload was begun")
        return dict(enumerate(upload.header.chunk_digests)) if upload.header else upload.added

    def _require_due(self, member: MemberId, index: int, data: bytes) -> bytes:
        """Return the digest of a chunk; refuse one that has no place, or not the content that is known."""
        known = self._digests(member)
        if not 0 <= index < self._params.upload_chunks:
            raise not_genuine(member, f"it has no chunk {index}")
        if len(data) != self._params.word.itemsize * self._params.chunk_words(index):
            raise not_genuine(member, f"chunk {index} has {len(data)} bytes")
        digest = chunk_digest(index, data)
        if known.get(index, digest) != digest:
            raise not_genuine(member, f"chunk {index} is not the one that its header signs")
        return digest
