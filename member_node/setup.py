"""The node's own files in a member's directory: policy, marks, courier key, places for data and models.

Decides what a fresh node starts with: a policy that allows nothing. Never overwrites what is there.
A shell module.
"""

from pathlib import Path

from fedproto.durable import make_private_directory
from fedproto.party import Party
from member_node import egress, marks
from member_node import policy as policies
from member_node.courier import PUBLIC_KEY, make_key
from member_node.marks import MarkBook
from member_node.policy import Policy

MIRROR = "mirror"
DIRECTORIES = ("adapters", "data", "models")


def equip(party: Party) -> tuple[str, ...]:
    """Make what is missing; return its names."""
    made = []
    for name in DIRECTORIES:
        if not (party.root / name).exists():
            make_private_directory(party.root / name)
            made.append(f"{name}/")
    if not (party.keys / PUBLIC_KEY).exists():
        # Its public half goes to the coordinator at enrolment: the courier's ticket, no more.
        make_key(party.keys)
        made.append(f"keys/{PUBLIC_KEY}")
    if not (party.root / policies.FILE).exists():
        policies.save(party.root, Policy())
        made.append(policies.FILE)
    if not (party.root / marks.FILE).exists():
        open_marks(party.root)
        made.append(marks.FILE)
    return tuple(made)


def open_marks(root: Path) -> MarkBook:
    """Open the book of marks; only a node that never read a ledger nor sent anything begins one."""
    if (root / MIRROR).exists() or (root / egress.FILE).exists():
        return MarkBook.open(root)
    return MarkBook.create(root)
