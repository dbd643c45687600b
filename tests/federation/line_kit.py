"""A line between a member and the coordinator that a test cuts: TCP, byte for byte, and then not."""

import contextlib
import socket
import struct
import threading

_RESET = struct.pack("ii", 1, 0)


class Line:
    """Carries connections to a port; `decide(carried)` says how many more bytes of the member pass."""

    def __init__(self, port, decide):
        self._port = port
        self._decide = decide
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.carried = 0
        self.connections = 0
        self.cuts = 0
        self._open = []
        # While this is set, nothing passes and nobody is told: a partition.
        self.silent = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            far = socket.create_connection(("127.0.0.1", self._port))
            pair = (near, far)
            self._open.append(pair)
            threading.Thread(target=self._carry, args=(near, far, pair), daemon=True).start()
            threading.Thread(target=self._back, args=(far, near), daemon=True).start()

    def _carry(self, near, far, pair):
        with contextlib.suppress(OSError):
            while data := near.recv(16384):
                room = self._decide(self.carried)
                if len(data) > room:
                    far.sendall(data[:room])
                    self.carried += room
                    self.cut(pair)
                    return
                while self.silent.is_set():
                    threading.Event().wait(0.02)
                far.sendall(data)
                self.carried += len(data)
            far.shutdown(socket.SHUT_WR)

    def _back(self, far, near):
        with contextlib.suppress(OSError):
            while data := far.recv(16384):
                while self.silent.is_set():
                    threading.Event().wait(0.02)
                near.sendall(data)
            near.shutdown(socket.SHUT_WR)

    def cut(self, pair=None):
        """Reset a connection on both sides, or all of them."""
        for end in pair or tuple(end for found in self._open for end in found):
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                end.shutdown(socket.SHUT_RD)
                end.close()
        self.cuts += 1

    def close(self):
        """Let nobody through any more."""
        self._listener.close()
        self.cut()


def never(carried):
    """Cut nowhere."""
    return 1 << 40


def once(at):
    """Cut after so many bytes of the member."""
    return lambda carried: at - carried if carried < at else 1 << 40


def beyond(at):
    """Let so many bytes of the member pass, over all its connections, and none after them."""
    return lambda carried: max(at - carried, 0)


def every(step):
    """Cut again and again, a number of bytes apart."""
    return lambda carried: step - carried % step
