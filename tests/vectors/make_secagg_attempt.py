"""Write the vectors of a whole attempt: `python tests/vectors/make_secagg_attempt.py`.

Every message that four members send, one of them lost after it dealt its shares; what the coordinator
relays, by digest, for it follows from them; the sum, and the signed transcript. Beside it messages that
must be refused in their place (`secagg_bad_attempt`): each is well formed, and signed by its member
unless that is what is wrong with it. Encapsulation and signing are randomised: a new run writes others.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from federation.secure_aggregation.server import SecAggServer
from fedproto.authorisation import (
    SUITE,
    WORD_BITS,
    Authorisation,
    open_authorisation,
    recovery_threshold,
    seal_authorisation,
)
from fedproto.identity import SigningKey
from fedproto.ids import Digest, MemberId, RunId, sha256_hex
from fedproto.secagg.keying_messages import Advertise, EncryptedShares
from fedproto.secagg.masking_messages import Confirm, MaskedHeader, Reveal
from fedproto.secagg.messages import decode, encode
from fedproto.secagg.stages import upload_root
from member_node.secagg_client import SecAggClient

HERE = Path(__file__).parent
NAMES = tuple(MemberId(name) for name in ("ann", "bob", "cid", "dan"))
LOST = MemberId("bob")
PARAMETERS = 6
OTHER = bytes(31) + b"\x01"


def signing_key(name: str) -> SigningKey:
    """Return a party's key."""
    return SigningKey(hashlib.shake_256(b"renmei attempt " + name.encode()).digest(64))


def entropy_of(name: str) -> Callable[[int], bytes]:
    """Return bytes that stand for a member's secrets."""
    count = iter(range(1 << 20))
    return lambda size: hashlib.shake_256(f"{name}/{next(count)}".encode()).digest(size)


def authorise() -> bytes:
    """Return the signed round authorisation."""
    digest = Digest(sha256_hex(b"vector"))
    content = Authorisation(
        v=1,
        suite=SUITE,
        consortium="vector",
        charter=digest,
        mandate=digest,
        prev=digest,
        run=RunId("ab" * 16),
        round=1,
        attempt=1,
        members=NAMES,
        recovery_threshold=recovery_threshold(len(NAMES), 1),
        tolerated=1,
        parameters=PARAMETERS,
        layout_sha256=digest,
        plan_sha256=digest,
        model_in=digest,
        word_bits=WORD_BITS,
        bits=20,
        clip_milli=2000,
        not_after=2_000_000_000_000,
        nonce=digest,
    )
    return seal_authorisation(content, signing_key("coordinator"))


def play() -> dict[str, Any]:
    """Play the attempt and return all that was said."""
    key = signing_key("coordinator").verify_key
    raw = authorise()
    authorisation = open_authorisation(raw, {key.key_id: key}.get)
    roster = {name: signing_key(name).verify_key for name in NAMES}
    halves = {
        name: SecAggClient(
            authorisation=authorisation,
            member=name,
            key=signing_key(name),
            roster=roster,
            entropy=entropy_of(name),
        )
        for name in NAMES
    }
    left = [name for name in NAMES if name != LOST]
    server = SecAggServer(authorisation=authorisation, roster=roster)
    said: dict[str, Any] = {"advertise": {name: halves[name].advertise() for name in NAMES}}
    for name in NAMES:
        server.receive_advertise(name, said["advertise"][name])
    key_list = server.close_advertise()
    said["shares"] = {name: halves[name].share_keys(key_list) for name in NAMES}
    for name in NAMES:
        server.receive_shares(name, said["shares"][name])
    lists = server.close_shares()
    deltas = {name: delta_of(name) for name in left}
    uploads = {n: halves[n].mask(lists[n], deltas[n], 1.0, bytes(32)) for n in left}
    said["header"] = {name: uploads[name].header for name in left}
    said["chunk"] = {name: uploads[name].chunks[0] for name in left}
    for name in left:
        server.receive_header(name, said["header"][name])
        server.receive_chunk(name, 0, said["chunk"][name])
    survivor_list = server.close_uploads()
    said["confirm"] = {name: halves[name].confirm(survivor_list) for name in left}
    for name in left:
        server.receive_confirm(name, said["confirm"][name])
    confirmations = server.close_confirm()
    said["reveal"] = {name: halves[name].reveal(confirmations) for name in left}
    for name in left:
        server.receive_reveal(name, said["reveal"][name])
    total = server.finish()
    relayed = {
        "key_list": key_list,
        "survivor_list": survivor_list,
        "confirmations": confirmations,
        **{f"share_list {name}": lists[name] for name in NAMES},
    }
    last = decode(Reveal, said["reveal"][left[0]], peer=left[0])
    return {
        "coordinator_key": key.raw.hex(),
        "roster": {name: verify.raw.hex() for name, verify in roster.items()},
        "authorisation": raw.decode(),
        **{kind: {n: m.hex() for n, m in messages.items()} for kind, messages in said.items()},
        "relayed_sha256": {name: sha256_hex(message) for name, message in relayed.items()},
        "ctx": last.ctx.hex(),
        "h1": last.h1.hex(),
        "h2": last.h2.hex(),
        "h3": last.h3.hex(),
        "delta": {name: delta.tobytes().hex() for name, delta in deltas.items()},
        "mean": total.mean_delta.astype("<f4").tobytes().hex(),
        "transcript": encode(server.published.signed_by(signing_key("coordinator"))).hex(),
        "transcript_sha256": total.transcript_sha256,
    }


def delta_of(name: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return a small delta."""
    return np.linspace(-0.1, 0.1, PARAMETERS, dtype=np.float32) * np.float32(NAMES.index(name) + 1)


def bad(good: dict[str, Any]) -> list[dict[str, str]]:
    """Return messages that must be refused where a good one of the same kind is due."""
    rows: list[dict[str, str]] = []

    def add(kind: str, member: str, message: object, code: str, why: str) -> None:
        row = {"kind": kind, "member": member, "message": encode(message).hex()}
        rows.append({**row, "code": code, "why": why})

    def read(cls: Any, kind: str, member: str) -> Any:
        return decode(cls, bytes.fromhex(good[kind][member]), peer=member)

    forged, apart = "RNM-SECAGG-0001", "RNM-SECAGG-0003"
    ann, cid = signing_key("ann"), signing_key("cid")
    keys = read(Advertise, "advertise", "ann")
    others = read(Advertise, "advertise", "cid")
    add("advertise", "ann", others, forged, "it speaks for another member")
    add(
        "advertise", "ann", dataclasses.replace(others, member="ann"), forged, "another's signature"
    )
    add("advertise", "ann", keys.signed_by(cid), forged, "signed by another member")
    moved = dataclasses.replace(keys, ctx=OTHER).signed_by(ann)
    add("advertise", "ann", moved, forged, "of another attempt")
    twice = dataclasses.replace(keys, channel_x25519=keys.mask_x25519).signed_by(ann)
    add("advertise", "ann", twice, forged, "one key twice")
    small = dataclasses.replace(keys, mask_x25519=bytes(32)).signed_by(ann)
    add("advertise", "ann", small, forged, "a key of small order")

    dealt = read(EncryptedShares, "shares", "ann")
    header = dataclasses.replace(dealt.header, h1=OTHER).signed_by(ann)
    shown = dataclasses.replace(dealt, header=header)
    add("shares", "ann", shown, apart, "over another key list: evidence against the coordinator")
    header = dataclasses.replace(dealt.header, ctx=OTHER).signed_by(ann)
    add("shares", "ann", dataclasses.replace(dealt, header=header), forged, "of another attempt")
    header = dataclasses.replace(dealt.header, self_seed_commitment=OTHER)
    add("shares", "ann", dataclasses.replace(dealt, header=header), forged, "changed after signing")
    entries = dealt.entries[:-1]
    header = dataclasses.replace(
        dealt.header, entry_digests=tuple(entry.digest for entry in entries)
    ).signed_by(ann)
    fewer = dataclasses.replace(dealt, header=header, entries=entries)
    add("shares", "ann", fewer, forged, "an entry is missing")
    bare = dataclasses.replace(
        dealt.entries[1], kem_ciphertext=b"", kem_wrapped=b"", kem_commitment=b""
    )
    entries = (dealt.entries[0], bare, *dealt.entries[2:])
    header = dataclasses.replace(
        dealt.header, entry_digests=tuple(entry.digest for entry in entries)
    ).signed_by(ann)
    unkemmed = dataclasses.replace(dealt, header=header, entries=entries)
    add("shares", "ann", unkemmed, forged, "an edge without its KEM ciphertext")

    upload = read(MaskedHeader, "header", "ann")
    for name, value in (("h1", OTHER), ("h2", OTHER)):
        signed = dataclasses.replace(upload.header, **{name: value}).signed_by(ann)
        row = dataclasses.replace(upload, header=signed)
        add("header", "ann", row, apart, f"over another {name}: evidence against the coordinator")
    root = upload_root(PARAMETERS, upload.chunk_digests)
    signed = dataclasses.replace(upload.header, root=root).signed_by(ann)
    short = dataclasses.replace(upload, header=signed, words=PARAMETERS)
    add("header", "ann", short, forged, "a vector of another length")
    add(
        "header", "ann", read(MaskedHeader, "header", "cid"), forged, "it speaks for another member"
    )

    confirm = read(Confirm, "confirm", "ann")
    for name in ("h1", "h2", "h3"):
        row = dataclasses.replace(confirm, **{name: OTHER}).signed_by(ann)
        add("confirm", "ann", row, apart, f"over another {name}: evidence against the coordinator")
    add("confirm", "ann", confirm.signed_by(cid), forged, "signed by another member")

    reveal = read(Reveal, "reveal", "ann")
    shares = sorted((*reveal.mask_shares, reveal.self_shares[0]), key=lambda item: item.member)
    both = dataclasses.replace(reveal, mask_shares=tuple(shares)).signed_by(ann)
    add("reveal", "ann", both, forged, "both kinds of share of one member")
    none = dataclasses.replace(reveal, mask_shares=()).signed_by(ann)
    add("reveal", "ann", none, forged, "a share that is due is missing")
    swapped = dataclasses.replace(
        reveal,
        self_shares=tuple(
            dataclasses.replace(item, share=reveal.self_shares[0].share)
            for item in reveal.self_shares
        ),
    ).signed_by(ann)
    add("reveal", "ann", swapped, forged, "shares that their dealers did not commit to")
    late = dataclasses.replace(reveal, h3=OTHER).signed_by(ann)
    add("reveal", "ann", late, apart, "over another h3: evidence against the coordinator")
    return rows


def main() -> None:
    """Write both files."""
    good = play()
    for name, value in (("attempt", good), ("bad_attempt", bad(good))):
        text = json.dumps(value, indent=1, ensure_ascii=False) + "\n"
        (HERE / f"secagg_{name}.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
