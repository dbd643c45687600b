"""A whole round of secure aggregation over gRPC on loopback: n members, one of them lost, audit and all.

The coordinator is a process of its own, so that its peak memory is its own; the members are threads of
another. Prints the time of each phase, bytes, and the coordinator's peak memory above that of a round of
four members with as many parameters: what the cohort costs in memory. Real halves, real streams, real
spool and egress journals; identity comes from a header here, since certificates are not what is measured.

With `--groups` the members are summed in groups, and the median of the groups' means is taken.

    python benchmarks/secagg_loopback.py [--members 64] [--parameters 1000000] [--groups 1] [--json]
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import resource
import shutil
import sys
import tempfile
import threading
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np

from fedproto.transport import SERVER_OPTIONS  # sets gRPC's cipher suites before gRPC loads

import grpc  # isort: skip

from federation import exchange
from federation.exchange import ExchangeService, Hub
from federation.journal import RunJournal
from federation.robust import combine
from federation.rounds.attempt import AttemptRunner
from federation.rounds.spool import Spool
from federation.serving import Server
from fedproto.authorisation import (
    LEAST_GROUPS,
    SUITE,
    WORD_BITS,
    Authorisation,
    SignedAuthorisation,
    open_authorisation,
    recovery_threshold,
    seal_authorisation,
)
from fedproto.errors import FederationError
from fedproto.governance.plan import Aggregation, Combine, Method
from fedproto.identity import SigningKey
from fedproto.ids import Digest, MemberId, RunId, sha256_hex
from fedproto.process import share_heaps
from fedproto.v1.exchange_pb2 import CoordinatorFrame, Result
from member_node.egress import EgressJournal
from member_node.gate import gated
from member_node.secagg_client import SecAggClient
from member_node.session import ExchangeSession, TrainedDelta

PATIENCE_S = 900.0
ANY = Digest(sha256_hex(b"benchmark"))
PHASES = ("joined", "shared", "masked", "confirmed", "revealed", "audited")


def signing_key(name: str) -> SigningKey:
    """Return the acting key of a party of the benchmark."""
    return SigningKey(hashlib.sha512(name.encode()).digest())


def names_of(count: int) -> tuple[MemberId, ...]:
    """Return the members of the benchmark."""
    return tuple(MemberId(f"m{number:02d}") for number in range(count))


def authorise(count: int, parameters: int, groups: int = 1) -> SignedAuthorisation:
    """Return a signed authorisation; a third of the cohort, or of a group, may collude."""
    tolerated = max(1, count // groups // 3)
    content = Authorisation(
        v=1,
        suite=SUITE,
        consortium="benchmark",
        charter=ANY,
        mandate=ANY,
        prev=ANY,
        run=RunId("cd" * 16),
        round=1,
        attempt=1,
        groups=groups,
        members=names_of(count),
        recovery_threshold=recovery_threshold(count, tolerated),
        tolerated=tolerated,
        parameters=parameters,
        layout_sha256=ANY,
        plan_sha256=ANY,
        model_in=ANY,
        word_bits=WORD_BITS,
        bits=22,
        clip_milli=4000,
        not_after=4_000_000_000_000,
        nonce=ANY,
    )
    key = signing_key("coordinator")
    return open_authorisation(
        seal_authorisation(content, key), {key.verify_key.key_id: key.verify_key}.get
    )


def delta_of(name: str, parameters: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return a member's delta, well within the clip."""
    rng = np.random.default_rng(int.from_bytes(name.encode()))
    scale = np.float32(1.0 / np.sqrt(parameters))
    return rng.standard_normal(parameters, np.float32) * scale


def resident_mib() -> float:
    """Return this process's memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


def summing(groups: int) -> Aggregation:
    """Return how the sums of a round become one."""
    return Aggregation(
        method=Method.FEDAVG,
        outer_lr_milli=1000,
        momentum_milli=0,
        clip_milli=4000,
        bits=22,
        tolerated=1,
        groups=groups,
        combine=Combine.MEAN if groups == 1 else Combine.MEDIAN,
    )


class Sampler(threading.Thread):
    """Keeps the highest memory of each phase."""

    def __init__(self, runner: AttemptRunner) -> None:
        super().__init__(daemon=True)
        self._runner = runner
        self.done = threading.Event()
        self.highest: dict[str, float] = {}

    def run(self) -> None:
        """Look ten times a second."""
        while not self.done.wait(0.1):
            phase = self._runner._phase.value  # noqa: SLF001  # as the journal shows it
            self.highest[phase] = max(self.highest.get(phase, 0.0), resident_mib())


def coordinate(count: int, parameters: int, groups: int, root: Path, pipe: Any) -> None:
    """Be the coordinator: serve, run the attempt, and report time, memory and how wrong the sum is."""
    share_heaps()
    authorisation = authorise(count, parameters, groups)
    names = authorisation.content.members
    hub = Hub()
    server = Server(lambda _, context: _caller(context))
    server.add_generic_rpc_handlers((exchange.handler(ExchangeService(hub)),))
    # Behind a secure port gRPC keeps a mebibyte more for each connection: not what is measured here.
    port = server._server.add_insecure_port("127.0.0.1:0")  # noqa: SLF001
    lobby = hub.open(authorisation.ctx, names)
    server.start()
    journal, spool = RunJournal(), Spool(root / "spool")
    runner = AttemptRunner(
        authorisation=authorisation,
        roster={name: signing_key(name).verify_key for name in names},
        cohort=3,
        phase_timeout_s=PATIENCE_S,
        lobby=lobby,
        journal=journal,
        stopping=lambda: False,
        spool=spool,
        key=signing_key("coordinator"),
        least_groups=min(groups, LEAST_GROUPS),
    )
    before = resident_mib()
    sampler = Sampler(runner)
    sampler.start()
    pipe.send(port)
    began, cpu = time.perf_counter(), time.process_time()
    totals = runner.run()
    included = [name for total in totals for name in total.included]
    took, cpu = time.perf_counter() - began, time.process_time() - cpu
    sampler.done.set()
    for name in included:
        done = Result(model_out=bytes(32), ledger_index=1, included=included)
        lobby.send(name, CoordinatorFrame(result=done))
    began = time.perf_counter()
    result = combine(totals, summing(groups))
    combined = time.perf_counter() - began
    means = [
        np.mean([delta_of(name, parameters) for name in total.included], axis=0) for total in totals
    ]
    due = np.median(means, axis=0)
    events = journal._events  # noqa: SLF001  # the benchmark reads what an administrator watches
    phases = {word: sum(event.state == word for event in events) for word in PHASES}
    pipe.send(
        {
            "seconds": took,
            "cpu_s": cpu,
            "before_mib": before,
            "peak_mib": max(sampler.highest.values()),
            "phases_mib": sampler.highest,
            "included": len(included),
            "sums": len(totals),
            "combine_s": combined,
            "answers": phases,
            "worst_error": float(np.abs(result - due).max()),
        }
    )
    pipe.recv()
    hub.close_all()
    server.stop(1)
    spool.close()


def _caller(context: Any) -> MemberId:
    return MemberId(dict(context.invocation_metadata())["x-member"])


class _Lost(Exception):
    """A member is lost after it has dealt its shares."""


def take_part(name: MemberId, port: int, authorisation: SignedAuthorisation, root: Path) -> None:
    """Be one member; the last one is lost between its shares and its upload."""
    content = authorisation.content
    half = SecAggClient(
        authorisation=authorisation,
        member=name,
        key=signing_key(name),
        roster={member: signing_key(member).verify_key for member in content.members},
        entropy=os.urandom,
    )
    lost = name == content.members[-1]
    trained: Future[TrainedDelta] = Future()
    if lost:
        trained.set_exception(_Lost())
    else:
        delta = delta_of(name, content.parameters)
        trained.set_result(TrainedDelta(delta=delta, weight=1.0))
    home = root / name
    home.mkdir()
    to = f"127.0.0.1:{port}"
    header = _Header(name)
    with grpc.intercept_channel(grpc.insecure_channel(to, SERVER_OPTIONS), header) as channel:
        session = ExchangeSession(
            channel=gated(channel, EgressJournal(home, lambda: 1), to),
            authorisation=authorisation,
            half=half,
            trained=trained,
            rounding_seed=hashlib.sha256(name.encode()).digest(),
            me=name,
            sign_receipt=lambda upload: None,
            sign_audit=lambda finding: None,
            note_opened=lambda survivors: None,
            timeout_s=PATIENCE_S,
        )
        try:
            session.run()
        except _Lost:
            return


class _Header(grpc.StreamStreamClientInterceptor):  # type: ignore[misc]
    """Says who calls."""

    def __init__(self, name: str) -> None:
        self._name = name

    def intercept_stream_stream(self, continuation: Any, details: Any, requests: Any) -> Any:
        """Add the member's name."""
        named = details._replace(metadata=[("x-member", self._name)])
        return continuation(named, requests)


def play(count: int, parameters: int, groups: int = 1) -> dict[str, Any]:
    """Run one round and return what the coordinator reports."""
    root = Path(tempfile.mkdtemp(prefix="renmei-loopback-"))
    ours, theirs = multiprocessing.Pipe()
    words = (count, parameters, groups, root, theirs)
    process = multiprocessing.get_context("spawn").Process(target=coordinate, args=words)
    process.start()
    theirs.close()
    try:
        port = ours.recv()
        authorisation = authorise(count, parameters, groups)
        threads = [
            threading.Thread(target=take_part, args=(name, port, authorisation, root))
            for name in authorisation.content.members
        ]
        for thread in threads:
            thread.start()
        report: dict[str, Any] = ours.recv()
        for thread in threads:
            thread.join()
        ours.send("done")
        process.join()
    finally:
        process.kill()
        shutil.rmtree(root, ignore_errors=True)
    return report


def main(argv: list[str]) -> int:
    """Print a round of n members beside one of four."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--members", type=int, default=64)
    parser.add_argument("--parameters", type=int, default=1_000_000)
    parser.add_argument("--groups", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    try:
        few, many = play(4, args.parameters), play(args.members, args.parameters, args.groups)
    except FederationError as error:
        print(error, file=sys.stderr)
        return error.exit
    growth = (many["peak_mib"] - many["before_mib"]) - (few["peak_mib"] - few["before_mib"])
    uploads = args.members * args.parameters * 4 / 2**20
    result = {"few": few, "many": many, "growth_mib": growth, "uploads_mib": uploads}
    if args.json:
        print(json.dumps(result, indent=2))
        return 0
    for title, count, report in (("few", 4, few), ("many", args.members, many)):
        print(
            f"{title}: {count} members, {args.parameters:,} parameters, one lost: "
            f"{report['seconds']:.1f} s, coordinator {report['cpu_s']:.1f} s CPU, "
            f"peak {report['peak_mib']:.0f} MiB (idle {report['before_mib']:.0f}; "
            f"{', '.join(f'{phase} {mib:.0f}' for phase, mib in report['phases_mib'].items())}), "
            f"{report['included']} in {report['sums']} sum(s), combined in {report['combine_s']:.2f} s, {report['answers']['audited']} audited it, "
            f"worst error {report['worst_error']:.1e}"
        )
    print(f"memory that {args.members - 4} more members cost: {growth:.0f} MiB of {uploads:.0f}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
