"""The coordinator's remaining gRPC services: acts, ledger, rounds, artifacts.

Decides which method takes which act; whether an act is admitted is decided by the ledger, who may call
by `roles`. A shell module.
"""

import asyncio
import hashlib
import logging
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from federation.artifacts import CHUNK, ArtifactStore
from federation.calls import Call
from federation.clerk import Clerk
from federation.register import Register
from federation.runs import Runs
from fedproto.errors import LocalFault
from fedproto.events.governance import ActRefused
from fedproto.events.oversight import ExportIssued
from fedproto.ids import Digest, MemberId
from fedproto.party import now_ms
from fedproto.statements import Event, SignedEvent, leaf_id
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

_ENTRIES_BYTES = 1 << 20
# Read from the store at a time: an entry has at most 64 KiB.
_PAGE = 256
# A caller that waits holds a thread; it may ask again.
_LONGEST_WAIT_MS = 60_000


_RECORDED = ("RNM-GOV-0001", "RNM-GOV-0002", "RNM-GOV-0004", "RNM-GOV-0005")
_MOST_REFUSALS = 32
_HOUR_MS = 3_600_000
_LOG = logging.getLogger(__name__)


class GovernanceService(governance_pb2_grpc.GovernanceServicer):
    """Acts of parties, each through the method of its type and by the caller itself."""

    def __init__(self, register: Register, clerk: Clerk) -> None:
        self._register = register
        self._clerk = clerk
        self._hour = 0
        self._refusals: Counter[MemberId] = Counter()

    async def _admit(
        self, request: governance_pb2.ActRequest, call: Call, kind: str
    ) -> governance_pb2.ActResponse:
        caller = call.caller
        event: Event | None = None

        def check(signed: SignedEvent) -> None:
            nonlocal event
            found = signed.event
            if kind not in {found.type, ""} or found.actor.member != caller:
                raise LocalFault(
                    "RNM-AUTH-0001",
                    what=f"a {found.type} act was refused",
                    why=f"this method takes {kind or 'all'} acts of {caller} alone",
                    mend="send each act yourself, by its own method",
                )
            # From here on a refusal is one of the caller's own act.
            event = found

        try:
            appended = await self._register.admitted(request.envelope, check)
        except LocalFault as fault:
            if event is not None:
                await asyncio.to_thread(self._record_refusal, event, request.envelope, fault)
            raise
        return governance_pb2.ActResponse(
            index=appended.index, leaf_hash=bytes.fromhex(appended.leaf_hash)
        )

    def _may_record(self, member: MemberId) -> bool:
        """Count what is recorded of a member in the hour: its refusals must not fill the ledger."""
        hour = now_ms() // _HOUR_MS
        if self._hour != hour:
            self._hour, self._refusals = hour, Counter()
        self._refusals[member] += 1
        return self._refusals[member] <= _MOST_REFUSALS

    def _record_refusal(self, event: Event, envelope: bytes, fault: LocalFault) -> None:
        """Put into the ledger what a member signed and the charter refused, once for each act.

        A retry of what is there is no refusal, and a stranger's act is refused before it comes here.
        """
        if fault.code not in _RECORDED or not self._may_record(event.actor.member):
            return
        try:
            self._register.act(
                ActRefused(
                    member=event.actor.member,
                    kind=event.type,
                    sha256=leaf_id(envelope),
                    code=fault.code,
                )
            )
        except LocalFault as unrecorded:
            # Recorded before, or not founded yet; the caller hears the first reason either way.
            _LOG.info("a refusal was not recorded: %s %s", unrecorded.code, unrecorded.why)

    async def ApproveBaseModel(self, request: Any, call: Call) -> Any:  # noqa: N802
        """Take base_model.approved."""
        return await self._admit(request, call, "base_model.approved")

    async def DeclareDataset(self, request: Any, call: Call) -> Any:  # noqa: N802
        """Take dataset.declared."""
        return await self._admit(request, call, "dataset.declared")

    async def Propose(self, request: Any, call: Call) -> Any:  # noqa: N802
        """Take proposal.opened."""
        return await self._admit(request, call, "proposal.opened")

    async def Vote(self, request: Any, call: Call) -> Any:  # noqa: N802
        """Take vote.cast, then see whether a mandate follows."""
        response = await self._admit(request, call, "vote.cast")
        await asyncio.to_thread(self._clerk.review, now_ms())
        return response

    async def SignParticipation(self, request: Any, call: Call) -> Any:  # noqa: N802
        """Take participation.signed."""
        return await self._admit(request, call, "participation.signed")

    async def AuditSum(self, request: Any, call: Call) -> Any:  # noqa: N802
        """Take sum.audited."""
        return await self._admit(request, call, "sum.audited")

    async def Submit(self, request: Any, call: Call) -> Any:  # noqa: N802
        """Take any other act of the caller's own; the charter says who may."""
        response = await self._admit(request, call, "")
        # What an act makes due besides a ballot can wait for the coordinator's next tick.
        if self._register.ledger.state.waiting:
            await asyncio.to_thread(self._clerk.review, now_ms())
        return response


class LedgerService(ledger_pb2_grpc.LedgerServicer):
    """The ledger for its readers, who verify what they get."""

    def __init__(self, register: Register) -> None:
        self._register = register
        self._issued: set[ExportIssued] = set()

    def GetCheckpoint(self, request: Any, _: Any) -> Any:  # noqa: N802
        """Return the newest cosigned checkpoint; waits for one if asked to."""
        if request.min_size and request.timeout_ms:
            wait_ms = min(request.timeout_ms, _LONGEST_WAIT_MS)
            note = self._register.await_cosigned(request.min_size, wait_ms / 1000)
        else:
            note = self._register.ledger.checkpoint() or b""
        return ledger_pb2.GetCheckpointResponse(note=note)

    def GetEntries(self, request: Any, _: Any) -> Iterator[Any]:  # noqa: N802
        """Yield entries in chunks of about a mebibyte."""
        chunk = ledger_pb2.EntriesChunk(start=request.start)
        size = 0
        for index, entry in enumerate(self._pages(request.start, request.end), request.start):
            if size + len(entry) > _ENTRIES_BYTES and chunk.entries:
                yield chunk
                chunk, size = ledger_pb2.EntriesChunk(start=index), 0
            chunk.entries.append(entry)
            size += len(entry)
        yield chunk

    def _pages(self, start: int, end: int) -> Iterator[bytes]:
        """Yield entries page by page: the whole ledger need not fit into memory."""
        entries = self._register.ledger.entries
        # The whole range is judged before anything is sent.
        entries(end, end)
        for page in range(start, max(end, start + 1), _PAGE):
            yield from entries(page, min(page + _PAGE, end))

    def ProveInclusion(self, request: Any, _: Any) -> Any:  # noqa: N802
        """Return an inclusion proof."""
        hashes = self._register.ledger.prove_inclusion(request.index, request.size)
        return ledger_pb2.ProveResponse(hashes=hashes)

    def ProveConsistency(self, request: Any, _: Any) -> Any:  # noqa: N802
        """Return a consistency proof."""
        hashes = self._register.ledger.prove_consistency(request.old_size, request.size)
        return ledger_pb2.ProveResponse(hashes=hashes)

    def GetReceipt(self, request: Any, _: Any) -> Any:  # noqa: N802
        """Return a COSE receipt of an entry, and the entry."""
        receipt = self._register.ledger.issue_receipt(request.index)
        (entry,) = self._register.ledger.entries(request.index, request.index + 1)
        return ledger_pb2.GetReceiptResponse(receipt=receipt, entry=entry)

    def Export(self, _: Any, call: Call) -> Iterator[Any]:  # noqa: N802
        """Yield a bundle for offline verification; that it was handed out is an entry first."""
        with tempfile.TemporaryDirectory() as temporary:
            path = Path(temporary) / "bundle.zip"
            size = self._register.ledger.export(path)
            with path.open("rb") as file:
                digest = Digest(hashlib.file_digest(file, "sha256").hexdigest())
                self._issue(ExportIssued(recipient=call.caller, bundle_sha256=digest, size=size))
                file.seek(0)
                while block := file.read(CHUNK):
                    yield ledger_pb2.ExportChunk(data=block)

    def _issue(self, issued: ExportIssued) -> None:
        """Record an export; the same bundle to the same reader again is the same export."""
        if issued not in self._issued:
            self._register.act(issued)
            self._issued.add(issued)


class RoundsService(rounds_pb2_grpc.RoundsServicer):
    """Starting, stopping and watching runs."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs

    def Start(self, request: Any, _: Any) -> Any:  # noqa: N802
        """Start a run."""
        self._runs.start(request.run, now_ms())
        return rounds_pb2.StartResponse()

    def Stop(self, request: Any, _: Any) -> Any:  # noqa: N802
        """Stop a run after the round in progress."""
        self._runs.stop(request.run)
        return rounds_pb2.StopResponse()

    def Watch(self, request: Any, call: Call) -> Iterator[Any]:  # noqa: N802
        """Yield what happens in a run."""
        yield from self._runs.journal(request.run).follow(call.is_active)


class ArtifactService(artifacts_pb2_grpc.ArtifactsServicer):
    """Files and adapters by digest."""

    def __init__(self, store: ArtifactStore) -> None:
        self._store = store

    def Get(self, request: Any, _: Any) -> Iterator[Any]:  # noqa: N802
        """Yield an artifact."""
        for block in self._store.read(request.sha256, request.offset):
            yield artifacts_pb2.ArtifactChunk(data=block)

    def Put(self, request_iterator: Iterator[Any], _: Any) -> Any:  # noqa: N802
        """Keep an artifact under the digest that it must have."""
        first = next(request_iterator, None)
        if first is None:
            raise LocalFault(
                "RNM-FORM-0002",
                what="an artifact was refused",
                why="nothing was sent",
                mend="send its digest and its bytes",
            )

        def blocks() -> Iterator[bytes]:
            yield first.data
            for chunk in request_iterator:
                yield chunk.data

        if not self._store.has(first.sha256):
            self._store.put(first.sha256, blocks(), vector=first.vector)
        return artifacts_pb2.PutResponse()
