"""What people write before they propose: terms in JSON, the next charter, a newcomer's entry.

Decides how such a file is read (strictly: one value, whole numbers, nothing unknown) and how two
charters differ. Whether terms may be proposed is decided by the ledger's state. Pure.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NoReturn, TypeVar

from fedproto import jcs
from fedproto.errors import LocalFault
from fedproto.events.governance import TERMS_OF, Terms
from fedproto.events.models import EvaluationAttested
from fedproto.governance.charter import Action, Charter, Member, Role
from fedproto.ids import MemberId, sha256_hex
from fedproto.jcs import Json
from fedproto.schema import from_json, to_json

T = TypeVar("T")
_FORM = ("RNM-FORM-0001", "RNM-FORM-0002")
_REPORTED = ("artifact", "suite_sha256", "metrics")


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicKeys:
    """What a party hands to whoever drafts the charter: digests and witness keys, nothing secret."""

    id: MemberId
    key: str
    recovery: str
    witness: str
    validator: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One place where two values differ; `old` or `new` is missing (None) where nothing stood."""

    path: str
    old: Json
    new: Json

    def to_json(self) -> Json:
        """Return its form in an answer."""
        return {"path": self.path, "old": self.old, "new": self.new}


def unusable(where: str, why: str, mend: str) -> LocalFault:
    """Return the error of a file or an argument that cannot be used (exit 2)."""
    return LocalFault("RNM-CONF-0001", what=f"{where} was not used", why=why, mend=mend)


def read_json(data: bytes, where: str) -> Json:
    """Read JSON that a person wrote: any layout, but no float and no name twice (RNM-CONF-0001)."""

    def number(text: str) -> NoReturn:
        raise ValueError(f"{text[:20]} is not a whole number")

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({name for name, _ in items}) != len(items):
            raise ValueError("a name stands twice in one object")
        return dict(items)

    try:
        value: Json = json.loads(
            data.decode("utf-8"),
            parse_float=number,
            parse_constant=number,
            object_pairs_hook=pairs,
        )
        jcs.dumps(value)
    except LocalFault as fault:
        raise unusable(where, fault.why, "correct it in the file") from None
    except (ValueError, RecursionError) as error:
        why = f"it is not the JSON that is expected: {error}"
        raise unusable(where, why, "correct it in the file") from None
    return value


def read_terms(action: Action, data: bytes, where: str) -> Terms:
    """Read what is put to the vote; refuse any field that the action does not know (RNM-CONF-0001)."""
    expected = TERMS_OF.get(action)
    if expected is None:
        raise unusable(
            where,
            f"{action.value} is not proposed by itself",
            "members are admitted by charter.amend; work is stopped with `renmei govern stop`",
        )
    return _strict(expected, read_json(data, where), where)


def read_keys(data: bytes, where: str) -> PublicKeys:
    """Read what `renmei govern keys` printed, with or without its envelope."""
    value = read_json(data, where)
    if isinstance(value, dict) and isinstance(value.get("data"), dict):
        value = value["data"]
    return _strict(PublicKeys, value, where)


def read_member(data: bytes, where: str) -> Member:
    """Read a member's entry as `renmei govern draft member` printed it."""
    return _strict(Member, read_json(data, where), where)


def read_report(data: bytes, where: str) -> EvaluationAttested:
    """Read what `renmei model evaluate` wrote as the act that attests it (RNM-CONF-0001).

    The act names the report by the digest of its bytes, so what was read is what is attested.
    """
    value = read_json(data, where)
    if not isinstance(value, dict) or value.keys() != {"v", *_REPORTED} or value["v"] != 1:
        mend = "write it with `renmei model evaluate --out` again"
        raise unusable(where, f"it is no report of version 1 with {', '.join(_REPORTED)}", mend)
    body = {name: value[name] for name in _REPORTED}
    return _strict(EvaluationAttested, {**body, "report_sha256": sha256_hex(data)}, where)


def _strict(expected: type[T], value: Json, where: str) -> T:
    try:
        return from_json(expected, value)
    except LocalFault as fault:
        if fault.code not in _FORM:
            raise
        what = fault.what.removesuffix(" was refused")
        raise unusable(where, f"{what}: {fault.why}", "correct it in the file") from None


def member_entry(keys: PublicKeys, name: str, roles: tuple[Role, ...]) -> Member:
    """Return the entry of a charter that seats a party with its public keys (RNM-CONF-0001)."""
    witness = Role.WITNESS in roles
    entry: dict[str, Json] = {
        "id": keys.id,
        "name": name,
        "roles": [role.value for role in roles],
        "key": keys.key,
        "recovery": keys.recovery,
        "witness": keys.witness if witness else "",
        "validator": keys.validator if witness else "",
    }
    return _strict(Member, entry, f"the entry of {keys.id}")


def next_charter(
    charter: Charter, *, seats: Iterable[Member] = (), gone: Iterable[MemberId] = ()
) -> dict[str, Json]:
    """Return the charter in force as the next version, with seats added or replaced and taken out."""
    members = {member.id: member for member in charter.members}
    for name in gone:
        if members.pop(name, None) is None:
            raise unusable(name, "it is not a member of the charter in force", "name a member")
    members.update({member.id: member for member in seats})
    roster = tuple(members[name] for name in sorted(members))
    changes: dict[str, Any] = {"version": charter.version + 1, "prev_sha256": charter.digest}
    try:
        made = to_json(replace(charter, members=roster, **changes))
    except ValueError as error:
        raise unusable("the draft", str(error), "choose other members") from None
    assert isinstance(made, dict)  # noqa: S101  # a dataclass always becomes an object
    return made


def pretty(value: Json) -> str:
    """Return JSON for a person to read and edit."""
    return json.dumps(value, ensure_ascii=False, indent=2)


def line(value: Json) -> str:
    """Return JSON on one line, for a person."""
    return json.dumps(value, ensure_ascii=False)


def differences(old: Json, new: Json, path: str = "") -> tuple[Difference, ...]:
    """Return where two JSON values differ, in the order of their paths; members are matched by id."""
    before, after = _named(old), _named(new)
    if before is None or after is None:
        return () if old == new else (Difference(path=path, old=old, new=new),)
    found: list[Difference] = []
    for name in sorted(before.keys() | after.keys()):
        here = f"{path}.{name}" if path else name
        found += differences(before.get(name), after.get(name), here)
    return tuple(found)


def _named(value: Json) -> Mapping[str, Json] | None:
    """Return a value's parts by name, or nothing where it is compared as a whole."""
    if isinstance(value, dict):
        return value
    if isinstance(value, list) and value:
        items = [item for item in value if isinstance(item, dict) and "id" in item]
        if len(items) == len(value):
            return {str(item["id"]): item for item in items}
    return None
