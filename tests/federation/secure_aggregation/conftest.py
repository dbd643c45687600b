"""Both halves of secure aggregation in memory: real keys, real authorisation, no transport."""

import hashlib
from collections.abc import Callable, Iterable
from functools import cache

import numpy as np
import pytest

from federation.secure_aggregation.server import SecAggServer
from fedproto.authorisation import (
    SUITES,
    WORD_BITS,
    Authorisation,
    SignedAuthorisation,
    open_authorisation,
    recovery_threshold,
    seal_authorisation,
)
from fedproto.identity import SigningKey
from fedproto.ids import Digest, MemberId, RunId
from fedproto.secagg.params import Params
from fedproto.secagg.quantise import Rounding, dequantise, quantise
from fedproto.secagg.ring import blocks
from member_node.secagg_client import MaskedUpload, SecAggClient


@cache
def signing_key(name: str) -> SigningKey:
    return SigningKey(hashlib.sha512(name.encode()).digest())


def entropy_of(label: str) -> Callable[[int], bytes]:
    """Return bytes that look random and repeat from run to run."""
    counter = 0

    def entropy(count: int) -> bytes:
        nonlocal counter
        counter += 1
        return hashlib.shake_256(f"{label}/{counter}".encode()).digest(count)

    return entropy


def authorise(
    names: Iterable[str], d: int, tolerated: int, **changes: object
) -> SignedAuthorisation:
    members = tuple(MemberId(name) for name in sorted(names))
    digest = Digest("ab" * 32)
    fields: dict[str, object] = {
        "v": 1,
        "consortium": "test",
        "charter": digest,
        "mandate": digest,
        "prev": digest,
        "run": RunId("cd" * 16),
        "round": 1,
        "attempt": 1,
        "members": members,
        "recovery_threshold": recovery_threshold(len(members), tolerated),
        "tolerated": tolerated,
        "parameters": d,
        "layout_sha256": digest,
        "plan_sha256": digest,
        "model_in": digest,
        "word_bits": WORD_BITS,
        "bits": 20,
        "clip_milli": 2000,
        "not_after": 2_000_000_000_000,
        "nonce": "ef" * 32,
    }
    key = signing_key("coordinator")
    fields |= changes
    fields.setdefault("suite", SUITES.get(fields["word_bits"], "none"))
    raw = seal_authorisation(Authorisation(**fields), key)
    return open_authorisation(raw, {key.verify_key.key_id: key.verify_key}.get)


class Attempt:
    """One attempt at one round, driven phase by phase; a test may bend any message between."""

    def __init__(
        self,
        n: int,
        d: int = 300,
        tolerated: int = 1,
        summed: tuple[MemberId, ...] | None = None,
        **changes: object,
    ) -> None:
        self.summed = summed
        self.names = [MemberId(f"m{i:02d}") for i in range(n)]
        self.keys = {name: signing_key(name) for name in self.names}
        self.roster = {name: key.verify_key for name, key in self.keys.items()}
        self.authorisation = authorise(self.names, d, tolerated, **changes)
        self.content = self.authorisation.content
        self.params = Params.of(self.content)
        self.server = SecAggServer(
            authorisation=self.authorisation, roster=self.roster, summed=summed
        )
        self.clients = {name: self.client(name) for name in self.names}
        rng = np.random.default_rng(n * 1000 + d)
        self.deltas = {
            name: (rng.standard_normal(d) / np.sqrt(d)).astype(np.float32) for name in self.names
        }
        self.weights = {name: float(rng.uniform(0.05, 1.0)) for name in self.names}
        self.key_list = b""
        self.share_lists: dict[MemberId, bytes] = {}
        self.uploads: dict[MemberId, MaskedUpload] = {}
        self.survivor_list = b""
        self.confirmations = b""

    def client(self, name: MemberId, **changes: object) -> SecAggClient:
        arguments: dict[str, object] = {
            "authorisation": self.authorisation,
            "member": name,
            "key": self.keys[name],
            "roster": self.roster,
            "entropy": entropy_of(f"{name}/{self.content.pass_no}"),
            "summed": self.summed,
        }
        return SecAggClient(**{**arguments, **changes})

    def rounding_seed(self, name: MemberId) -> bytes:
        return hashlib.sha256(name.encode()).digest()

    def advertise(self, *, without: Iterable[str] = ()) -> bytes:
        for name in self.names:
            if name not in without:
                self.server.receive_advertise(name, self.clients[name].advertise())
        self.key_list = self.server.close_advertise()
        self.listed = [name for name in self.names if name not in without]
        return self.key_list

    def share(self, *, without: Iterable[str] = ()) -> dict[MemberId, bytes]:
        for name in self.listed:
            if name not in without:
                self.server.receive_shares(name, self.clients[name].share_keys(self.key_list))
        self.share_lists = dict(self.server.close_shares())
        return self.share_lists

    def mask_of(self, name: MemberId) -> MaskedUpload:
        upload = self.clients[name].mask(
            self.share_lists[name], self.deltas[name], self.weights[name], self.rounding_seed(name)
        )
        self.uploads[name] = upload
        return upload

    def send(self, name: MemberId, upload: MaskedUpload) -> bool:
        self.server.receive_header(name, upload.header)
        return [
            self.server.receive_chunk(name, index, data) for index, data in enumerate(upload.chunks)
        ][-1]

    def mask(self, *, without: Iterable[str] = ()) -> bytes:
        for name in self.share_lists:
            if name not in without:
                assert self.send(name, self.mask_of(name))
        self.survivor_list = self.server.close_uploads()
        self.survivors = tuple(name for name in self.share_lists if name not in without)
        return self.survivor_list

    def confirm(self, *, without: Iterable[str] = ()) -> bytes:
        for name in self.survivors:
            if name not in without:
                self.server.receive_confirm(name, self.clients[name].confirm(self.survivor_list))
        self.confirmations = self.server.close_confirm()
        self.confirmed = tuple(name for name in self.survivors if name not in without)
        return self.confirmations

    def reveal(self, *, without: Iterable[str] = ()) -> None:
        for name in self.confirmed:
            if name not in without:
                self.server.receive_reveal(name, self.clients[name].reveal(self.confirmations))

    def words_of(self, name: MemberId) -> np.ndarray:
        vector = quantise(
            self.deltas[name], self.weights[name], self.params, self.rounding_seed(name)
        )
        words, rounding = np.empty(vector.words, vector.word), Rounding(vector)
        for chunk, block in blocks(words):
            rounding.write(chunk, block)
        return words

    def expected(self, included: Iterable[MemberId]) -> tuple[np.ndarray, float]:
        """Return what the members' quantised vectors add up to, without any mask."""
        names = list(included)
        total = np.zeros(self.params.words, self.params.word)
        for name in names:
            total += self.words_of(name)
        return dequantise(total, self.params, len(names))


@pytest.fixture
def attempt() -> type[Attempt]:
    return Attempt
