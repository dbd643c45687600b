"""The stock Flower SuperLink and SuperExec of the coordinator: started, watched, stopped.

A shell module. The SuperLink listens on loopback only, with TLS, node authentication, an external
SuperExec under a shared secret, and run-time installs off: its Control and Runtime APIs have no
authentication of their own, so nothing but federation.gateway may be reached from outside.
"""

import os
import socket
import sys
from pathlib import Path

import httpx

from federation.flower_adapter import ControlClient, client_context, node_key
from fedproto import process
from fedproto.durable import make_private_directory, write_atomic
from fedproto.errors import LocalFault
from fedproto.offline import ENVIRONMENT

_READY_S = 60.0
DISPATCH_SOCKET = "RENMEI_DISPATCH_SOCKET"


def require_free_port(host: str, port: int, purpose: str) -> None:
    """Raise RNM-NET-0001 if a port cannot be listened on."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise LocalFault(
                "RNM-NET-0001",
                what=f"{purpose} cannot listen on {host}:{port}",
                why=os.strerror(error.errno or 0),
                mend=f"find what listens there with `ss -ltnp 'sport = :{port}'` and end it, "
                "or set another port in party.json",
            ) from None


class FlowerHost:
    """Runs the SuperLink and its SuperExec below `directory`."""

    def __init__(self, directory: Path, *, keys: Path, dispatch_socket: Path) -> None:
        self._directory = directory
        self._keys = keys
        self._dispatch = dispatch_socket
        self._children: list[process.Child] = []
        self._control: ControlClient | None = None
        self.address = ""

    def start(self) -> None:
        """Start both and return once the SuperLink answers its health check."""
        make_private_directory(self._directory)
        secret = self._directory / "superexec.secret"
        if not secret.exists():
            write_atomic(secret, os.urandom(32).hex().encode(), mode=0o600)
        (port,) = process.free_ports(1)
        self.address = f"127.0.0.1:{port}"
        environment = {
            **ENVIRONMENT,
            "FLWR_HOME": str(self._directory / "home"),
            "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}",
            "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.2",
            DISPATCH_SOCKET: str(self._dispatch),
        }
        superlink = process.spawn(
            "flower-superlink",
            [process.program("flower-superlink"), *self._superlink_options(port, secret)],
            self._directory / "superlink.log",
            environment,
        )
        self._children.append(superlink)
        process.wait_until(superlink, self._healthy, _READY_S)
        self._control = ControlClient(self.address, self._keys / "root.crt")
        superexec = process.spawn(
            "flower-superexec",
            [
                *(process.program("flower-superexec"), "--runtime-api-address", self.address),
                *("--root-certificates", str(self._keys / "root.crt")),
                *("--superexec-auth-secret-file", str(secret)),
            ],
            self._directory / "superexec.log",
            environment,
            # A ServerApp outlives it by some ten seconds, and would take an order that nobody carries.
            leads=True,
        )
        self._children.append(superexec)

    def _superlink_options(self, port: int, secret: Path) -> list[str]:
        return [
            *("--host", "127.0.0.1", "--port", str(port)),
            *("--ssl-certfile", str(self._keys / "tls.crt")),
            *("--ssl-keyfile", str(self._keys / "tls.key")),
            *("--ssl-ca-certfile", str(self._keys / "root.crt")),
            *("--isolation", "process", "--superexec-auth-secret-file", str(secret)),
            *("--database", str(self._directory / "state.db")),
            *("--enable-supernode-auth", "--disable-runtime-dependency-installation"),
        ]

    def _healthy(self) -> bool:
        context = client_context(self._keys / "root.crt")
        try:
            answer = httpx.get(f"https://{self.address}/health", verify=context, trust_env=False)
        except httpx.TransportError:
            return False
        return answer.status_code == httpx.codes.OK

    @property
    def control(self) -> ControlClient:
        """The Control API of the running SuperLink."""
        if self._control is None:
            raise LocalFault(
                "RNM-PROC-0001",
                what="Flower was not asked",
                why="its SuperLink does not run",
                mend="start the coordinator first",
            )
        return self._control

    def register_node(self, member: str, public_key_openssh: bytes) -> None:
        """Register a member's SuperNode; raise RNM-KEY-0003 for what is not a P-384 key."""
        self.control.register_node(member, node_key(public_key_openssh))

    def check(self) -> None:
        """Raise RNM-PROC-0002 if one of the two has ended."""
        for child in self._children:
            child.check()

    def stop(self) -> None:
        """End both, the SuperExec first."""
        if self._control is not None:
            self._control.close()
            self._control = None
        for child in reversed(self._children):
            child.stop()
        self._children.clear()
