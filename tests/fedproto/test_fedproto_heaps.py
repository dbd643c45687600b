import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# A heap of its own is given to a thread when it first allocates while another thread holds a heap.
PROGRAM = """
import ctypes, sys, threading
from fedproto.process import share_heaps
if sys.argv[1] == "shared":
    share_heaps()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, (ctypes.c_void_p,)
def work():
    for _ in range(2000):
        libc.free(libc.malloc(1 << 14))
threads = [threading.Thread(target=work) for _ in range(32)]
for thread in threads: thread.start()
for thread in threads: thread.join()
libc.malloc_stats()
"""


def heaps(how):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, how],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'proto'}"},
    )
    return done.stderr.count("Arena ")


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_the_threads_of_a_server_share_two_heaps():
    assert heaps("shared") <= 2
    assert heaps("each its own") > 2, "this libc would have shared them anyway"
