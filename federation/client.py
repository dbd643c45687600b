"""The side of administrators and pretrainers: acts, files and runs, over gRPC with a verified ledger.

Trusts the coordinator for the transport alone: what it shows of the ledger is verified against the keys
that this party pinned. A shell module.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import grpc

from audit import receipt
from audit.mirror import Mirror
from audit.note import NoteVerifier
from audit.records import State
from fedproto import telemetry, transport
from fedproto.errors import LocalFault
from fedproto.events.governance import ProposalOpened
from fedproto.events.models import BaseModelApproved
from fedproto.identity import SigningKey
from fedproto.ids import Digest
from fedproto.layout import FlatVector, vector_digest
from fedproto.party import Party, utc_now
from fedproto.statements import Body, Head, seal_event
from fedproto.v1 import (
    artifacts_pb2,
    artifacts_pb2_grpc,
    governance_pb2,
    governance_pb2_grpc,
    ledger_pb2,
    ledger_pb2_grpc,
    rounds_pb2,
    rounds_pb2_grpc,
)

MIRROR = "mirror"
_CHUNK = 1 << 20
_ACT_S = 60.0
_TRANSFER_S = 3600.0
_GRACE_S = 10.0


def mirror_of(party: Party, name: str = MIRROR) -> Mirror:
    """Open a party's own copy of the ledger, which believes its pinned keys alone."""
    profile = party.profile
    return Mirror(
        party.root / name,
        log_vkey=profile.log_vkey,
        origin=profile.origin,
        genesis_sha256=Digest(profile.genesis_sha256),
    )


class CoordinatorClient:
    """One party's connection to the coordinator. Close it after use."""

    def __init__(self, root: Path, *, mirror: str = MIRROR) -> None:
        """Open a party's directory; a node that runs there keeps a `mirror` of its own."""
        self.party = Party.load(root)
        profile = self.party.profile
        credentials = transport.Credentials.load(self.party.keys, utc_now)
        self._address = profile.coordinator
        self._channel = transport.dial(self._address, credentials)
        self._mirror = mirror_of(self.party, mirror)

    def close(self) -> None:
        """Hang up."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def sync(self, *, min_size: int = 1, timeout_s: float = 30.0) -> State:
        """Fetch and verify the ledger; wait at most `timeout_s` for one of `min_size` entries.

        Raises:
            LocalFault: RNM-LEDGER-* it does not verify, or too few witnesses cosigned; RNM-TLS-*.
        """
        stub = ledger_pb2_grpc.LedgerStub(self._channel)
        request = ledger_pb2.GetCheckpointRequest(
            min_size=min_size, timeout_ms=int(timeout_s * 1000)
        )
        try:
            note = stub.GetCheckpoint(request, timeout=timeout_s + _GRACE_S).note
            return self._mirror.update(note, self._entries(stub, note))
        except grpc.RpcError as error:
            raise transport.from_rpc_error(error, self._address) from None

    def _entries(self, stub: ledger_pb2_grpc.LedgerStub, note: bytes) -> Iterator[bytes]:
        start, end = self._mirror.head.size, _size(note)
        if end > start:
            request = ledger_pb2.GetEntriesRequest(start=start, end=end)
            for chunk in stub.GetEntries(request, timeout=_TRANSFER_S):
                yield from chunk.entries

    def propose(self, body: ProposalOpened) -> int:
        """Put a plan to the vote; return the entry's index."""
        return self._act(body, governance_pb2_grpc.GovernanceStub(self._channel).Propose)

    def approve_base_model(self, body: BaseModelApproved) -> int:
        """Release a base model; return the entry's index."""
        return self._act(body, governance_pb2_grpc.GovernanceStub(self._channel).ApproveBaseModel)

    def submit(
        self, body: Body, extra_keys: tuple[SigningKey, ...] = (), *, key: SigningKey | None = None
    ) -> int:
        """Send any act of this party's own, signed by its acting key (or `key`) and by `extra_keys`.

        Returns the entry's index; raises RNM-GOV-* what the charter refuses.
        """
        call = governance_pb2_grpc.GovernanceStub(self._channel).Submit
        return self._act(body, call, extra_keys, key=key)

    def entry(self, index: int) -> bytes:
        """Return an entry of the verified mirror."""
        return self._mirror.leaf(index)

    def sealed(
        self, body: Body, extra_keys: tuple[SigningKey, ...] = (), *, key: SigningKey | None = None
    ) -> bytes:
        """Return an act, signed on the ledger as it was last verified; nothing is sent."""
        party = self.party if key is None else replace(self.party, signing_key=key)
        state, head = self._mirror.state, self._mirror.head
        event = party.event(
            body,
            charter=state.charter.digest,
            head=Head(size=head.size, root=head.root),
            trace=telemetry.current(),
        )
        return seal_event(event, (party.signing_key, *extra_keys))

    def _act(
        self,
        body: Body,
        call: Callable[..., Any],
        extra_keys: tuple[SigningKey, ...] = (),
        *,
        key: SigningKey | None = None,
    ) -> int:
        self.sync()
        leaf = self.sealed(body, extra_keys, key=key)
        return int(self._call(call, governance_pb2.ActRequest(envelope=leaf), _ACT_S).index)

    def _call(self, call: Callable[..., Any], request: Any, timeout_s: float) -> Any:
        try:
            return call(request, timeout=timeout_s)
        except grpc.RpcError as error:
            raise transport.from_rpc_error(error, self._address) from None

    def put_file(self, path: Path) -> Digest:
        """Bring a file to the coordinator under its SHA-256; raise RNM-MODEL-0003 without one."""
        try:
            with path.open("rb") as file:
                digest = Digest(hashlib.file_digest(file, "sha256").hexdigest())
                file.seek(0)
                self._put(digest, iter(lambda: file.read(_CHUNK), b""), vector=False)
        except OSError as error:
            raise LocalFault(
                "RNM-MODEL-0003",
                what=f"{path} was not sent",
                why=error.strerror or type(error).__name__,
                mend="name a file that this user may read",
            ) from None
        return digest

    def put_vector(self, flat: FlatVector) -> Digest:
        """Bring an adapter to the coordinator under the digest of its vector."""
        digest = vector_digest(flat)
        data = flat.astype("<f4").tobytes()
        blocks = (data[start : start + _CHUNK] for start in range(0, len(data), _CHUNK))
        self._put(digest, blocks, vector=True)
        return digest

    def _put(self, digest: Digest, blocks: Iterator[bytes], *, vector: bool) -> None:
        def chunks() -> Iterator[artifacts_pb2.PutChunk]:
            yield artifacts_pb2.PutChunk(sha256=digest, vector=vector, data=next(blocks, b""))
            for block in blocks:
                yield artifacts_pb2.PutChunk(data=block)

        stub = artifacts_pb2_grpc.ArtifactsStub(self._channel)
        self._call(stub.Put, chunks(), _TRANSFER_S)

    def start(self, run: str) -> None:
        """Start a run."""
        stub = rounds_pb2_grpc.RoundsStub(self._channel)
        self._call(stub.Start, rounds_pb2.StartRequest(run=run), _ACT_S)

    def stop(self, run: str) -> None:
        """Stop a run after the round in progress."""
        stub = rounds_pb2_grpc.RoundsStub(self._channel)
        self._call(stub.Stop, rounds_pb2.StopRequest(run=run), _ACT_S)

    def watch(self, run: str) -> Iterator[rounds_pb2.RoundEvent]:
        """Yield what happens in a run, to its end."""
        stub = rounds_pb2_grpc.RoundsStub(self._channel)
        try:
            yield from stub.Watch(rounds_pb2.WatchRequest(run=run))
        except grpc.RpcError as error:
            raise transport.from_rpc_error(error, self._address) from None

    def receipt(self, index: int) -> tuple[bytes, bytes]:
        """Return a COSE receipt of an entry, verified, and the entry."""
        stub = ledger_pb2_grpc.LedgerStub(self._channel)
        request = ledger_pb2.GetReceiptRequest(index=index)
        answer = self._call(stub.GetReceipt, request, _ACT_S)
        log = NoteVerifier.from_vkey(self.party.profile.log_vkey)
        receipt.verify(answer.receipt, answer.entry, log)
        return answer.receipt, answer.entry

    def export(self, path: Path) -> None:
        """Write a bundle for offline verification."""
        stub = ledger_pb2_grpc.LedgerStub(self._channel)
        try:
            with path.open("wb") as file:
                for chunk in stub.Export(ledger_pb2.ExportRequest(), timeout=_TRANSFER_S):
                    file.write(chunk.data)
        except grpc.RpcError as error:
            path.unlink(missing_ok=True)
            raise transport.from_rpc_error(error, self._address) from None


def _size(note: bytes) -> int:
    """Read the size that a note claims; the mirror verifies it."""
    try:
        return int(note.split(b"\n", 2)[1][:19])
    except (IndexError, ValueError):
        raise LocalFault(
            "RNM-LEDGER-0001",
            what="a checkpoint was refused",
            why="it does not say a size",
            mend="ask another member whether its node sees the same",
        ) from None
