"""The server's loop belongs to one thread: nothing else reaches into it, whatever becomes of a server."""

import json
import subprocess
import sys

# In a process of its own: there is one loop for all servers of a process, and this one has to be watched.
_WATCHED = """
import gc, json, sys, threading
import uvloop

foreign = []


def watched(name):
    def method(self, *args, **more):
        thread = threading.current_thread().name
        if self.is_running() and thread != "rpc-loop":
            foreign.append(f"{name} by {thread}")
        return getattr(uvloop.Loop, name)(self, *args, **more)

    return method


NAMES = "call_soon call_later call_at create_task add_reader remove_reader add_writer remove_writer stop"
Watched = type("Watched", (uvloop.Loop,), {name: watched(name) for name in NAMES.split()})
uvloop.new_event_loop = Watched

from federation.serving import Server
import grpc


async def soon(request, call):
    return request


def words(requests, call):
    yield from requests


def play():
    server = Server(lambda *_: "nec")
    methods = {
        "Soon": grpc.unary_unary_rpc_method_handler(soon, bytes, bytes),
        "Later": grpc.unary_unary_rpc_method_handler(lambda request, call: request, bytes, bytes),
        "Words": grpc.stream_stream_rpc_method_handler(words, bytes, bytes),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t", methods),))
    port = server.add_secure_port("127.0.0.1:0", grpc.local_server_credentials())
    server.start()
    with grpc.secure_channel(f"127.0.0.1:{port}", grpc.local_channel_credentials()) as channel:
        assert channel.unary_unary("/t/Soon")(b"a", timeout=30) == b"a"
        assert channel.unary_unary("/t/Later")(b"b", timeout=30) == b"b"
        channel.unary_unary("/t/Soon").future(b"c", timeout=30).cancel()
        forever = threading.Event()
        answers = channel.stream_stream("/t/Words")(iter(lambda: forever.wait(0.01) or b"d", None))
        assert next(answers) == b"d"
        answers.cancel()
        forever.set()
    server.stop()


for _ in range(3):
    play()
    gc.collect()
if "reach" in sys.argv:
    from federation.serving import _runtime

    _runtime().loop.call_soon(lambda: None)
print(json.dumps(foreign))
"""


def reached(*words):
    """Return what reached into the loop from another thread while servers came and went."""
    done = subprocess.run(
        [sys.executable, "-c", _WATCHED, *words],
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    return json.loads(done.stdout)


def test_no_other_thread_reaches_into_the_loop_even_when_the_last_server_is_gone():
    """gRPC takes its poller from the loop with its last user, in whatever thread lets go of that."""
    assert reached() == []


def test_who_does_reach_into_the_loop_is_seen():
    assert reached("reach") == ["call_soon by MainThread"]
