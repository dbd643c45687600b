"""The agent in the place of `flower-superexec`: it claims the SuperNode's tasks and runs local code.

The stock SuperNode would run whatever bundle the SuperLink sends. With `--isolation process` it runs
nothing itself: it offers tasks to whoever holds the shared secret. This claims ClientApp tasks only,
never writes, opens or imports the bundle, and hands the message to the locally installed ClientApp.
Whatever the SuperLink sends, and however the SuperNode ends, the agent goes on with the next task.

Every name of flwr beyond its public packages stands here; a contract test fails when one moves.
"""

import threading
from collections.abc import Callable
from pathlib import Path

from fedproto.offline import seal_environment

seal_environment()

import httpx  # noqa: E402
from flwr.clientapp import ClientApp  # noqa: E402
from flwr.common.constant import SubStatus  # noqa: E402
from flwr.proto.runtime_pb2 import AcquireTaskRequest, SendTaskHeartbeatRequest  # noqa: E402
from flwr.supercore.heartbeat import HeartbeatSender  # noqa: E402
from flwr.supercore.interceptors import (  # noqa: E402
    RuntimeTokenHttpInterceptor,
    RuntimeVersionHttpInterceptor,
    SuperExecAuthHttpInterceptor,
)
from flwr.supercore.runtime import RuntimeHttpClient  # noqa: E402
from flwr.supernode.runtime.run_clientapp import (  # noqa: E402
    pull_task_input,
    push_message,
    push_task_output,
)

from fedproto.durable import read_private  # noqa: E402
from fedproto.errors import LocalFault  # noqa: E402
from member_node import client_app  # noqa: E402
from member_node.log import Log  # noqa: E402
from member_node.ports import Answer, Task  # noqa: E402

# Flower's own retries and task heartbeat answer a 401 with SIGINT to their own process, which here is
# the agent; they also back off for many seconds. `serve` asks again anyway.
_NO_RETRIES = None
# Agent, model and connector tasks would be code of others: they are never claimed.
TASK_TYPES = ("flwr-clientapp",)
_POLL_S = 0.2
_ACQUIRE = "/flwr.proto.Runtime/AcquireTask"


class FlowerTasks:
    """Claims tasks from the SuperNode's local Runtime API; a `TaskSource`."""

    def __init__(self, runtime_address: str, secret_file: Path, log: Log) -> None:
        self._address = runtime_address
        self._log = log
        self._stop = threading.Event()
        self._acquirer = RuntimeHttpClient.from_server_address(
            runtime_address,
            insecure=True,  # loopback of this host; the shared secret authenticates the claim
            root_certificates=None,
            interceptors=[
                RuntimeVersionHttpInterceptor(component_name="SuperExec"),
                SuperExecAuthHttpInterceptor(
                    master_secret=read_private(secret_file), protected_methods={_ACQUIRE}
                ),
            ],
            retry_invoker=_NO_RETRIES,
        )

    def serve(self, answer: Callable[[Task], Answer]) -> None:
        """Answer tasks, one after the other, until `stop`."""
        app = client_app.make_app(answer)
        while not self._stop.is_set():
            try:
                claimed = self._acquirer.AcquireTask(
                    AcquireTaskRequest(supported_task_types=list(TASK_TYPES))
                )
            except httpx.HTTPError:
                # The SuperNode restarts; its supervisor says so if it stays away.
                self._stop.wait(_POLL_S)
                continue
            if claimed.HasField("task") and claimed.token:
                self._run(claimed.token, app)
            else:
                self._stop.wait(_POLL_S)

    def stop(self) -> None:
        """Stop claiming; a task in work is finished first."""
        self._stop.set()

    def _run(self, token: str, app: ClientApp) -> None:
        client = RuntimeHttpClient.from_server_address(
            self._address,
            insecure=True,
            root_certificates=None,
            interceptors=[
                RuntimeVersionHttpInterceptor(component_name="flwr-clientapp"),
                RuntimeTokenHttpInterceptor(token),
            ],
            retry_invoker=_NO_RETRIES,
        )
        heartbeat = HeartbeatSender(lambda: _beat(client))
        heartbeat.start()
        try:
            _answer(client, app)
        except httpx.HTTPError as error:
            # It forgets its tasks when it ends, so there is nobody left to tell.
            self._log.failed("task.lost", _lost(f"the SuperNode ended: {type(error).__name__}"))
        except _UnreadableError as error:
            self._log.failed("task.unreadable", _lost(str(error)))
        finally:
            heartbeat.stop()
            client.close()


class _UnreadableError(Exception):
    """What came with a task is not a Flower message."""


def _lost(why: str) -> LocalFault:
    return LocalFault(
        "RNM-PROC-0002",
        what="a task of the courier was not answered",
        why=why,
        mend="nothing: the courier is started again; if it goes on, read courier/supernode.log",
    )


def _answer(client: RuntimeHttpClient, app: ClientApp) -> None:
    try:
        # The bundle comes along in memory; it is dropped unread.
        message, context, _, _ = pull_task_input(client)
    except httpx.HTTPError:
        raise
    except Exception as error:
        # flwr takes apart what a hostile SuperLink may have made, and raises whatever comes up. Not
        # reported as failed: the SuperNode would wait for a reply for ever. Once the heartbeat has
        # lapsed it replies by itself, and goes on.
        raise _UnreadableError(type(error).__name__) from error
    push_message(client, client_app.respond(app, message, context), context)
    push_task_output(client, context, SubStatus.COMPLETED, "")


def _beat(client: RuntimeHttpClient) -> bool:
    """Tell the SuperNode that the task is in work; return False to try again soon."""
    try:
        client.SendTaskHeartbeat(SendTaskHeartbeatRequest())
    except httpx.HTTPStatusError as error:
        # A SuperNode that was started again does not know the task, and never will.
        return error.response.status_code < httpx.codes.INTERNAL_SERVER_ERROR
    except httpx.HTTPError:
        return False
    return True
