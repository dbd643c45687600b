"""Validating witnesses: who replayed the log under its charter and found every entry valid.

A witness `<member>/w1` says that a checkpoint extends the last one; a validator `<member>/v1` says more:
that its own node applied every rule to every new entry. Decides which validations stand under a
checkpoint. Counts public keys, never names, and never takes one for a cosignature of the quorum. Pure.
"""

from audit.note import Note, NoteVerifier
from audit.policy import Cosignature, Witness, policy_of
from fedproto.governance.charter import Charter


def validators(charter: Charter) -> tuple[Witness, ...]:
    """Return the validating witnesses of a charter.

    Raises:
        ValueError: a key is not a cosignature key, or serves two parties or two uses.
    """
    listed = tuple(
        Witness(member.id, NoteVerifier.from_vkey(member.validator))
        for member in charter.members
        if member.validator
    )
    policy = policy_of(charter)
    others = {policy.log.public, *(witness.verifier.public for witness in policy.witnesses)}
    own = {validator.verifier.public for validator in listed}
    if not all(validator.verifier.cosigns for validator in listed):
        raise ValueError("a validator key is not a cosignature key")
    # One key for both uses would turn a plain cosignature into a validation that nobody made.
    if len(own) != len(listed) or own & others:
        raise ValueError("a validator key serves two parties or two uses")
    return listed


def validations(charter: Charter, note: Note) -> tuple[Cosignature, ...]:
    """Verify every line of a validator; raise RNM-LEDGER-0001 if one does not verify."""
    found = []
    for validator in validators(charter):
        line = note.find(validator.verifier)
        if line is not None:
            timestamp = validator.verifier.verify(line, note.text)
            found.append(Cosignature(validator.member, timestamp, line))
    return tuple(found)
