"""Child processes: started with a log of their own, awaited until ready, ended in order.

A shell module. A child dies with its parent (fedproto.launcher). One that ends early, or is not ready in
time, is a named error that shows the end of its log. Start children from a thread that lives as long
as they shall: the parent-death signal follows the thread.
"""

import contextlib
import ctypes
import gc
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedproto.errors import LocalFault

_TAIL_LINES = 12
_POLL_S = 0.05
_WAKE_S = 1.0


# The allocations between two looks of the collector, and how rarely it looks at what is older.
_COLLECTOR = (50_000, 20, 50)
# M_ARENA_MAX of glibc's malloc.h, and how many heaps the threads of a server share.
_ARENA_MAX, _HEAPS = -8, 2


def share_heaps() -> None:
    """Let all threads of a server allocate from two heaps; call it before they start.

    glibc gives the threads up to eight heaps a core, and each keeps what its highest moment needed: the
    uploads of a cohort would be held many times over. Does nothing where libc has no `mallopt`.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_ARENA_MAX, _HEAPS)


def settle() -> None:
    """Tell the garbage collector that what is loaded by now will stay: it is looked at no more.

    A server whose state holds a million objects would else spend a tenth of its time on reading them.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECTOR)


def wait_for(event: threading.Event) -> None:
    """Wait for an event that the handler of a signal sets; for the main thread.

    Python runs handlers in the main thread alone, but the kernel may give the signal to another one:
    whoever waited without end would never be woken to run them.
    """
    while not event.wait(_WAKE_S):
        pass


@dataclass(slots=True)
class Child:
    """A running child process and where its log is."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    # Whether it leads a process group, whose other processes end with it.
    leads: bool = False

    @property
    def running(self) -> bool:
        """Say whether the child still runs."""
        return self.process.poll() is None

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
        if self.running:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(grace_s)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if self.leads:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        if self.process.stdout is not None:
            self.process.stdout.close()


def tail(log: Path) -> str:
    """Return the last lines of a log."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return "\n".join(lines[-_TAIL_LINES:]) or "its log is empty"


def spawn(
    name: str,
    command: Sequence[str],
    log: Path,
    environment: Mapping[str, str] | None = None,
    *,
    ready_line: bool = False,
    leads: bool = False,
) -> Child:
    """Start a program; its stderr, and its stdout unless `ready_line`, go to the log.

    With `leads`, what it starts in turn ends with it when it is stopped.
    """
    launcher = [sys.executable, "-m", "fedproto.launcher", str(os.getpid())]
    with log.open("ab") as sink:
        process = subprocess.Popen(  # noqa: S603  # programs of our own installation
            [*launcher, *command],
            stdout=subprocess.PIPE if ready_line else sink,
            stderr=sink,
            stdin=subprocess.DEVNULL,
            process_group=0 if leads else None,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **(environment or {})},
        )
    return Child(name, process, log, leads)


def program(name: str) -> str:
    """Return a console script of this installation, wherever PATH points."""
    return str(Path(sys.executable).with_name(name))


def _late(child: Child, timeout_s: float) -> LocalFault:
    return LocalFault(
        "RNM-PROC-0001",
        what=f"{child.name} was not ready in {timeout_s:.0f} s",
        why=tail(child.log),
        mend=f"read {child.log}; on a machine under load, try again",
    )


def wait_until(child: Child, ready: Callable[[], bool], timeout_s: float) -> None:
    """Return once `ready()` holds; raise RNM-PROC-0001 or -0002 if it does not come to that."""
    deadline = time.monotonic() + timeout_s
    while not ready():
        child.check()
        if time.monotonic() > deadline:
            raise _late(child, timeout_s)
        time.sleep(_POLL_S)


def await_line(child: Child, timeout_s: float) -> dict[str, Any]:
    """Return the JSON line that the child writes on stdout when it is ready."""
    assert child.process.stdout is not None  # noqa: S101  # spawned with ready_line
    deadline = time.monotonic() + timeout_s
    handle = child.process.stdout.fileno()
    received = b""
    with selectors.DefaultSelector() as selector:
        selector.register(handle, selectors.EVENT_READ)
        while b"\n" not in received:
            if not selector.select(max(0.0, deadline - time.monotonic())):
                raise _late(child, timeout_s)
            block = os.read(handle, 65536)
            if not block:
                child.process.wait()
                child.check()
            received += block
    ready: dict[str, Any] = json.loads(received.split(b"\n", 1)[0])
    return ready


def free_ports(count: int) -> list[int]:
    """Return ports of loopback that are free now, all different."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()
