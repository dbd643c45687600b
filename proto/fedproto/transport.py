"""The channel: gRPC over mutual TLS 1.3, size caps, and errors that keep their names.

A shell module. Trusts only the pinned consortium root; who the other side is comes from its
certificate's SPIFFE URI. An error crosses the wire as its code, what, why and mend: nothing else.
"""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedproto.durable import read_private
from fedproto.errors import CODES, Exit, FederationError, LocalFault
from fedproto.ids import MemberId
from fedproto.pki import check_term, load_key, parse_identity

# gRPC for Python cannot ask for TLS 1.3 (grpc/grpc#37305). With an ECDSA certificate this cipher list
# leaves TLS 1.2 no usable suite, so only 1.3 can be negotiated. gRPC reads it while it is imported:
# a process that imported gRPC before would speak TLS 1.2 as well, and is refused.
_SUITES = "ECDHE-RSA-AES256-GCM-SHA384"
if os.environ.get("GRPC_SSL_CIPHER_SUITES") != _SUITES:
    if "grpc" in sys.modules:
        raise LocalFault(
            "RNM-CONF-0001",
            what="the channel was not set up",
            why="gRPC was loaded before it could be told to speak TLS 1.3 only",
            mend=f"set GRPC_SSL_CIPHER_SUITES={_SUITES} where the process starts, or start it with "
            "`renmei`",
        )
    os.environ["GRPC_SSL_CIPHER_SUITES"] = _SUITES

import grpc  # noqa: E402  # see above

MAX_MESSAGE = 8 << 20
_ERROR_KEY = "renmei-error-bin"
_STATUS = {
    Exit.CONNECT: grpc.StatusCode.UNAVAILABLE,
    Exit.REFUSED: grpc.StatusCode.PERMISSION_DENIED,
    Exit.VERIFY: grpc.StatusCode.DATA_LOSS,
    Exit.POLICY: grpc.StatusCode.FAILED_PRECONDITION,
    Exit.TIMEOUT: grpc.StatusCode.DEADLINE_EXCEEDED,
    Exit.CONFLICT: grpc.StatusCode.ALREADY_EXISTS,
    Exit.USAGE: grpc.StatusCode.INVALID_ARGUMENT,
    Exit.FAILED: grpc.StatusCode.ABORTED,
    Exit.BUG: grpc.StatusCode.INTERNAL,
}

OPTIONS: list[tuple[str, Any]] = [
    ("grpc.max_send_message_length", MAX_MESSAGE),
    ("grpc.max_receive_message_length", MAX_MESSAGE),
    ("grpc.max_metadata_size", 16 << 10),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # A coordinator that was restarted is found again within seconds, not within two minutes.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    # Names are looked up by libc, and proxies are never taken from a service configuration.
    ("grpc.enable_http_proxy", 1),
]
SERVER_OPTIONS: list[tuple[str, Any]] = [
    *OPTIONS,
    ("grpc.http2.min_ping_interval_without_data_ms", 30_000),
    ("grpc.max_concurrent_streams", 64),
    # Two servers must not share a port silently: the second is told that it is in use.
    ("grpc.so_reuseport", 0),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """A party's channel identity: PEM key (secret), certificate and the pinned root."""

    key: bytes = field(repr=False)
    certificate: bytes
    root: bytes

    @classmethod
    def load(cls, keys: Path, now: Callable[[], Any]) -> "Credentials":
        """Read `tls.key`, `tls.crt`, `root.crt`; refuse damaged, open or expired ones."""
        key = read_private(keys / "tls.key")
        load_key(key, str(keys / "tls.key"))
        certificate = _read_public(keys / "tls.crt")
        check_term(certificate, now(), str(keys / "tls.crt"))
        return cls(key=key, certificate=certificate, root=_read_public(keys / "root.crt"))

    def client(self) -> grpc.ChannelCredentials:
        """Return credentials for dialling."""
        return grpc.ssl_channel_credentials(self.root, self.key, self.certificate)

    def server(self) -> grpc.ServerCredentials:
        """Return credentials for listening; a client without a certificate is not let in."""
        return grpc.ssl_server_credentials(
            [(self.key, self.certificate)], self.root, require_client_auth=True
        )


def _read_public(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError:
        data = b""
    if b"-----BEGIN CERTIFICATE-----" not in data:
        raise LocalFault(
            "RNM-KEY-0003",
            what=f"certificate file {path} was not used",
            why="it is missing, or it is not a PEM certificate",
            mend="enrol again, or copy the certificate that the consortium issued to this place",
        )
    return data


def dial(address: str, credentials: Credentials) -> grpc.Channel:
    """Open a channel to the coordinator (lazily: the first call connects)."""
    return grpc.secure_channel(address, credentials.client(), options=OPTIONS)


def caller(context: Any, consortium: str) -> MemberId | None:
    """Return the member that a server's call context belongs to, or nothing."""
    auth = context.auth_context()
    for uri in auth.get("peer_uri", ()) or auth.get("x509_subject_alternative_name", ()):
        member = parse_identity(uri.decode("utf-8", "replace"), consortium)
        if member is not None:
            return member
    return None


def to_status(error: FederationError) -> tuple[grpc.StatusCode, str, tuple[tuple[str, bytes], ...]]:
    """Return the gRPC status, text and trailing metadata of a named error."""
    fields = {"code": error.code, "what": error.what, "why": error.why, "mend": error.mend}
    encoded = json.dumps(fields, ensure_ascii=False).encode()[:6000]
    return _STATUS[error.exit], f"{error.code}: {error.why}"[:500], ((_ERROR_KEY, encoded),)


def from_rpc_error(error: grpc.RpcError, address: str) -> FederationError:
    """Turn a failed call back into the named error that the other side raised, or name it here."""
    metadata = getattr(error, "trailing_metadata", lambda: None)() or ()
    for key, value in metadata:
        if key == _ERROR_KEY:
            named = _decode(value)
            if named is not None:
                return named
    code = getattr(error, "code", lambda: None)()
    detail = str(getattr(error, "details", lambda: "")() or "")[:200]
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return LocalFault(
            "RNM-ROUND-0002",
            what=f"a call to {address} got no answer in time",
            why=detail or "the deadline passed",
            mend="see whether the coordinator is under load, then run the command again",
        )
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
        return LocalFault(
            "RNM-TLS-0001",
            what=f"a call to {address} failed",
            why=detail or "nothing answers there, or it does not accept this certificate",
            mend="check the address, that the coordinator runs, and that this party is enrolled",
        )
    return LocalFault(
        "RNM-BUG-0001",
        what=f"a call to {address} failed",
        why=f"{code}: {detail}",
        mend="report it with the coordinator's log of this minute",
    )


def is_broken_connection(error: grpc.RpcError) -> bool:
    """Say whether a call ended because the connection did, and not by an answer of the other side."""
    metadata = getattr(error, "trailing_metadata", lambda: None)() or ()
    code = getattr(error, "code", lambda: None)()
    return code is grpc.StatusCode.UNAVAILABLE and all(key != _ERROR_KEY for key, _ in metadata)


def _decode(value: bytes | str) -> FederationError | None:
    try:
        fields = json.loads(value)
        code, what, why, mend = (str(fields[k]) for k in ("code", "what", "why", "mend"))
    except (ValueError, KeyError, TypeError):
        return None
    if code not in CODES:
        return None
    return LocalFault(code, what=what, why=why, mend=mend)
