"""The silo's own policy: what this member agrees to train on, whatever anybody else decided.

Decides whether a plan fits `policy.json`, a file that the member writes and nobody else can. Denies
by default: a name that is left out allows nothing. Trusts nothing that came over the network. A name
that is not known is an error, never ignored: a misspelt limit would be no limit. Pure, but for
`load` and `save`.
"""

import difflib
import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from fedproto import jcs
from fedproto.durable import read_private, write_atomic
from fedproto.errors import LocalFault
from fedproto.events.models import LegalBasis
from fedproto.governance.plan import RunPlan
from fedproto.ids import Digest, is_digest, sha256_hex
from fedproto.jcs import Json
from fedproto.schema import from_json, to_json

FILE = "policy.json"
ANY = "*"


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetTerms:
    """What the member declares of the dataset that it trains on; goes into the ledger."""

    legal_basis: LegalBasis
    purpose: str
    residency: str
    licence: str

    def __post_init__(self) -> None:
        for text in (self.purpose, self.residency, self.licence):
            if not text.isascii() or not 1 <= len(text) <= 64:
                raise ValueError("purpose, residency and licence are short ASCII codes")


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The content of `policy.json`. `base_models` are manifest digests; "*" allows every one.

    `auto_vote` lets the node vote by this file alone; without it, a person votes at the node.
    """

    purposes: tuple[str, ...] = ()
    base_models: tuple[str, ...] = ()
    max_rank: int = 0
    max_rounds: int = 0
    max_steps: int = 0
    min_members: int = 3
    min_tolerated: int = 1
    max_phase_timeout_s: int = 0
    auto_vote: bool = False
    dataset: DatasetTerms | None = None

    def __post_init__(self) -> None:
        limits = (self.max_rank, self.max_rounds, self.max_steps, self.max_phase_timeout_s)
        if min(limits) < 0:
            raise ValueError("a limit is negative")
        # A sum over two tells each of them the other's delta.
        if self.min_members < 3 or self.min_tolerated < 1:
            raise ValueError("min_members is at least 3, min_tolerated at least 1")
        for name in self.base_models:
            if name != ANY and not is_digest(name):
                raise ValueError(
                    f"base_models lists {name!r}: neither a SHA-256 digest nor {ANY!r}"
                )

    @property
    def digest(self) -> Digest:
        """SHA-256 of the canonical JSON; stands in the member's dataset.declared entry."""
        return sha256_hex(jcs.dumps(to_json(self)))


def refusals(policy: Policy, plan: RunPlan) -> tuple[str, ...]:
    """Return every reason why a plan does not fit the policy; none if it fits."""
    base = plan.base_manifest_sha256
    bounds = (
        ("rank", plan.lora.rank, policy.max_rank),
        ("number of rounds", plan.training.rounds, policy.max_rounds),
        ("number of steps", plan.training.steps, policy.max_steps),
        ("phase timeout in seconds", plan.phase_timeout_s, policy.max_phase_timeout_s),
    )
    floors = (
        ("smallest cohort", plan.min_members, policy.min_members),
        ("number of tolerated colluders", plan.aggregation.tolerated, policy.min_tolerated),
    )
    reasons = []
    if plan.purpose not in policy.purposes:
        reasons.append(f"purpose {plan.purpose} is not among the allowed ones")
    if ANY not in policy.base_models and base not in policy.base_models:
        reasons.append(f"base model {base[:16]} is not among the allowed ones")
    if policy.dataset is None:
        reasons.append("no dataset is declared in the policy")
    reasons += [
        f"the {name} is {value}, more than {limit}"
        for name, value, limit in bounds
        if value > limit
    ]
    reasons += [
        f"the {name} is {value}, less than {floor}"
        for name, value, floor in floors
        if value < floor
    ]
    return tuple(reasons)


def check_plan(policy: Policy, plan: RunPlan) -> None:
    """Refuse a plan outside the policy (RNM-CONSENT-0004), with every reason."""
    reasons = refusals(policy, plan)
    if reasons:
        raise LocalFault(
            "RNM-CONSENT-0004",
            what="this node takes no part",
            why="; ".join(reasons),
            mend="if your institution wants to take part, change policy.json at the node; "
            "nobody else can",
        )


def parse(text: bytes, where: str) -> Policy:
    """Read a policy as people write it: any spacing, but no unknown, doubled or inexact value."""
    try:
        value = json.loads(text.decode("utf-8"), object_pairs_hook=_object, parse_float=_number)
    except UnicodeDecodeError:
        raise _fault(where, "it is not UTF-8 text") from None
    except ValueError as error:
        raise _fault(where, f"it is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise _fault(where, "it is not a JSON object")
    complete = _complete(value, where)
    try:
        return from_json(Policy, jcs.loads(jcs.dumps(complete)), where)
    except LocalFault as fault:
        raise _fault(where, fault.why) from None


def load(root: Path) -> Policy:
    """Read the policy of a member's directory; without one, nothing is allowed."""
    path = root / FILE
    return parse(read_private(path), str(path)) if path.exists() else Policy()


def save(root: Path, policy: Policy) -> None:
    """Write `policy.json` (0600), indented for the people who own it."""
    text = json.dumps(to_json(policy), indent=2, ensure_ascii=False, sort_keys=True)
    write_atomic(root / FILE, text.encode() + b"\n", mode=0o600)


def _complete(value: dict[str, Any], where: str) -> Json:
    known = {field.name: field for field in fields(Policy)}
    _refuse_unknown(value, list(known), where)
    if isinstance(value.get("dataset"), dict):
        _refuse_unknown(value["dataset"], [f.name for f in fields(DatasetTerms)], where)
    return {name: value.get(name, to_json(field.default)) for name, field in known.items()}


def _refuse_unknown(value: dict[str, Any], known: list[str], where: str) -> None:
    for name in value:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(sorted(known))}"
            raise _fault(where, f"{name!r} is not known; {hint}")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a name stands twice in one object")
    return result


def _number(text: str) -> int:
    raise ValueError(f"{text[:20]} is not an integer")


def _fault(where: str, why: str) -> LocalFault:
    return LocalFault(
        "RNM-CONF-0001",
        what=f"{where} was not used",
        why=why,
        mend="correct the file; `renmei node policy` shows what is in force",
    )
