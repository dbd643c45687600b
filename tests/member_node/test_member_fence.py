"""The trainer's socket, its fence, and its frames."""

import os
import socket
import struct
import subprocess
import sys
import threading

import numpy as np
import pytest
from trainer_kit import Process, member, refused
from training_kit import plan_for, publish

from base_model.model import compiler_reason
from fedproto.errors import LocalFault
from fedproto.layout import AdapterLayout
from fedproto.v1 import trainer_pb2 as pb
from member_node import trainer
from member_node.trainer_client import TrainerClient
from member_node.trainer_wire import MAX_FRAME, BadFrame, receive, send


@pytest.fixture(scope="module")
def base_dir(tmp_path_factory):
    return publish(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def plan(base_dir):
    return plan_for(base_dir)


# A short directory: a unix socket's path has 107 bytes.
@pytest.fixture(scope="module")
def served(tmp_path_factory):
    process = Process(member(tmp_path_factory.mktemp("m") / "n"))
    yield process
    process.end()


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
