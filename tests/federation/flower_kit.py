"""Flower's real programs on loopback between our two shells: what the tests of both sides start."""

import io
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import grpc
import httpx
from flwr.cli.build import build_fab_from_files
from flwr.common.serde import fab_to_proto  # noqa: TID251  # the attack speaks Flower
from flwr.proto.control_pb2 import StartRunRequest
from flwr.supercore.fab import Fab

from federation import flower_adapter
from federation.superlink import FlowerHost
from fedproto import pki, process
from fedproto.durable import write_atomic
from fedproto.ids import MemberId
from fedproto.party import utc_now
from fedproto.v1 import dispatch_pb2, dispatch_pb2_grpc
from member_node.courier import Courier, make_key
from member_node.flower_adapter import FlowerTasks
from member_node.log import Log
from member_node.ports import Answer, Task

MEMBERS = ("honda", "nec")
FOREIGN_PROJECT = """
[project]
name = "renmei"
version = "1.0.1"
license = "Apache-2.0"
dependencies = ["flwr"]
[tool.flwr.app]
publisher = "renmei"
[tool.flwr.app.components]
serverapp = "foreign:server"
clientapp = "foreign:client"
[tool.flwr.app.config]
renmei-run = ""
"""


def wait_for(holds: Callable[[], bool], timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, "did not come to pass in time"
        time.sleep(0.05)  # an external program's progress can only be polled


def certify(directory: Path) -> Path:
    """Make a coordinator's keys directory: root, certificate, key."""
    keys = directory / "keys"
    keys.mkdir(parents=True)
    root_key, key = pki.new_key_pem(), pki.new_key_pem()
    root = pki.make_root(root_key, "test", utc_now())
    member = MemberId("coordinator")
    certificate = pki.issue(
        root_key,
        root,
        pki.make_request(key, member),
        consortium="test",
        member=member,
        hosts=("127.0.0.1", "localhost"),
        now=utc_now(),
    )
    write_atomic(keys / "tls.key", key, mode=0o600)
    write_atomic(keys / "tls.crt", certificate)
    write_atomic(keys / "root.crt", root)
    return keys


class Orders(dispatch_pb2_grpc.DispatchServicer):
    """Hands out two authorisations, then says that the run is finished."""

    def __init__(self, nodes: dict[str, bytes]) -> None:
        self.nodes = nodes
        self.left = [b"authorisation 1", b"authorisation 2"]
        self.reports: list[dispatch_pb2.ReportRequest] = []
        self.runs: list[str] = []

    def Next(  # noqa: N802  # gRPC's name
        self, request: dispatch_pb2.NextRequest, context: grpc.ServicerContext
    ) -> dispatch_pb2.NextResponse:
        self.runs.append(request.run)
        # As with the coordinator, the next order comes when the one before is over.
        given = 2 - len(self.left)
        wait_for(lambda: sum(map(len, self.replies.values())) == given * len(self.nodes))
        if not self.left or not context.is_active():
            return dispatch_pb2.NextResponse(finished=True)
        return dispatch_pb2.NextResponse(
            authorisation=self.left.pop(0),
            traceparent="00-" + "1" * 32 + "-" + "2" * 16 + "-01",
            nodes=self.nodes,
            timeout_s=60,
            ctx=b"ctx %d" % (given + 1),
        )

    @property
    def replies(self) -> dict[bytes, dict[str, dispatch_pb2.NodeReply]]:
        """Every reply by order and member; a member replies once to an order."""
        found: dict[bytes, dict[str, dispatch_pb2.NodeReply]] = {}
        for report in list(self.reports):
            for reply in report.replies:
                assert found.setdefault(report.ctx, {}).setdefault(reply.member, reply) is reply
        return found

    def Report(  # noqa: N802  # gRPC's name
        self, request: dispatch_pb2.ReportRequest, context: grpc.ServicerContext
    ) -> dispatch_pb2.ReportResponse:
        self.reports.append(request)
        return dispatch_pb2.ReportResponse()


class Lab:
    """A SuperLink behind its gateway and two SuperNodes with our task sources."""

    def __init__(self, root: Path, answers: dict[str, Callable[[Task], Answer]]) -> None:
        self.root = root
        self.keys = certify(root / "coordinator")
        self.tasks: dict[str, list[Task]] = {member: [] for member in MEMBERS}
        self.runtimes: dict[str, str] = {}
        self.sources: dict[str, FlowerTasks] = {}
        self.couriers: dict[str, Courier] = {}
        self.agents: dict[str, threading.Thread] = {}
        self.logs = {member: io.StringIO() for member in MEMBERS}
        self._stops: list[Callable[[], None]] = []
        name = sha256(str(root).encode()).hexdigest()[:16]
        socket = Path("/tmp") / f"renmei-test-{name}.sock"
        nodes = {member: self._node_key(member) for member in MEMBERS}
        self.orders = Orders({m: flower_adapter.node_key(line) for m, line in nodes.items()})
        server = grpc.server(ThreadPoolExecutor(4))
        dispatch_pb2_grpc.add_DispatchServicer_to_server(self.orders, server)
        server.add_insecure_port(f"unix:{socket}")
        server.start()
        self._stops.append(lambda: server.stop(0).wait() and None)
        self.host = FlowerHost(root / "flower", keys=self.keys, dispatch_socket=socket)
        self._stops.append(self.host.stop)
        self.host.start()
        self.gateway = f"127.0.0.1:{process.free_ports(1)[0]}"
        self._start_gateway()
        for member, line in nodes.items():
            self.host.register_node(member, line)
            self.host.register_node(member, line)  # after a restart it is registered again
            self._start_node(member, answers[member])

    def _node_key(self, member: str) -> bytes:
        keys = self.root / member / "keys"
        keys.mkdir(parents=True)
        (keys / "root.crt").write_bytes((self.keys / "root.crt").read_bytes())
        return make_key(keys)

    def _start_gateway(self) -> None:
        command = [sys.executable, "-m", "federation.gateway", "--listen", self.gateway]
        command += ["--upstream", self.host.address, "--keys", str(self.keys)]
        child = self._door = process.spawn("gateway", command, self.root / "gateway.log")
        self._stops.append(child.stop)
        process.wait_until(child, lambda: self.outside("/") == 404, 30)

    def outside(self, path: str, content: bytes = b"", method: str = "POST", kind: str = "") -> int:
        """Return the status that a stranger on the network gets from the gateway."""
        try:
            answer = httpx.request(
                method,
                f"https://{self.gateway}{path}",
                content=content,
                headers={"Content-Type": kind} if kind else {},
                verify=str(self.keys / "root.crt"),
                trust_env=False,
            )
        except httpx.TransportError:
            return 0
        return answer.status_code

    def _start_node(self, member: str, answer: Callable[[Task], Answer]) -> None:
        courier = Courier(
            self.root / member / "flower", keys=self.root / member / "keys", gateway=self.gateway
        )
        courier.start()
        self.runtimes[member] = courier.runtime_address
        log = Log(member=MemberId(member), stream=self.logs[member])
        source = FlowerTasks(courier.runtime_address, courier.secret_file, log)

        def note(task: Task) -> Answer:
            self.tasks[member].append(task)
            return answer(task)

        thread = threading.Thread(target=source.serve, args=(note,), daemon=True)
        thread.start()
        self.sources[member], self.agents[member] = source, thread
        self.couriers[member] = courier
        self._stops += [courier.stop, thread.join, source.stop]

    def start_bundle(self, files: dict[str, bytes]) -> None:
        """Have the SuperLink run another app bundle, as one in wrong hands could."""
        bundle = build_fab_from_files(files)[0]
        fab = Fab(sha256(bundle).hexdigest(), bundle, {})
        self.host.control._client.StartRun(StartRunRequest(fab=fab_to_proto(fab)))

    def restart_flower(self) -> None:
        """Start Flower and its gateway again, as the coordinator does when a part has ended."""
        self._door.stop()
        self.host.stop()
        self.host.start()
        self._start_gateway()

    def close(self) -> None:
        for stop in reversed(self._stops):
            stop()
