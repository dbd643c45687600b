"""Flower's real SuperLink, SuperExec and SuperNodes on loopback, between our two shells."""

import io
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from flower_kit import FOREIGN_PROJECT, MEMBERS, Lab, certify, wait_for
from flwr.proto.runtime_pb2 import AcquireTaskRequest

from federation import flower_adapter, superlink
from federation.gateway import MAX_BODY
from fedproto.durable import write_atomic
from fedproto.errors import FederationError
from fedproto.ids import MemberId
from member_node.flower_adapter import FlowerTasks
from member_node.log import Log
from member_node.ports import Answer


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    made = Lab(
        tmp_path_factory.mktemp("lab"),
        {
            "honda": lambda task: Answer(receipt=b"receipt of " + task.authorisation),
            "nec": lambda _: Answer(code="RNM-CONSENT-0001", why="no mandate covers this"),
        },
    )
    yield made
    made.close()


@pytest.mark.e2e
def test_authorisations_go_out_and_receipts_and_refusals_come_back(lab: Lab) -> None:
    started = lab.host.control.start_run("a" * 32)
    wait_for(lambda: lab.host.control.status(started).startswith("finished"))
    assert lab.host.control.status(started) == "finished:completed"
    assert set(lab.orders.runs) == {"a" * 32}
    for number in (1, 2):
        replies = lab.orders.replies[b"ctx %d" % number]
        assert replies["honda"].receipt == b"receipt of authorisation %d" % number
        assert replies["nec"].code == "RNM-CONSENT-0001"
        assert replies["nec"].receipt == b""
    seen = [t for t in lab.tasks["honda"] if t.authorisation.startswith(b"authorisation")]
    assert [t.authorisation for t in seen] == [b"authorisation 1", b"authorisation 2"]
    assert seen[0].traceparent.endswith("-01")


# Whoever imports this leaves a mark; the ServerApp's side may, a member never.
FOREIGN_CODE = """
import os, pathlib
pathlib.Path({mark!r}).joinpath(f"imported-by-{{os.getpid()}}").write_text("")
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
server, client = ServerApp(), ClientApp()

@client.train()
def train(message, context):
    pathlib.Path({mark!r}).joinpath("executed-at-a-member").write_text("")
    return Message(RecordDict(), reply_to=message)

@server.main()
def main(grid, context):
    import time
    pathlib.Path({mark!r}).joinpath(f"server-{{os.getpid()}}").write_text("")
    def content():
        return RecordDict({{"renmei": ConfigRecord({{"authorisation": b"foreign"}})}})
    nodes = list(grid.get_node_ids())
    ids = grid.push_messages(
        [Message(content(), dst_node_id=node, message_type="train") for node in nodes]
    )
    waiting = set(ids)
    while waiting:
        for reply in grid.pull_messages(list(waiting)):
            waiting.discard(reply.metadata.reply_to_message_id)
        time.sleep(0.1)
    pathlib.Path({mark!r}).joinpath("replied").write_text("")
"""


@pytest.mark.e2e
def test_an_app_bundle_with_other_code_gets_none_of_it_executed_at_a_member(
    lab: Lab, tmp_path: Path
) -> None:
    """A SuperLink in wrong hands sends its own bundle; members answer with their own code."""
    files = {
        "pyproject.toml": FOREIGN_PROJECT.encode(),
        "foreign.py": FOREIGN_CODE.format(mark=str(tmp_path)).encode(),
    }
    before = {member: len(lab.tasks[member]) for member in MEMBERS}
    lab.start_bundle(files)
    wait_for((tmp_path / "replied").exists)
    imported = {path.name.removeprefix("imported-by-") for path in tmp_path.glob("imported-by-*")}
    served = {path.name.removeprefix("server-") for path in tmp_path.glob("server-*")}
    assert imported == served, "only the ServerApp's process may have imported it"
    assert not (tmp_path / "executed-at-a-member").exists()
    for member in MEMBERS:
        # The message came and was answered by the installed code, which refuses what it says.
        assert [task.authorisation for task in lab.tasks[member]][before[member] :] == [b"foreign"]
        written = [path for path in (lab.root / member).rglob("*") if path.is_file()]
        assert not [path for path in written if b"executed-at-a-member" in path.read_bytes()]
        assert not [path for path in written if path.suffix == ".py"]


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/control/list-runs"),
        ("POST", "/v1/control/start-run"),
        ("POST", "/v1/runtime/acquire-task"),
        ("GET", "/v1/fleet/pull-messages"),
        ("GET", "/health"),
        ("GET", "/docs"),
        ("GET", "/openapi.json"),
        ("POST", "/v1/fleet/../control/list-runs"),
        ("POST", "/v1/fleet/%2e%2e/control/list-runs"),
        ("POST", "/v1/fleet/..%2fcontrol/list-runs"),
        ("POST", "//v1/control/list-runs"),
        ("POST", "/v1/fleet/get-run?x=1"),
    ],
)
def test_from_outside_only_the_fleet_api_can_be_reached(lab: Lab, method: str, path: str) -> None:
    assert lab.outside(path, method=method) in (404, 405)


@pytest.mark.e2e
def test_the_gateway_passes_the_fleet_api_which_asks_for_a_nodes_signature(lab: Lab) -> None:
    status = lab.outside("/v1/fleet/get-run", kind="application/protobuf")
    # Answered by the SuperLink, which misses the signature; the gateway itself would say 404.
    assert status in (400, 401, 403)


@pytest.mark.e2e
def test_a_body_over_the_limit_is_cut_off(lab: Lab) -> None:
    assert lab.outside("/v1/fleet/push-object", bytes(MAX_BODY + 1)) == 413


@pytest.mark.e2e
def test_a_client_that_speaks_tls_1_2_at_most_is_refused_by_the_gateway(lab: Lab) -> None:
    host, port = lab.gateway.split(":")
    context = ssl.create_default_context(cafile=str(lab.keys / "root.crt"))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with socket.create_connection((host, int(port))) as raw, pytest.raises(ssl.SSLError):
        context.wrap_socket(raw, server_hostname=host)


@pytest.mark.e2e
def test_a_task_is_claimed_with_the_shared_secret_only(lab: Lab, tmp_path: Path) -> None:
    wrong = tmp_path / "secret"
    write_atomic(wrong, b"0" * 64, mode=0o600)
    source = FlowerTasks(lab.runtimes["honda"], wrong, Log(member=MemberId("honda")))
    request = AcquireTaskRequest(supported_task_types=["flwr-clientapp"])

    def claimed() -> int:
        """Return how the SuperNode answered; 0 while it is starting, 200 if it gave a task."""
        try:
            source._acquirer.AcquireTask(request)
        except httpx.HTTPStatusError as error:
            return error.response.status_code
        except httpx.TransportError:
            return 0
        return 200

    wait_for(claimed)
    assert claimed() == 401


def test_a_node_key_of_another_kind_is_refused() -> None:
    ed25519 = Ed25519PrivateKey.generate().public_key()
    line = ed25519.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    for key in (line, b"", b"ssh-rsa garbage", b"\0" * 100):
        with pytest.raises(FederationError) as caught:
            flower_adapter.node_key(key)
        assert caught.value.code == "RNM-KEY-0003"


def test_the_app_bundle_holds_no_code_and_is_the_same_each_time() -> None:
    bundle = flower_adapter.app_bundle()
    assert bundle == flower_adapter.app_bundle()
    names = zipfile.ZipFile(io.BytesIO(bundle)).namelist()
    assert sorted(names) == [".info/CONTENT", "pyproject.toml"]


def test_a_port_in_use_is_named_with_a_way_to_find_who_uses_it() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(FederationError) as caught:
            superlink.require_free_port("127.0.0.1", port, "the gateway")
    assert caught.value.code == "RNM-NET-0001"
    assert str(port) in caught.value.mend


@pytest.mark.e2e
def test_after_kill_9_of_the_coordinator_no_flower_process_is_left(tmp_path: Path) -> None:
    keys = certify(tmp_path / "coordinator")
    worker = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from federation.superlink import FlowerHost\n"
        f"host = FlowerHost(Path({str(tmp_path / 'flower')!r}), keys=Path({str(keys)!r}),"
        f" dispatch_socket=Path({str(tmp_path / 'd.sock')!r}))\n"
        "host.start()\n"
        "print([c.process.pid for c in host._children], flush=True)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", worker], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        children = json.loads(parent.stdout.readline())
        assert len(children) == 2
        assert all(is_alive(pid) for pid in children)
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
    wait_for(lambda: not any(is_alive(pid) for pid in children), 15)


def is_alive(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False
