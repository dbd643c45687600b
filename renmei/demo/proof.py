"""Steps 6 and 7 of the demo: what left each site, and what an auditor can verify without us."""

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from audit import bundle
from audit.bundle import CHECKPOINT, Pinned
from audit.note import parse
from audit.validation import validations, validators
from federation.client import CoordinatorClient
from fedproto.errors import LocalFault
from fedproto.governance.charter import Charter
from fedproto.ids import Digest
from member_node import egress
from renmei.demo.settings import MEMBERS
from renmei.demo.stage import Stage

# A node looks for a newer checkpoint every second or two.
_REPLAYS_S = 15.0
# Verification must need none of these: the process below cannot import them.
BLOCKED = ("torch", "flwr", "grpc", "numpy", "sqlmodel", "transformers")
_RUNNER = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ImportError(name + " is blocked here")
sys.meta_path.insert(0, Block())
from renmei.cli import main
sys.exit(main(sys.argv[1:]))
"""


def show_egress(stage: Stage) -> dict[str, list[dict[str, object]]]:
    """Show what each member's own journal says has left it; return it by member."""
    found: dict[str, list[dict[str, object]]] = {}
    chunks: list[egress.Departure] = []
    for member in MEMBERS:
        departures = egress.read(stage.root / member)
        totals = egress.totals(departures)
        found[member] = [
            {"kind": total.kind, "messages": total.messages, "bytes": total.bytes}
            for total in totals
        ]
        size = sum(total.bytes for total in totals)
        count = sum(total.messages for total in totals)
        stage.say(
            f"{member}: {count} messages, {size:,} bytes, journal chain verified",
            f"{member}: {count} 件、{size:,} バイト、ジャーナルの連鎖を検証済み",
        )
        stage.console.note(
            "        " + "  ".join(f"{t.kind} {t.messages}×/{t.bytes:,} B" for t in totals)
        )
        chunks += [d for d in departures if d.kind == "exchange.masked_chunk"]
    last = chunks[-1]
    stage.say(
        f"for example {last.kind} {last.bytes:,} bytes sha256 {last.sha256[:16]}… to {last.to}",
        f"例: {last.kind} {last.bytes:,} バイト sha256 {last.sha256[:16]}… 宛先 {last.to}",
    )
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """What offline verification found, and what it found in the changed copy."""

    entries: int
    cosignatures: int
    validations: int
    changed_entry: int
    tampered_exit: int
    tampered_words: str


def verify_offline(stage: Stage) -> Verified:
    """Export a bundle, verify it in a process of its own, change one byte and verify again."""
    auditor = stage.root / "meti"
    path = auditor / "bundle.zip"
    with CoordinatorClient(auditor) as client:
        _await_replays(stage.root / "coordinator" / "ledger" / "public", client.sync().charter)
        client.export(path)
        profile = client.party.profile
    pins = ["--log-key", profile.log_vkey, "--genesis", profile.genesis_sha256]
    first = _verify(path, pins)
    if first.returncode != 0:
        raise LocalFault(
            "RNM-LEDGER-0001",
            what="the demo's own ledger did not verify",
            why=first.stderr[-500:],
            mend="keep the directory (--keep DIR) and report it",
        )
    found = bundle.verify(
        path,
        pinned=Pinned(log_vkey=profile.log_vkey, genesis_sha256=Digest(profile.genesis_sha256)),
    )
    entries, signatures = len(found.entries), len(found.cosignatures)
    replays = len(found.validations)
    stage.say(
        f"verified {entries} entries, {signatures} cosignatures and {replays} members' own "
        "replays, exit 0, without " + ", ".join(BLOCKED[:3]),
        f"{entries} 項目、{signatures} 件の連署、{replays} 社による再検証を確認(終了コード 0)。"
        + "、".join(BLOCKED[:3])
        + " は使いません",
    )
    index = entries // 2
    tampered = auditor / "bundle-tampered.zip"
    tampered.write_bytes(_flip(path.read_bytes(), found.entries[index]))
    second = _verify(tampered, pins)
    stage.say(
        f"one byte of entry {index} changed: exit {second.returncode}",
        f"項目 {index} の 1 バイトを改変: 終了コード {second.returncode}",
    )
    stage.console.note("        " + second.stderr.strip().replace("\n", "\n        "))
    return Verified(
        entries=entries,
        cosignatures=signatures,
        validations=replays,
        changed_entry=index,
        tampered_exit=second.returncode,
        tampered_words=second.stderr,
    )


def _await_replays(public: Path, charter: Charter) -> None:
    """Give the members' nodes a moment to replay the newest entries and say so."""
    deadline = time.monotonic() + _REPLAYS_S
    while time.monotonic() < deadline:
        found = validations(charter, parse((public / CHECKPOINT).read_bytes()))
        if len(found) >= len(validators(charter)):
            return
        time.sleep(0.2)


def _flip(data: bytes, entry: bytes) -> bytes:
    """Change one bit in the middle of an entry, where it stands in the bundle."""
    place = data.index(entry) + len(entry) // 2
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def _verify(path: Path, pins: list[str]) -> "subprocess.CompletedProcess[str]":
    command = ["audit", "verify", str(path), *pins, "--lang", "en"]
    return subprocess.run(  # noqa: S603  # our own interpreter and modules
        [sys.executable, "-c", _RUNNER.format(blocked=set(BLOCKED)), *command],
        capture_output=True,
        text=True,
        check=False,
    )
