"""Masked uploads as they arrive: each chunk checked at once, each whole upload added once.

Decides what enters the masked sum: an upload all of whose chunks carry the digests of its signed
header, and nothing of an incomplete one. Holds one sum and the uploads that are under way. Sees only
masked words. Pure.
"""

from dataclasses import dataclass, field

import numpy as np

from fedproto.ids import MemberId
from fedproto.secagg.faults import not_genuine
from fedproto.secagg.masking_messages import MaskedHeader
from fedproto.secagg.params import UPLOAD_CHUNK_WORDS, WORD, Params, Words
from fedproto.secagg.stages import chunk_digest


@dataclass(slots=True, kw_only=True)
class _Upload:
    header: MaskedHeader
    chunks: dict[int, bytes] = field(default_factory=dict, repr=False)


class Uploads:
    """The masked sum of one attempt."""

    def __init__(self, params: Params) -> None:
        self._params = params
        self._under_way: dict[MemberId, _Upload] = {}
        self.complete: dict[MemberId, MaskedHeader] = {}
        self.total: Words = np.zeros(params.words, WORD)

    def open(self, member: MemberId, header: MaskedHeader) -> None:
        """Expect the chunks that a verified header names; refuse a vector of another length."""
        if header.words != self._params.words:
            raise not_genuine(
                member, f"its vector has {header.words} words, not {self._params.words}"
            )
        if len(header.chunk_digests) != self._params.upload_chunks:
            raise not_genuine(member, "its header names another number of chunks")
        self._under_way[member] = _Upload(header=header)

    def is_known(self, member: MemberId) -> bool:
        """Say whether a member's upload is under way or complete."""
        return member in self._under_way or member in self.complete

    def add(self, member: MemberId, index: int, data: bytes) -> bool:
        """Take one chunk, in any order; return whether the upload is complete now."""
        header = self.complete.get(member)
        upload = self._under_way.get(member)
        if header is None and upload is not None:
            header = upload.header
        if header is None:
            raise not_genuine(member, "a chunk came before its header")
        if not 0 <= index < len(header.chunk_digests):
            raise not_genuine(member, f"it has no chunk {index}")
        if len(data) != WORD.itemsize * self._params.chunk_words(index):
            raise not_genuine(member, f"chunk {index} has {len(data)} bytes")
        if chunk_digest(index, data) != header.chunk_digests[index]:
            raise not_genuine(member, f"chunk {index} is not the one that its header signs")
        if upload is None:
            return True
        upload.chunks[index] = data
        if len(upload.chunks) < len(header.chunk_digests):
            return False
        self._finish(member, upload)
        return True

    def _finish(self, member: MemberId, upload: _Upload) -> None:
        for index, data in upload.chunks.items():
            start = index * UPLOAD_CHUNK_WORDS
            words = np.frombuffer(data, WORD)
            part = self.total[start : start + words.size]
            np.add(part, words, out=part)
        self.complete[member] = upload.header
        del self._under_way[member]

    def drop_incomplete(self) -> None:
        """Forget every upload that did not arrive whole."""
        self._under_way.clear()
