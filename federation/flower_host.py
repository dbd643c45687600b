"""The real Flower of a coordinator: SuperLink, SuperExec and the gateway, as one port."""

import sys
from pathlib import Path

import httpx

from federation import flower_adapter
from federation.superlink import FlowerHost, require_free_port
from fedproto import process
from fedproto.errors import LocalFault

_READY_S = 30.0


class StockFlower:
    """Runs the stock programs below a directory; implements `FlowerPort`."""

    def __init__(self, directory: Path, *, keys: Path, gateway: str, dispatch_socket: Path) -> None:
        self._host = FlowerHost(directory, keys=keys, dispatch_socket=dispatch_socket)
        self._directory = directory
        self._keys = keys
        self._gateway = gateway
        self._child: process.Child | None = None

    def start(self) -> None:
        """Start the SuperLink, then the gateway that members reach it through."""
        host, _, port = self._gateway.rpartition(":")
        require_free_port(host, int(port), "the gateway to Flower")
        self._host.start()
        command = [sys.executable, "-m", "federation.gateway", "--listen", self._gateway]
        command += ["--upstream", self._host.address, "--keys", str(self._keys)]
        self._child = process.spawn("gateway", command, self._directory / "gateway.log")
        process.wait_until(self._child, self._gateway_answers, _READY_S)

    def _gateway_answers(self) -> bool:
        context = flower_adapter.client_context(self._keys / "root.crt")
        try:
            answer = httpx.get(f"https://{self._gateway}/", verify=context, trust_env=False)
        except httpx.TransportError:
            return False
        return answer.status_code == httpx.codes.NOT_FOUND

    def stop(self) -> None:
        """End the gateway, then Flower."""
        if self._child is not None:
            self._child.stop()
            self._child = None
        self._host.stop()

    def check(self) -> None:
        """Raise RNM-PROC-0002 if a part has ended, RNM-PROC-0001 if it does not run."""
        self._host.check()
        if self._child is None:
            raise LocalFault(
                "RNM-PROC-0001",
                what="Flower was not asked",
                why="it is being started",
                mend="wait a minute; the coordinator starts it by itself",
            )
        self._child.check()

    def register_node(self, member: str, public_key_openssh: bytes) -> None:
        """Register a member's SuperNode."""
        self._host.register_node(member, public_key_openssh)

    def node_key(self, public_key_openssh: bytes) -> bytes:
        """Return the key as Flower lists it."""
        return flower_adapter.node_key(public_key_openssh)

    def start_run(self, run: str) -> int:
        """Start a Flower run."""
        return self._host.control.start_run(run)

    def stop_run(self, flower_run: int) -> None:
        """Stop a Flower run."""
        self._host.control.stop_run(flower_run)

    def status(self, flower_run: int) -> str:
        """Return how a Flower run stands."""
        return self._host.control.status(flower_run)
