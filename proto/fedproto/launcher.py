"""Run a program that ends when its parent ends: `python -m fedproto.launcher PID PROGRAM [ARGUMENT ...]`.

A shell module. PR_SET_PDEATHSIG (prctl(2)) survives execve, so no orphan is left when the parent is
killed with SIGKILL, which no handler can answer. Linux only; elsewhere the program simply runs.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Arm the parent-death signal, then become the program."""
    parent, program = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl")
        # The parent may have died before the signal was armed.
        if os.getppid() != parent:
            sys.exit(1)
    os.execvp(program[0], program)  # noqa: S606  # becoming the given program is the purpose


if __name__ == "__main__":
    main()
