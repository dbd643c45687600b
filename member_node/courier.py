"""The courier: the member's stock `flower-supernode`, a child that holds no data and no acting key.

A shell module. It reaches the SuperLink's gateway, outbound only, and offers tasks on loopback to the
agent, which alone holds the shared secret. Flower refuses to activate a node again before its old
heartbeat has lapsed (up to a minute), so the courier is started again, with a pause, until it is let in.
"""

import os
import sys
import threading
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fedproto import process
from fedproto.durable import make_private_directory, write_atomic
from fedproto.offline import ENVIRONMENT

KEY, PUBLIC_KEY = "flower.key", "flower.pub"
_PAUSE_S = 3.0


def make_key(keys: Path) -> bytes:
    """Make the node's P-384 key, unless it is there; return its OpenSSH public line."""
    if not (keys / KEY).exists():
        key = ec.generate_private_key(ec.SECP384R1())
        private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.OpenSSH,
            serialization.NoEncryption(),
        )
        public = key.public_key().public_bytes(
            serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
        )
        write_atomic(keys / PUBLIC_KEY, public + b"\n")
        write_atomic(keys / KEY, private, mode=0o600)
    return (keys / PUBLIC_KEY).read_bytes()


class Courier:
    """Keeps a SuperNode running below `directory`."""

    def __init__(self, directory: Path, *, keys: Path, gateway: str, proxy: str = "") -> None:
        self._directory = directory
        self._keys = keys
        self._gateway = gateway
        self._proxy = proxy
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="courier", daemon=True)
        self._child: process.Child | None = None
        self.runtime_address = f"127.0.0.1:{process.free_ports(1)[0]}"

    @property
    def secret_file(self) -> Path:
        """The shared secret that a claim of a task must show."""
        return self._directory / "superexec.secret"

    def start(self) -> None:
        """Start the SuperNode and keep it running until `stop`."""
        make_private_directory(self._directory)
        if not self.secret_file.exists():
            write_atomic(self.secret_file, os.urandom(32).hex().encode(), mode=0o600)
        self._thread.start()

    def stop(self) -> None:
        """End the SuperNode."""
        self._stop.set()
        self._thread.join()

    def _keep(self) -> None:
        while not self._stop.is_set():
            child = self._child = self._spawn()
            while child.running and not self._stop.wait(0.1):
                pass
            # It holds nothing that could be lost, and takes its time when the gateway is away.
            child.stop(grace_s=2.0)
            self._stop.wait(_PAUSE_S)

    def _spawn(self) -> process.Child:
        port = self.runtime_address.rpartition(":")[2]
        environment = {
            **ENVIRONMENT,
            "FLWR_HOME": str(self._directory / "home"),
            "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}",
            "HTTPS_PROXY": self._proxy,
            "NO_PROXY": "",
        }
        return process.spawn(
            "flower-supernode",
            [
                *(process.program("flower-supernode"), "--superlink", self._gateway),
                *("--root-certificates", str(self._keys / "root.crt")),
                *("--auth-supernode-private-key", str(self._keys / KEY)),
                *("--isolation", "process"),
                *("--superexec-auth-secret-file", str(self.secret_file)),
                *("--host", "127.0.0.1", "--port", port),
            ],
            self._directory / "supernode.log",
            environment,
        )
