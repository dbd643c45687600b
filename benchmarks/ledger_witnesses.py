"""From an append to a checkpoint that four witnesses cosigned: `python benchmarks/ledger_witnesses.py`.

A real coordinator's Witness service over mutual TLS 1.3 on loopback, and four members' nodes' own
witness clients (egress journal, consistency check, durable state before each answer) in processes of
their own, all on this machine's cores. A round is: one act appended, until the fourth cosignature is
verified and durable at the log. Beside it, in the same run and interleaved: what the same disk needs
for the fsyncs that such a round waits for one after the other.
"""

import argparse
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from audit.ledger import Ledger
from audit.note import NoteSigner, NoteVerifier
from audit.policy import policy_of
from audit.witness import Witness
from federation.register import Register
from federation.roles import admission
from federation.serving import Server
from federation.witnesses import WitnessService
from fedproto import transport  # sets gRPC's cipher suites before gRPC loads
from fedproto.events.oversight import IncidentReported
from fedproto.ids import sha256_hex
from fedproto.party import Party, now_ms, seed_file, utc_now, witness_name
from fedproto.process import free_ports
from fedproto.statements import Head, Trace, seal_event
from fedproto.v1 import witness_pb2_grpc
from member_node.egress import EgressJournal
from member_node.gate import gated
from member_node.log import Log
from member_node.witness_client import WitnessClient
from renmei.consortium import LOG_KEY, found

MEMBERS = ("honda", "nec", "softbank", "sony")
LIMIT_MS = 60.0
# The act with its checkpoint, each witness's journal line and state, and the cosignature.
_FSYNCS = 4


def attend(root: Path, member: str, address: str) -> None:
    """Be one member's witness until the process is ended."""
    party = Party.load(root / member)
    profile = party.profile
    signer = NoteSigner(
        witness_name(profile.consortium, profile.id),
        seed_file(party.keys / "witness.key", 32),
        cosigner=True,
    )
    logs = {profile.origin: NoteVerifier.from_vkey(profile.log_vkey)}
    credentials = transport.Credentials.load(party.keys, utc_now)
    channel = gated(
        transport.dial(address, credentials), EgressJournal(party.root, now_ms), address
    )
    witness = Witness(party.root / "witness", signer, logs)
    WitnessClient(channel, witness, profile.origin, Log(member=profile.id)).run()


@contextmanager
def witnessed(root: Path) -> Iterator[Register]:
    """Serve a coordinator's ledger with four members attending."""
    (port,) = free_ports(1)
    address = f"127.0.0.1:{port}"
    party = Party.load(root / "coordinator")
    log_key = NoteSigner(party.profile.origin, seed_file(party.keys / LOG_KEY, 32))
    with Ledger.open(party.root / "ledger", log_key=log_key) as ledger:
        register = Register(ledger, party)
        server = Server(admission(party.profile.consortium, lambda: ledger.state.charter))
        witness_pb2_grpc.add_WitnessServicer_to_server(WitnessService(register), server)
        credentials = transport.Credentials.load(party.keys, utc_now)
        server.add_secure_port(address, credentials.server())
        server.start()
        spawn = multiprocessing.get_context("spawn")
        nodes = [spawn.Process(target=attend, args=(root, name, address)) for name in MEMBERS]
        for node in nodes:
            node.start()
        try:
            yield register
        finally:
            for node in nodes:
                node.terminate()
                node.join()
            register.close()
            server.stop()


def append(register: Register, party: Party, number: int) -> int:
    """Append one small act; return the size that it made."""
    ledger = register.ledger
    head = ledger.head
    body = IncidentReported(
        category="drill", severity=1, report=sha256_hex(number.to_bytes(8, "big"))
    )
    event = party.event(
        body,
        charter=ledger.state.charter.digest,
        head=Head(size=head.size, root=head.root),
        trace=Trace(trace_id="0" * 32, span_id="0" * 16),
    )
    return register.admit(seal_event(event, (party.signing_key,))).index + 1


def await_all(register: Register, size: int) -> None:
    """Wait until every witness has cosigned `size`."""
    policy = policy_of(register.ledger.state.charter)

    def complete() -> bool:
        note = register.ledger.checkpoint(size)
        return note is not None and len(policy.open(note).cosignatures) >= len(MEMBERS)

    if not register.wait(complete, 60):
        raise SystemExit(f"size {size} was not cosigned by all within a minute")


def fsync_ms(directory: Path) -> float:
    """Return how long this disk takes to make one small append durable."""
    with (directory / "probe").open("ab") as file:
        file.write(b"x" * 512)
        file.flush()
        began = time.perf_counter()
        os.fsync(file.fileno())
        return (time.perf_counter() - began) * 1e3


def measure(count: int) -> dict[str, float]:
    """Return the latency of rounds, and what the disk alone takes, in ms."""
    rounds, probes = [], []
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory) / "consortium"
        found(root, consortium="bench", coordinator="127.0.0.1:1", gateway="127.0.0.1:2")
        author = Party.load(root / "honda")
        with witnessed(root) as register:
            await_all(register, append(register, author, 0))
            for number in range(1, count + 1):
                began = time.perf_counter()
                await_all(register, append(register, author, number))
                rounds.append((time.perf_counter() - began) * 1e3)
                probes.append(fsync_ms(Path(directory)))
    rounds.sort()
    p50, p99 = rounds[len(rounds) // 2], rounds[int(len(rounds) * 0.99)]
    disk = _FSYNCS * sorted(probes)[len(probes) // 2]
    return {
        "rounds": count,
        "p50_ms": round(p50, 2),
        "p99_ms": round(p99, 2),
        "fsyncs_ms": round(disk, 2),
        "limit_ms": LIMIT_MS,
    }


def main() -> None:
    """Print the latency as a table or as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    found_ = measure(args.rounds)
    if args.json:
        print(json.dumps(found_))
        return
    p50, p99, disk = found_["p50_ms"], found_["p99_ms"], found_["fsyncs_ms"]
    print(f"four-witness round  p50 {p50:.1f} ms  p99 {p99:.1f} ms  (limit p99 {LIMIT_MS:.0f} ms)")
    print(
        f"its {_FSYNCS} fsyncs alone take {disk:.1f} ms on this disk: p50 is {p50 / disk:.1f}x that"
    )


if __name__ == "__main__":
    main()
