"""The demo's stage: what every step shares, and how steps are shown."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from fedproto.command import Console
from fedproto.durable import make_private_directory
from fedproto.errors import LocalFault
from fedproto.process import Child
from renmei.demo.settings import Settings


@dataclass(slots=True, kw_only=True)
class Stage:
    """One run of the demo: where it lives, what it runs, what was found."""

    root: Path
    cache: Path
    settings: Settings
    seed: int
    console: Console
    children: list[Child] = field(default_factory=list)
    step: int = 0

    def title(self, en: str, ja: str) -> None:
        """Announce the next step."""
        self.step += 1
        self.console.note(f"\n[{self.step}/7] {self.console.say(en=en, ja=ja)}")

    def say(self, en: str, ja: str) -> None:
        """Show a line of a step."""
        self.console.note(f"      {self.console.say(en=en, ja=ja)}")

    def check(self) -> None:
        """Raise RNM-PROC-0002 if a process of the stage has ended."""
        for child in self.children:
            child.check()

    def close(self) -> None:
        """End every process, the members' first."""
        for child in reversed(self.children):
            child.stop()
        self.children.clear()


@contextmanager
def workplace(keep: str | None) -> Iterator[Path]:
    """Give a directory for the parties: `keep`, which must be new or empty, or a temporary one."""
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="renmei-demo-") as temporary:
            yield Path(temporary)
        return
    root = Path(keep).absolute()
    if root.exists() and any(root.iterdir()):
        raise LocalFault(
            "RNM-CONF-0001",
            what=f"the demo was not run in {root}",
            why="the directory is not empty",
            mend="name a new directory with --keep",
        )
    make_private_directory(root)
    yield root
