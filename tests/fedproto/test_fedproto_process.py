"""A process that is told to end hears it, whichever of its threads the kernel tells."""

import signal
import subprocess
import sys

import pytest

# The main thread takes no signal, so the other one does; Python would run the handler in the main thread.
_TOLD_ANOTHER = """
import signal, sys, threading
from fedproto.process import wait_for

stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
threading.Thread(target=threading.Event().wait, daemon=True).start()
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
print("ready", flush=True)
WAIT
print("heard", flush=True)
"""


def told(wait: str, timeout_s: float) -> str:
    """Tell a process that waits so to end; return what it said after that."""
    script = _TOLD_ANOTHER.replace("WAIT", wait)
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        child.send_signal(signal.SIGTERM)
        try:
            return child.communicate(timeout=timeout_s)[0]
        finally:
            child.kill()


def test_a_signal_that_another_thread_is_given_is_heard() -> None:
    assert told("wait_for(stop)", 30) == "heard\n"


def test_without_it_the_signal_would_never_be_heard() -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        told("stop.wait()", 3)
