"""The published attempt, message for message, and what must be refused in the place of one."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from federation.secure_aggregation.server import SecAggServer
from fedproto.authorisation import open_authorisation
from fedproto.errors import PeerFault
from fedproto.identity import VerifyKey
from fedproto.ids import sha256_hex
from fedproto.secagg.audit_messages import SumTranscript
from fedproto.secagg.messages import decode
from fedproto.secagg.sum_audit import auditors

VECTORS = Path(__file__).parents[2] / "vectors"
GOOD, BAD = (
    json.loads((VECTORS / f"secagg_{name}.json").read_text()) for name in ("attempt", "bad_attempt")
)
ORDER = ("advertise", "shares", "header", "confirm", "reveal")


def messages(kind):
    return {name: bytes.fromhex(text) for name, text in GOOD[kind].items()}


class Replay:
    """A coordinator that is given what the members said."""

    def __init__(self):
        key = VerifyKey(bytes.fromhex(GOOD["coordinator_key"]))
        raw = GOOD["authorisation"].encode()
        self.authorisation = open_authorisation(raw, {key.key_id: key}.get)
        roster = {name: VerifyKey(bytes.fromhex(raw)) for name, raw in GOOD["roster"].items()}
        self.server = SecAggServer(authorisation=self.authorisation, roster=roster)
        self.relayed = {}

    def take(self, kind, member, raw):
        take = {
            "advertise": self.server.receive_advertise,
            "shares": self.server.receive_shares,
            "header": self.server.receive_header,
            "confirm": self.server.receive_confirm,
            "reveal": self.server.receive_reveal,
        }[kind]
        take(member, raw)
        if kind == "header":
            assert self.server.receive_chunk(member, 0, messages("chunk")[member])

    def close(self, kind):
        server = self.server
        match kind:
            case "advertise":
                self.relayed["key_list"] = server.close_advertise()
            case "shares":
                lists = server.close_shares()
                self.relayed |= {f"share_list {name}": lists[name] for name in lists}
            case "header":
                self.relayed["survivor_list"] = server.close_uploads()
            case "confirm":
                self.relayed["confirmations"] = server.close_confirm()

    def play_to(self, kind):
        for before in ORDER[: ORDER.index(kind)]:
            for member, raw in messages(before).items():
                self.take(before, member, raw)
            self.close(before)
        return self


def test_the_published_attempt_gives_the_published_sum_and_transcript():
    replay = Replay().play_to("reveal")
    for member, raw in messages("reveal").items():
        replay.take("reveal", member, raw)
    total = replay.server.finish()
    assert replay.authorisation.ctx.hex() == GOOD["ctx"]
    got = {name: sha256_hex(raw) for name, raw in replay.relayed.items()}
    assert got == GOOD["relayed_sha256"]
    assert total.included == tuple(GOOD["delta"])
    assert total.mean_delta.astype("<f4").tobytes().hex() == GOOD["mean"]
    deltas = [np.frombuffer(bytes.fromhex(raw), "<f4") for raw in GOOD["delta"].values()]
    assert np.abs(total.mean_delta - np.mean(deltas, axis=0)).max() < 1e-4
    assert total.transcript_sha256 == GOOD["transcript_sha256"]
    published = decode(SumTranscript, bytes.fromhex(GOOD["transcript"]), peer="coordinator")
    published.verify(replay.authorisation.key)
    assert published.digest.hex() == GOOD["transcript_sha256"]
    assert len(auditors(0, total.included, 1, bytes.fromhex(GOOD["h3"]))) == 2


def tagged(tag, *parts):
    """The tagged hash of the specification, written again from its text."""
    digest = hashlib.sha256()
    for part in (tag.encode(), *parts):
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.digest()


def fields(raw):
    """Read the length-delimited fields of a protobuf message: number to values."""
    found, place = {}, 0

    def varint():
        nonlocal place
        value, shift = 0, 0
        while True:
            byte = raw[place]
            place += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while place < len(raw):
        key = varint()
        if key & 7 == 0:
            found.setdefault(key >> 3, []).append(varint())
            continue
        size = varint()
        found.setdefault(key >> 3, []).append(raw[place : place + size])
        place += size
    return found


def test_the_digests_follow_from_the_messages_by_the_specification_alone():
    """No code of the product: a reader of its own, for the four digests that all signatures cover."""
    payload = json.loads(GOOD["authorisation"])["payload"]
    import base64

    ctx = tagged("renmei/v1/sa/ctx", base64.b64decode(payload))
    assert ctx.hex() == GOOD["ctx"]

    def statements(kind, tag, pick):
        return [pick(tag, fields(raw)) for _, raw in sorted(messages(kind).items())]

    keys = statements(
        "advertise",
        "renmei/v1/sa/advertise",
        lambda tag, f: tagged(tag, f[1][0], *(f[number][0] for number in range(2, 7))),
    )
    h1 = tagged("renmei/v1/sa/h1", ctx, *keys)
    assert h1.hex() == GOOD["h1"]

    def share(tag, message):
        f = fields(message[1][0])
        return tagged(tag, f[1][0], f[2][0], f[3][0], f[4][0], *f[5])

    h2 = tagged("renmei/v1/sa/h2", ctx, h1, *statements("shares", "renmei/v1/sa/shares", share))
    assert h2.hex() == GOOD["h2"]

    def upload(tag, message):
        f = fields(message[1][0])
        return tagged(tag, *(f[number][0] for number in range(1, 6)))

    h3 = tagged("renmei/v1/sa/h3", ctx, h2, *statements("header", "renmei/v1/sa/upload", upload))
    assert h3.hex() == GOOD["h3"]


@pytest.mark.parametrize("row", BAD, ids=lambda row: f"{row['kind']}: {row['why']}")
def test_a_bad_message_is_refused_in_its_place_and_the_good_one_still_taken(row):
    replay = Replay().play_to(row["kind"])
    with pytest.raises(PeerFault) as refusal:
        replay.take(row["kind"], row["member"], bytes.fromhex(row["message"]))
    assert refusal.value.code == row["code"], refusal.value
    # Evidence of two lists is never held against the member that signed what it was shown.
    blamed = "coordinator" if row["code"] == "RNM-SECAGG-0003" else row["member"]
    assert refusal.value.peer == blamed
    replay.take(row["kind"], row["member"], messages(row["kind"])[row["member"]])


def test_every_kind_of_message_has_bad_ones():
    assert {row["kind"] for row in BAD} == set(ORDER)
