"""The coordinator process: ledger, services, Flower, runs; put together, served and ended in order.

Holds the log key, its own identity and sums; never a member's update, data or key. A shell module.
"""

import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

from audit.http_client import HttpWitness
from audit.ledger import Ledger
from audit.note import NoteSigner
from federation import dispatch, exchange
from federation.artifacts import ArtifactStore
from federation.clerk import Clerk
from federation.exchange import ExchangeService, Hub
from federation.flower_host import StockFlower
from federation.guard import StartGuard
from federation.journal import RunJournal
from federation.ports import FlowerPort
from federation.register import Register
from federation.roles import admission
from federation.rounds.run import RunDriver
from federation.runs import Runs
from federation.services import ArtifactService, GovernanceService, LedgerService, RoundsService
from federation.serving import Server
from federation.superlink import require_free_port
from federation.witnesses import Caller, WitnessService
from fedproto import telemetry
from fedproto.errors import FederationError, LocalFault
from fedproto.ids import MemberId, RunId
from fedproto.party import Party, now_ms, runtime_socket, seed_file, utc_now
from fedproto.process import settle, share_heaps
from fedproto.transport import Credentials
from fedproto.v1 import (
    artifacts_pb2_grpc,
    governance_pb2_grpc,
    ledger_pb2_grpc,
    rounds_pb2_grpc,
    witness_pb2_grpc,
)

LOG_KEY = "log.key"
NODES = "nodes"
_TICK_S = 1.0
_LOG = logging.getLogger(__name__)

MakeFlower = Callable[[Path, Path, str, Path], FlowerPort]


def stock_flower(directory: Path, keys: Path, gateway: str, socket: Path) -> FlowerPort:
    """Return the real Flower."""
    return StockFlower(directory, keys=keys, gateway=gateway, dispatch_socket=socket)


class Coordinator:
    """A coordinator, put together; `start`, then `stop`."""

    def __init__(
        self,
        root: Path,
        make_flower: MakeFlower = stock_flower,
        witnesses: Mapping[MemberId, HttpWitness] | None = None,
    ) -> None:
        """Put it together; `witnesses` are those that are asked over HTTP, by member."""
        self._callable = witnesses or {}
        self._parts = ExitStack()
        self._stopping = threading.Event()
        self._carried = False
        self.party = Party.load(root)
        profile = self.party.profile
        credentials = Credentials.load(self.party.keys, utc_now)
        log_key = NoteSigner(profile.origin, seed_file(self.party.keys / LOG_KEY, 32))
        with ExitStack() as undo:
            undo.callback(self._parts.close)
            self.ledger = Ledger.open(root / "ledger", log_key=log_key)
            self._parts.callback(self.ledger.close)
            self.register = Register(self.ledger, self.party)
            self.guard = StartGuard(self.register, root)
            self.clerk = Clerk(self.register)
            self.hub = Hub()
            self.orders = dispatch.Orders(self.hub)
            self.artifacts = ArtifactStore(root / "artifacts")
            socket = runtime_socket(root, "dispatch")
            self._dispatch_socket = socket
            self.flower = make_flower(root / "flower", self.party.keys, profile.gateway, socket)
            self.runs = Runs(root / "runs", self.register, self._driver)
            self.server = self._serve(credentials)
            undo.pop_all()

    def _serve(self, credentials: Credentials) -> Server:
        address = self.party.profile.coordinator
        host, _, port = address.rpartition(":")
        require_free_port(host, int(port), "the coordinator")
        server = Server(admission(self.party.profile.consortium, lambda: self.ledger.state.charter))
        governance_pb2_grpc.add_GovernanceServicer_to_server(
            GovernanceService(self.register, self.clerk), server
        )
        ledger_pb2_grpc.add_LedgerServicer_to_server(LedgerService(self.register), server)
        self.witnesses = WitnessService(self.register, self.guard)
        witness_pb2_grpc.add_WitnessServicer_to_server(self.witnesses, server)
        rounds_pb2_grpc.add_RoundsServicer_to_server(RoundsService(self.runs), server)
        server.add_generic_rpc_handlers((exchange.handler(ExchangeService(self.hub)),))
        artifacts_pb2_grpc.add_ArtifactsServicer_to_server(ArtifactService(self.artifacts), server)
        if server.add_secure_port(address, credentials.server()) != int(port):
            raise LocalFault(
                "RNM-NET-0001",
                what=f"the coordinator cannot listen on {address}",
                why="another process took the port",
                mend=f"find it with `ss -ltnp 'sport = :{port}'`",
            )
        return server

    def start(self) -> None:
        """Open the doors, start Flower, go on with runs that were under way."""
        orders = dispatch.serve(self.orders, self._dispatch_socket)
        self._parts.callback(lambda: orders.stop(grace=0.2).wait())
        self._parts.callback(self.flower.stop)
        self.server.start()
        for member, asked in self._callable.items():
            self._parts.callback(Caller(self.witnesses, member, asked).close)
        self._start_flower()
        self.runs.resume()

    def _start_flower(self) -> None:
        self.flower.start()
        for member, key in self.nodes().items():
            self.flower.register_node(member, key)
        self._carried = True

    def stop(self) -> None:
        """Give up attempts in progress (they are recorded), then end every part."""
        self._stopping.set()
        # First, so that no run waits for witnesses that have stopped already.
        self.register.close()
        self.runs.join()
        self.hub.close_all()
        self.server.stop(grace_s=0.5)
        self._parts.close()

    def tick(self) -> None:
        """Do what depends on time alone: voting that has closed, parts of Flower that have ended."""
        try:
            self.clerk.review(now_ms())
            self._mend_flower()
        except FederationError as error:
            # A full disk, or a port that is taken for a while: the rest goes on, the next tick tries.
            _LOG.error("%s: %s: %s", error.code, error.what, error.why)

    def _mend_flower(self) -> None:
        """Start Flower again if a part of it has ended; runs go on with a new Flower run."""
        if self._carried:
            try:
                self.flower.check()
            except FederationError as error:
                _LOG.error("%s: %s: %s", error.code, error.what, error.why)
                self._carried = False
        if not self._carried:
            self.flower.stop()
            self._start_flower()
            self.runs.forget_flower()

    def nodes(self) -> Mapping[MemberId, bytes]:
        """Return the members' Flower node keys, as enrolment put them into `nodes/`."""
        directory = self.party.root / NODES
        return {MemberId(path.stem): path.read_bytes() for path in directory.glob("*.pub")}

    def _driver(self, run: RunId, journal: RunJournal) -> RunDriver:
        return RunDriver(
            run=run,
            party=self.party,
            register=self.register,
            artifacts=self.artifacts,
            hub=self.hub,
            orders=self.orders,
            flower=self.flower,
            nodes=self.nodes,
            journal=journal,
            directory=self.party.root / "runs",
            stopping=self._stopping,
        )


def serve(
    root: Path,
    make_flower: MakeFlower = stock_flower,
    witnesses: Mapping[MemberId, HttpWitness] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT; the ready line goes to stdout, the log to stderr."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)
    telemetry.start("renmei-coordinator")
    share_heaps()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    coordinator = Coordinator(root, make_flower, witnesses)
    try:
        coordinator.start()
        settle()
        line = {
            "ready": True,
            "coordinator": coordinator.party.profile.coordinator,
            "gateway": coordinator.party.profile.gateway,
            "ledger_size": coordinator.ledger.head.size,
            "pid": os.getpid(),
        }
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()
        while not stop.wait(_TICK_S):
            coordinator.tick()
    finally:
        coordinator.stop()
