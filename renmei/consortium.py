"""Founding a consortium: root, parties with their own keys, and a charter that each of them signs.

Decides the order of the founding: each party makes its keys in its own directory; only signing
requests and signed acts are passed on. The root key stays in the authority's directory,
which belongs off line. A shell module.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from audit.ledger import Ledger
from audit.note import NoteSigner
from fedproto import pki, statements
from fedproto.durable import make_private_directory, read_private, write_atomic
from fedproto.errors import LocalFault
from fedproto.events.governance import CharterAdopted, MemberAdmitted, PublicKey
from fedproto.governance.charter import Action, Charter, Clause, Limits, Member, Role, Rule
from fedproto.ids import ZERO_DIGEST, Digest, MemberId
from fedproto.party import Party, Profile, create, seed_file, utc_now, validator_name, witness_name
from fedproto.statements import Head, Trace

LOG_KEY = "log.key"
WITNESS_KEY = "witness.key"
VALIDATOR_KEY = "validator.key"
NODES = "nodes"
_DAY_S = 86_400
NO_TRACE = Trace(trace_id="0" * 32, span_id="0" * 16)
EMPTY_ROOT = Digest(hashlib.sha256(b"").hexdigest())


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """A place at the table: who, and in which roles."""

    id: MemberId
    name: str
    roles: tuple[Role, ...]


_TRAINER = (Role.TRAINER, Role.WITNESS)
OPERATOR = MemberId("coordinator")
SEATS = (
    Seat(id=OPERATOR, name="Coordinator", roles=(Role.OPERATOR,)),
    Seat(id=MemberId("honda"), name="Honda", roles=_TRAINER),
    Seat(id=MemberId("meti"), name="METI", roles=(Role.AUDITOR,)),
    Seat(id=MemberId("nec"), name="NEC", roles=_TRAINER),
    Seat(id=MemberId("pfn"), name="Preferred Networks", roles=(Role.PRETRAINER,)),
    Seat(id=MemberId("secretariat"), name="Secretariat", roles=(Role.ADMINISTRATOR,)),
    Seat(id=MemberId("softbank"), name="SoftBank", roles=_TRAINER),
    Seat(id=MemberId("sony"), name="Sony", roles=_TRAINER),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Consortium:
    """A founded consortium: where each party lives."""

    root: Path
    charter: Charter
    genesis: bytes

    def party(self, member: str) -> Path:
        """Return the directory of a party."""
        return self.root / member


def found(
    root: Path,
    *,
    consortium: str,
    coordinator: str,
    gateway: str,
    seats: Sequence[Seat] = SEATS,
    vote_quorum: int = 3,
    witness_quorum: int = 3,
    mandate_s: int = 86_400,
    clauses: Mapping[str, Clause] | None = None,
) -> Consortium:
    """Found a consortium below `root`; refuse a directory that holds one already (RNM-CONF-0001).

    Args:
        root: where the parties' directories are made, one each (0700).
        consortium: its short name, part of every certificate and of the log's origin.
        coordinator: host:port of the coordinator's gRPC services.
        gateway: host:port of the gateway to Flower's Fleet API.
        seats: who takes part, in which roles.
        vote_quorum: yes votes that carry a run.
        witness_quorum: cosignatures that publish a checkpoint.
        mandate_s: how long a mandate holds, in seconds.
        clauses: what decides each action; by default that of a consortium of equals.
    """
    if (root / "authority").exists():
        raise LocalFault(
            "RNM-CONF-0001",
            what=f"no consortium was founded in {root}",
            why="one is there already, and its keys must not be replaced",
            mend="choose another directory, or move the old one away",
        )
    make_private_directory(root)
    blank = Profile(
        id=OPERATOR,
        consortium=consortium,
        origin=f"{consortium}.example/ledger",
        coordinator=coordinator,
        gateway=gateway,
        log_vkey="",
        genesis_sha256="",
    )
    parties = {seat.id: _enter(root, seat, blank) for seat in seats}
    _certify(root, consortium, coordinator, gateway, seats)
    operator = parties[OPERATOR]
    log_key = NoteSigner(blank.origin, seed_file(operator.keys / LOG_KEY, 32))
    charter = _charter(
        parties,
        seats,
        log_key.vkey,
        quorum=witness_quorum,
        clauses=default_clauses(vote_quorum, mandate_s) if clauses is None else clauses,
    )
    for name, party in parties.items():
        profile = replace(party.profile, log_vkey=log_key.vkey, genesis_sha256=charter.digest)
        parties[name] = party.save_profile(profile)
    genesis = _seat_all(operator.root / "ledger", charter, log_key, parties)
    return Consortium(root=root, charter=charter, genesis=genesis)


def _seat_all(
    directory: Path, charter: Charter, log_key: NoteSigner, parties: dict[MemberId, Party]
) -> bytes:
    """Start the ledger with the charter; each party then consents to it by taking its own seat."""
    operator = parties[OPERATOR]
    adopted = CharterAdopted(
        sha256=charter.digest,
        charter=charter,
        operator_key=PublicKey.of(operator.signing_key.verify_key),
        proposal="",
        votes=(),
    )
    event = operator.event(
        adopted, charter=charter.digest, head=Head(size=0, root=EMPTY_ROOT), trace=NO_TRACE
    )
    genesis = statements.seal_event(event, (operator.signing_key,))
    with Ledger.create(directory, log_key=log_key, genesis_leaf=genesis) as ledger:
        for name in sorted(parties.keys() - {OPERATOR}):
            party, head = parties[name], ledger.head
            body = MemberAdmitted(
                acting=PublicKey.of(party.signing_key.verify_key),
                recovery=PublicKey.of(party.recovery_key.verify_key),
            )
            event = party.event(
                body,
                charter=charter.digest,
                head=Head(size=head.size, root=head.root),
                trace=NO_TRACE,
            )
            leaf = statements.seal_event(event, (party.signing_key, party.recovery_key))
            ledger.append(leaf)
    return genesis


def _enter(root: Path, seat: Seat, blank: Profile) -> Party:
    """Make one party's directory and keys, as it would on its own premises."""
    seeds: tuple[str, ...] = ()
    if Role.OPERATOR in seat.roles:
        seeds = (LOG_KEY,)
    if Role.WITNESS in seat.roles:
        seeds = (WITNESS_KEY, VALIDATOR_KEY)
    party = create(root / seat.id, replace(blank, id=seat.id), extra_seeds=seeds)
    write_atomic(party.keys / "tls.key", pki.new_key_pem(), mode=0o600)
    if Role.TRAINER in seat.roles:
        _equip(party, root / OPERATOR / NODES)
    return party


def _equip(party: Party, nodes: Path) -> None:
    """Make a node's own files, and enrol its Flower key: only the public half leaves."""
    # An installation without the member's part can still read this module.
    from member_node import courier, setup

    setup.equip(party)
    public = courier.make_key(party.keys)
    make_private_directory(nodes)
    write_atomic(nodes / f"{party.profile.id}.pub", public)


def _certify(
    root: Path, consortium: str, coordinator: str, gateway: str, seats: Sequence[Seat]
) -> None:
    """Make the root and issue a certificate for each party's signing request."""
    authority = root / "authority"
    make_private_directory(authority)
    root_key = pki.new_key_pem()
    root_certificate = pki.make_root(root_key, consortium, utc_now())
    write_atomic(authority / "root.key", root_key, mode=0o600)
    write_atomic(authority / "root.crt", root_certificate)
    hosts = tuple(sorted({address.rsplit(":", 1)[0] for address in (coordinator, gateway)}))
    for seat in seats:
        keys = root / seat.id / "keys"
        request = pki.make_request(read_private(keys / "tls.key"), seat.id)
        certificate = pki.issue(
            root_key,
            root_certificate,
            request,
            consortium=consortium,
            member=seat.id,
            hosts=hosts if Role.OPERATOR in seat.roles else (),
            now=utc_now(),
        )
        write_atomic(keys / "tls.crt", certificate)
        write_atomic(keys / "root.crt", root_certificate)


def _charter(
    parties: dict[MemberId, Party],
    seats: Sequence[Seat],
    log_vkey: str,
    *,
    quorum: int,
    clauses: Mapping[str, Clause],
) -> Charter:
    profile = parties[OPERATOR].profile
    return Charter(
        version=1,
        prev_sha256=ZERO_DIGEST,
        consortium=profile.consortium,
        origin=profile.origin,
        log_vkey=log_vkey,
        witness_quorum=quorum,
        members=tuple(
            _member(parties[seat.id], seat) for seat in sorted(seats, key=lambda seat: seat.id)
        ),
        actions=dict(clauses),
        limits=Limits(
            min_members=3,
            max_rounds=100,
            tolerated=1,
            evaluations=2,
            epsilon_micro_per_run=4_000_000,
            epsilon_micro_per_dataset=8_000_000,
        ),
        retention={"artifact": 3_650, "ledger": 3_650, "report": 3_650},
        disclosure={"report": (Role.ADMINISTRATOR, Role.AUDITOR)},
    )


def _member(party: Party, seat: Seat) -> Member:
    witness = validator = ""
    if Role.WITNESS in seat.roles:
        consortium, keys = party.profile.consortium, party.keys
        name = witness_name(consortium, seat.id)
        witness = NoteSigner(name, seed_file(keys / WITNESS_KEY, 32), cosigner=True).vkey
        name = validator_name(consortium, seat.id)
        validator = NoteSigner(name, seed_file(keys / VALIDATOR_KEY, 32), cosigner=True).vkey
    founds = Role.OPERATOR in seat.roles
    return Member(
        id=seat.id,
        name=seat.name,
        roles=seat.roles,
        key=party.signing_key.verify_key.digest,
        recovery="" if founds else party.recovery_key.verify_key.digest,
        witness=witness,
        validator=validator,
    )


def default_clauses(quorum: int, mandate_s: int) -> dict[str, Clause]:
    """The default for a consortium of equals; every number is the charter's to change by vote."""
    trainers, anyone = (Role.TRAINER,), (Role.ADMINISTRATOR, Role.TRAINER)

    def vote(rule: Rule, yes: int, *, days: int, lock_days: int = 0, veto: bool = False) -> Clause:
        return Clause(
            propose=anyone,
            vote=trainers,
            rule=rule,
            yes=yes,
            veto=trainers if veto else (),
            timelock_s=lock_days * _DAY_S,
            expires_s=days * _DAY_S,
        )

    def alone(*roles: Role) -> Clause:
        return Clause(
            propose=roles,
            vote=(),
            rule=Rule.COUNT,
            yes=0,
            veto=(),
            timelock_s=0,
            expires_s=_DAY_S,
        )

    run = replace(vote(Rule.COUNT, quorum, days=1), propose=(Role.ADMINISTRATOR,))
    clauses = {
        Action.APPROVE_RUN: replace(run, expires_s=mandate_s),
        Action.APPROVE_BASE_MODEL: alone(Role.PRETRAINER),
        Action.AMEND_CHARTER: vote(Rule.COUNT, quorum, days=60, lock_days=7),
        Action.ADMIT_MEMBER: vote(Rule.ALL, 0, days=60, lock_days=7),
        Action.CHANGE_STANDING: vote(Rule.ALL_BUT_SUBJECT, 0, days=30),
        Action.REVOKE_KEY: vote(Rule.COUNT, quorum, days=30),
        Action.APPROVE_RELEASE: vote(Rule.COUNT, quorum, days=30, lock_days=2, veto=True),
        Action.REVOKE_RELEASE: vote(Rule.COUNT, min(2, quorum), days=30),
        Action.STOP: alone(Role.ADMINISTRATOR, Role.TRAINER),
        Action.RESUME: vote(Rule.COUNT, quorum, days=30),
    }
    return {action.value: clause for action, clause in clauses.items()}
