"""Clauses, limits and members of charters, for tests that need one: a charter decides every action."""

from dataclasses import replace
from typing import Any

from fedproto.governance.charter import Action, Clause, Limits, Member, Role, Rule
from fedproto.ids import MemberId, sha256_hex


def clause(propose: tuple[Role, ...], vote: tuple[Role, ...] = (), **changes: Any) -> Clause:
    """A clause of three yes votes, or a direct one where nobody votes."""
    made = Clause(
        propose=propose,
        vote=vote,
        rule=Rule.COUNT,
        yes=changes.pop("yes", 3) if vote else 0,
        veto=(),
        timelock_s=0,
        expires_s=86_400,
    )
    return replace(made, **changes)


def clauses(run: Clause | None = None) -> dict[str, Clause]:
    """Every action by one clause; base weights and stops without a vote."""
    run = run or clause((Role.ADMINISTRATOR,), (Role.TRAINER,))
    direct = {
        Action.APPROVE_BASE_MODEL: clause((Role.PRETRAINER,)),
        Action.STOP: clause((Role.ADMINISTRATOR, Role.TRAINER)),
    }
    return {action.value: direct.get(action, run) for action in Action}


def limits(**changes: int) -> Limits:
    """Bounds that a small plan keeps."""
    made = Limits(
        min_members=3,
        max_rounds=10,
        tolerated=1,
        evaluations=2,
        epsilon_micro_per_run=1_000_000,
        epsilon_micro_per_dataset=2_000_000,
    )
    return replace(made, **changes)


def member(name: str, *roles: Role, **changes: Any) -> Member:
    """A member with made-up keys: digests of its name, and a witness vkey if it is one."""
    held = roles or (Role.TRAINER, Role.WITNESS)
    made = {
        "key": sha256_hex(f"acting:{name}".encode()),
        "recovery": "",
        "witness": f"{name}+00000000+AAAA" if Role.WITNESS in held else "",
        "validator": "",
        **changes,
    }
    return Member(id=MemberId(name), name=name, roles=held, **made)
