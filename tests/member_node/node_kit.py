# ruff: noqa: N802  # a servicer's methods are named by its proto
"""The other side of a member node, small but real: gRPC with mTLS, a real ledger, real witnesses."""

import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np

from audit.ledger import Ledger
from audit.note import NoteSigner
from audit.witness import request_body
from federation.secure_aggregation.server import SecAggServer
from fedproto import telemetry
from fedproto.authorisation import (
    SUITE,
    WORD_BITS,
    Authorisation,
    open_authorisation,
    recovery_threshold,
    seal_authorisation,
)
from fedproto.errors import FederationError, LocalFault
from fedproto.events.governance import Choice, ProposalOpened
from fedproto.events.models import BaseModel, BaseModelApproved
from fedproto.events.rounds import Excluded, Outcome, RoundClosed, RoundStarted, RunApproved
from fedproto.governance.charter import Action
from fedproto.ids import ZERO_DIGEST, sha256_hex
from fedproto.layout import vector_digest
from fedproto.party import Party, now_ms, seed_file, utc_now
from fedproto.secagg.messages import encode
from fedproto.statements import Head, seal_event
from fedproto.transport import SERVER_OPTIONS, Credentials, caller, to_status
from fedproto.v1 import (
    artifacts_pb2_grpc,
    exchange_pb2_grpc,
    governance_pb2_grpc,
    ledger_pb2_grpc,
    witness_pb2_grpc,
)
from fedproto.v1.artifacts_pb2 import ArtifactChunk
from fedproto.v1.exchange_pb2 import Abort, CoordinatorFrame, Result, UploadChunk, Welcome
from fedproto.v1.governance_pb2 import ActResponse
from fedproto.v1.ledger_pb2 import EntriesChunk, GetCheckpointResponse
from fedproto.v1.witness_pb2 import WitnessRequest

MODEL_OUT = bytes.fromhex(sha256_hex(b"model out"))
PATIENCE_S = 30


class ExchangeHalf:
    """One attempt, honest unless a test bends a frame; keeps every byte that it got."""

    def __init__(self, authorisation, roster, key, close=lambda _: MODEL_OUT):
        self.names = authorisation.content.members
        self.half = SecAggServer(authorisation=authorisation, roster=roster)
        self.received = {name: [] for name in self.names}
        self.bend = {}
        self.lists = {}
        self.sum = None
        self._close = close
        self._key = key
        self._adding = threading.Lock()
        self._meet = {k: threading.Barrier(len(self.names)) for k in _LISTS}

    def session(self, name):
        def serve(requests, _):
            try:
                for kind, frame in self._play(name, self._frames(name, requests)):
                    yield self.bend.get(kind, frame)
            except (_LeftError, threading.BrokenBarrierError):
                yield CoordinatorFrame(abort=Abort(code="RNM-SECAGG-0002", why="a member left"))

        return serve

    def _frames(self, name, requests):
        for request in requests:
            self.received[name].append(request.SerializeToString())
            yield request

    def _together(self, kind, close):
        """Wait for every member; one of them closes the phase for all."""
        if self._meet[kind].wait(PATIENCE_S) == 0:
            self.lists[kind] = close()
        self._meet[kind].wait(PATIENCE_S)
        return self.lists[kind]

    def _next(self, frames, kind):
        """Return a member's next frame; when it leaves instead, nobody waits for it any more."""
        frame = next(frames, None)
        if frame is not None and frame.WhichOneof("frame") == kind:
            return frame
        for list_kind in _LISTS[_SENT.index("masked_header" if kind in _PARTS else kind) :]:
            self._meet[list_kind].abort()
        raise _LeftError

    def _finish(self):
        self.sum = self.half.finish()
        return encode(self.half.published.signed_by(self._key))

    def _serve_chunks(self, name, frames):
        """Yield the chunks that a member asks for, until its audit is done."""
        while (frame := next(frames, None)) is not None:
            if frame.WhichOneof("frame") != "read_chunk":
                break
            asked = frame.read_chunk
            with self._adding:
                self.half.require_auditor(name, asked.member, asked.index)
                data = self.half.read_masked(asked.member, asked.index)
            yield "chunk", CoordinatorFrame(chunk=UploadChunk(index=asked.index, data=data))
        if frame is None or frame.WhichOneof("frame") != "audited":
            self._meet["result"].abort()
            raise _LeftError

    def _play(self, name, frames):
        half = self.half
        assert next(frames).WhichOneof("frame") == "hello"
        yield "welcome", CoordinatorFrame(welcome=Welcome())
        half.receive_advertise(name, self._next(frames, "advertise").advertise)
        key_list = self._together("key_list", half.close_advertise)
        yield "key_list", CoordinatorFrame(key_list=key_list)
        half.receive_shares(name, self._next(frames, "encrypted_shares").encrypted_shares)
        share_list = self._together("share_list", half.close_shares)[name]
        yield "share_list", CoordinatorFrame(share_list=share_list)
        self._next(frames, "upload_begin")
        half.begin_upload(name)
        yield "credit", CoordinatorFrame(credit=half.upload_chunks)
        for _ in range(half.upload_chunks):
            chunk = self._next(frames, "masked_chunk").masked_chunk
            # The sum is one accumulator: its additions must not interleave.
            with self._adding:
                half.receive_chunk(name, chunk.index, chunk.data)
        header = self._next(frames, "masked_header").masked_header
        with self._adding:
            assert half.receive_header(name, header)
        survivors = self._together("survivor_list", half.close_uploads)
        yield "survivor_list", CoordinatorFrame(survivor_list=survivors)
        half.receive_confirm(name, self._next(frames, "confirm").confirm)
        confirmations = self._together("confirmations", half.close_confirm)
        yield "confirmations", CoordinatorFrame(confirmations=confirmations)
        half.receive_reveal(name, self._next(frames, "reveal").reveal)
        transcript = self._together("transcript", self._finish)
        yield "transcript", CoordinatorFrame(transcript=transcript)
        yield from self._serve_chunks(name, frames)
        model_out = self._together("result", lambda: self._close(self.sum))
        result = Result(model_out=model_out, ledger_index=9, included=self.names)
        yield "result", CoordinatorFrame(result=result)


class _LeftError(Exception):
    """A member ended its part."""


_SENT = ("advertise", "encrypted_shares", "masked_header", "confirm", "reveal")
_PARTS = ("upload_begin", "masked_chunk")
_LISTS = ("key_list", "share_list", "survivor_list", "confirmations", "transcript", "result")


class SmallCoordinator(
    governance_pb2_grpc.GovernanceServicer,
    ledger_pb2_grpc.LedgerServicer,
    witness_pb2_grpc.WitnessServicer,
    artifacts_pb2_grpc.ArtifactsServicer,
    exchange_pb2_grpc.ExchangeServicer,
):
    """Admits acts, gathers cosignatures, serves artifacts, and runs one attempt at a time."""

    def __init__(self, consortium, address):
        self.party = Party.load(consortium.party("coordinator"))
        profile = self.party.profile
        self.consortium = profile.consortium
        log_key = NoteSigner(profile.origin, seed_file(self.party.keys / "log.key", 32))
        self.ledger = Ledger.open(self.party.root / "ledger", log_key=log_key)
        self.artifacts = {}
        self.attempt = None
        self._news = threading.Condition()
        self._server = grpc.server(ThreadPoolExecutor(48), options=SERVER_OPTIONS)
        governance_pb2_grpc.add_GovernanceServicer_to_server(self, self._server)
        ledger_pb2_grpc.add_LedgerServicer_to_server(self, self._server)
        witness_pb2_grpc.add_WitnessServicer_to_server(self, self._server)
        artifacts_pb2_grpc.add_ArtifactsServicer_to_server(self, self._server)
        exchange_pb2_grpc.add_ExchangeServicer_to_server(self, self._server)
        credentials = Credentials.load(self.party.keys, utc_now)
        assert self._server.add_secure_port(address, credentials.server())
        self._stopping = False
        self._server.start()

    def stop(self):
        self._stopping = True
        with self._news:
            self._news.notify_all()
        self._server.stop(1).wait()
        self.ledger.close()

    # acts

    def append(self, leaf):
        appended = self.ledger.append(leaf)
        with self._news:
            self._news.notify_all()
        return appended

    def act(self, party, body):
        head = self.ledger.head
        event = party.event(
            body,
            charter=self.ledger.state.charter.digest,
            head=Head(size=head.size, root=head.root),
            trace=telemetry.current(),
        )
        return self.append(seal_event(event, (party.signing_key,))).leaf_hash

    def Vote(self, request, context):
        try:
            appended = self.append(request.envelope)
        except FederationError as error:
            code, text, metadata = to_status(error)
            context.set_trailing_metadata(metadata)
            context.abort(code, text)
        return ActResponse(index=appended.index, leaf_hash=bytes.fromhex(appended.leaf_hash))

    DeclareDataset = AuditSum = SignParticipation = Vote

    # the ledger and its witnesses

    def GetCheckpoint(self, request, context):
        timeout_s = request.timeout_ms / 1000
        with self._news:
            self._news.wait_for(
                lambda: self._stopping or self.ledger.checkpoint(request.min_size), timeout_s
            )
        note = self.ledger.checkpoint(request.min_size)
        if note is None:
            fault = LocalFault("RNM-LEDGER-0006", what="no checkpoint", why="none", mend="wait")
            code, text, metadata = to_status(fault)
            context.set_trailing_metadata(metadata)
            context.abort(code, text)
        return GetCheckpointResponse(note=note)

    def GetEntries(self, request, context):
        entries = self.ledger.entries(request.start, request.end)
        yield EntriesChunk(start=request.start, entries=entries)

    def Attend(self, answers, context):
        assert next(answers).id == 0
        size, number = 0, 0
        while context.is_active() and not self._stopping:
            with self._news:
                self._news.wait_for(
                    lambda size=size: self._stopping or self.ledger.head.size > size, timeout=0.5
                )
            head = self.ledger.head
            if head.size <= size:
                continue
            note = self.ledger.signed_checkpoint()
            signed = int(note.split(b"\n")[1])
            proof = self.ledger.prove_consistency(size, signed)
            number += 1
            yield WitnessRequest(id=number, add_checkpoint=request_body(size, proof, note))
            answer = next(answers, None)
            if answer is None:
                return
            assert answer.id == number
            if answer.status == 409:
                size = int(answer.body)
                continue
            assert answer.status == 200, answer.body
            self.ledger.add_cosignatures(signed, answer.body)
            size = signed
            with self._news:
                self._news.notify_all()

    # models

    def Get(self, request, context):
        data = self.artifacts[request.sha256]
        for start in range(0, len(data), 1 << 20):
            yield ArtifactChunk(data=data[start : start + (1 << 20)])

    def offer_adapter(self, flat):
        digest = vector_digest(flat)
        self.artifacts[digest] = flat.astype("<f4").tobytes()
        return digest

    # rounds

    def Session(self, requests, context):
        member = caller(context, self.consortium)
        yield from self.attempt.session(member)(requests, context)

    def approve_base(self, pretrainer, manifest):
        digest = sha256_hex(manifest)
        self.act(
            pretrainer,
            BaseModelApproved(
                model=BaseModel(
                    name="base",
                    manifest_sha256=digest,
                    corpus_sha256=sha256_hex(b"corpus"),
                    licence="Apache-2.0",
                    parameters=1000,
                ),
                proposal="",
                votes=(),
            ),
        )
        return digest

    def propose(self, administrator, plan):
        body = ProposalOpened(
            action=Action.APPROVE_RUN,
            terms=plan,
            terms_sha256=plan.digest,
            closes_at=now_ms() + 3_600_000,
        )
        return self.act(administrator, body)

    def mandate(self, proposal, run):
        """Sign the mandate that the votes in the ledger make."""
        found = self.ledger.state.proposal(proposal)
        yes = {m: b for m, b in found.ballots.items() if b.choice is Choice.YES}
        plan = found.opened.body.plan
        now = now_ms()
        mandate = RunApproved(
            run=run,
            proposal=proposal,
            votes=tuple(sorted(ballot.leaf for ballot in yes.values())),
            members=tuple(sorted(yes)),
            plan=plan,
            plan_sha256=plan.digest,
            not_before=now,
            not_after=now + 3_600_000,
        )
        self.act(self.party, mandate)
        return mandate

    def authorise(self, run, **changes):
        """Return the next attempt's authorisation, signed."""
        found = self.ledger.state.runs[run]
        mandate, plan = found.mandate.body, found.mandate.body.plan
        closed = [r.closed for r in found.rounds if r.closed]
        done = [c for c in closed if c.body.outcome is Outcome.AGGREGATED]
        again = bool(closed) and closed[-1].body.outcome is Outcome.ABORTED
        tolerated = plan.aggregation.tolerated
        fields = {
            "v": 1,
            "suite": SUITE,
            "consortium": self.consortium,
            "charter": self.ledger.state.charter.digest,
            "mandate": found.mandate.leaf,
            "prev": closed[-1].leaf if closed else found.mandate.leaf,
            "run": run,
            "round": len(done) + 1,
            "attempt": closed[-1].body.attempt + 1 if again else 1,
            "members": mandate.members,
            "recovery_threshold": recovery_threshold(len(mandate.members), tolerated),
            "tolerated": tolerated,
            "parameters": plan.parameters,
            "layout_sha256": plan.layout_sha256,
            "plan_sha256": plan.digest,
            "model_in": done[-1].body.model_out if done else plan.initial_adapter,
            "word_bits": WORD_BITS,
            "bits": plan.aggregation.bits,
            "clip_milli": plan.aggregation.clip_milli,
            "not_after": now_ms() + 60_000,
            "nonce": sha256_hex(str(len(found.rounds)).encode()),
        }
        return seal_authorisation(Authorisation(**{**fields, **changes}), self.party.signing_key)

    def start_round(self, raw):
        """Record an attempt and stand ready for its sessions."""
        state = self.ledger.state
        authorisation = open_authorisation(raw, state.verify_key)
        content = authorisation.content
        self.act(
            self.party,
            RoundStarted(
                run=content.run,
                round=content.round,
                attempt=content.attempt,
                authorisation_sha256=authorisation.digest,
                model_in=content.model_in,
                invited=content.members,
            ),
        )
        roster = {m: state.acting_key(m) for m in content.members}

        def close(total):
            start = np.frombuffer(self.artifacts[content.model_in], "<f4")
            model_out = self.offer_adapter((start + total.mean_delta).astype(np.float32))
            self.close_round(content, Outcome.AGGREGATED, model_out, total.transcript_sha256)
            return bytes.fromhex(model_out)

        self.attempt = ExchangeHalf(authorisation, roster, self.party.signing_key, close)
        return authorisation

    def close_round(self, content, outcome, model_out, transcript=ZERO_DIGEST):
        aborted = outcome is Outcome.ABORTED
        body = RoundClosed(
            run=content.run,
            round=content.round,
            attempt=content.attempt,
            outcome=outcome,
            reason="RNM-ROUND-0001" if aborted else "",
            model_in=content.model_in,
            model_out=content.model_in if aborted else model_out,
            transcript_sha256=transcript,
            included=() if aborted else content.members,
            excluded=tuple(
                Excluded(member=member, reason="RNM-ROUND-0001")
                for member in (content.members if aborted else ())
            ),
        )
        return self.act(self.party, body)
