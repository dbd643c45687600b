"""The trainer's own fence: no network socket and no key file, from the first line of its life.

Decides what the process may no longer ask for; nothing in it can be undone. The kernel refuses sockets
of any family but unix ones (seccomp(2), inherited by children such as the compiler); a Python audit hook
names the refusal and adds the key files. Both stand beside what the system's unit forbids, and neither
replaces it: code that runs in this process still reads the member's data. A shell module.
"""

import ctypes
import errno
import os
import platform
import socket
import struct
import sys
from pathlib import Path
from typing import Any

_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _MODE_FILTER = 22, 38, 2
_ALLOW, _DENY = 0x7FFF0000, 0x00050000 | errno.EACCES
# Machine: its AUDIT_ARCH and the number of socket(2); io_uring_setup(2), another way to a socket.
_ARCHITECTURES = {"x86_64": (0xC000003E, 41), "aarch64": (0xC00000B7, 198)}
_IO_URING_SETUP = 425
# Calls of the x32 ABI have this bit; they would pass a filter of plain numbers.
_X32 = 0x40000000
_LOAD, _IF_EQUAL, _IF_AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
# Offsets in struct seccomp_data.
_NUMBER, _ARCH, _FIRST_ARGUMENT = 0, 4, 16


def confine(keys: Path) -> str:
    """Fence the process in; return why the kernel's part is missing, or nothing if it is there."""
    forbidden = os.path.realpath(keys) + os.sep

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "socket.__new__" and arguments[1] != socket.AF_UNIX:
            raise PermissionError("the trainer opens no network socket")
        if event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
            raise PermissionError("the trainer looks up no name")
        if event == "open" and isinstance(arguments[0], str | bytes):
            path = os.path.realpath(os.fsdecode(arguments[0]))
            if path.startswith(forbidden):
                raise PermissionError("the trainer reads no key")

    sys.addaudithook(hook)
    return _filter_sockets()


def _filter_sockets() -> str:
    found = _ARCHITECTURES.get(platform.machine())
    if sys.platform != "linux" or found is None:
        return f"no filter for {sys.platform} on {platform.machine()}"
    program = _program(*found)
    count = len(program) // 8
    code = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("@HxxxxxxP", count, ctypes.addressof(code))
    argument = ctypes.create_string_buffer(header, len(header))
    libc = ctypes.CDLL(None, use_errno=True)
    zero = ctypes.c_ulong(0)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1), zero, zero, zero) != 0:
        return os.strerror(ctypes.get_errno())
    if libc.prctl(_PR_SET_SECCOMP, ctypes.c_ulong(_MODE_FILTER), argument, zero, zero) != 0:
        return os.strerror(ctypes.get_errno())
    return ""


def _program(architecture: int, socket_call: int) -> bytes:
    """Return the filter: struct sock_filter is code, jump if true, jump if false, operand."""
    lines = [
        (_LOAD, 0, 0, _ARCH),
        (_IF_EQUAL, 0, 7, architecture),
        (_LOAD, 0, 0, _NUMBER),
        (_IF_AT_LEAST, 5, 0, _X32),
        (_IF_EQUAL, 4, 0, _IO_URING_SETUP),
        (_IF_EQUAL, 0, 2, socket_call),
        (_LOAD, 0, 0, _FIRST_ARGUMENT),
        (_IF_EQUAL, 0, 1, socket.AF_UNIX),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _DENY),
    ]
    return b"".join(struct.pack("=HBBI", *line) for line in lines)
