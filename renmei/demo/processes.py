"""The demo's child processes: started, awaited until they say that they are ready, and ended.

A shell module. Each child writes one JSON line on stdout when it is ready and its log to a file.
A child that ends early is an error that shows the last lines of its log.
"""

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedproto.errors import LocalFault
from fedproto.jcs import Json

_TAIL_LINES = 12


@dataclass(slots=True)
class Child:
    """A running child process and where its log is."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def check(self) -> None:
        """Raise RNM-PROC-0002 if the child has ended."""
        status = self.process.poll()
        if status is not None:
            raise LocalFault(
                "RNM-PROC-0002",
                what=f"{self.name} ended with status {status}",
                why=tail(self.log),
                mend=f"read {self.log}",
            )

    def stop(self, grace_s: float = 10.0) -> None:
        """End the child: SIGTERM, then SIGKILL after `grace_s` seconds."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(grace_s)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


def tail(log: Path) -> str:
    """Return the last lines of a log."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return "\n".join(lines[-_TAIL_LINES:]) or "its log is empty"


def spawn(
    name: str, arguments: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
) -> Child:
    """Start `python -m …` with one thread a process and its own log."""
    settings = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
        **(environment or {}),
    }
    with log.open("ab") as sink:
        process = subprocess.Popen(  # noqa: S603  # our own interpreter and modules
            [sys.executable, "-m", *arguments],
            stdout=subprocess.PIPE,
            stderr=sink,
            stdin=subprocess.DEVNULL,
            env=settings,
        )
    return Child(name, process, log)


def await_ready(child: Child, timeout_s: float) -> dict[str, Json]:
    """Return the child's ready line; raise RNM-PROC-0001 or -0002 if there is none."""
    assert child.process.stdout is not None  # noqa: S101  # spawn() always pipes it
    deadline = time.monotonic() + timeout_s
    handle = child.process.stdout.fileno()
    received = b""
    with selectors.DefaultSelector() as selector:
        selector.register(handle, selectors.EVENT_READ)
        while b"\n" not in received:
            if not selector.select(max(0.0, deadline - time.monotonic())):
                raise LocalFault(
                    "RNM-PROC-0001",
                    what=f"{child.name} was not ready in {timeout_s:.0f} s",
                    why=tail(child.log),
                    mend=f"read {child.log}; on a slow machine, run the demo again",
                )
            block = os.read(handle, 65536)
            if not block:
                child.process.wait()
                child.check()
            received += block
    ready: dict[str, Json] = json.loads(received.split(b"\n", 1)[0])
    return ready
