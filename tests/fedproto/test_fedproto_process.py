"""A process that is told to end hears it, whichever of its threads the kernel tells."""

import signal
import subprocess
import sys
import time

# The main thread takes no signal, so the other one does; Python would run the handler in the main thread.
_TOLD_ANOTHER = """
import signal, sys, threading
from fedproto.process import wait_for

stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
threading.Thread(target=threading.Event().wait, daemon=True).start()
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
print("ready", flush=True)
wait_for(stop)
print("heard", flush=True)
"""


def test_a_signal_that_another_thread_is_given_is_heard() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _TOLD_ANOTHER], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        # A main thread that is told before it waits would hear it in any case: that proves nothing, so
        # give it time to fall asleep.
        time.sleep(0.5)
        child.send_signal(signal.SIGTERM)
        try:
            assert child.communicate(timeout=30)[0] == "heard\n"
        finally:
            child.kill()
