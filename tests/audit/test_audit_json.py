"""One act has one spelling: an entry that reads alike but is written otherwise is not admitted.

Every trick is signed by a member's own key over the very bytes that are sent, so that nothing but the
spelling can be the reason of its refusal.
"""

import base64
import json
import re
from dataclasses import replace

import pytest
from ledger_kit import (
    LOG_KEY,
    T0,
    Story,
    charter_of,
    closed,
    copy_of,
    dataset,
    full_story,
    key_of,
    opened_with,
    proposal,
    receipt,
)

from audit import merkle, tiles
from audit.ledger import Ledger
from audit.sequencer import Columns, Job, Sequencer
from audit.state import Rejected, apply, open_next
from audit.store import Head, Store
from audit.tiles import RightEdge
from fedproto import envelope, jcs
from fedproto.errors import LocalFault
from fedproto.events.governance import CharterTerms, Choice, VoteCast
from fedproto.governance.charter import Action
from fedproto.statements import event_to_json, leaf_id

SPELLING, FIELDS = "RNM-FORM-0001", "RNM-FORM-0002"
TYPE = envelope.EVENT_TYPE


def told():
    story = Story()
    story.genesis()
    story.base_model()
    return story


STORY = told()


@pytest.fixture(scope="module")
def ledger(tmp_path_factory):
    directory = tmp_path_factory.mktemp("json") / "ledger"
    with Ledger.create(directory, log_key=LOG_KEY, genesis_leaf=STORY.leaves[0]) as made:
        for leaf in STORY.leaves[1:]:
            made.append(leaf)
        yield made


def pae(body, kind=TYPE):
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(body), body)


def sealed(body, member="nec", **changes):
    """Sign bytes as they are; the envelope around them is canonical unless `changes` say otherwise."""
    key = key_of(member)
    signature = key.sign(pae(body))
    key.verify_key.verify(signature, pae(body))
    signed = {"keyid": key.verify_key.key_id, "sig": base64.b64encode(signature).decode()}
    made = {
        "payload": base64.b64encode(body).decode(),
        "payloadType": TYPE,
        "signatures": [signed],
        **changes,
    }
    return json.dumps(made, sort_keys=True, separators=(",", ":")).encode()


def payload_of(body, member="nec", story=STORY, **changes):
    return jcs.dumps(event_to_json(copy_of(story).event(member, body, **changes)))


HONEST = payload_of(replace(dataset("nec"), size_bucket=0))
# Sealed once: a hybrid signature is another one each time.
LEAF = sealed(HONEST)


def refused(ledger, leaf, code):
    size, state = ledger.head, ledger.state
    assert len(leaf) <= tiles.MAX_ENTRY
    for admit in (lambda: open_next(STORY.state, leaf), lambda: ledger.append(leaf)):
        with pytest.raises(LocalFault) as caught:
            admit()
        assert caught.value.code == code, caught.value
    assert ledger.head == size == STORY.state.head
    assert ledger.state is state


def changed(old, new, count=1):
    """Return the honest payload with a change at one place; the place must be there."""
    assert HONEST.count(old) == count, (old, HONEST)
    return HONEST.replace(old, new)


def test_the_honest_spelling_is_admitted():
    """What every trick of this file starts from would have been an entry."""
    for leaf in (LEAF, sealed(PADDED)):
        result = apply(STORY.state, leaf_id(leaf), open_next(STORY.state, leaf))
        assert not isinstance(result, Rejected)


AT = f'"at":{T0}'.encode()
TRICKS = {
    "a name twice, with the same value": changed(b'"v":1}', b'"v":1,"v":1}'),
    "a name twice, with another value": changed(b'"v":1}', b'"v":1,"v":2}'),
    "a name twice inside the body": changed(b'{"commitment"', b'{"commitment":"x","commitment"'),
    "a name twice, once escaped": changed(b'"v":1}', b'"v":1,"\\u0076":1}'),
    "an exponent": changed(AT, b'"at":179e10'),
    "a capital exponent": changed(AT, b'"at":179E10'),
    "a fraction of nothing": changed(b'"v":1}', b'"v":1.0}'),
    "minus nothing": changed(b'"size_bucket":0', b'"size_bucket":-0'),
    "minus nothing as a float": changed(b'"size_bucket":0', b'"size_bucket":-0.0'),
    "a plus sign": changed(b'"v":1}', b'"v":+1}'),
    "a leading zero": changed(b'"v":1}', b'"v":01}'),
    "not a number": changed(b'"size_bucket":0', b'"size_bucket":NaN'),
    "infinity": changed(b'"size_bucket":0', b'"size_bucket":Infinity'),
    "2^53": changed(AT, b'"at":9007199254740992'),
    "minus 2^53": changed(AT, b'"at":-9007199254740992'),
    "five thousand digits": changed(AT, b'"at":' + b"9" * 5000),
    "a lone surrogate, escaped": changed(b'"demo"', b'"demo\\ud800"'),
    "a low surrogate before a high one": changed(b'"demo"', b'"demo\\udc00\\ud800"'),
    "a surrogate in UTF-8": changed(b'"demo"', b'"demo\xed\xa0\x80"'),
    "a pair of surrogates, escaped": changed(b'"demo"', b'"\\ud83d\\ude00"'),
    "overlong UTF-8": changed(b'"demo"', b'"dem\xc1\xaf"'),
    "decomposed text": changed(b'"demo"', '"cafe\u0301"'.encode()),
    "decomposed kana": changed(b'"demo"', '"テ\u3099モ"'.encode()),
    "a decomposed name": changed(b'"v":1}', '"v":1,"ve\u0301":1}'.encode()),
    "bytes after the end": HONEST + b"{}",
    "a null byte after the end": HONEST + b"\0",
    "a line end": HONEST + b"\n",
    "a byte order mark": b"\xef\xbb\xbf" + HONEST,
    "UTF-16": HONEST.decode().encode("utf-16"),
    "a space after a colon": changed(b'"v":1}', b'"v": 1}'),
    "a space before a comma": changed(b'"demo",', b'"demo" ,'),
    "an indented text": json.dumps(json.loads(HONEST), indent=1, sort_keys=True).encode(),
    "unsorted names": b'{"v":1,' + HONEST[1:].replace(b',"v":1}', b"}"),
    "unsorted names in the body": changed(
        b'"purpose":"demo","residency":"JP"', b'"residency":"JP","purpose":"demo"'
    ),
    "an escaped solidus": changed(b"ledger.consortium.example/", b"ledger.consortium.example\\/"),
    "an ASCII letter escaped": changed(b'"demo"', b'"d\\u0065mo"'),
    "a name escaped": changed(b'"purpose"', b'"p\\u0075rpose"'),
    "a tab written out": changed(b'"demo"', b'"de\tmo"'),
    "a capital escape": changed(b'"demo"', b'"demo\\u001F"'),
    "a comment": HONEST + b"/**/",
    "a trailing comma": changed(b'"v":1}', b'"v":1,}'),
    "single quotes": changed(b'"demo"', b"'demo'"),
    "depth": changed(b'"demo"', b"[" * 25 + b'"demo"' + b"]" * 25),
    "depth that a reader dies of": b"[" * 40_000,
    "depth of objects": b'{"a":' * 6_000 + b"1" + b"}" * 6_000,
    "nothing": b"",
}


@pytest.mark.parametrize("payload", TRICKS.values(), ids=TRICKS)
def test_another_spelling_of_the_payload_is_refused(ledger, payload):
    refused(ledger, sealed(payload), SPELLING)


NOT_AN_EVENT = {
    "an unknown field": changed(b'"v":1}', b'"v":1,"x":1}'),
    "an unknown field in the body": changed(b'"size_bucket":0', b'"size_bucket":0,"x":1'),
    "an unknown field that sorts first": b'{"a":1,' + HONEST[1:],
    "a version to come": changed(b'"v":1}', b'"v":2}'),
    "a type to come": changed(b'"dataset.declared"', b'"dataset.undeclared"'),
    "a type in capitals": changed(b'"dataset.declared"', b'"Dataset.declared"'),
    "true for 1": changed(b'"v":1}', b'"v":true}'),
    "text for a number": changed(AT, b'"at":"1"'),
    "a negative time": changed(AT, b'"at":-1'),
    "a negative size": re.sub(rb'"size":\d+', b'"size":-1', HONEST),
    "a list around it": b"[" + HONEST + b"]",
    "text around it": json.dumps(HONEST.decode()).encode(),
    "null": b"null",
    "an empty object": b"{}",
    "no body": re.sub(rb'"body":\{.*?\},', b"", HONEST),
}


@pytest.mark.parametrize("payload", NOT_AN_EVENT.values(), ids=NOT_AN_EVENT)
def test_fields_that_are_not_an_events_are_refused(ledger, payload):
    assert payload != HONEST
    refused(ledger, sealed(payload), FIELDS)


def places(value, path=()):
    """Yield the path of every value inside a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for name, item in items:
        yield (*path, name)
        if isinstance(item, dict | list):
            yield from places(item, (*path, name))


def at(value, path):
    for name in path:
        value = value[name]
    return value


def every_act():
    """Payloads of every shape that members send: flat, with a plan inside, with lists of objects."""
    state = full_story().state
    vote = VoteCast(
        proposal=leaf_id(STORY.leaves[0]), terms_sha256="a" * 64, choice=Choice.NO, reason=""
    )
    return [
        ("nec", HONEST),
        ("nec", payload_of(vote)),
        ("nec", payload_of(receipt("nec", 1))),
        ("secretariat", payload_of(proposal(), "secretariat")),
        ("coordinator", payload_of(closed(state, 1), "coordinator")),
    ]


def edited(payload, path, edit):
    """Return a payload, canonical again, after an edit of the container that holds a path's value."""
    value = json.loads(payload)
    edit(at(value, path[:-1]), path[-1])
    return jcs.dumps(value)


def set_to(new):
    def edit(holder, name):
        holder[name] = new

    return edit


def drop(holder, name):
    del holder[name]


def test_no_field_may_be_null_missing_or_of_another_type(ledger):
    tried = 0
    for member, payload in every_act():
        for path in places(json.loads(payload)):
            value = at(json.loads(payload), path)
            others = [None, {}, [[]], True, "1" if isinstance(value, int) else 1]
            for edit in map(set_to, others):
                refused(ledger, sealed(edited(payload, path, edit), member), FIELDS)
                tried += 1
            if isinstance(path[-1], str):
                refused(ledger, sealed(edited(payload, path, drop), member), FIELDS)
            if isinstance(value, dict):
                stray = edited(payload, (*path, "x"), set_to(1))
                refused(ledger, sealed(stray, member), FIELDS)
    assert tried > 400


HEX = re.compile(r"[0-9a-f]{16,}")


def hex_places(payload):
    value = json.loads(payload)
    for path in places(value):
        found = at(value, path)
        if isinstance(found, str) and HEX.fullmatch(found) and path != ("actor", "key"):
            yield path, found


def test_hex_is_written_in_small_letters_and_in_full(ledger):
    seen = set()
    for member, payload in every_act():
        for path, text in hex_places(payload):
            seen.add(path)
            # Zeros have no capitals: the text is replaced by one that has both.
            full = ("ab" * 32)[: len(text)]
            for other in (full.upper(), full[:-1] + "A", full[:-1], full + "ab", full[:-1] + "g"):
                leaf = sealed(edited(payload, path, set_to(other)), member)
                refused(ledger, leaf, FIELDS)
    assert {("charter",), ("id",), ("head", "root"), ("trace", "trace_id")} < seen


def test_a_key_in_capitals_is_no_key(ledger):
    key = key_of("nec").verify_key.key_id
    capitals = HONEST.replace(key.encode(), key.upper().encode())
    refused(ledger, sealed(capitals), "RNM-SIG-0002")
    leaf = LEAF.replace(f'"keyid":"{key}"'.encode(), f'"keyid":"{key.upper()}"'.encode())
    refused(ledger, leaf, "RNM-SIG-0002")


# --- the envelope


def enveloped(old, new):
    assert LEAF.count(old) == 1, old
    return LEAF.replace(old, new)


def member_of_envelope(name):
    return json.dumps(json.loads(LEAF)[name], separators=(",", ":")).encode()


def spare(text):
    """The same bytes in another base64: the last digit's spare bits set."""
    digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    kept = text.rstrip("=")
    assert kept != text, "these bytes leave no spare bits"
    other = kept[:-1] + digits[digits.index(kept[-1]) + 1] + "=" * (len(text) - len(kept))
    assert base64.b64decode(other) == base64.b64decode(text)
    return other


def padded():
    """An honest payload whose base64 leaves spare bits."""
    for purpose in ("demo", "demo1", "demo12"):
        payload = payload_of(replace(dataset("nec"), purpose=purpose))
        if len(payload) % 3:
            return payload
    raise AssertionError("one of three lengths leaves spare bits")


PADDED = padded()
TEXT = base64.b64encode(PADDED).decode()
KEY_ID = key_of("nec").verify_key.key_id
SIG = json.loads(LEAF)["signatures"][0]["sig"]
OUTSIDE = {
    "payload twice": enveloped(b'"payload":', b'"payload":"","payload":'),
    "payload twice, alike": enveloped(
        b'"payloadType"', b'"payload":' + member_of_envelope("payload") + b',"payloadType"'
    ),
    "a key id twice in one signature": enveloped(
        b'"keyid":', b'"keyid":"' + KEY_ID.encode() + b'","keyid":'
    ),
    "a byte order mark": b"\xef\xbb\xbf" + LEAF,
    "a line end": LEAF + b"\n",
    "a second envelope": LEAF * 2,
    "an escaped solidus": enveloped(b"application/", b"application\\/"),
    "an escaped letter": enveloped(b"application/", b"\\u0061pplication/"),
    "an escaped digit of base64": enveloped(b'"payload":"e', b'"payload":"\\u0065'),
    "an escaped name": enveloped(b'"payload":', b'"\\u0070ayload":'),
    "a space": enveloped(b'"payload":', b'"payload": '),
    "names unsorted": b'{"payloadType":"%s",' % TYPE.encode()
    + enveloped(b'"payloadType":"%s",' % TYPE.encode(), b"")[1:],
    "names of a signature unsorted": enveloped(
        f'"keyid":"{KEY_ID}","sig":"{SIG}"'.encode(), f'"sig":"{SIG}","keyid":"{KEY_ID}"'.encode()
    ),
    "spare bits of the payload": sealed(PADDED, payload=spare(TEXT)),
    "no padding": sealed(PADDED, payload=TEXT.rstrip("=")),
    "padding twice": sealed(PADDED, payload=TEXT + "===="),
    "base64 in lines": sealed(PADDED, payload=TEXT[:40] + "\n" + TEXT[40:]),
    "base64 with a stranger inside": sealed(PADDED, payload=TEXT[:40] + "!" + TEXT[40:]),
    "base64 for URLs": sealed(HONEST, signatures=[{"keyid": KEY_ID, "sig": SIG.replace("+", "-")}]),
    "spare bits of the signature": sealed(
        HONEST, signatures=[{"keyid": KEY_ID, "sig": spare(SIG)}]
    ),
    "the signature twice": sealed(HONEST, signatures=[{"keyid": KEY_ID, "sig": SIG}] * 2),
    "depth": b"[" * 60_000,
}


@pytest.mark.parametrize("leaf", OUTSIDE.values(), ids=OUTSIDE)
def test_another_spelling_of_the_envelope_is_refused(ledger, leaf):
    refused(ledger, leaf, SPELLING)


FOREIGN = {
    "an unknown field": sealed(HONEST, x=1),
    "an unknown field in a signature": sealed(
        HONEST, signatures=[{"keyid": KEY_ID, "sig": SIG, "x": 1}]
    ),
    "no payload": sealed(HONEST, payload=None),
    "a payload that is not wrapped": sealed(HONEST, payload=json.loads(HONEST)),
    "no list of signatures' entries": sealed(HONEST, signatures=[SIG]),
    "a key id of null": sealed(HONEST, signatures=[{"keyid": None, "sig": SIG}]),
    "a signature of null": sealed(HONEST, signatures=[{"keyid": KEY_ID, "sig": None}]),
    "another type": sealed(HONEST, payloadType=envelope.AUTHORISATION_TYPE),
    "a type in capitals": sealed(HONEST, payloadType=TYPE.upper()),
    "a list": b"[" + LEAF + b"]",
}


@pytest.mark.parametrize("leaf", FOREIGN.values(), ids=FOREIGN)
def test_an_envelope_with_other_fields_is_refused(ledger, leaf):
    refused(ledger, leaf, FIELDS)


def test_an_act_signed_for_another_kind_of_statement_is_refused(ledger):
    key = key_of("nec")
    signature = key.sign(pae(HONEST, envelope.AUTHORISATION_TYPE))
    sig = base64.b64encode(signature).decode()
    leaf = sealed(HONEST, signatures=[{"keyid": KEY_ID, "sig": sig}])
    refused(ledger, leaf, "RNM-SIG-0001")


# --- the longest entry


def amendment(length):
    """An act of a member, its charter grown by a name of this length."""
    old = charter_of()
    (first, *rest) = old.members
    members = (replace(first, name="N" * length), *rest)
    terms = CharterTerms(charter=replace(old, version=2, prev_sha256=old.digest, members=members))
    return opened_with(Action.AMEND_CHARTER, terms)


def test_the_longest_act_is_admitted_and_the_next_longer_one_is_not(tmp_path):
    """An envelope grows by four bytes: the last below the limit, and the first above it."""
    story = copy_of(STORY)
    shorter = len(story.leaf("secretariat", amendment(10_000)))
    length = 10_000 + (tiles.MAX_ENTRY - shorter) * 3 // 4 - 8
    leaves = [story.leaf("secretariat", amendment(length + more)) for more in range(16)]
    fitting = [leaf for leaf in leaves if len(leaf) <= tiles.MAX_ENTRY]
    longer = [leaf for leaf in leaves if len(leaf) > tiles.MAX_ENTRY]
    assert tiles.MAX_ENTRY == 65_535
    assert len(fitting[-1]) > tiles.MAX_ENTRY - 4
    assert len(longer[0]) <= tiles.MAX_ENTRY + 4
    with Ledger.create(tmp_path / "l", log_key=LOG_KEY, genesis_leaf=STORY.leaves[0]) as ledger:
        for leaf in STORY.leaves[1:]:
            ledger.append(leaf)
        with pytest.raises(LocalFault, match="RNM-LEDGER-0007"):
            ledger.append(longer[0])
        with pytest.raises(LocalFault, match=FIELDS):
            open_next(STORY.state, longer[0])
        assert ledger.head == STORY.state.head
        assert ledger.append(fitting[-1]).index == STORY.state.size
    with Ledger.open(tmp_path / "l", log_key=LOG_KEY) as again:
        assert again.entries(STORY.state.size, STORY.state.size + 1) == [fitting[-1]]


class Anything:
    """A judge that admits all, so that only the writer's own limit is under test."""

    def find(self, state, leaf_hash):
        return None

    def admit(self, state, job):
        return state, Columns(event_id=job.leaf_hash, type="x", actor="x")

    def root(self, state):
        return None


def test_65535_bytes_are_an_entry_and_65536_are_not(tmp_path):
    store = Store(tmp_path / "ledger.db")
    head = Head(origin=LOG_KEY.name, log_vkey=LOG_KEY.vkey, size=0, root=merkle.EMPTY_ROOT, epoch=1)
    store.start(head)
    writer = Sequencer(
        store, LOG_KEY, Anything(), head=head, edge=RightEdge(), state=None, clock=lambda: 0
    )
    longest, over = b"x" * 65_535, b"x" * 65_536
    assert writer.append(Job(leaf=longest)).index == 0
    with pytest.raises(LocalFault, match="RNM-LEDGER-0007"):
        writer.append(Job(leaf=over))
    assert writer.head.size == 1
    writer.close()
    assert store.entries(0, 1) == [longest]
    store.close()
