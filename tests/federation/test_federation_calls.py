"""The server's calls: admitted first, counted while they last, told of their faults, let go when left."""

import asyncio
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
import pytest
from federation_kit import until

from federation import allowance
from federation.calls import Call
from federation.serving import Server
from fedproto import transport
from fedproto.errors import LocalFault
from fedproto.v1.governance_pb2 import ActRequest

NEC = "nec"
SECRET = "what no caller may read"
KINDS = {
    "unary_unary": grpc.unary_unary_rpc_method_handler,
    "unary_stream": grpc.unary_stream_rpc_method_handler,
    "stream_unary": grpc.stream_unary_rpc_method_handler,
    "stream_stream": grpc.stream_stream_rpc_method_handler,
}


def text(raw):
    return raw.decode()


@contextmanager
def served(kind, behaviour, *, admit=lambda *_: NEC, parse=text, write=str.encode):
    """Serve one method; yield what calls it, and the server."""
    server = Server(admit)
    handler = KINDS[kind](behaviour, parse, write)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("test.Calls", {"Go": handler}),)
    )
    port = server.add_secure_port("127.0.0.1:0", grpc.local_server_credentials())
    server.start()
    with grpc.secure_channel(f"127.0.0.1:{port}", grpc.local_channel_credentials()) as channel:
        try:
            yield getattr(channel, kind)("/test.Calls/Go"), server
        finally:
            server.stop()


def fault_of(begin):
    """Return the named error that a call ends with, and all the text that crossed the wire."""
    with pytest.raises(grpc.RpcError) as caught:
        begin()
    error = caught.value
    return transport.from_rpc_error(error, "test"), f"{error.details()} {error.trailing_metadata()}"


def echo(request, call):
    return f"{call.caller} said {request}"


async def echo_soon(request, call):
    await asyncio.sleep(0)
    return echo(request, call)


def refuse(*_):
    raise LocalFault("RNM-AUTH-0001", what="a call was refused", why="no", mend="ask")


def refuse_later(*_):
    yield "word"
    refuse()


@pytest.mark.parametrize("behaviour", [echo, echo_soon])
def test_a_call_is_answered_in_a_thread_and_in_the_loop(behaviour):
    with served("unary_unary", behaviour) as (go, _):
        assert go(b"hello", timeout=10) == b"nec said hello"


def test_a_handler_that_blocks_has_a_thread_and_one_that_does_not_has_none():
    names = []

    def blocking(request, call):
        names.append(threading.current_thread().name)
        return request

    async def waiting(request, call):
        names.append(threading.current_thread().name)
        return request

    for behaviour in (blocking, waiting):
        with served("unary_unary", behaviour) as (go, _):
            go(b"", timeout=10)
    assert names[0].startswith("rpc_")
    assert names[1] == "rpc-loop"


def test_streams_come_whole_and_in_order_both_ways():
    def both(requests, call):
        for request in requests:
            yield from (request, request * 1000)

    words = [f"{number}" for number in range(50)]
    with served("stream_stream", both) as (go, _):
        got = [raw.decode() for raw in go((word.encode() for word in words), timeout=20)]
    assert got == [each for word in words for each in (word, word * 1000)]
    with served("stream_unary", lambda requests, call: " ".join(requests)) as (go, _):
        assert go((word.encode() for word in words), timeout=20) == " ".join(words).encode()

    def letters(request, call):
        yield from request

    with served("unary_stream", letters) as (go, _):
        assert b"".join(go(b"letters", timeout=20)) == b"letters"


@pytest.mark.parametrize("kind", KINDS)
def test_who_is_not_admitted_never_reaches_the_handler_whatever_it_sends(kind):
    reached = []

    def handler(request, call):
        reached.append(call)
        return iter(())

    with served(kind, handler, admit=refuse) as (go, _):
        sent = iter([b"\xff"]) if kind.startswith("stream") else b"\xff"
        fault, _ = fault_of(lambda: list(go(sent, timeout=10)))
    assert (fault.code, fault.why) == ("RNM-AUTH-0001", "no")
    assert reached == []


def test_a_method_that_is_not_served_is_said_to_be_none():
    with served("unary_unary", echo) as (go, _):
        with (
            grpc.secure_channel(go._channel.target(), grpc.local_channel_credentials()) as channel,
            pytest.raises(grpc.RpcError) as caught,
        ):
            channel.unary_unary("/test.Calls/Other")(b"", timeout=10)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("behaviour", [refuse, refuse_later])
def test_an_error_with_a_name_crosses_the_wire_with_it(behaviour):
    with served("unary_stream", behaviour) as (go, _):
        fault, _ = fault_of(lambda: list(go(b"", timeout=10)))
    assert (fault.code, fault.mend) == ("RNM-AUTH-0001", "ask")


async def broken_soon(*_):
    raise ValueError(SECRET)


def broken(*_):
    raise ValueError(SECRET)


@pytest.mark.parametrize("behaviour", [broken, broken_soon])
def test_a_fault_of_the_coordinator_is_logged_and_told_without_its_text(behaviour, caplog):
    with served("unary_unary", behaviour) as (go, _):
        fault, crossed = fault_of(lambda: go(b"", timeout=10))
    assert fault.code == "RNM-BUG-0001"
    assert SECRET not in crossed
    assert SECRET in caplog.text


@pytest.mark.parametrize("behaviour", [echo, echo_soon])
def test_a_message_that_is_none_is_refused_by_name(behaviour):
    with served("unary_unary", behaviour, parse=ActRequest.FromString) as (go, _):
        fault, _ = fault_of(lambda: go(b"\xff\xff", timeout=10))
    assert fault.code == "RNM-FORM-0002"


def test_when_the_caller_hangs_up_its_handler_is_told_and_its_answers_are_closed():
    told, closed, seen = threading.Event(), threading.Event(), []

    def talk(request, call):
        seen.append(call)
        call.add_callback(told.set)
        try:
            while call.is_active():
                yield "word"
        finally:
            closed.set()

    with served("unary_stream", talk) as (go, _):
        answers = go(b"", timeout=30)
        assert next(answers) == b"word"
        answers.cancel()
        assert told.wait(10)
        assert closed.wait(10)
        # Too late to be told later: at once, then.
        late = threading.Event()
        seen[0].add_callback(late.set)
        assert late.is_set()


def test_a_reader_that_waits_for_a_caller_that_is_gone_comes_to_the_end():
    heard, ended = threading.Event(), threading.Event()

    def listen(requests, call):
        for _ in requests:
            heard.set()
        ended.set()
        # Asked again after the call was freed, it says the same and touches nothing.
        assert list(requests) == []
        return "done"

    with served("stream_unary", listen) as (go, _):
        forever = threading.Event()

        def words():
            yield b"one"
            forever.wait(30)

        future = go.future(words(), timeout=30)
        assert heard.wait(10)
        future.cancel()
        assert ended.wait(10)
        forever.set()


def test_what_fails_after_its_caller_has_gone_is_logged_all_the_same(caplog):
    go_on, begun = threading.Event(), threading.Event()

    def slow(request, call):
        begun.set()
        assert go_on.wait(30)
        raise ValueError(SECRET)

    with served("unary_unary", slow) as (go, _):
        future = go.future(b"", timeout=30)
        assert begun.wait(10)
        future.cancel()
        # The server hears of it a moment later.
        until(future.cancelled)
        with served("unary_unary", echo) as (other, _):
            other(b"", timeout=10)
        go_on.set()
        until(lambda: SECRET in caplog.text)


def test_calls_are_counted_until_their_handlers_end_and_not_until_their_callers_do():
    go_on, begun = threading.Event(), threading.Semaphore(0)

    def hold(request, call):
        begun.release()
        assert go_on.wait(30)
        return request

    with served("unary_unary", hold) as (go, _):
        held = [go.future(b"", timeout=30) for _ in range(allowance.CALLS)]
        for _ in held:
            assert begun.acquire(timeout=10)
        fault, _ = fault_of(lambda: go(b"", timeout=10))
        assert fault.code == "RNM-NET-0002"
        for future in held:
            future.cancel()
        fault, _ = fault_of(lambda: go(b"", timeout=10))
        assert fault.code == "RNM-NET-0002"
        go_on.set()

        def is_let_in():
            try:
                return go(b"", timeout=10) == b""
            except grpc.RpcError:
                return False

        until(is_let_in)


def test_no_message_lies_with_the_server_once_it_is_handed_on():
    """Else a chunk of 1 MiB for each member, in both directions, for as long as nobody says more."""

    class Message:
        def __init__(self, raw):
            self.raw = raw

    alive, waiting = [], threading.Event()

    def parse(raw):
        message = Message(raw)
        alive.append(weakref.ref(message))
        return message

    def both(requests, call):
        for request in requests:
            answer = Message(request.raw)
            alive.append(weakref.ref(answer))
            del request
            yield answer
            del answer

    with served("stream_stream", both, parse=parse, write=lambda message: message.raw) as (go, _):

        def words():
            yield b"one"
            waiting.wait(30)

        answers = go(words(), timeout=30)
        assert next(answers) == b"one"
        until(lambda: len(alive) == 2 and not any(seen() for seen in alive))
        waiting.set()
        assert list(answers) == []


def test_a_server_that_stops_ends_what_is_under_way():
    begun, ended = threading.Event(), threading.Event()

    def talk(request, call):
        call.add_callback(ended.set)
        begun.set()
        yield "word"
        ended.wait(30)

    with served("unary_stream", talk) as (go, server):
        answers = go(b"", timeout=30)
        assert next(answers) == b"word"
        assert begun.wait(10)
        server.stop(grace_s=0.1)
        assert ended.wait(10)
        with pytest.raises(grpc.RpcError):
            list(answers)


def test_servers_that_are_made_at_once_share_one_loop():
    with ThreadPoolExecutor(8) as pool:
        servers = list(pool.map(lambda _: Server(lambda *_: NEC), range(8)))
    assert len({id(server._runtime) for server in servers}) == 1
    for server in servers:
        server.start()
        server.stop()


def test_callbacks_run_once():
    call, said = Call(NEC), []
    call.add_callback(lambda: said.append("ended"))
    call.end()
    call.end()
    assert said == ["ended"]
    assert not call.is_active()
