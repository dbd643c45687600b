"""A real coordinator with real members over mTLS; Flower alone is stood in for by a direct hand-over."""

import base64
import os
import socket
import threading
import time
import zlib
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import numpy as np

from audit.note import NoteSigner, NoteVerifier
from audit.witness import Witness
from fedproto import transport
from fedproto.authorisation import open_authorisation
from fedproto.errors import FederationError
from fedproto.events.governance import Choice, ProposalOpened, VoteCast
from fedproto.events.models import BaseModel, BaseModelApproved, DatasetDeclared, LegalBasis
from fedproto.events.rounds import ParticipationSigned, SumAudited, Verdict
from fedproto.governance.charter import Action, Role
from fedproto.governance.plan import (
    Aggregation,
    Lora,
    Method,
    RunPlan,
    Training,
)
from fedproto.ids import Digest, MemberId, RunId, sha256_hex
from fedproto.layout import vector_digest
from fedproto.party import Party, now_ms, seed_file, utc_now, witness_name
from fedproto.statements import Head, Trace, seal_event
from fedproto.v1 import (
    artifacts_pb2,
    artifacts_pb2_grpc,
    dispatch_pb2,
    dispatch_pb2_grpc,
    governance_pb2,
    governance_pb2_grpc,
    ledger_pb2,
    ledger_pb2_grpc,
)
from member_node.gate import gated
from member_node.log import Log
from member_node.secagg_client import SecAggClient
from member_node.session import ExchangeSession, TrainedDelta
from member_node.witness_client import WitnessClient
from renmei.consortium import SEATS, Seat, found

MEMBERS = ("honda", "nec", "softbank", "sony")
PARAMETERS = 3000
CLIP = 64.0
BITS = 22
STEP = CLIP / (2 ** (BITS - 1) - 1)
INITIAL = np.linspace(-1, 1, PARAMETERS, dtype=np.float32)
# Known to the tests, so that they can search for the very words that a member masks.
ROUNDING_SEED = bytes(32)
NO_TRACE = Trace(trace_id="0" * 32, span_id="0" * 16)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(holds: Callable[[], object], timeout_s: float = 60.0, every_s: float = 0.02) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, "did not come to pass in time"
        time.sleep(every_s)


def delta_of(member: str, round_no: int = 1) -> "np.ndarray":
    """A member's secret delta: reproducible, of norm about 5."""
    seed = [zlib.crc32(member.encode()), round_no]
    return (np.random.default_rng(seed).normal(size=PARAMETERS) * 0.1).astype(np.float32)


class NoFlower:
    """A FlowerPort that carries nothing: members fetch their orders themselves."""

    def __init__(self) -> None:
        self.started: list[str] = []

    def start(self) -> None:
        """There is nothing to start."""

    stop = check = start

    def register_node(self, member: str, public_key_openssh: bytes) -> None:
        """Every node is known."""

    def node_key(self, public_key_openssh: bytes) -> bytes:
        return public_key_openssh

    def start_run(self, run: str) -> int:
        self.started.append(run)
        return len(self.started)

    def stop_run(self, flower_run: int) -> None:
        """It ends with the orders."""

    def status(self, flower_run: int) -> str:
        return "running"


class NoJournal:
    """A journal that keeps what passed, for a test to search."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def record(self, kind: str, data: bytes, *, to: str, run: str = "", round_no: int = 0) -> None:
        self.sent.append(data)


class Left(Exception):
    """The member was killed."""


@dataclass
class DyingHalf:
    """A member's half that dies, its connection cut, when a phase is asked of it."""

    half: SecAggClient
    at: str
    die: Callable[[], None]

    def __getattr__(self, name: str):
        work = getattr(self.half, name)
        if name != self.at:
            return work

        def killed(*arguments: object) -> None:
            self.die()
            raise Left

        return killed


@dataclass
class Member:
    """One member at work: witness, acts, sessions."""

    party: Party
    deltas: Callable[[str, int], "np.ndarray"] = delta_of
    dies: dict[int, str] = field(default_factory=dict)
    tampers: Callable[[SecAggClient], object] = lambda half: half

    def __post_init__(self) -> None:
        self.name = self.party.profile.id
        self.address = self.party.profile.coordinator
        self.journal = NoJournal()
        self.channel = self.dial()
        self.errors: list[FederationError] = []
        self.opened: list[tuple[object, tuple[str, ...]]] = []
        self.dataset = sha256_hex(b"dataset of " + self.name.encode())
        profile = self.party.profile
        signer = NoteSigner(
            witness_name(profile.consortium, profile.id),
            seed_file(self.party.keys / "witness.key", 32),
            cosigner=True,
        )
        logs = {profile.origin: NoteVerifier.from_vkey(profile.log_vkey)}
        self.witness = WitnessClient(
            gated(self.channel, self.journal, self.address),
            Witness(self.party.root / "witness", signer, logs),
            profile.origin,
            Log(member=self.name),
        )
        threading.Thread(target=self.witness.run, daemon=True).start()

    def dial(self) -> grpc.Channel:
        credentials = transport.Credentials.load(self.party.keys, utc_now)
        return transport.dial(self.address, credentials)

    def close(self) -> None:
        self.witness.stop()
        self.channel.close()

    def act(self, body, method: str) -> None:
        leaf = sealed(self.party, body, self.channel)
        stub = governance_pb2_grpc.GovernanceStub(self.channel)
        try:
            getattr(stub, method)(governance_pb2.ActRequest(envelope=leaf), timeout=30)
        except grpc.RpcError as error:
            raise transport.from_rpc_error(error, self.address) from None

    def take_part(self, raw: bytes, state) -> bool:
        """Play one attempt; say whether it came to a result."""
        authorisation = open_authorisation(raw, state.verify_key)
        content = authorisation.content
        half = SecAggClient(
            authorisation=authorisation,
            member=self.name,
            key=self.party.signing_key,
            roster={member: state.acting_key(member) for member in content.members},
            entropy=os.urandom,
        )
        half = self.tampers(half)
        channel = self.dial()
        if content.round in self.dies:
            half = DyingHalf(half, self.dies[content.round], channel.close)
        trained: Future[TrainedDelta] = Future()
        delta = self.deltas(self.name, content.round)
        trained.set_result(TrainedDelta(delta=delta, weight=1.0))

        def sign_receipt(upload) -> None:
            body = ParticipationSigned(
                run=content.run,
                round=content.round,
                attempt=content.attempt,
                authorisation_sha256=authorisation.digest,
                dataset=self.dataset,
                upload_sha256=upload.digest,
                upload_bytes=upload.bytes,
            )
            self.act(body, "SignParticipation")

        def sign_audit(finding) -> None:
            body = SumAudited(
                run=content.run,
                round=content.round,
                attempt=content.attempt,
                transcript_sha256=finding.transcript,
                verdict=Verdict.REFUSED if finding.fault else Verdict.MATCHES,
                chunks=finding.chunks,
            )
            self.act(body, "AuditSum")

        session = ExchangeSession(
            channel=gated(channel, self.journal, self.address),
            authorisation=authorisation,
            half=half,
            trained=trained,
            rounding_seed=ROUNDING_SEED,
            me=self.name,
            sign_receipt=sign_receipt,
            sign_audit=sign_audit,
            note_opened=lambda survivors: self.opened.append((content, survivors)),
            timeout_s=60,
        )
        try:
            session.run()
        except Left:
            return False
        except FederationError as error:
            self.errors.append(error)
            return False
        finally:
            channel.close()
        return True


def sealed(party: Party, body, channel: grpc.Channel) -> bytes:
    """Seal an act on the head that the coordinator's newest cosigned checkpoint shows."""
    stub = ledger_pb2_grpc.LedgerStub(channel)
    request = ledger_pb2.GetCheckpointRequest(min_size=1, timeout_ms=30_000)
    note = stub.GetCheckpoint(request, timeout=40).note.split(b"\n")
    root = Digest(base64.b64decode(note[2]).hex())
    event = party.event(
        body,
        charter=Digest(party.profile.genesis_sha256),
        head=Head(size=int(note[1]), root=root),
        trace=NO_TRACE,
    )
    return seal_event(event, (party.signing_key,))


class Federation:
    """A consortium of four members, or others; the coordinator is started by the caller."""

    names: tuple[str, ...] = MEMBERS

    def __init__(self, root: Path, names: tuple[str, ...] = MEMBERS) -> None:
        self.root = root
        self.names = names
        others = tuple(seat for seat in SEATS if Role.TRAINER not in seat.roles)
        trainers = tuple(
            Seat(id=MemberId(name), name=name, roles=(Role.TRAINER, Role.WITNESS)) for name in names
        )
        self.consortium = found(
            root,
            consortium="test",
            coordinator=f"127.0.0.1:{free_port()}",
            gateway=f"127.0.0.1:{free_port()}",
            seats=tuple(sorted((*others, *trainers), key=lambda seat: seat.id)),
        )
        self.members: dict[str, Member] = {}
        self.flower = NoFlower()

    def party(self, name: str) -> Party:
        return Party.load(self.consortium.party(name))

    def join(self, **settings) -> None:
        """Have the members attend as witnesses."""
        self.members = {name: Member(self.party(name), **settings) for name in self.names}

    def channel(self, name: str) -> grpc.Channel:
        party = self.party(name)
        credentials = transport.Credentials.load(party.keys, utc_now)
        return transport.dial(party.profile.coordinator, credentials)

    def prepare_run(
        self, *, rounds: int = 2, phase_timeout_s: int = 20, **summing: object
    ) -> RunPlan:
        """Approve a base, declare datasets, propose and vote; the clerk writes the mandate."""
        base = sha256_hex(b"manifest")
        plan = RunPlan(
            purpose="test",
            base_manifest_sha256=base,
            initial_adapter=vector_digest(INITIAL),
            layout_sha256=sha256_hex(b"layout"),
            parameters=PARAMETERS,
            lora=Lora(rank=1, alpha=1, targets=("q_proj",)),
            training=Training(rounds=rounds, steps=1, batch=1, sequence=1, lr_micro=1, seed=0),
            aggregation=Aggregation(
                method=Method.FEDAVG,
                outer_lr_milli=1000,
                momentum_milli=500,
                clip_milli=int(CLIP * 1000),
                bits=BITS,
                tolerated=1,
                **summing,
            ),
            members=tuple(MemberId(name) for name in self.names),
            min_members=3,
            phase_timeout_s=phase_timeout_s,
        )
        with self.channel("pfn") as channel:
            body = BaseModelApproved(
                model=BaseModel(
                    name="base",
                    manifest_sha256=base,
                    corpus_sha256=sha256_hex(b"corpus"),
                    licence="Apache-2.0",
                    parameters=1000,
                ),
                proposal="",
                votes=(),
            )
            leaf = sealed(self.party("pfn"), body, channel)
            stub = governance_pb2_grpc.GovernanceStub(channel)
            stub.ApproveBaseModel(governance_pb2.ActRequest(envelope=leaf), timeout=30)
            chunk = artifacts_pb2.PutChunk(
                sha256=vector_digest(INITIAL), vector=True, data=INITIAL.tobytes()
            )
            artifacts_pb2_grpc.ArtifactsStub(channel).Put(iter([chunk]), timeout=30)
        for name, member in self.members.items():
            member.act(
                DatasetDeclared(
                    commitment=member.dataset,
                    legal_basis=LegalBasis.NOT_PERSONAL,
                    purpose="test",
                    residency="JP",
                    licence="proprietary",
                    policy_sha256=sha256_hex(name.encode()),
                    size_bucket=10,
                ),
                "DeclareDataset",
            )
        with self.channel("secretariat") as channel:
            body = ProposalOpened(
                action=Action.APPROVE_RUN,
                terms=plan,
                terms_sha256=plan.digest,
                closes_at=now_ms() + 600_000,
            )
            leaf = sealed(self.party("secretariat"), body, channel)
            stub = governance_pb2_grpc.GovernanceStub(channel)
            answer = stub.Propose(governance_pb2.ActRequest(envelope=leaf), timeout=30)
        for member in self.members.values():
            member.act(
                VoteCast(
                    proposal=Digest(answer.leaf_hash.hex()),
                    terms_sha256=plan.digest,
                    choice=Choice.YES,
                    reason="",
                ),
                "Vote",
            )
        return plan

    def follow(
        self, dispatch: Path, run: RunId, state_of: Callable[[], object]
    ) -> threading.Thread:
        """Fetch orders from the Dispatch socket, as the ServerApp does, and have members answer."""
        thread = threading.Thread(target=self._carry, args=(dispatch, run, state_of), daemon=True)
        thread.start()
        return thread

    def _carry(self, dispatch: Path, run: RunId, state_of: Callable[[], object]) -> None:
        with grpc.insecure_channel(f"unix:{dispatch}") as channel:
            stub = dispatch_pb2_grpc.DispatchStub(channel)
            while True:
                try:
                    order = stub.Next(dispatch_pb2.NextRequest(run=run), wait_for_ready=True)
                except grpc.RpcError:
                    return
                if order.finished:
                    return
                threads = [
                    threading.Thread(
                        target=member.take_part, args=(order.authorisation, state_of())
                    )
                    for member in self.members.values()
                ]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()

    def close(self) -> None:
        for member in self.members.values():
            member.close()
