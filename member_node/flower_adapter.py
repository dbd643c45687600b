"""The agent in the place of `flower-superexec`: it claims the SuperNode's tasks and runs local code.

The stock SuperNode would run whatever bundle the SuperLink sends. With `--isolation process` it runs
nothing itself: it offers tasks to whoever holds the shared secret. This claims ClientApp tasks only,
never writes, opens or imports the bundle, and hands the message to the locally installed ClientApp.

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
from flwr.proto.runtime_pb2 import AcquireTaskRequest  # noqa: E402
from flwr.supercore.heartbeat import HeartbeatSender, make_task_heartbeat_fn_http  # noqa: E402
from flwr.supercore.interceptors import (  # noqa: E402
    RuntimeTokenHttpInterceptor,
    RuntimeVersionHttpInterceptor,
    SuperExecAuthHttpInterceptor,
)
from flwr.supercore.retry import make_simple_http_retry_invoker  # noqa: E402
from flwr.supercore.runtime import RuntimeHttpClient  # noqa: E402
from flwr.supernode.runtime.run_clientapp import (  # noqa: E402
    pull_task_input,
    push_message,
    push_task_output,
)

from fedproto.durable import read_private  # noqa: E402
from member_node import client_app  # noqa: E402
from member_node.ports import Answer, Task  # noqa: E402

# Agent, model and connector tasks would be code of others: they are never claimed.
TASK_TYPES = ("flwr-clientapp",)
_POLL_S = 0.2
_ACQUIRE = "/flwr.proto.Runtime/AcquireTask"


class FlowerTasks:
    """Claims tasks from the SuperNode's local Runtime API; a `TaskSource`."""

    def __init__(self, runtime_address: str, secret_file: Path) -> None:
        self._address = runtime_address
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
            # No retries of its own: they back off for many seconds, and `serve` asks again anyway.
            retry_invoker=None,
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
            retry_invoker=make_simple_http_retry_invoker(),
        )
        heartbeat = HeartbeatSender(make_task_heartbeat_fn_http(client))
        heartbeat.start()
        context = None
        status, details = SubStatus.FAILED, "the agent did not answer"
        try:
            # The bundle comes along in memory; it is dropped unread.
            message, context, _, _ = pull_task_input(client)
            push_message(client, app(message, context), context)
            status, details = SubStatus.COMPLETED, ""
        except httpx.HTTPError as error:
            details = type(error).__name__
        finally:
            push_task_output(client, context, status, details)
            heartbeat.stop()
            client.close()
