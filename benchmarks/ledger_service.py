"""Verified, durable appends over gRPC: `python benchmarks/ledger_service.py`.

A real coordinator's services (mutual TLS 1.3, roles, admission under the charter, SQLite with full
sync) in this process and the one that verifies for it; another one sends acts that were signed before,
a number of them in flight at a time. All share the machine's cores, so that the last costs little
(`grpc_load`). Every act has to be acknowledged with an index of its own. Beside it in the same run,
interleaved: the same calls to a handler that does nothing (the limit that gRPC for Python sets here),
and what one core verifies.
"""

import argparse
import json
import multiprocessing
import os
import tempfile
import time
from dataclasses import asdict, dataclass
from multiprocessing.queues import Queue
from pathlib import Path
from statistics import median
from typing import TypeAlias

import grpc_load

from audit.ledger import Ledger
from audit.note import NoteSigner
from federation.clerk import Clerk
from federation.register import Register
from federation.roles import admission
from federation.services import GovernanceService
from federation.serving import Server
from fedproto import transport  # sets gRPC's cipher suites before gRPC loads
from fedproto.events.oversight import IncidentReported
from fedproto.identity import SigningKey
from fedproto.ids import sha256_hex
from fedproto.party import Party, seed_file, utc_now
from fedproto.process import free_ports, settle
from fedproto.statements import Head, Trace, seal_event
from fedproto.v1 import governance_pb2_grpc
from fedproto.v1.governance_pb2 import ActRequest, ActResponse
from renmei.consortium import LOG_KEY, found

# Seconds for all, seconds for each, and the index of each.
Answers: TypeAlias = "Queue[tuple[float, list[float], list[int]]]"
# Not counted: with these the server sets up the connection, and the process that verifies for it.
_WARM = 400
_TRACE = Trace(trace_id="0" * 32, span_id="0" * 16)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """Appends at a number in flight, and their latency in ms; `empty_per_s` is gRPC's own limit.

    Medians of the rounds; `least_per_s` and `most_per_s` are the slowest and the fastest of them.
    """

    in_flight: int
    appends_per_s: int
    least_per_s: int
    most_per_s: int
    empty_per_s: int
    p50_ms: float
    p99_ms: float


def sign_acts(root: Path, count: int) -> list[bytes]:
    """Return acts of one member, signed and never sent."""
    party = Party.load(root / "honda")
    with Ledger.open(root / "coordinator" / "ledger", log_key=_log_key(root)) as ledger:
        head, charter = ledger.head, ledger.state.charter.digest
    acts = []
    for number in range(count):
        body = IncidentReported(
            category="drill", severity=1, report=sha256_hex(number.to_bytes(8, "big"))
        )
        event = party.event(
            body, charter=charter, head=Head(size=head.size, root=head.root), trace=_TRACE
        )
        acts.append(seal_event(event, (party.signing_key,)))
    return acts


def _log_key(root: Path) -> NoteSigner:
    profile = Party.load(root / "coordinator").profile
    return NoteSigner(profile.origin, seed_file(root / "coordinator" / "keys" / LOG_KEY, 32))


def send(root: Path, address: str, acts: list[bytes], in_flight: int, answers: Answers) -> None:
    """Send acts over one connection; runs in a process of its own."""
    with grpc_load.connect(address, root / "honda" / "keys") as connection:
        caller = grpc_load.Caller(connection, address, "/fedproto.v1.Governance/Submit")
        messages = [ActRequest(envelope=act).SerializeToString() for act in acts]
        caller.run(messages[:_WARM], in_flight)
        load = caller.run(messages[_WARM:], in_flight)
    # A message after its five bytes of length: what it says is read when nothing is timed.
    indices = [ActResponse.FromString(answer[5:]).index for answer in load.answers]
    answers.put((load.took, load.times, indices))


class Empty(governance_pb2_grpc.GovernanceServicer):
    """Answers without looking."""

    async def Submit(self, request: ActRequest, context: object) -> ActResponse:  # noqa: N802
        """Say that it was entry 0."""
        del request, context
        return ActResponse(index=0, leaf_hash=bytes(32))


def measure(root: Path, acts: list[bytes], in_flight: int, rounds: int) -> Rate:
    """Measure both handlers in turn, `rounds` times: a shared machine is not the same twice."""
    share = len(acts) // rounds
    rates, bare_rates, middle, last = [], [], [], []
    for number in range(rounds):
        part = acts[number * share : (number + 1) * share]
        took, times = serve(root, part, in_flight, empty=False)
        bare, empty = serve(root, part, in_flight, empty=True)
        rates.append(round(len(times) / took))
        bare_rates.append(round(len(empty) / bare))
        middle.append(times[len(times) // 2] * 1000)
        last.append(times[int(len(times) * 0.99)] * 1000)
    return Rate(
        in_flight=in_flight,
        appends_per_s=round(median(rates)),
        least_per_s=min(rates),
        most_per_s=max(rates),
        empty_per_s=round(median(bare_rates)),
        p50_ms=round(median(middle), 2),
        p99_ms=round(median(last), 2),
    )


def serve(
    root: Path, acts: list[bytes], in_flight: int, *, empty: bool
) -> tuple[float, list[float]]:
    """Serve, and have another process send `acts`; return its times."""
    (port,) = free_ports(1)
    address = f"127.0.0.1:{port}"
    party = Party.load(root / "coordinator")
    with Ledger.open(party.root / "ledger", log_key=_log_key(root)) as ledger:
        register = Register(ledger, party)
        size = ledger.head.size
        server = Server(admission(party.profile.consortium, lambda: ledger.state.charter))
        governance_pb2_grpc.add_GovernanceServicer_to_server(
            Empty() if empty else GovernanceService(register, Clerk(register)), server
        )
        credentials = transport.Credentials.load(party.keys, utc_now)
        server.add_secure_port(address, credentials.server())
        server.start()
        settle()
        spawn = multiprocessing.get_context("spawn")
        answers: Answers = spawn.Queue()
        client = spawn.Process(target=send, args=(root, address, acts, in_flight, answers))
        client.start()
        took, times, indices = answers.get(timeout=120)
        client.join()
        server.stop()
        register.close()
        if not empty and sorted(indices) != list(range(size + _WARM, size + len(acts))):
            raise RuntimeError("the entries that were acknowledged are not those of the ledger")
    return took, times


def verify_rate() -> int:
    """Return how many acts' signatures (both halves) one thread of this machine verifies a second."""
    key, message = SigningKey(os.urandom(64)), b"renmei/v1/benchmark" * 40
    signature, verify = key.sign(message), key.verify_key
    began, count = time.perf_counter(), 1000
    for _ in range(count):
        verify.verify(signature, message)
    return round(count / (time.perf_counter() - began))


def measure_all(count: int, in_flight: list[int], rounds: int) -> list[Rate]:
    """Measure each number in flight with `count` acts a round on a consortium of its own."""
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory) / "consortium"
        found(root, consortium="bench", coordinator="127.0.0.1:1", gateway="127.0.0.1:2")
        each = (count + _WARM) * rounds
        acts = sign_acts(root, each * len(in_flight))
        return [
            measure(root, acts[i * each : (i + 1) * each], number, rounds)
            for i, number in enumerate(in_flight)
        ]


def main() -> None:
    """Print the rates as a table or as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--acts", type=int, default=2000, help="acts of a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--in-flight", type=int, nargs="*", default=[1, 16, 24])
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    rates = measure_all(args.acts, args.in_flight, args.rounds)
    verified = verify_rate()
    if args.json:
        print(json.dumps({"rates": [asdict(r) for r in rates], "verify_per_s": verified}))
        return
    print("in flight  appends/s  (of rounds)     p50 ms   p99 ms   empty handler/s   of it")
    for r in rates:
        share = r.appends_per_s / r.empty_per_s
        print(
            f"{r.in_flight:>9}  {r.appends_per_s:>9}  {r.least_per_s:>5} to {r.most_per_s:<5}  {r.p50_ms:>7}  {r.p99_ms:>7}"
            f"  {r.empty_per_s:>16}  {share:>5.2f}"
        )
    print(f"one core verifies {verified} acts a second (Ed25519 and ML-DSA-65 each)")


if __name__ == "__main__":
    main()
