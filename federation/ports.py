"""What a run asks of Flower; the stock SuperLink and the tests' fakes give it."""

from typing import Protocol


class FlowerPort(Protocol):
    """Flower as the carrier of authorisations."""

    def start(self) -> None:
        """Start the SuperLink and what belongs to it."""

    def stop(self) -> None:
        """End it."""

    def check(self) -> None:
        """Raise RNM-PROC-0002 if it has ended."""

    def register_node(self, member: str, public_key_openssh: bytes) -> None:
        """Register a member's SuperNode; again is not an error."""

    def node_key(self, public_key_openssh: bytes) -> bytes:
        """Return the key as Flower lists it."""

    def start_run(self, run: str) -> int:
        """Start a Flower run for a Renmei run; return its id."""

    def stop_run(self, flower_run: int) -> None:
        """Stop a Flower run."""

    def status(self, flower_run: int) -> str:
        """Return pending, running or finished with how."""
