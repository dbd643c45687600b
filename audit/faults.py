"""The ledger's named errors, so that each is worded once.

Decides only words and codes. Pure.
"""

from fedproto.errors import LocalFault

MEND_EVIDENCE = "keep this copy as evidence, and fetch the ledger again from another source"


def unverified(what: str, why: str, mend: str = MEND_EVIDENCE) -> LocalFault:
    """Return RNM-LEDGER-0001: a proof, a signature or a rule does not hold."""
    return LocalFault("RNM-LEDGER-0001", what=what, why=why, mend=mend)


def unwritable(why: str, mend: str) -> LocalFault:
    """Return RNM-LEDGER-0002: an append or an opening failed on our side."""
    return LocalFault("RNM-LEDGER-0002", what="the ledger was not written", why=why, mend=mend)


def changed_entry(index: int, why: str) -> LocalFault:
    """Return RNM-LEDGER-0003, naming the entry by its index."""
    return LocalFault(
        "RNM-LEDGER-0003", what=f"entry {index} was changed", why=why, mend=MEND_EVIDENCE
    )


def two_histories(why: str) -> LocalFault:
    """Return RNM-LEDGER-0004: the log key signed what cannot both be true."""
    return LocalFault(
        "RNM-LEDGER-0004",
        what="the ledger shows two histories",
        why=why,
        mend="stop; show both signed checkpoints to the other members and the auditors",
    )


def too_few_witnesses(why: str) -> LocalFault:
    """Return RNM-LEDGER-0006: a checkpoint lacks the charter's witness quorum."""
    return LocalFault(
        "RNM-LEDGER-0006",
        what="the checkpoint was not accepted",
        why=why,
        mend="wait until more members' nodes have witnessed it, then fetch it again",
    )
