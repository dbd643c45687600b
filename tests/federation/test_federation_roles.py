"""Who may call what, over real mTLS: every method, every role, and strangers."""

import datetime
import socket
import ssl

import grpc
import pytest
from federation_kit import Federation, sealed

from federation.coordinator import Coordinator
from federation.roles import RULES
from fedproto import pki, transport
from fedproto.durable import write_atomic
from fedproto.events.governance import Choice, VoteCast
from fedproto.governance.charter import Role
from fedproto.ids import MemberId, sha256_hex
from fedproto.party import utc_now
from fedproto.v1 import (
    artifacts_pb2,
    exchange_pb2,
    governance_pb2,
    governance_pb2_grpc,
    ledger_pb2,
    rounds_pb2,
    witness_pb2,
)

SERVED = (artifacts_pb2, exchange_pb2, governance_pb2, ledger_pb2, rounds_pb2, witness_pb2)
PARTY_OF = {
    Role.OPERATOR: "coordinator",
    Role.ADMINISTRATOR: "secretariat",
    Role.TRAINER: "nec",
    Role.PRETRAINER: "pfn",
    Role.AUDITOR: "meti",
}
WRITES = [
    method
    for method in RULES
    if method.rsplit("/", 1)[1]
    not in (
        "GetCheckpoint",
        "GetEntries",
        "ProveInclusion",
        "ProveConsistency",
        "GetReceipt",
        "Export",
        "Watch",
        "Get",
    )
]


def methods():
    """Yield each method of the services that listen on the network, with its request type."""
    for module in SERVED:
        for service in module.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                yield f"/{service.full_name}/{method.name}", method


@pytest.fixture(scope="module")
def federation(tmp_path_factory):
    made = Federation(tmp_path_factory.mktemp("roles") / "c")
    coordinator = Coordinator(made.consortium.party("coordinator"), lambda *_: made.flower)
    coordinator.start()
    made.join()
    yield made, coordinator
    made.close()
    coordinator.stop()


def call(channel, path, method):
    """Call a method with an empty request; return the status and the error's code, if named."""
    request = method.input_type._concrete_class()
    streams = (method.client_streaming, method.server_streaming)
    kind = {
        (False, False): "unary_unary",
        (False, True): "unary_stream",
        (True, False): "stream_unary",
        (True, True): "stream_stream",
    }[streams]
    multi = getattr(channel, kind)(
        path,
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=method.output_type._concrete_class.FromString,
    )
    sent = iter([request]) if streams[0] else request
    try:
        answer = multi(sent, timeout=20)
        if streams[1]:
            next(iter(answer), None)
            answer.cancel()
    except grpc.RpcError as error:
        return error.code(), transport.from_rpc_error(error, "test").code
    return grpc.StatusCode.OK, ""


def test_every_method_that_listens_has_a_rule_and_no_rule_is_left_over():
    assert {path for path, _ in methods()} == set(RULES)
    assert all(RULES.values())


def test_no_rule_that_writes_is_open_to_auditors():
    assert WRITES
    assert not [method for method in WRITES if Role.AUDITOR in RULES[method]]


@pytest.mark.parametrize("role", PARTY_OF, ids=lambda role: role.value)
def test_each_role_is_let_in_where_a_rule_says_so_and_nowhere_else(federation, role):
    made, coordinator = federation
    party = made.party(PARTY_OF[role])
    roles = set(coordinator.ledger.state.charter.member(party.profile.id).roles)
    before = coordinator.ledger.head.size
    with made.channel(PARTY_OF[role]) as channel:
        for path, method in methods():
            status, code = call(channel, path, method)
            if roles & set(RULES[path]):
                assert code != "RNM-AUTH-0001", path
            else:
                assert status is grpc.StatusCode.PERMISSION_DENIED, path
                assert code == "RNM-AUTH-0001", path
    # Nothing was written but that a bundle was handed out, by the coordinator itself.
    written = range(before, coordinator.ledger.head.size)
    assert set(written) <= set(coordinator.ledger.find_entries(kind="export.issued"))


def test_the_auditor_is_refused_every_write_even_with_a_well_formed_act(federation):
    made, coordinator = federation
    before = coordinator.ledger.head
    body = VoteCast(
        proposal=sha256_hex(b"proposal"),
        terms_sha256=sha256_hex(b"plan"),
        choice=Choice.YES,
        reason="",
    )
    with made.channel("meti") as channel:
        leaf = sealed(made.party("meti"), body, channel)
        stub = governance_pb2_grpc.GovernanceStub(channel)
        for name in (
            "Submit",
            "Vote",
            "Propose",
            "ApproveBaseModel",
            "DeclareDataset",
            "SignParticipation",
        ):
            with pytest.raises(grpc.RpcError) as caught:
                getattr(stub, name)(governance_pb2.ActRequest(envelope=leaf), timeout=10)
            assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert coordinator.ledger.head == before


def test_a_member_cannot_send_anothers_act_nor_use_a_method_of_another_type(federation):
    made, coordinator = federation
    before = coordinator.ledger.head
    body = VoteCast(
        proposal=sha256_hex(b"proposal"),
        terms_sha256=sha256_hex(b"plan"),
        choice=Choice.YES,
        reason="",
    )
    with made.channel("nec") as channel:
        leaf = sealed(made.party("sony"), body, channel)
        own = sealed(made.party("nec"), body, channel)
        stub = governance_pb2_grpc.GovernanceStub(channel)
        for name, envelope in (("Vote", leaf), ("DeclareDataset", own)):
            with pytest.raises(grpc.RpcError) as caught:
                getattr(stub, name)(governance_pb2.ActRequest(envelope=envelope), timeout=10)
            assert transport.from_rpc_error(caught.value, "x").code == "RNM-AUTH-0001"
    assert coordinator.ledger.head == before


def strangers_keys(made, tmp_path, *, name, own_root):
    """Make a keys directory: of another root, or of ours for a name that is not on the roster."""
    authority = made.root / "authority"
    root_key = pki.new_key_pem() if own_root else (authority / "root.key").read_bytes()
    root = (
        pki.make_root(root_key, "test", utc_now())
        if own_root
        else (authority / "root.crt").read_bytes()
    )
    key = pki.new_key_pem()
    member = MemberId(name)
    certificate = pki.issue(
        root_key,
        root,
        pki.make_request(key, member),
        consortium="test",
        member=member,
        hosts=(),
        now=utc_now(),
    )
    write_atomic(tmp_path / "tls.key", key, mode=0o600)
    write_atomic(tmp_path / "tls.crt", certificate)
    write_atomic(tmp_path / "root.crt", (authority / "root.crt").read_bytes())
    return transport.Credentials.load(tmp_path, utc_now)


@pytest.mark.parametrize(
    ("name", "own_root", "status"),
    [
        ("honda", True, grpc.StatusCode.UNAVAILABLE),
        ("toyota", False, grpc.StatusCode.PERMISSION_DENIED),
    ],
    ids=["another root", "a name that is not on the roster"],
)
def test_a_stranger_is_kept_out(federation, tmp_path, name, own_root, status):
    made, _ = federation
    credentials = strangers_keys(made, tmp_path, name=name, own_root=own_root)
    address = made.party("nec").profile.coordinator
    with transport.dial(address, credentials) as channel:
        for path, method in methods():
            if path.endswith("GetCheckpoint"):
                assert call(channel, path, method)[0] is status


def test_without_a_certificate_or_with_tls_1_2_nobody_gets_in(federation):
    made, _ = federation
    host, port = made.party("nec").profile.coordinator.split(":")
    keys = made.party("nec").keys
    old = ssl.create_default_context(cafile=str(keys / "root.crt"))
    old.load_cert_chain(keys / "tls.crt", keys / "tls.key")
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with socket.create_connection((host, int(port))) as raw, pytest.raises(ssl.SSLError):
        old.wrap_socket(raw, server_hostname=host)
    with grpc.secure_channel(
        f"{host}:{port}", grpc.ssl_channel_credentials((keys / "root.crt").read_bytes())
    ) as channel:
        for path, method in methods():
            if path.endswith("GetCheckpoint"):
                assert call(channel, path, method)[0] is grpc.StatusCode.UNAVAILABLE


def test_an_expired_certificate_is_named_before_it_is_used(federation, tmp_path):
    made, _ = federation
    for path in made.party("nec").keys.glob("tls.*"):
        write_atomic(tmp_path / path.name, path.read_bytes(), mode=0o600)
    write_atomic(tmp_path / "root.crt", (made.party("nec").keys / "root.crt").read_bytes())
    later = utc_now() + datetime.timedelta(days=31)
    with pytest.raises(Exception, match="RNM-TLS-0003"):
        transport.Credentials.load(tmp_path, lambda: later)
