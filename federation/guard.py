"""The guard at the coordinator's start: nothing is signed until enough witnesses know this very log.

Decides with `audit.recovery`. An older log than its witnesses know stays read-only until its tail is
brought back from a member's mirror; another history halts it for good, with both signed checkpoints
written down as evidence. There is no switch to go on regardless. A shell module.
"""

import logging
import threading
from pathlib import Path

from audit import misbehaviour, recovery
from audit.ledger import Ledger
from audit.policy import policy_of
from audit.recovery import Judgement, Standing
from federation.register import Register
from fedproto.durable import make_private_directory, write_atomic
from fedproto.errors import LocalFault
from fedproto.ids import MemberId

EVIDENCE = "evidence"
_LOG = logging.getLogger(__name__)


class StartGuard:
    """Holds a ledger until its witnesses have spoken. Thread-safe."""

    def __init__(self, register: Register, directory: Path) -> None:
        """Hold the ledger now; evidence of a fork goes below `directory`."""
        self._register, self._directory = register, directory
        self._lock = threading.Lock()
        self._answers: dict[MemberId, bytes] = {}
        self._halted = False
        self._ledger.hold(_waiting(0, recovery.needed(policy_of(self._ledger.state.charter))))

    @property
    def _ledger(self) -> Ledger:
        return self._register.ledger

    def report(self, member: MemberId, note: bytes) -> None:
        """Take what a witness cosigned last (empty: nothing); release or refuse.

        Raises:
            LocalFault: RNM-LEDGER-0009 this log is older; RNM-LEDGER-0004 it is another;
                RNM-LEDGER-0001 the witness shows what is no cosigned checkpoint of this log.
        """
        with self._lock:
            if self._ledger.held is None or self._halted:
                return
            state = self._ledger.state
            judgement = recovery.judge(
                policy_of(state.charter),
                state.head,
                state.root_at,
                {**self._answers, member: note},
            )
            self._answers[member] = note
            self._act(judgement)

    def _act(self, judgement: Judgement) -> None:
        match judgement.standing:
            case Standing.WAITING:
                self._ledger.hold(_waiting(judgement.heard, judgement.needed))
            case Standing.CURRENT:
                self._ledger.release()
                self._register.ring()
            case Standing.BEHIND:
                self._halt(_behind(judgement, self._ledger.head.size))
            case Standing.FORKED:
                path = self._keep(judgement)
                self._halt(_forked(judgement, path))

    def _halt(self, fault: LocalFault) -> None:
        # Nothing that another witness says could make this log sign again in this process.
        self._halted = True
        self._ledger.hold(fault)
        self._register.ring()
        _LOG.error("%s: %s: %s; %s", fault.code, fault.what, fault.why, fault.mend)
        raise fault

    def _keep(self, judgement: Judgement) -> Path:
        """Write down that the log key signed two histories."""
        assert judgement.head is not None  # noqa: S101  # a fork is shown by a checkpoint
        state, shown = self._ledger.state, judgement.head
        evidence = misbehaviour.pack(
            state.charter.log_vkey,
            larger=self._ledger.signed_checkpoint(),
            smaller=judgement.note,
            root=state.root_at(shown.size),
            proof=self._ledger.prove_consistency(shown.size, state.size),
        )
        make_private_directory(self._directory / EVIDENCE)
        path = self._directory / EVIDENCE / f"fork-{shown.size}-{shown.root[:16]}.json"
        write_atomic(path, evidence, mode=0o600)
        return path


def _waiting(heard: int, needed: int) -> LocalFault:
    return LocalFault(
        "RNM-LEDGER-0008",
        what="the ledger takes no entries yet",
        why=f"{heard} of {needed} witnesses have said since the start what they know of it",
        mend="have more members' nodes running: they attend by themselves",
    )


def _behind(judgement: Judgement, size: int) -> LocalFault:
    assert judgement.head is not None  # noqa: S101  # a witness ahead shows its checkpoint
    return LocalFault(
        "RNM-LEDGER-0009",
        what="the ledger takes no entries",
        why=f"{judgement.member} has cosigned {judgement.head.size} entries, this database has {size}: "
        "it was restored from an older copy",
        mend="stop the coordinator and run `renmei coordinator recover --mirror DIR` with a member's "
        "mirror",
    )


def _forked(judgement: Judgement, path: Path) -> LocalFault:
    assert judgement.head is not None  # noqa: S101  # a fork is shown by a checkpoint
    return LocalFault(
        "RNM-LEDGER-0004",
        what="the ledger shows two histories, and takes no entries",
        why=f"{judgement.member} has cosigned another root for size {judgement.head.size}",
        mend=f"show {path} to the other members and the auditors: it proves it offline "
        "(`renmei audit evidence`). Going on needs a new log, by vote",
    )
