"""Who may call what: one rule for each gRPC method, enforced before any handler runs.

The caller is who its certificate names; its roles are those of the charter in force. A method without
a rule is refused, and a test fails until it has one. An auditor has no rule that writes.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import grpc

from federation.allowance import Allowance
from fedproto.errors import FederationError, LocalFault
from fedproto.governance.charter import Charter, Role
from fedproto.ids import MemberId
from fedproto.transport import caller, to_status

_EVERYBODY = tuple(Role)
_READERS = (Role.ADMINISTRATOR, Role.AUDITOR, Role.OPERATOR, Role.PRETRAINER, Role.TRAINER)

RULES: dict[str, tuple[Role, ...]] = {
    "/fedproto.v1.Ledger/GetCheckpoint": _EVERYBODY,
    "/fedproto.v1.Ledger/GetEntries": _EVERYBODY,
    "/fedproto.v1.Ledger/ProveInclusion": _EVERYBODY,
    "/fedproto.v1.Ledger/ProveConsistency": _EVERYBODY,
    "/fedproto.v1.Ledger/GetReceipt": _EVERYBODY,
    "/fedproto.v1.Ledger/Export": _EVERYBODY,
    "/fedproto.v1.Governance/ApproveBaseModel": (Role.PRETRAINER,),
    "/fedproto.v1.Governance/DeclareDataset": (Role.TRAINER,),
    "/fedproto.v1.Governance/Propose": (Role.ADMINISTRATOR,),
    "/fedproto.v1.Governance/Vote": (Role.TRAINER,),
    "/fedproto.v1.Governance/SignParticipation": (Role.TRAINER,),
    "/fedproto.v1.Governance/AuditSum": (Role.TRAINER,),
    # The charter decides by the act; who only reads has no way to write, whatever a charter says.
    "/fedproto.v1.Governance/Submit": tuple(
        role for role in Role if role not in {Role.AUDITOR, Role.OBSERVER}
    ),
    "/fedproto.v1.Witness/Attend": (Role.WITNESS,),
    "/fedproto.v1.Witness/Validate": (Role.WITNESS,),
    "/fedproto.v1.Rounds/Start": (Role.ADMINISTRATOR,),
    "/fedproto.v1.Rounds/Stop": (Role.ADMINISTRATOR,),
    "/fedproto.v1.Rounds/Watch": _READERS,
    "/fedproto.v1.Exchange/Session": (Role.TRAINER,),
    # Weights are for those who train and run; an auditor reads the ledger, not models.
    "/fedproto.v1.Artifacts/Get": (
        Role.ADMINISTRATOR,
        Role.OPERATOR,
        Role.PRETRAINER,
        Role.TRAINER,
    ),
    "/fedproto.v1.Artifacts/Put": (Role.ADMINISTRATOR, Role.PRETRAINER),
}


def authorise(method: str, member: MemberId | None, charter: Charter) -> MemberId:
    """Return the caller if a rule lets it call `method`; raise RNM-AUTH-0001 otherwise."""
    known = charter.member(member) if member is not None else None
    allowed = RULES.get(method, ())
    if member is None or known is None or not set(known.roles) & set(allowed):
        roles = ", ".join(role.value for role in allowed) or "nobody"
        raise LocalFault(
            "RNM-AUTH-0001",
            what=f"{method.rsplit('.', 1)[-1]} was refused",
            why=f"it is open to {roles}; {member or 'the caller'} is none of these",
            mend="call with the directory of a party that has the role, or have the charter amended",
        )
    return member


class RoleInterceptor(grpc.ServerInterceptor):  # type: ignore[type-arg]  # no such at run time
    """Wraps each handler so that it runs for callers with the right role only."""

    def __init__(self, consortium: str, charter: Callable[[], Charter]) -> None:
        self._consortium = consortium
        self._charter = charter
        self._allowance = Allowance()

    def intercept_service(self, continuation: Any, details: Any) -> Any:
        """Return the guarded handler of a method."""
        handler = continuation(details)
        if handler is None:
            return None
        unary_request, unary_response = (
            not handler.request_streaming,
            not handler.response_streaming,
        )
        name = {
            (True, True): "unary_unary",
            (True, False): "unary_stream",
            (False, True): "stream_unary",
            (False, False): "stream_stream",
        }[unary_request, unary_response]
        guard = self._unary if unary_response else self._stream
        return handler._replace(**{name: guard(getattr(handler, name), details.method)})

    def _admit(self, method: str, context: Any) -> AbstractContextManager[None]:
        """Check the caller's role; return what holds one of its calls while this one lasts."""
        member = authorise(method, caller(context, self._consortium), self._charter())
        context.renmei_caller = member
        return self._allowance.call(member)

    def _unary(self, behaviour: Any, method: str) -> Any:
        def guarded(request: Any, context: Any) -> Any:
            try:
                with self._admit(method, context):
                    return behaviour(request, context)
            except FederationError as error:
                fail(context, error)

        return guarded

    def _stream(self, behaviour: Any, method: str) -> Any:
        def guarded(request: Any, context: Any) -> Any:
            try:
                with self._admit(method, context):
                    yield from behaviour(request, context)
            except FederationError as error:
                fail(context, error)

        return guarded


def fail(context: Any, error: FederationError) -> None:
    """End a call with a named error; does not return."""
    status, text, metadata = to_status(error)
    context.set_trailing_metadata(metadata)
    context.abort(status, text)


def caller_of(context: Any) -> MemberId:
    """Return the member that the interceptor let in."""
    member: MemberId = context.renmei_caller
    return member
