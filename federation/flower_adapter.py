"""Every name of flwr that the coordinator uses beyond its public packages, in one place.

flwr's Control API client is private and moves between minor releases; a contract test fails when it
does. Talks to the SuperLink on loopback only, over TLS with the consortium's root.
"""

import hashlib
import ssl
from pathlib import Path

from fedproto.offline import seal_environment

seal_environment()

import httpx  # noqa: E402
from cryptography.hazmat.primitives import serialization  # noqa: E402
from cryptography.hazmat.primitives.asymmetric import ec  # noqa: E402
from flwr.cli.build import build_fab_from_files  # noqa: E402
from flwr.common.serde import fab_to_proto, user_config_to_proto  # noqa: E402
from flwr.proto.control_pb2 import (  # noqa: E402
    ListRunsRequest,
    RegisterNodeRequest,
    StartRunRequest,
    StopRunRequest,
)
from flwr.supercore.control import ControlHttpClient  # noqa: E402
from flwr.supercore.fab import Fab  # noqa: E402
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor  # noqa: E402

from federation.app_bundle import PYPROJECT, RUN_KEY  # noqa: E402
from fedproto.errors import LocalFault  # noqa: E402


def app_bundle() -> bytes:
    """Return the bytes of the app bundle; the same source gives the same bytes."""
    return build_fab_from_files({"pyproject.toml": PYPROJECT})[0]


def node_key(public_key_openssh: bytes) -> bytes:
    """Return a SuperNode's public key as Flower registers and lists it (PEM).

    Raises:
        LocalFault: RNM-KEY-0003 it is not an OpenSSH public key on a NIST curve.
    """
    try:
        key = serialization.load_ssh_public_key(public_key_openssh)
    except ValueError:
        key = None
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise LocalFault(
            "RNM-KEY-0003",
            what="a Flower node key was refused",
            why="it is not an OpenSSH public key on a NIST curve",
            mend="send keys/flower.pub of that member",
        )
    return key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def client_context(root: Path) -> ssl.SSLContext:
    """Return a TLS context that trusts the consortium's root alone."""
    return ssl.create_default_context(cafile=str(root))


class ControlClient:
    """The SuperLink's Control API: register nodes, start and stop runs."""

    def __init__(self, address: str, root: Path) -> None:
        self._client = ControlHttpClient(
            f"https://{address}",
            interceptors=[RuntimeVersionHttpInterceptor(component_name="flwr CLI")],
            verify=client_context(root),
        )

    def register_node(self, member: str, public_key: bytes) -> None:
        """Register a member's SuperNode by its P-384 public key (PEM); again is not an error."""
        try:
            self._client.RegisterNode(RegisterNodeRequest(public_key=public_key, name=member))
        except httpx.HTTPError as error:
            if "already in use" not in _words(error):
                raise _refused("register a node", error) from None

    def start_run(self, run: str) -> int:
        """Start a Flower run that serves one Renmei run; return its Flower id."""
        bundle = app_bundle()
        fab = Fab(hashlib.sha256(bundle).hexdigest(), bundle, {})
        request = StartRunRequest(
            fab=fab_to_proto(fab), override_config=user_config_to_proto({RUN_KEY: run})
        )
        try:
            return int(self._client.StartRun(request).run_id)
        except httpx.HTTPError as error:
            raise _refused("start a run", error) from None

    def stop_run(self, flower_run: int) -> None:
        """Stop a Flower run; one that has ended is not an error."""
        try:
            self._client.StopRun(StopRunRequest(run_id=flower_run))
        except httpx.HTTPStatusError as error:
            if error.response.status_code >= httpx.codes.INTERNAL_SERVER_ERROR:
                raise _refused("stop a run", error) from None
        except httpx.HTTPError as error:
            raise _refused("stop a run", error) from None

    def status(self, flower_run: int) -> str:
        """Return `pending`, `running`, or `finished` with a colon and how."""
        try:
            response = self._client.ListRuns(ListRunsRequest(run_id=flower_run))
        except httpx.HTTPError as error:
            raise _refused("say how a run stands", error) from None
        status = response.run_dict[flower_run].status
        return f"{status.status}:{status.sub_status}" if status.sub_status else str(status.status)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


def _words(error: httpx.HTTPError) -> str:
    """Return what the SuperLink answered, or why it did not."""
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.text or str(error.response.status_code)
    return f"{type(error).__name__}: {error}"


def _refused(what: str, error: httpx.HTTPError) -> LocalFault:
    return LocalFault(
        "RNM-PROC-0002",
        what=f"Flower's SuperLink did not {what}",
        why=_words(error)[:300],
        mend="read flower/superlink.log in the coordinator's directory",
    )
