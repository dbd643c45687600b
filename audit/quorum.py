"""A quorum: which sets of witnesses are enough, as groups of witnesses and of groups.

Decides only by names; `audit.policy` decides which names have cosigned. Implements the groups and the
quorum of C2SP tlog-policy, in which each name counts in one place only. Pure.
"""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

# The name that stands for "no witness is asked for", and so names nothing else.
NONE = "none"
MAX_GROUPS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A group: it has witnessed once `threshold` of its members have."""

    name: str
    threshold: int
    members: tuple[str, ...]

    def __post_init__(self) -> None:
        if not 1 <= self.threshold <= len(self.members):
            raise ValueError(
                f"the quorum of group {self.name}, {self.threshold}, is not within its "
                f"{len(self.members)} members"
            )

    @property
    def text(self) -> str:
        """The group's line in tlog-policy form."""
        return f"group {self.name} {self.threshold} {' '.join(self.members)}\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Quorum:
    """A rule over witness names: `top` is a witness, a group, or `none`; groups stand before their use."""

    witnesses: tuple[str, ...]
    groups: tuple[Group, ...] = ()
    top: str
    # The least number of witnesses that can be enough.
    size: int = field(init=False)

    def __post_init__(self) -> None:
        if len(self.groups) > MAX_GROUPS:
            raise ValueError(f"a policy has at most {MAX_GROUPS} groups")
        needed = dict.fromkeys(self.witnesses, 1)
        if len(needed) != len(self.witnesses) or NONE in needed:
            raise ValueError("a name is given to two witnesses, or is `none`")
        listed: set[str] = set()
        for group in self.groups:
            self._check_group(group, needed, listed)
            costs = sorted(needed[member] for member in group.members)
            needed[group.name] = sum(costs[: group.threshold])
            listed |= set(group.members)
        if self.top != NONE and self.top not in needed:
            raise ValueError(f"the quorum {self.top} is not defined before it")
        object.__setattr__(self, "size", needed.get(self.top, 0))

    @staticmethod
    def _check_group(group: Group, known: dict[str, int], listed: set[str]) -> None:
        if group.name in known or group.name == NONE:
            raise ValueError(f"the name {group.name} is given twice, or is `none`")
        for member in group.members:
            if member not in known:
                raise ValueError(
                    f"group {group.name} names {member}, which is not defined before it"
                )
        # A name in two places would let one witness count twice.
        if len(set(group.members)) != len(group.members) or listed & set(group.members):
            raise ValueError(f"a member of group {group.name} is listed twice")

    @property
    def text(self) -> str:
        """The groups and the quorum in tlog-policy form."""
        return "".join(group.text for group in self.groups) + f"quorum {self.top}\n"

    def is_met(self, cosigned: AbstractSet[str]) -> bool:
        """Say whether the witnesses that cosigned are enough."""
        if self.top == NONE:
            return True
        met = set(cosigned) & set(self.witnesses)
        for group in self.groups:
            if sum(member in met for member in group.members) >= group.threshold:
                met.add(group.name)
        return self.top in met
