"""A trainer as a process of its own, and a member's directory for it."""

import signal
import socket
import subprocess
import sys
import time

import pytest
from training_kit import SECRET, write_corpus

from fedproto.errors import FederationError
from member_node.trainer_client import TrainerClient

PATIENCE_S = 180


class Process:
    """A trainer of a member directory."""

    def __init__(self, root, command=("-m", "member_node.trainer"), options=("--no-compile",)):
        self.root = root
        self.path = root / "t.sock"
        self.log = root / "trainer.log"
        with self.log.open("ab") as sink:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, *command),
                    *("--dir", str(root), "--socket", str(self.path), *options),
                ],
                stdout=subprocess.PIPE,
                stderr=sink,
            )
        self.client = TrainerClient(self.path, patience_s=PATIENCE_S)

    def connect(self):
        deadline = time.monotonic() + PATIENCE_S
        while True:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            if connection.connect_ex(str(self.path)) == 0:
                connection.settimeout(PATIENCE_S)
                return connection
            connection.close()
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def end(self, number=signal.SIGTERM):
        self.client.close()
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(PATIENCE_S)
        finally:
            self.process.stdout.close()


def member(root):
    root.mkdir(mode=0o700, exist_ok=True)
    write_corpus(root / "data")
    (root / "keys").mkdir(mode=0o700)
    (root / "keys" / "acting.key").write_text("canary-key-91c2")
    return root


def refused(code, act):
    with pytest.raises(FederationError) as caught:
        act()
    fault = caught.value
    assert fault.code == code, (fault.code, fault.why)
    assert SECRET not in fault.what + fault.why + fault.mend
    return fault
