"""Cost of secure aggregation beside Flower's SecAgg+ and a plain sum: `python benchmarks/secagg.py`.

All in one process and one run, process CPU time, the best of several repeats: read the ratios, not
the milliseconds. Ours is the whole of SA-1 without transport (post-quantum keys, dual signatures,
HPKE, commitments, chunk digests, the confirm phase); Flower's is what its own client module and the
functions of its own workflow do, likewise without transport.
"""

import argparse
import hashlib
import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np

from federation.secure_aggregation.server import SecAggServer
from fedproto.authorisation import (
    SUITES,
    Authorisation,
    SignedAuthorisation,
    open_authorisation,
    recovery_threshold,
    seal_authorisation,
    word_bits,
)
from fedproto.calibration import fastest_keystream
from fedproto.identity import SigningKey
from fedproto.ids import Digest, MemberId, RunId
from fedproto.layout import FlatVector
from member_node.secagg_client import MaskedUpload, SecAggClient

from chart import log_chart  # isort: skip

P = ParamSpec("P")
R = TypeVar("R")

# Of a value in the large ring; the small one takes as many as its cohort leaves.
BITS = 22


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """CPU of one member and of the coordinator in ms, and upload bytes for each parameter."""

    client_ms: float
    mask_ms: float
    server_ms: float
    bytes_per_parameter: float


class Clock:
    """Adds up process CPU time under names."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}

    def __call__(self, name: str, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run `work` and charge it to `name`."""
        start = time.process_time()
        result = work(*args, **kwargs)
        self.spent[name] = self.spent.get(name, 0.0) + time.process_time() - start
        return result

    def cost(self, members: int, bytes_per_parameter: float) -> Cost:
        """Return what was spent, the clients' part by member."""
        mask = self.spent.get("mask", 0.0) / members
        return Cost(
            client_ms=1e3 * (self.spent.get("client", 0.0) / members + mask),
            mask_ms=1e3 * mask,
            server_ms=1e3 * self.spent["server"],
            bytes_per_parameter=bytes_per_parameter,
        )


def deltas_of(n: int, d: int) -> list[FlatVector]:
    """Return deltas of norm about one."""
    rng = np.random.default_rng(7)
    return [rng.standard_normal(d, np.float32) / np.float32(np.sqrt(d)) for _ in range(n)]


def authorise(
    members: tuple[MemberId, ...], d: int, tolerated: int, bits: int
) -> SignedAuthorisation:
    """Return a signed authorisation for a cohort."""
    digest = Digest("00" * 32)
    content = Authorisation(
        v=1,
        suite=SUITES[word_bits(len(members), bits)],
        consortium="benchmark",
        charter=digest,
        mandate=digest,
        prev=digest,
        run=RunId("00" * 16),
        round=1,
        attempt=1,
        members=members,
        recovery_threshold=recovery_threshold(len(members), tolerated),
        tolerated=tolerated,
        parameters=d,
        layout_sha256=digest,
        plan_sha256=digest,
        model_in=digest,
        word_bits=word_bits(len(members), bits),
        bits=bits,
        clip_milli=2000,
        not_after=1,
        nonce=os.urandom(32).hex(),
    )
    key = SigningKey(hashlib.sha512(b"coordinator").digest())
    return open_authorisation(
        seal_authorisation(content, key), {key.verify_key.key_id: key.verify_key}.get
    )


class Ours:
    """One attempt of SA-1; the last `dropped` members vanish after dealing their shares."""

    def __init__(
        self, deltas: list[FlatVector], tolerated: int, dropped: int, bits: int = BITS
    ) -> None:
        self.deltas, self.clock = deltas, Clock()
        self.names = tuple(MemberId(f"m{i:02d}") for i in range(len(deltas)))
        self.staying = self.names[: len(deltas) - dropped]
        keys = {name: SigningKey(hashlib.sha512(name.encode()).digest()) for name in self.names}
        roster = {name: key.verify_key for name, key in keys.items()}
        authorisation = authorise(self.names, deltas[0].size, tolerated, bits)
        keystream = fastest_keystream()
        self.server = SecAggServer(authorisation=authorisation, roster=roster, keystream=keystream)
        self.clients = {
            name: SecAggClient(
                authorisation=authorisation,
                member=name,
                key=key,
                roster=roster,
                entropy=os.urandom,
                keystream=keystream,
            )
            for name, key in keys.items()
        }

    def run(self) -> Cost:
        """Run every phase and check the mean."""
        lists = self._exchange_keys()
        size = max(self._upload(name, lists[name]) for name in self.staying)
        result = self._unmask()
        _require_mean(result, self.deltas[: len(self.staying)])
        return self.clock.cost(len(self.staying), size / self.deltas[0].size)

    def _exchange_keys(self) -> dict[MemberId, bytes]:
        clock, server = self.clock, self.server
        for name in self.names:
            raw = clock("client", self.clients[name].advertise)
            clock("server", server.receive_advertise, name, raw)
        key_list = clock("server", server.close_advertise)
        for name in self.names:
            raw = clock("client", self.clients[name].share_keys, key_list)
            clock("server", server.receive_shares, name, raw)
        return clock("server", server.close_shares)

    def _upload(self, name: MemberId, shares: bytes) -> int:
        clock, server = self.clock, self.server
        delta = self.deltas[self.names.index(name)]
        upload = clock("mask", self._masked, name, shares, delta)
        chunks = clock("client", list[bytes], upload.chunks)
        clock("server", server.receive_header, name, upload.header)
        for index, data in enumerate(chunks):
            clock("server", server.receive_chunk, name, index, data)
        return len(upload.header) + sum(map(len, chunks))

    def _masked(self, name: MemberId, shares: bytes, delta: FlatVector) -> MaskedUpload:
        upload = self.clients[name].mask(shares, delta, 1.0, os.urandom(32))
        # Chunks are masked as they are read; the header needs them all.
        _ = upload.header
        return upload

    def _unmask(self) -> FlatVector:
        clock, server = self.clock, self.server
        survivors = clock("server", server.close_uploads)
        for name in self.staying:
            raw = clock("client", self.clients[name].confirm, survivors)
            clock("server", server.receive_confirm, name, raw)
        confirmations = clock("server", server.close_confirm)
        for name in self.staying:
            raw = clock("client", self.clients[name].reveal, confirmations)
            clock("server", server.receive_reveal, name, raw)
        return clock("server", server.finish).mean_delta


class Flower:
    """The same cohort in SecAgg+: Flower's own client module and its workflow's own functions."""

    CLIP, TARGET, MODULUS = 1.0, 1 << 22, 1 << 32

    def __init__(self, deltas: list[FlatVector], tolerated: int, dropped: int) -> None:
        root = "flwr.common.secure_aggregation"
        # Imported by name: Flower's package exports a function under the client module's name.
        self.mod = _module("flwr.client.mod.secure_aggregation.secaggplus_mod")
        self.common = _module("flwr.common")
        self.maths = _module(f"{root}.ndarrays_arithmetic")
        self.quantisation = _module(f"{root}.quantization")
        self.utils = _module(f"{root}.secaggplus_utils")
        self.shamir = _module(f"{root}.crypto.shamir")
        self.symmetric = _module(f"{root}.crypto.symmetric_encryption")
        self.asymmetric = _module("flwr.supercore.primitives.asymmetric")
        self.key = _module(f"{root}.secaggplus_constants").Key
        self.deltas, self.clock = deltas, Clock()
        self.staying = range(len(deltas) - dropped)
        self.threshold = recovery_threshold(len(deltas), tolerated)
        self.states: list[Any] = [self.mod.SecAggPlusState() for _ in deltas]
        self.keys: dict[str, Any] = {}

    def run(self) -> Cost:
        """Run every stage and check the mean."""
        inbox = self._exchange_keys()
        total: Any = None
        size = 0
        for i in self.staying:
            raw = self._upload(i, inbox[i])
            size = sum(map(len, raw))
            total = self.clock("server", self._add, total, raw)
        shares = self._collect_shares()
        mean = self.clock("server", self._unmask, total, shares)
        _require_mean(mean, self.deltas[: len(self.staying)])
        return self.clock.cost(len(self.staying), size / self.deltas[0].size)

    def _exchange_keys(self) -> dict[int, tuple[list[int], list[bytes]]]:
        clock, key, n = self.clock, self.key, len(self.deltas)
        config = {
            key.SAMPLE_NUMBER: n,
            key.SHARE_NUMBER: n,
            key.THRESHOLD: self.threshold,
            key.CLIPPING_RANGE: self.CLIP,
            key.TARGET_RANGE: self.TARGET,
            key.MOD_RANGE: self.MODULUS,
            key.MAX_WEIGHT: 1.0,
        }
        for i, state in enumerate(self.states):
            state.nid = i
            reply = clock("client", self.mod._setup, state, config)  # noqa: SLF001
            self.keys[str(i)] = (reply[key.PUBLIC_KEY_1], reply[key.PUBLIC_KEY_2])
        inbox: dict[int, tuple[list[int], list[bytes]]] = {i: ([], []) for i in range(n)}
        for i, state in enumerate(self.states):
            reply = clock("client", self.mod._share_keys, state, self.keys)  # noqa: SLF001
            sealed = zip(reply[key.DESTINATION_LIST], reply[key.CIPHERTEXT_LIST], strict=True)
            for to, ciphertext in sealed:
                inbox[to][0].append(i)
                inbox[to][1].append(ciphertext)
        return inbox

    def _upload(self, i: int, inbox: tuple[list[int], list[bytes]]) -> Any:
        configs = {self.key.SOURCE_LIST: inbox[0], self.key.CIPHERTEXT_LIST: inbox[1]}
        parameters = self.common.ndarrays_to_parameters([self.deltas[i]])
        masked = self.mod._collect_masked_vectors  # noqa: SLF001
        reply = self.clock("mask", masked, self.states[i], configs, 1, parameters)
        return reply[self.key.MASKED_PARAMETERS]

    def _add(self, total: Any, raw: Any) -> Any:
        vector = [self.common.bytes_to_ndarray(item) for item in raw]
        return vector if total is None else self.maths.parameters_addition(total, vector)

    def _collect_shares(self) -> dict[int, list[bytes]]:
        key, n = self.key, len(self.deltas)
        dead = list(range(len(self.staying), n))
        request = {key.ACTIVE_NODE_ID_LIST: list(self.staying), key.DEAD_NODE_ID_LIST: dead}
        shares: dict[int, list[bytes]] = {i: [] for i in range(n)}
        for i in self.staying:
            reply = self.clock("client", self.mod._unmask, self.states[i], request)  # noqa: SLF001
            for owner, share in zip(reply[key.NODE_ID_LIST], reply[key.SHARE_LIST], strict=True):
                shares[owner].append(share)
        return shares

    def _unmask(self, total: Any, shares: dict[int, list[bytes]]) -> Any:
        shape = self.maths.get_parameters_shape(total)
        for owner, held in shares.items():
            secret = self.shamir.combine_shares(held)
            if owner in self.staying:
                mask = self.utils.pseudo_rand_gen(secret, self.MODULUS, shape)
                total = self.maths.parameters_subtraction(total, mask)
            else:
                total = self._unmask_dropout(total, owner, secret, shape)
        total = self.maths.parameters_mod(total, self.MODULUS)
        weight, vectors = self.maths.factor_extract(total)
        (mean,) = self.quantisation.dequantize(vectors, self.CLIP, self.TARGET)
        mean += -(len(self.staying) - 1) * self.CLIP
        mean *= self.TARGET / weight
        return mean

    def _unmask_dropout(self, total: Any, owner: int, secret: bytes, shape: Any) -> Any:
        for peer in self.staying:
            seed = self.symmetric.generate_shared_key(
                self.asymmetric.bytes_to_private_key(secret),
                self.asymmetric.bytes_to_public_key(self.keys[str(peer)][0]),
            )
            mask = self.utils.pseudo_rand_gen(seed, self.MODULUS, shape)
            if owner > peer:
                total = self.maths.parameters_addition(total, mask)
            else:
                total = self.maths.parameters_subtraction(total, mask)
        return total


def _module(name: str) -> Any:
    return importlib.import_module(name)


def plain(deltas: list[FlatVector], dropped: int) -> Cost:
    """Send float32 as it is and average it: no protection at all."""
    clock = Clock()
    staying = deltas[: len(deltas) - dropped]
    raws = [clock("client", delta.tobytes) for delta in staying]

    def mean() -> FlatVector:
        total = np.zeros(deltas[0].size, np.float32)
        for raw in raws:
            total += np.frombuffer(raw, np.float32)
        total /= np.float32(len(raws))
        return total

    _require_mean(clock("server", mean), staying)
    return clock.cost(len(staying), len(raws[0]) / deltas[0].size)


def _require_mean(mean: Any, deltas: list[FlatVector]) -> None:
    expected = np.mean(deltas, axis=0)
    error = float(np.linalg.norm(mean - expected) / np.linalg.norm(expected))
    # Ten bits a value, the least that is used here, cost about one per cent of a mean of noise.
    if error > 0.02:
        raise SystemExit(f"a mean is off by {error:.3g}: the comparison is void")


def best(measure: Callable[[], Cost], repeat: int) -> Cost:
    """Return the smallest of each figure over several runs."""
    costs = [measure() for _ in range(repeat)]
    return Cost(
        client_ms=min(cost.client_ms for cost in costs),
        mask_ms=min(cost.mask_ms for cost in costs),
        server_ms=min(cost.server_ms for cost in costs),
        bytes_per_parameter=costs[0].bytes_per_parameter,
    )


def compare(n: int, d: int, repeat: int) -> dict[str, Any]:
    """Measure one cohort, side by side."""
    tolerated, dropped = max(1, (n - 1) // 3), 0 if n < 8 else 1
    deltas = deltas_of(n, d)
    rows = {"renmei": best(lambda: Ours(deltas, tolerated, dropped).run(), repeat)}
    small = next(bits for bits in range(14, 1, -1) if word_bits(n, bits) == 16)
    rows["u16"] = best(lambda: Ours(deltas, tolerated, dropped, small).run(), repeat)
    try:
        rows["flower"] = best(lambda: Flower(deltas, tolerated, dropped).run(), repeat)
    except ImportError as error:
        print(f"Flower is left out: {error}", file=sys.stderr)
    rows["plain"] = best(lambda: plain(deltas, dropped), repeat)
    return {
        "members": n,
        "parameters": d,
        "dropped": dropped,
        "rows": {name: asdict(cost) for name, cost in rows.items()},
    }


def show(results: list[dict[str, Any]]) -> None:
    """Print the table; a ratio says how many times the cost is that of renmei."""
    print(
        f"{'n':>3} {'d':>9} {'drop':>4}  {'':8} {'client ms':>10} {'x':>6} {'mask ms':>8} {'x':>6}"
        f" {'server ms':>10} {'x':>6} {'B/param':>8}"
    )
    for result in results:
        mine = result["rows"]["renmei"]
        for name, row in result["rows"].items():
            ratios = [
                f"{row[key] / mine[key]:6.2f}" for key in ("client_ms", "mask_ms", "server_ms")
            ]
            print(
                f"{result['members']:>3} {result['parameters']:>9} {result['dropped']:>4}  {name:8}"
                f" {row['client_ms']:>10.2f} {ratios[0]} {row['mask_ms']:>8.2f} {ratios[1]}"
                f" {row['server_ms']:>10.2f} {ratios[2]} {row['bytes_per_parameter']:>8.3f}"
            )


def draw(results: list[dict[str, Any]], directory: Path) -> None:
    """Write how both sides' cost grows with whatever there is more than one of."""
    directory.mkdir(parents=True, exist_ok=True)
    for key, word in (("parameters", "parameters"), ("members", "members")):
        if len({result[key] for result in results}) < 2:
            continue
        for side, name in (("client_ms", "a member"), ("server_ms", "the coordinator")):
            series = {
                row: [(result[key], result["rows"][row][side]) for result in results]
                for row in results[0]["rows"]
                if row != "plain"
            }
            fixed = "members" if key == "parameters" else "parameters"
            title = f"CPU of {name}, {results[0][fixed]:,} {fixed}"
            text = log_chart(title, word, "ms of CPU a round", series)
            path = directory / f"secagg-{side.removesuffix('_ms')}-by-{key}.svg"
            path.write_text(text, encoding="utf-8")
            print(path)


def main() -> None:
    """Run the cohorts asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--members", type=int, nargs="+", default=[4, 16])
    parser.add_argument("--parameters", type=int, nargs="+", default=[1_000_000])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", metavar="FILE", help="write the figures; - for standard output")
    parser.add_argument("--draw", metavar="DIR", help="write how the cost grows, as SVG")
    arguments = parser.parse_args()
    results = [
        compare(n, d, arguments.repeat) for n in arguments.members for d in arguments.parameters
    ]
    if arguments.json == "-":
        print(json.dumps(results, indent=1))
        return
    show(results)
    if arguments.draw:
        draw(results, Path(arguments.draw))
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
