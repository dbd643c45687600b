import socket
import threading

import pytest

from fedproto.errors import FederationError, LocalFault
from member_node.control import ControlServer, ask


@pytest.fixture
def door(tmp_path):
    path = tmp_path / "agent.sock"

    def vote(request):
        if request["choice"] == "maybe":
            raise LocalFault("RNM-GOV-0001", what="no vote", why="maybe is none", mend="say yes")
        return {"choice": request["choice"]}

    server = ControlServer(path, {"vote": vote})
    server.start()
    yield path
    server.stop()


def test_a_command_reaches_the_agent_and_its_answer_comes_back(door):
    assert ask(door, "vote", choice="yes") == {"choice": "yes"}


def test_the_agents_error_keeps_its_name(door):
    with pytest.raises(FederationError, match="maybe is none") as refusal:
        ask(door, "vote", choice="maybe")
    assert refusal.value.code == "RNM-GOV-0001"


@pytest.mark.parametrize(
    ("act", "fields"), [("unknown", {}), ("vote", {}), ("status", {"choice": "yes"})]
)
def test_a_command_that_the_agent_does_not_know_is_refused(door, act, fields):
    with pytest.raises(FederationError) as refusal:
        ask(door, act, **fields)
    assert refusal.value.code == "RNM-CONF-0001"


@pytest.mark.parametrize("line", [b"\n", b"nonsense\n", b"[]\n", b"{}\n", b"x" * 100_000 + b"\n"])
def test_nonsense_gets_an_answer_and_the_door_stays_open(door, line):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(door))
        connection.sendall(line)
        assert connection.recv(4096)
    assert ask(door, "vote", choice="yes") == {"choice": "yes"}


def test_a_node_that_does_not_run_is_named(tmp_path):
    with pytest.raises(FederationError) as refusal:
        ask(tmp_path / "agent.sock", "status")
    assert refusal.value.code == "RNM-PROC-0001"


def test_the_door_is_its_owners_alone_and_goes_with_the_agent(tmp_path):
    path = tmp_path / "agent.sock"
    server = ControlServer(path, {})
    assert path.stat().st_mode & 0o777 == 0o600
    server.start()
    server.stop()
    assert not path.exists()


def test_a_socket_left_by_a_killed_agent_is_replaced(tmp_path):
    path = tmp_path / "agent.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    server = ControlServer(path, {"status": lambda _: {"alive": True}})
    server.start()
    answers = []
    asking = threading.Thread(target=lambda: answers.append(ask(path, "status")))
    asking.start()
    asking.join(10)
    server.stop()
    assert answers == [{"alive": True}]
