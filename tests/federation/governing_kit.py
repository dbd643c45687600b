"""A consortium that governs itself over a real coordinator, spoken to by the `renmei` command alone."""

import contextlib
import io
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from federation_kit import Federation, NoFlower, free_port, until

from federation.coordinator import Coordinator
from fedproto import pki
from fedproto.durable import read_private, write_atomic
from fedproto.governance.charter import Action
from fedproto.party import Party, create, utc_now
from renmei import cli
from renmei.consortium import default_clauses, found

TRAINERS = ("honda", "nec", "softbank", "sony")


@dataclass(frozen=True)
class Answer:
    """What a command left behind."""

    exit: int
    out: str
    err: str

    @property
    def envelope(self) -> dict[str, Any]:
        return json.loads(self.out)

    @property
    def data(self) -> Any:
        return self.envelope["data"]


def clauses(**changes: dict[str, Any]) -> dict[str, Any]:
    """The default clauses without timelocks; `changes` by action, its dot an underscore."""
    made = {name: replace(c, timelock_s=0) for name, c in default_clauses(3, 86_400).items()}
    for name, fields in changes.items():
        action = Action[name].value
        made[action] = replace(made[action], **fields)
    return made


class Governed(Federation):
    """Four witnesses attend; nobody is moved but by the command."""

    def __init__(self, root: Path, **changes: dict[str, Any]) -> None:
        self.root = root
        self.consortium = found(
            root,
            consortium="test",
            coordinator=f"127.0.0.1:{free_port()}",
            gateway=f"127.0.0.1:{free_port()}",
            clauses=clauses(**changes),
        )
        self.members = {}
        self.flower = NoFlower()
        self.coordinator = Coordinator(self.dir("coordinator"), lambda *_: self.flower)
        self.coordinator.start()
        self.join()

    def dir(self, name: str) -> Path:
        return self.consortium.party(name)

    def close(self) -> None:
        super().close()
        self.coordinator.stop()

    @property
    def state(self):
        return self.coordinator.ledger.state

    def run(self, who: str, verb: str, *words: object, lang: str = "en") -> Answer:
        """Run a verb of `govern` as a party; return its answer, its exit status included."""
        # What a party sees is what witnesses cosigned: let them catch up with the last act.
        until(lambda: self.coordinator.ledger.checkpoint(self.state.size) is not None)
        head, *rest = verb.split()
        line = ["govern", head, *rest, *map(str, words), "--dir", str(self.dir(who))]
        return renmei(*line, "--lang", lang)

    def ok(self, who: str, verb: str, *words: object) -> Any:
        """Run a verb that must succeed; return its data."""
        answer = self.run(who, verb, *words, "--json")
        assert answer.exit == 0, answer.err
        return answer.data

    def fails(self, who: str, verb: str, *words: object) -> tuple[int, str]:
        """Run a verb that must fail; return its exit status and its code."""
        answer = self.run(who, verb, *words, "--json")
        assert answer.exit, answer.out
        return answer.exit, answer.data["code"]

    def file(self, name: str, value: object) -> Path:
        path = self.root / name
        path.write_text(value if isinstance(value, str) else json.dumps(value))
        return path

    def propose(self, action: str, terms: object, who: str = "secretariat", *words: object) -> str:
        """Put terms to the vote; return the proposal's leaf."""
        path = self.file("terms.json", terms)
        return self.ok(who, "propose", action, "--terms", path, *words)["proposal"]

    def vote(self, proposal: str, *members: str) -> dict[str, Any]:
        """Have members say yes, one after the other; return what the last was told."""
        return [self.ok(member, "vote", proposal, "yes") for member in members][-1]

    def amend(self, change: dict[str, Any] | None = None, *words: object) -> dict[str, Any]:
        """Adopt a charter drafted with `words`, changed at the top by `change`, by all four."""
        terms = self.ok("secretariat", "draft charter", *words)
        terms["charter"].update(change or {})
        return self.vote(self.propose("charter.amend", terms), *TRAINERS)

    def newcomer(self, name: str) -> Party:
        """Make a party on its own premises, with the pins of the others and a certificate."""
        profile = replace(self.party("honda").profile, id=name)
        party = create(self.dir(name), profile, extra_seeds=("witness.key", "validator.key"))
        write_atomic(party.keys / "tls.key", pki.new_key_pem(), mode=0o600)
        authority = self.root / "authority"
        certificate = pki.issue(
            read_private(authority / "root.key"),
            (authority / "root.crt").read_bytes(),
            pki.make_request(read_private(party.keys / "tls.key"), name),
            consortium="test",
            member=name,
            hosts=(),
            now=utc_now(),
        )
        write_atomic(party.keys / "tls.crt", certificate)
        write_atomic(party.keys / "root.crt", (authority / "root.crt").read_bytes())
        return party


def renmei(*words: str) -> Answer:
    """Run the command in this process, its streams caught."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = cli.main(words)
    return Answer(status, out.getvalue(), err.getvalue())
