"""The clerk: writes down what follows from the ledger, and moves the log's own clock.

Decides nothing: `federation.decisions` says what is due, the ledger judges it as anybody's act, and
every node counts again. A shell module.
"""

import os
import threading

from federation import decisions
from federation.register import Register
from fedproto.errors import FederationError
from fedproto.ids import RunId
from fedproto.statements import Body

# Between two looks a few acts may follow from each other (an anchor, then what it releases).
_MOST_ACTS = 64
_JUDGED = ("RNM-GOV-",)


class Clerk:
    """Reviews open proposals; called after each ballot and now and then."""

    def __init__(self, register: Register) -> None:
        self._register = register
        self._reviewing = threading.Lock()

    def review(self, now_ms: int) -> None:
        """Write the acts that are due, one after the other; each changes what follows."""
        with self._reviewing:
            for _ in range(_MOST_ACTS):
                if not self._write_next(now_ms):
                    return

    def _write_next(self, now_ms: int) -> bool:
        ledger = self._register.ledger
        state = ledger.state
        anchor = decisions.anchor_due(state, ledger.checkpoint(), now_ms // 1000)
        if anchor is not None and self._write(anchor):
            return True
        run = RunId(os.urandom(16).hex())
        return any(self._write(act) for act in decisions.due(state, run, now_ms))

    def _write(self, act: Body) -> bool:
        """Append an act; False if the ledger refuses it, for then it is not due after all."""
        try:
            self._register.act(act)
        except FederationError as error:
            if not error.code.startswith(_JUDGED):
                raise
            return False
        return True
