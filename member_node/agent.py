"""The member's agent: one process that holds the member's keys and speaks for it, outbound only.

Decides how the parts are put together, in which order they start and how they end. Consent, ballots and
masking are decided elsewhere; the data is with the trainer, another process. A shell module.
"""

import json
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from audit.directory_lock import DirectoryLock
from audit.mirror import Mirror
from audit.note import NoteSigner, NoteVerifier
from audit.witness import Witness
from fedproto import telemetry
from fedproto.events.governance import Choice
from fedproto.ids import Digest
from fedproto.jcs import Json
from fedproto.party import (
    Party,
    now_ms,
    runtime_socket,
    seed_file,
    utc_now,
    validator_name,
    witness_name,
)
from fedproto.process import wait_for
from fedproto.transport import Credentials, dial
from member_node import control, setup
from member_node import policy as policies
from member_node.acts import ActClient
from member_node.artifact_client import ArtifactClient
from member_node.ballot import waiting
from member_node.control import ControlServer
from member_node.egress import EgressJournal
from member_node.follower import Follower
from member_node.gate import gated
from member_node.ledger_client import LedgerClient
from member_node.log import Log
from member_node.participation import Participation
from member_node.ports import TaskSource, Trainer
from member_node.preparation import Preparation
from member_node.training import BackgroundTraining
from member_node.tunnel import Tunnel
from member_node.validator import Validator
from member_node.witness_client import WitnessClient

WITNESS = "witness"
WITNESS_KEY = "witness.key"
VALIDATOR_KEY = "validator.key"
MODELS = "models"
_GRACE_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What the outer shells need of the node: its party, journal, tunnel and log."""

    party: Party
    journal: EgressJournal
    tunnel: Tunnel
    log: Log


class Shells(Protocol):
    """The processes around the agent: the member's trainer, and the courier that brings tasks."""

    def trainer(self, site: Site) -> Trainer:
        """Return the trainer, started if it does not listen yet."""

    def tasks(self, site: Site) -> TaskSource:
        """Return where tasks come from, the courier started."""

    def stop(self) -> None:
        """End what was started."""


class Agent:
    """A node, put together; `run` returns after `stop`."""

    def __init__(self, root: Path, shells: Shells) -> None:
        self._shells = shells
        self._parts = ExitStack()
        party = Party.load(root)
        self.log = Log(member=party.profile.id)
        # One agent a directory: two would answer one attempt twice.
        lock = DirectoryLock(root, code="RNM-PROC-0003")
        lock.take()
        self._parts.callback(lock.release)
        with ExitStack() as undo:
            undo.callback(self._parts.close)
            self._build(party)
            undo.pop_all()

    def _build(self, party: Party) -> None:
        root, profile = party.root, party.profile
        policies.load(root)
        self.marks = setup.open_marks(root)
        self.journal = EgressJournal(root, now_ms)
        self._parts.callback(self.journal.close)
        self._threads: list[threading.Thread] = []
        self._idle = threading.Event()
        self._idle.set()
        self._parts.callback(self._join)
        inner = dial(profile.coordinator, Credentials.load(party.keys, utc_now))
        self.channel = gated(inner, self.journal, profile.coordinator)
        self._parts.callback(self.channel.close)
        mirror = Mirror(
            root / setup.MIRROR,
            log_vkey=profile.log_vkey,
            origin=profile.origin,
            genesis_sha256=Digest(profile.genesis_sha256),
        )
        self.ledger = LedgerClient(self.channel, mirror)
        self.acts = ActClient(self.channel, party, self.ledger)
        self.artifacts = ArtifactClient(self.channel, root / MODELS)
        self.party = party
        self.witness = self._witness()
        self.validator = self._validator(mirror)

    def _validator(self, mirror: Mirror) -> Validator | None:
        """Return the validating half; a member without a validator key validates for itself alone."""
        path = self.party.keys / VALIDATOR_KEY
        if not path.exists():
            return None
        profile = self.party.profile
        signer = NoteSigner(
            validator_name(profile.consortium, profile.id), seed_file(path, 32), cosigner=True
        )
        return Validator(self.channel, signer, mirror, self.log)

    def _witness(self) -> WitnessClient | None:
        """Return the witness's half; a member without a witness key is no witness."""
        path = self.party.keys / WITNESS_KEY
        if not path.exists():
            return None
        profile = self.party.profile
        signer = NoteSigner(
            witness_name(profile.consortium, profile.id), seed_file(path, 32), cosigner=True
        )
        log_key = NoteVerifier.from_vkey(profile.log_vkey)
        witness = Witness(self.party.root / WITNESS, signer, {profile.origin: log_key})
        return WitnessClient(self.channel, witness, profile.origin, self.log)

    def run(self, ready: Callable[[Mapping[str, Json]], None]) -> None:
        """Start everything, say so, and answer tasks until `stop`."""
        tunnel = Tunnel(self.party.profile.gateway, self.journal, self.log)
        tunnel.start()
        self._parts.callback(tunnel.stop)
        site = Site(party=self.party, journal=self.journal, tunnel=tunnel, log=self.log)
        self._parts.callback(self._shells.stop)
        self._start_witness()
        trainer = self._shells.trainer(site)
        preparation = Preparation(
            party=self.party,
            ledger=self.ledger,
            acts=self.acts,
            artifacts=self.artifacts,
            trainer=trainer,
        )
        follower = self._start_follower(preparation, trainer)
        self._open_door(follower)
        training = BackgroundTraining(trainer, preparation.forget)
        self._parts.callback(training.close)
        participation = Participation(
            party=self.party,
            channel=self.channel,
            journal=self.journal,
            ledger=self.ledger,
            acts=self.acts,
            artifacts=self.artifacts,
            marks=self.marks,
            training=training,
            preparation=preparation,
            log=self.log,
        )
        tasks = self._shells.tasks(site)
        self._parts.callback(tasks.stop)
        ready({"ready": True, "member": self.party.profile.id})
        self.log.info("node.ready")
        self._idle.clear()
        try:
            tasks.serve(participation.answer)
        finally:
            self._idle.set()

    def stop(self) -> None:
        """End every part, the last one first; what is on the disk is complete at any time."""
        self.log.info("node.stopping")
        self._parts.close()

    def _start(self, work: Callable[[], None], name: str) -> None:
        thread = threading.Thread(target=work, name=name, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _join(self) -> None:
        """Wait for the threads that speak, so that none does after the journal is closed."""
        self._idle.wait(_GRACE_S)
        for thread in self._threads:
            thread.join(_GRACE_S)

    def _start_witness(self) -> None:
        if self.witness is not None:
            self._start(self.witness.run, "witness")
            self._parts.callback(self.witness.stop)
        if self.validator is not None:
            self._start(self.validator.run, "validator")
            self._parts.callback(self.validator.stop)

    def _start_follower(self, preparation: Preparation, trainer: Trainer) -> Follower:
        follower = Follower(
            party=self.party,
            ledger=self.ledger,
            acts=self.acts,
            artifacts=self.artifacts,
            preparation=preparation,
            trainer=trainer,
            log=self.log,
        )
        self._start(follower.run, "follower")
        self._parts.callback(follower.stop)
        return follower

    def _open_door(self, follower: Follower) -> None:
        def vote(request: Mapping[str, str]) -> Json:
            follower.cast(Digest(request["proposal"]), Choice(request["choice"]))
            return {"choice": request["choice"]}

        def status(_: Mapping[str, str]) -> Json:
            return self.status()

        path = runtime_socket(self.party.root, control.NAME)
        door = ControlServer(path, {"vote": vote, "status": status})
        door.start()
        self._parts.callback(door.stop)

    def status(self) -> Json:
        """Return what `renmei node status` shows: names and sizes that the node verified itself."""
        state, head = self.ledger.state, self.ledger.head
        me = self.party.profile.id
        proposals = waiting(state, me, now_ms()) if state.charters else ()
        return {
            "member": me,
            "coordinator": self.party.profile.coordinator,
            "ledger_size": head.size,
            "ledger_root": head.root,
            "auto_vote": policies.load(self.party.root).auto_vote,
            "waiting": [proposal.leaf for proposal in proposals],
            "runs": [
                {
                    "run": run,
                    "member": me in found.mandate.body.members,
                    "rounds": sum(attempt.aggregated for attempt in found.rounds),
                    "of": found.mandate.body.plan.training.rounds,
                }
                for run, found in state.runs.items()
            ],
        }


def run(root: Path, shells: Shells) -> None:
    """Run a node until SIGTERM or SIGINT; the ready line goes to stdout, the log to stderr."""
    telemetry.start("renmei-node")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    agent = Agent(root, shells)
    work: Future[None] = Future()

    def serve() -> None:
        try:
            agent.run(_print_ready)
            work.set_result(None)
        except BaseException as error:  # noqa: BLE001  # raised again below, by the main thread
            work.set_exception(error)
        finally:
            stop.set()

    # A daemon: a task that hangs in a call of others must not keep the node from ending.
    threading.Thread(target=serve, name="tasks", daemon=True).start()
    wait_for(stop)
    ended_by_itself = work.done()
    agent.stop()
    if ended_by_itself:
        work.result()


def _print_ready(line: Mapping[str, Json]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()
