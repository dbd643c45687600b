"""Who may call what: one rule for each gRPC method, enforced before any handler runs.

The caller is who its certificate names; its roles are those of the charter in force. A method without
a rule is refused, and a test fails until it has one. An auditor has no rule that writes.
"""

from collections.abc import Callable
from typing import Any

from federation.calls import Admit
from fedproto.errors import LocalFault
from fedproto.governance.charter import Charter, Role
from fedproto.ids import MemberId
from fedproto.transport import caller

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
    if member is None or known is None or not any(role in allowed for role in known.roles):
        roles = ", ".join(role.value for role in allowed) or "nobody"
        raise LocalFault(
            "RNM-AUTH-0001",
            what=f"{method.rsplit('.', 1)[-1]} was refused",
            why=f"it is open to {roles}; {member or 'the caller'} is none of these",
            mend="call with the directory of a party that has the role, or have the charter amended",
        )
    return member


def admission(consortium: str, charter: Callable[[], Charter]) -> Admit:
    """Return what lets callers in: by their certificate, and the charter in force at each call."""

    def admit(method: str, context: Any) -> MemberId:
        return authorise(method, caller(context, consortium), charter())

    return admit
