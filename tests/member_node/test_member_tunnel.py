import socket
import ssl
import threading

import httpx
import pytest

from fedproto import pki
from fedproto.errors import FederationError
from fedproto.party import utc_now
from member_node import egress
from member_node.egress import EgressJournal
from member_node.log import Log
from member_node.tunnel import Tunnel

BODY = b"k" * 50_000 + b"<the end>"


class Gateway:
    """A TLS server that answers one HTTP request a connection, and keeps what it read."""

    def __init__(self, root):
        root_key, key = pki.new_key_pem(), pki.new_key_pem()
        root_pem = pki.make_root(root_key, "test", utc_now())
        certificate = pki.issue(
            root_key,
            root_pem,
            pki.make_request(key, "coordinator"),
            consortium="test",
            member="coordinator",
            hosts=("127.0.0.1",),
            now=utc_now(),
        )
        (root / "g.key").write_bytes(key)
        (root / "g.crt").write_bytes(certificate)
        (root / "root.crt").write_bytes(root_pem)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(root / "g.crt", root / "g.key")
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._context = context
        self.read = b""
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                raw, _ = self._listener.accept()
            except OSError:
                return
            try:
                self._answer(raw)
            except ssl.SSLError:
                raw.close()

    def _answer(self, raw):
        with self._context.wrap_socket(raw, server_side=True) as connection:
            while not self.read.endswith(BODY[-10:]):
                self.read += connection.recv(65536)
            connection.sendall(
                b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok"
            )

    def close(self):
        self._listener.close()


@pytest.fixture
def gateway(tmp_path):
    made = Gateway(tmp_path)
    yield made
    made.close()


@pytest.fixture
def tunnel(tmp_path, gateway):
    journal = EgressJournal(tmp_path, lambda: 1)
    made = Tunnel(gateway.address, journal, Log(member="nec"))
    made.start()
    yield made
    made.stop()


def bytes_out(root):
    return sum(d.bytes for d in egress.read(root) if d.kind == "flower.tunnel")


def until(condition):
    waiting = threading.Event()
    for _ in range(500):
        if condition():
            return
        waiting.wait(0.01)
    raise AssertionError


def test_httpx_goes_through_the_tunnel_by_its_environment_and_is_counted(
    tmp_path, gateway, tunnel, monkeypatch
):
    """The stock SuperNode is an httpx client that is told HTTPS_PROXY, as here."""
    monkeypatch.setenv("HTTPS_PROXY", tunnel.url)
    monkeypatch.setenv("NO_PROXY", "")
    trusted = ssl.create_default_context(cafile=str(tmp_path / "root.crt"))
    with httpx.Client(verify=trusted) as client:
        assert client.post(f"https://{gateway.address}/", content=BODY).text == "ok"
    assert gateway.read.endswith(BODY)
    until(lambda: bytes_out(tmp_path) > len(BODY))
    assert bytes_out(tmp_path) < len(BODY) + 5000
    assert {d.to for d in egress.read(tmp_path)} == {gateway.address}


@pytest.mark.parametrize(
    "head",
    [
        b"CONNECT telemetry.example:443 HTTP/1.1\r\n\r\n",
        b"CONNECT 127.0.0.1:1 HTTP/1.1\r\n\r\n",
        b"GET http://example.com/ HTTP/1.1\r\n\r\n",
        b"CONNECT\r\n\r\n",
        b"\x00\xff\r\n\r\n",
    ],
)
def test_every_other_address_is_refused(tmp_path, tunnel, head):
    port = int(tunnel.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)) as courier:
        courier.sendall(head)
        assert courier.recv(100).startswith(b"HTTP/1.1 403")
    assert egress.read(tmp_path) == ()


def test_a_gateway_that_is_down_gets_no_answer_so_that_the_courier_tries_again(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    made = Tunnel(address, EgressJournal(tmp_path, lambda: 1), Log(member="nec"))
    made.start()
    with socket.create_connection(("127.0.0.1", int(made.url.rpartition(":")[2]))) as courier:
        courier.sendall(f"CONNECT {address} HTTP/1.1\r\n\r\n".encode())
        assert courier.recv(100) == b""
    made.stop()


def test_a_tunnel_that_cannot_be_written_down_is_closed(tmp_path, gateway, monkeypatch):
    class Full:
        def record_stream(self, kind, size, *, to):
            raise FederationError("RNM-DISK-0001", what="x", why="y", mend="z")

    monkeypatch.setattr("member_node.tunnel._EVERY_S", 0.0)
    made = Tunnel(gateway.address, Full(), Log(member="nec"))
    made.start()
    with socket.create_connection(("127.0.0.1", int(made.url.rpartition(":")[2]))) as courier:
        courier.sendall(f"CONNECT {gateway.address} HTTP/1.1\r\n\r\n".encode())
        assert courier.recv(100).startswith(b"HTTP/1.1 200")
        courier.sendall(b"anything")
        courier.settimeout(5)
        # The gateway may say goodbye; then the connection is closed.
        while courier.recv(100):
            pass
    made.stop()
    assert gateway.read == b""


def test_an_idle_tunnel_is_closed_when_the_node_stops(tmp_path, gateway, tunnel):
    with socket.create_connection(("127.0.0.1", int(tunnel.url.rpartition(":")[2]))) as courier:
        courier.sendall(f"CONNECT {gateway.address} HTTP/1.1\r\n\r\n".encode())
        assert courier.recv(100).startswith(b"HTTP/1.1 200")
        tunnel.stop()
        courier.settimeout(5)
        assert courier.recv(100) == b""
