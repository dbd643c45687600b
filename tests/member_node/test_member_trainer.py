"""The trainer as a process of its own: what it serves, what it survives, how it ends."""

import contextlib
import signal
import socket
import struct
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from trainer_kit import PATIENCE_S, Process, member, refused
from training_kit import SECRET, TRAINING, noise, plan_for, publish

from fedproto.errors import FederationError
from fedproto.v1 import trainer_pb2 as pb
from member_node import adapter, personal, trainer
from member_node.studio import Studio
from member_node.trainer_client import TrainerClient
from member_node.trainer_wire import MAX_FRAME, receive, send


@pytest.fixture(scope="module")
def base_dir(tmp_path_factory):
    return publish(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def plan(base_dir):
    return plan_for(base_dir)


@pytest.fixture(scope="module")
def long_plan(base_dir):
    return plan_for(base_dir, training=replace(TRAINING, steps=100_000))


# A short directory: a unix socket's path has 107 bytes.
@pytest.fixture(scope="module")
def served(tmp_path_factory):
    process = Process(member(tmp_path_factory.mktemp("m") / "n"))
    yield process
    process.end()


@pytest.fixture
def prepared(served, plan, base_dir):
    return served.client.prepare(plan, base_dir)


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
