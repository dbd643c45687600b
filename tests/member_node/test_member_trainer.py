"""The trainer as a process of its own: what it serves, what it survives, and what it can never do."""

import contextlib
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from training_kit import SECRET, TRAINING, noise, plan_for, publish, write_corpus

from base_model.model import compiler_reason
from fedproto.errors import FederationError, LocalFault
from fedproto.layout import AdapterLayout
from fedproto.v1 import trainer_pb2 as pb
from member_node import adapter, personal, trainer
from member_node.studio import Studio
from member_node.trainer_client import TrainerClient
from member_node.trainer_wire import MAX_FRAME, BadFrame, receive, send

PATIENCE_S = 60


class Process:
    """A trainer of a member directory."""

    def __init__(self, root, command=("-m", "member_node.trainer"), options=("--no-compile",)):
        self.root = root
        self.path = root / "t.sock"
        self.log = root / "trainer.log"
        with self.log.open("ab") as sink:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, *command),
                    *("--dir", str(root), "--socket", str(self.path), *options),
                ],
                stdout=subprocess.PIPE,
                stderr=sink,
            )
        self.client = TrainerClient(self.path, patience_s=PATIENCE_S)

    def connect(self):
        deadline = time.monotonic() + PATIENCE_S
        while True:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            if connection.connect_ex(str(self.path)) == 0:
                connection.settimeout(PATIENCE_S)
                return connection
            connection.close()
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def end(self, number=signal.SIGTERM):
        self.client.close()
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(PATIENCE_S)
        finally:
            self.process.stdout.close()


@pytest.fixture(scope="module")
def base_dir(tmp_path_factory):
    return publish(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def plan(base_dir):
    return plan_for(base_dir)


@pytest.fixture(scope="module")
def long_plan(base_dir):
    return plan_for(base_dir, training=replace(TRAINING, steps=100_000))


def member(root):
    root.mkdir(mode=0o700, exist_ok=True)
    write_corpus(root / "data")
    (root / "keys").mkdir(mode=0o700)
    (root / "keys" / "acting.key").write_text("canary-key-91c2")
    return root


# A short directory: a unix socket's path has 107 bytes.
@pytest.fixture(scope="module")
def served(tmp_path_factory):
    process = Process(member(tmp_path_factory.mktemp("m") / "n"))
    yield process
    process.end()


@pytest.fixture
def prepared(served, plan, base_dir):
    return served.client.prepare(plan, base_dir)


def refused(code, act):
    with pytest.raises(FederationError) as caught:
        act()
    fault = caught.value
    assert fault.code == code, (fault.code, fault.why)
    assert SECRET not in fault.what + fault.why + fault.mend
    return fault


# what it serves


def test_a_plan_leads_to_a_layout_a_dataset_and_the_adapter_of_its_seed(
    served, prepared, plan, base_dir
):
    other = Studio(served.root, compiled=False).prepare(plan, base_dir)
    assert prepared.layout_sha256 == other.layout.digest
    assert prepared.parameters == other.layout.size
    assert prepared.dataset == other.dataset
    assert np.array_equal(prepared.initial, adapter.initial(other.layout, plan.training.seed))


def test_a_round_over_the_socket_is_the_round_in_memory(served, prepared, plan, base_dir):
    steps = []
    served.client._on_progress = lambda step, total, eta_s: steps.append((step, total))
    trained = served.client.train(1, prepared.initial)
    studio = Studio(served.root, compiled=False)
    start = studio.prepare(plan, base_dir).initial
    assert np.array_equal(trained.delta, studio.train(1, start, lambda _: None))
    assert trained.weight == 1.0
    assert steps == [(1, 3), (2, 3), (3, 3)]


def test_the_same_plan_again_is_answered_at_once(served, prepared, plan, base_dir):
    began = time.monotonic()
    again = served.client.prepare(plan, base_dir)
    assert time.monotonic() - began < 1
    assert again.dataset == prepared.dataset


# the private adapter


def test_no_reply_has_a_place_for_a_private_adapter():
    places = {
        (message.name, field.name)
        for message in pb.DESCRIPTOR.message_types_by_name.values()
        if message.name not in ("TrainerRequest", "PrepareRequest", "TrainRequest")
        for field in message.fields
        if field.type == field.TYPE_BYTES
    }
    assert places == {
        ("PersonaliseRequest", "adapter"),  # the shared one, on its way in
        ("Prepared", "layout"),
        ("Prepared", "initial_adapter"),
        ("LocalDelta", "delta"),
    }
    reply = {field.name for field in pb.TrainerReply.DESCRIPTOR.fields}
    assert reply == {"prepared", "progress", "delta", "personalised", "fault"}
    assert [f.name for f in pb.Personalised.DESCRIPTOR.fields] == ["path"]


def test_the_private_adapter_is_trained_and_none_of_it_comes_back(served, prepared, base_dir, plan):
    layout = Studio(served.root, compiled=False).prepare(plan, base_dir).layout
    shared = noise(layout)
    raw = b""
    with served.connect() as connection:
        served.client.close()
        send(connection, personalise_request(shared))
        while not raw or pb.TrainerReply.FromString(raw).WhichOneof("reply") == "progress":
            raw = receive(connection, pb.TrainerReply).SerializeToString()
    path = pb.TrainerReply.FromString(raw).personalised.path
    assert path == str(served.root / personal.PRIVATE_DIRECTORY)
    own = adapter.read(served.root / personal.PRIVATE_DIRECTORY, layout)
    assert own.any()
    assert len(raw) < len(path) + 16


def personalise_request(shared):
    raw = shared.astype("<f4").tobytes()
    return pb.TrainerRequest(personalise=pb.PersonaliseRequest(adapter=raw))


# what it refuses, and survives


@pytest.mark.parametrize(
    "raw",
    [
        struct.pack(">I", MAX_FRAME + 1),
        struct.pack(">I", 0xFFFFFFFF) + b"x" * 64,
        struct.pack(">I", 6) + b"\xff" * 6,
        struct.pack(">I", 100) + b"short",
        b"\0\0",
        b"GET / HTTP/1.1\r\n\r\n",
    ],
    ids=["too long", "far too long", "garbage", "cut short", "half a length", "http"],
)
def test_a_bad_frame_ends_its_connection_and_no_more(served, raw, plan, base_dir):
    served.client.close()
    with served.connect() as connection:
        connection.sendall(raw)
        connection.shutdown(socket.SHUT_WR)
        # What it did not read comes back as a reset.
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(64) == b""
    assert served.client.prepare(plan, base_dir).parameters > 0


@pytest.mark.parametrize(
    "request_",
    [
        pb.TrainerRequest(),
        pb.TrainerRequest(prepare=pb.PrepareRequest(plan=b"{}", base_dir="/")),
        pb.TrainerRequest(prepare=pb.PrepareRequest(plan=b"[" * 100_000, base_dir="/")),
        pb.TrainerRequest(prepare=pb.PrepareRequest(plan=b"\xff", base_dir="\0")),
        pb.TrainerRequest(train=pb.TrainRequest(round=1, adapter=b"\0" * 7)),
        pb.TrainerRequest(train=pb.TrainRequest(round=1, adapter=b"\0" * 8)),
        pb.TrainerRequest(train=pb.TrainRequest(round=2**32 - 1)),
        pb.TrainerRequest(personalise=pb.PersonaliseRequest(adapter=b"\0" * 12)),
    ],
)
def test_a_bad_request_is_a_fault_and_the_connection_goes_on(served, request_):
    served.client.close()
    with served.connect() as connection:
        for _ in range(2):
            send(connection, request_)
            reply = receive(connection, pb.TrainerReply)
            assert reply.WhichOneof("reply") == "fault"
            assert reply.fault.code.startswith("RNM-")
            assert reply.fault.what


def test_a_fault_is_raised_as_it_was_named(served, plan, base_dir):
    wrong = replace(plan, base_manifest_sha256="0" * 64)
    fault = refused("RNM-MODEL-0001", lambda: served.client.prepare(wrong, base_dir))
    assert "manifest" in fault.why
    refused("RNM-MODEL-0003", lambda: served.client.prepare(wrong, base_dir / "none"))
    assert fault.mend


def test_a_corpus_fault_names_the_line_and_shows_nothing(served, plan, base_dir):
    path = served.root / "data" / "train.jsonl"
    good = path.read_bytes()
    other = replace(plan, phase_timeout_s=61)
    try:
        for bad in (SECRET.encode(), b'{"group": "g", "text": "' + SECRET.encode() + b'\\ud800"}'):
            path.write_bytes(good + bad + b"\n")
            fault = refused("RNM-DATA-0002", lambda: served.client.prepare(other, base_dir))
            assert "line 121" in fault.why
    finally:
        path.write_bytes(good)
    assert SECRET not in served.log.read_text()


def test_what_python_says_of_a_failure_stays_in_the_process(tmp_path, capfd):
    server = trainer.Server(tmp_path, compiled=False)

    class Broken:
        def train(self, *_):
            raise UnicodeEncodeError("utf-8", SECRET, 0, 1, SECRET)

    server._studio = Broken()
    reply = server._reply(pb.TrainerRequest(train=pb.TrainRequest(round=1)), None)
    assert reply.fault.code == "RNM-BUG-0001"
    assert SECRET not in str(reply)
    assert SECRET not in "".join(capfd.readouterr())
    assert server._studio is None


def test_an_agent_that_hangs_up_ends_its_training_and_the_next_is_served(
    served, long_plan, plan, base_dir
):
    initial = served.client.prepare(long_plan, base_dir).initial
    started = threading.Event()
    served.client._on_progress = lambda *_: started.set()
    failed = []

    def train():
        try:
            served.client.train(1, initial)
        except FederationError as error:
            failed.append(error.code)

    thread = threading.Thread(target=train)
    thread.start()
    assert started.wait(PATIENCE_S)
    served.client.close()
    thread.join(PATIENCE_S)
    # Who waited is told, and did not wait for 100,000 steps.
    assert failed == ["RNM-PROC-0002"]
    served.client._on_progress = lambda *_: None
    assert served.client.prepare(plan, base_dir).parameters > 0


def test_a_second_agent_waits_its_turn(served, plan, base_dir):
    served.client.close()
    other = TrainerClient(served.path, patience_s=PATIENCE_S)
    with served.connect():
        done = []
        thread = threading.Thread(target=lambda: done.append(other.prepare(plan, base_dir)))
        thread.start()
        thread.join(0.5)
        assert not done
    thread.join(PATIENCE_S)
    other.close()
    assert done


def test_a_callback_that_fails_never_leaves_a_reply_behind(served, prepared):
    class Full(Exception):
        pass

    def fails(*_):
        raise Full

    served.client._on_progress = fails
    with pytest.raises(Full):
        served.client.train(1, prepared.initial)
    served.client._on_progress = lambda *_: None
    assert served.client.train(1, prepared.initial).delta.any()


# its socket


def test_the_socket_is_its_users_alone(served):
    served.client.close()
    served.connect().close()
    assert served.path.stat().st_mode & 0o777 == 0o600


def test_a_path_longer_than_a_socket_allows_is_refused(tmp_path):
    fault = refused("RNM-CONF-0001", lambda: trainer.listen(tmp_path / ("x" * 108)))
    assert "107" in fault.why


def test_a_directory_that_others_may_enter_is_refused(tmp_path):
    (tmp_path / "open").mkdir(mode=0o755)
    refused("RNM-CONF-0001", lambda: trainer.listen(tmp_path / "open" / "s"))


def test_a_second_trainer_at_one_socket_is_refused_and_the_first_serves_on(served):
    served.connect().close()
    refused("RNM-PROC-0003", lambda: trainer.listen(served.path))
    served.connect().close()


def test_a_socket_that_nobody_serves_is_taken_over(tmp_path):
    trainer.listen(tmp_path / "s").close()
    listener = trainer.listen(tmp_path / "s")
    TrainerClient(tmp_path / "s", patience_s=0)._connected().close()
    listener.close()


@pytest.mark.parametrize(
    ("directory", "path"), [(".", "/tmp/" + "x" * 108), ("/nonexistent/n", "s.sock")]
)
def test_a_refused_start_ends_with_the_exit_status_of_its_code(directory, path):
    done = subprocess.run(
        [sys.executable, "-m", "member_node.trainer", "--dir", directory, "--socket", path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "RNM-CONF-0001" in done.stderr
    assert "Traceback" not in done.stderr


def test_compiled_code_is_kept_where_no_other_user_writes(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    kept = trainer._compiled(tmp_path / "n")
    assert kept == tmp_path / "home" / "renmei" / "compiled"
    assert kept.stat().st_mode & 0o777 == 0o700
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert trainer._compiled(tmp_path / "n") == tmp_path / "n" / "compiled"
    assert (tmp_path / "n" / "compiled").stat().st_mode & 0o777 == 0o700


@pytest.mark.slow
@pytest.mark.skipif(bool(compiler_reason()), reason="there is no compiler")
def test_compiled_training_works_within_the_fence(tmp_path, plan, base_dir, monkeypatch):
    for name in ("TORCHINDUCTOR_CACHE_DIR", "TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    process = Process(member(tmp_path / "n"), options=())
    initial = process.client.prepare(plan, base_dir).initial
    first = process.client.train(1, initial).delta
    process.client.personalise(initial)
    assert np.array_equal(process.client.train(1, initial).delta, first)
    assert list((tmp_path / "home" / "renmei" / "compiled").rglob("*.so"))
    assert process.end() == 0


# its end


def test_a_trainer_told_to_end_in_mid_training_leaves_cleanly(tmp_path, long_plan, base_dir):
    process = Process(member(tmp_path / "n"))
    started = threading.Event()
    process.client._on_progress = lambda *_: started.set()
    initial = process.client.prepare(long_plan, base_dir).initial
    failed = []

    def train():
        try:
            process.client.train(1, initial)
        except FederationError as error:
            failed.append(error.code)

    thread = threading.Thread(target=train)
    thread.start()
    assert started.wait(PATIENCE_S)
    process.process.send_signal(signal.SIGTERM)
    assert process.process.wait(PATIENCE_S) == 0
    thread.join(PATIENCE_S)
    assert failed == ["RNM-PROC-0002"]
    assert not process.path.exists()
    assert "Traceback" not in process.log.read_text()
    process.end()


def test_a_killed_trainer_is_named_and_the_next_one_is_served(tmp_path, plan, base_dir):
    process = Process(member(tmp_path / "n"))
    process.client.prepare(plan, base_dir)
    process.end(signal.SIGKILL)
    dead = TrainerClient(process.path, patience_s=0)
    refused("RNM-PROC-0002", lambda: dead.prepare(plan, base_dir))
    # The socket of the killed one is still there: the next trainer takes it over.
    again = Process(process.root)
    assert process.client.prepare(plan, base_dir).parameters > 0
    process.client.close()
    again.end()


# what it can never do

WATCHED = """
import sys
from pathlib import Path
from member_node import trainer
# Every socket, name and file that this process asks for, in Python or below it.
opened = open(Path(sys.argv[2]) / "asked", "w", buffering=1)
def watch(event, arguments):
    if event == "socket.__new__":
        opened.write(f"socket {int(arguments[1])}\\n")
    elif event.startswith("socket.get") and event != "socket.gethostname":
        opened.write(f"{event}\\n")
    elif event == "open" and isinstance(arguments[0], str):
        opened.write(f"open {arguments[0]}\\n")
sys.addaudithook(watch)
trainer.main()
"""


def test_a_whole_run_opens_no_network_socket_and_reads_no_key(tmp_path, plan, base_dir):
    process = Process(member(tmp_path / "n"), command=("-c", WATCHED))
    found = process.client.prepare(plan, base_dir)
    process.client.train(1, found.initial)
    process.client.personalise(found.initial)
    inodes = network_sockets()
    held = {
        os.readlink(entry.path)
        for entry in os.scandir(f"/proc/{process.process.pid}/fd")
        if os.path.lexists(entry.path)
    }
    assert not {f"socket:[{inode}]" for inode in inodes} & held
    assert process.end() == 0
    asked = (process.root / "asked").read_text().splitlines()
    assert {line for line in asked if line.startswith("socket")} == {f"socket {socket.AF_UNIX:d}"}
    assert any("train.jsonl" in line for line in asked)
    assert not [line for line in asked if "/keys" in line]


def network_sockets():
    inodes = set()
    for table in ("tcp", "tcp6", "udp", "udp6", "raw", "raw6"):
        with open(f"/proc/self/net/{table}") as file:
            inodes |= {line.split()[9] for line in file.readlines()[1:]}
    return inodes


FENCED = """
import ctypes, os, socket, subprocess, sys
from pathlib import Path
from member_node.confinement import confine
missing = confine(Path(sys.argv[1]) / "keys")
assert not missing, missing
def refused(act):
    try:
        act()
    except PermissionError:
        return
    raise SystemExit(f"not refused: {act}")
for family in (socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK, socket.AF_PACKET):
    refused(lambda: socket.socket(family, socket.SOCK_RAW))
refused(lambda: socket.create_connection(("127.0.0.1", 9)))
refused(lambda: socket.getaddrinfo("example.invalid", 80))
refused(lambda: open(Path(sys.argv[1]) / "keys" / "acting.key"))
refused(lambda: os.open(f"{sys.argv[1]}/data/../keys/acting.key", os.O_RDONLY))
refused(lambda: open(Path(sys.argv[1]) / "link"))
# Below Python: the kernel refuses, in this process and in its children.
libc = ctypes.CDLL(None, use_errno=True)
for family in (socket.AF_INET, socket.AF_INET6):
    assert libc.socket(family, socket.SOCK_STREAM, 0) == -1 and ctypes.get_errno() == 13
assert libc.syscall(425, 8, 0) == -1 and ctypes.get_errno() == 13
assert libc.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0) >= 0
child = "import socket\\ntry: socket.socket()\\nexcept PermissionError: print('fenced')"
done = subprocess.run([sys.executable, "-c", child], capture_output=True, text=True)
assert done.stdout.strip() == "fenced", done
assert open(Path(sys.argv[1]) / "data" / "train.jsonl").readline()
print("held")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's fence is Linux's")
def test_the_fence_holds_in_python_below_it_and_in_children(tmp_path):
    root = member(tmp_path / "n")
    (root / "link").symlink_to(root / "keys" / "acting.key")
    done = subprocess.run(
        [sys.executable, "-c", FENCED, str(root)], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "held", done.stderr


# frames, without a process


def pair():
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)


def test_what_is_sent_is_received():
    one, other = pair()
    with one, other:
        sent = pb.TrainerReply(delta=pb.LocalDelta(delta=b"\1" * 3000, weight=0.5))
        send(one, sent)
        assert receive(other, pb.TrainerReply) == sent
        one.shutdown(socket.SHUT_WR)
        assert receive(other, pb.TrainerReply) is None


def test_an_announced_length_takes_no_memory():
    one, other = pair()
    with one, other:
        one.sendall(struct.pack(">I", MAX_FRAME) + b"x")
        one.shutdown(socket.SHUT_WR)
        with pytest.raises(BadFrame):
            receive(other, pb.TrainerReply)


def test_a_reply_of_another_kind_is_never_taken_for_a_delta(tmp_path):
    listener = trainer.listen(tmp_path / "s")
    client = TrainerClient(tmp_path / "s", patience_s=0)

    def serve():
        connection, _ = listener.accept()
        with connection:
            receive(connection, pb.TrainerRequest)
            layout = AdapterLayout.of({"a": np.zeros((1,), np.float32)}).to_bytes()
            send(connection, pb.TrainerReply(prepared=pb.Prepared(layout=layout)))

    thread = threading.Thread(target=serve)
    thread.start()
    with pytest.raises(LocalFault) as caught:
        client.train(1, np.zeros(1, np.float32))
    assert caught.value.code == "RNM-PROC-0002"
    thread.join()
    client.close()
    listener.close()
