"""The channel: real gRPC over mutual TLS 1.3 on loopback, who is let in, and errors that keep their names."""

import base64
import datetime
import os
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from fedproto import pki, transport
from fedproto.errors import CODES, FederationError, LocalFault
from fedproto.ids import MemberId
from fedproto.transport import Credentials, caller, dial, from_rpc_error, to_status

NOW = datetime.datetime.now(datetime.UTC)
METHOD = "/probe.Probe/Ask"


@dataclass(frozen=True, slots=True)
class Authority:
    """A root that issues to whoever is asked for."""

    consortium: str
    key: bytes
    root: bytes

    def issue(
        self,
        member: str,
        *,
        hosts: tuple[str, ...] = (),
        now: datetime.datetime = NOW,
        root: bytes | None = None,
    ) -> Credentials:
        key = pki.new_key_pem()
        certificate = pki.issue(
            self.key,
            self.root,
            pki.make_request(key, MemberId(member)),
            consortium=self.consortium,
            member=MemberId(member),
            hosts=hosts,
            now=now,
        )
        return Credentials(key=key, certificate=certificate, root=root or self.root)


def authority(consortium: str = "demo") -> Authority:
    key = pki.new_key_pem()
    return Authority(consortium, key, pki.make_root(key, consortium, NOW))


AUTHORITY = authority()


class Probe(grpc.GenericRpcHandler):
    """Answers with the caller's name, or raises the error that the request names."""

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        def ask(request: bytes, context: grpc.ServicerContext) -> bytes:
            if request:
                error = LocalFault(request.decode(), what="何が", why="w" * 900, mend="m")
                status, text, trailing = to_status(error)
                context.set_trailing_metadata(trailing)
                context.abort(status, text)
            return str(caller(context, "demo")).encode()

        return grpc.unary_unary_rpc_method_handler(ask)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    server = grpc.server(
        ThreadPoolExecutor(2), handlers=(Probe(),), options=transport.SERVER_OPTIONS
    )
    credentials = AUTHORITY.issue("coordinator", hosts=("127.0.0.1", "localhost"))
    port = server.add_secure_port("127.0.0.1:0", credentials.server())
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None)


def ask(address: str, credentials: Credentials, request: bytes = b"") -> bytes:
    with dial(address, credentials) as channel:
        call: Callable[..., bytes] = channel.unary_unary(METHOD)
        try:
            return call(request, timeout=5)
        except grpc.RpcError as error:
            raise from_rpc_error(error, address) from None


def test_the_server_knows_a_caller_by_its_certificate(address: str) -> None:
    assert ask(address, AUTHORITY.issue("nec")) == b"nec"


def test_a_party_of_another_consortium_has_no_name_here(address: str) -> None:
    """Same root key, other trust domain in the URI."""
    stranger = Authority("other", AUTHORITY.key, AUTHORITY.root).issue("nec")
    assert ask(address, stranger) == b"None"


def test_a_certificate_of_another_root_is_not_let_in(address: str) -> None:
    with pytest.raises(FederationError) as caught:
        ask(address, authority().issue("nec", root=AUTHORITY.root))
    assert caught.value.code == "RNM-TLS-0001"


def test_a_server_of_another_root_is_not_spoken_to(address: str) -> None:
    with pytest.raises(FederationError) as caught:
        ask(address, AUTHORITY.issue("nec", root=authority().root))
    assert caught.value.code == "RNM-TLS-0001"


def test_an_expired_certificate_is_not_let_in(address: str) -> None:
    old = AUTHORITY.issue("nec", now=NOW - datetime.timedelta(days=40))
    with pytest.raises(FederationError):
        ask(address, old)


def test_nobody_is_let_in_without_a_certificate(address: str) -> None:
    channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(AUTHORITY.root))
    with pytest.raises(grpc.RpcError):
        channel.unary_unary(METHOD)(b"", timeout=3)
    channel.close()


def test_nobody_is_let_in_without_tls(address: str) -> None:
    channel = grpc.insecure_channel(address)
    with pytest.raises(grpc.RpcError):
        channel.unary_unary(METHOD)(b"", timeout=3)
    channel.close()


@pytest.mark.parametrize(
    ("version", "works"), [(ssl.TLSVersion.TLSv1_2, False), (ssl.TLSVersion.TLSv1_3, True)]
)
def test_only_tls_1_3_is_spoken(
    address: str, tmp_path: Path, version: ssl.TLSVersion, works: bool
) -> None:
    credentials = AUTHORITY.issue("nec")
    (tmp_path / "k").write_bytes(credentials.key)
    (tmp_path / "c").write_bytes(credentials.certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_cert_chain(tmp_path / "c", tmp_path / "k")
    context.load_verify_locations(cadata=credentials.root.decode())
    context.minimum_version = context.maximum_version = version
    context.set_alpn_protocols(["h2"])
    host, _, port = address.partition(":")
    with socket.create_connection((host, int(port)), timeout=5) as raw:
        try:
            with context.wrap_socket(raw, server_hostname=host) as tls:
                assert tls.version() == "TLSv1.3"
                assert works
        except (ssl.SSLError, ConnectionError):
            assert not works


def _import_in_order(*names: str) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if k != "GRPC_SSL_CIPHER_SUITES"}
    program = "\n".join(f"import {name}" for name in names)
    return subprocess.run(
        [sys.executable, "-c", program], env=env, capture_output=True, text=True, check=False
    )


def test_a_process_that_loaded_grpc_too_early_is_refused_the_channel() -> None:
    """gRPC reads its cipher list while it is imported: TLS 1.2 would stay open, silently."""
    assert _import_in_order("fedproto.transport", "grpc").returncode == 0
    late = _import_in_order("grpc", "fedproto.transport")
    assert late.returncode != 0
    assert "RNM-CONF-0001" in late.stderr


@pytest.mark.parametrize("code", list(CODES))
def test_an_error_keeps_its_name_over_the_wire(address: str, code: str) -> None:
    with pytest.raises(FederationError) as caught:
        ask(address, AUTHORITY.issue("nec"), code.encode())
    error = caught.value
    assert (error.code, error.what, error.mend) == (code, "何が", "m")


def test_a_message_above_the_cap_is_refused_by_name(address: str) -> None:
    with pytest.raises(FederationError):
        ask(address, AUTHORITY.issue("nec"), b"x" * (transport.MAX_MESSAGE + 1))


def test_an_address_where_nobody_listens_is_named() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(FederationError) as caught:
        ask(nobody, AUTHORITY.issue("nec"))
    assert caught.value.code == "RNM-TLS-0001"
    assert nobody in caught.value.what


def test_the_name_in_a_certificate_is_the_one_that_was_approved_not_the_one_asked_for() -> None:
    key = pki.new_key_pem()
    request = pki.make_request(key, MemberId("sony"))
    certificate = pki.issue(
        AUTHORITY.key,
        AUTHORITY.root,
        request,
        consortium="demo",
        member=MemberId("nec"),
        hosts=(),
        now=NOW,
    )
    assert b"sony" not in base64.b64decode(b"".join(certificate.splitlines()[1:-1]))


def test_a_request_signed_by_another_key_is_refused() -> None:
    der = bytearray(pki.make_request(pki.new_key_pem(), MemberId("nec")))
    lines = bytes(der).splitlines()
    body = bytearray(base64.b64decode(b"".join(lines[1:-1])))
    body[-1] ^= 1
    broken = b"\n".join([lines[0], base64.encodebytes(bytes(body)).strip(), lines[-1], b""])
    with pytest.raises(LocalFault) as caught:
        pki.issue(
            AUTHORITY.key,
            AUTHORITY.root,
            broken,
            consortium="demo",
            member=MemberId("nec"),
            hosts=(),
            now=NOW,
        )
    assert caught.value.code == "RNM-SIG-0001"


@pytest.mark.parametrize(
    "uri",
    [
        "spiffe://renmei/demo/NEC",
        "spiffe://renmei/demo/nec/x",
        "spiffe://renmei/demo2/nec",
        "spiffe://renmei/demo/",
        "spiffe://other/demo/nec",
        "https://renmei/demo/nec",
        "nec",
        "",
    ],
)
def test_a_uri_that_is_not_exactly_a_members_names_nobody(uri: str) -> None:
    assert pki.parse_identity(uri, "demo") is None
    assert pki.parse_identity("spiffe://renmei/demo/nec", "demo") == "nec"


@pytest.mark.parametrize("days", [-31, 31])
def test_an_expired_or_future_certificate_is_named_before_grpc_would_be_mute(days: int) -> None:
    credentials = AUTHORITY.issue("nec")
    pki.check_term(credentials.certificate, NOW, "tls.crt")
    with pytest.raises(LocalFault) as caught:
        pki.check_term(credentials.certificate, NOW + datetime.timedelta(days=days), "tls.crt")
    assert caught.value.code == "RNM-TLS-0003"


@pytest.mark.parametrize(
    "pem", [b"", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----"]
)
def test_a_damaged_tls_key_is_named(pem: bytes) -> None:
    with pytest.raises(LocalFault) as caught:
        pki.load_key(pem, "tls.key")
    assert caught.value.code == "RNM-KEY-0003"


def test_the_private_key_is_in_no_repr() -> None:
    credentials = AUTHORITY.issue("nec")
    assert "PRIVATE" not in repr(credentials)
