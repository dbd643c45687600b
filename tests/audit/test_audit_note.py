"""Signed notes and keys: the worked example byte for byte, and every second spelling refused."""

import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit import note
from audit.checkpoint import Checkpoint, TreeHead, open_checkpoint, read_text, sign
from audit.note import Note, NoteSigner, NoteVerifier, parse
from fedproto.errors import LocalFault

ORIGIN = "ledger.consortium.example/fl-gov"
ROOT = "385da30f3917282c8939dff851957e519ab1846b1351a14c0adb3b11632742aa"
VKEY = f"{ORIGIN}+3e2300b9+ARWNjAfqwgHFK6KOlFRdC5/WYqg0x0SsFHmjaDs6ljiD"
TEXT = f"{ORIGIN}\n3\nOF2jDzkXKCyJOd/4UZV+UZqxhGsTUaFMCts7EWMnQqo=\n"
LOG_LINE = (
    f"— {ORIGIN} PiMAuduGvOXK7weiZ4lAh1l/SBpe0Dqekp3PcQ/TUTsaFrS9x4V7lnKFfNsUtIkEyP26XIeg9NGlF3/b"
    "CwTRUw7Jvgc=\n"
)
WITNESS_LINE = (
    "— witness.softbank.example/w1 H8M0ngAAAABqsTu8SJGLv7imJrAvgbLKiFbYF3JWKnajMPHgu6/TST6FhcYNZA4txI6V"
    "bY7xiFDqyVNfgZTwIAql9P7BUOxr2R8SCQ==\n"
)
EXAMPLE = (TEXT + "\n" + LOG_LINE + WITNESS_LINE).encode()
LOG_KEY = NoteSigner(ORIGIN, hashlib.sha256(b"lab-seed:log").digest())
LOG = NoteVerifier.from_vkey(VKEY)


def test_the_worked_example_is_signed_byte_for_byte():
    assert LOG_KEY.vkey == VKEY
    checkpoint = Checkpoint(ORIGIN, TreeHead(3, ROOT))
    assert sign(checkpoint, LOG_KEY) == (TEXT + "\n" + LOG_LINE).encode()


def test_the_worked_example_is_read_and_its_timestamp_is_known():
    signed = open_checkpoint(EXAMPLE, LOG, ORIGIN)
    assert signed.head == TreeHead(3, ROOT)
    line = signed.note.lines[1]
    assert line.key_id.hex() == "1fc3349e"
    assert int.from_bytes(line.signature[:8], "big") == 1_790_000_060
    assert parse(EXAMPLE).encode() == EXAMPLE


def test_a_cosignature_is_over_its_time_and_the_checkpoint():
    witness = NoteSigner("w.example/w1", b"\x07" * 32, cosigner=True)
    line = witness.cosign(TEXT.encode(), 1_790_000_060)
    assert witness.verifier.verify(line, TEXT.encode()) == 1_790_000_060
    later = note.SignatureLine(line.name, line.key_id, b"\xff" + line.signature[1:])
    for forged, text in ((later, TEXT.encode()), (line, TEXT.replace("\n3\n", "\n4\n").encode())):
        with pytest.raises(LocalFault) as caught:
            witness.verifier.verify(forged, text)
        assert caught.value.code == "RNM-LEDGER-0001"


def test_a_log_key_never_cosigns_and_a_witness_key_never_signs_as_a_log():
    with pytest.raises(ValueError, match="no cosignatures"):
        LOG_KEY.cosign(TEXT.encode(), 1)
    with pytest.raises(ValueError, match="cosignatures only"):
        NoteSigner("w", bytes(32), cosigner=True).sign(TEXT.encode())


def test_a_seed_is_not_shown():
    assert "07" not in repr(NoteSigner("w", b"\x07" * 32)).replace("\\x07", "07")


@pytest.mark.parametrize(
    "text",
    [
        VKEY.replace("3e2300b9", "3e2300ba"),
        VKEY.replace("3e2300b9", "3E2300B9"),
        VKEY[:-1],
        VKEY + "=",
        VKEY + "\n",
        VKEY.replace("+3e", " +3e"),
        f"{ORIGIN}+3e2300b9",
        f"{ORIGIN}+3e2300b9+",
        f"+{VKEY.split('+', 1)[1]}",
        "",
    ],
)
def test_a_verifier_key_has_one_spelling(text):
    with pytest.raises(ValueError, match=r"."):
        NoteVerifier.from_vkey(text)


def test_a_key_of_another_type_is_not_taken_for_one_we_know():
    raw = bytes([0x05]) + LOG.public
    key_id = hashlib.sha256(ORIGIN.encode() + b"\n" + raw).hexdigest()[:8]
    with pytest.raises(ValueError, match="type 05"):
        NoteVerifier.from_vkey(f"{ORIGIN}+{key_id}+{base64.b64encode(raw).decode()}")


def refused(data):
    with pytest.raises(LocalFault) as caught:
        open_checkpoint(data, LOG, ORIGIN)
    assert caught.value.code == "RNM-LEDGER-0001"


BAD = {
    "CRLF": EXAMPLE.replace(b"\n", b"\r\n"),
    "no signature": TEXT.encode() + b"\n",
    "no empty line": TEXT.encode() + LOG_LINE.encode(),
    "last newline cut": EXAMPLE[:-1],
    "text after the signatures": EXAMPLE + b"x\n",
    "empty line at the end": EXAMPLE + b"\n",
    "a line twice": EXAMPLE + LOG_LINE.encode(),
    "another dash": EXAMPLE.replace("— ".encode(), b"- ", 1),
    "two spaces": EXAMPLE.replace(b"fl-gov PiM", b"fl-gov  PiM"),
    "unpadded base64": EXAMPLE.replace(b"Jvgc=\n", b"Jvgc\n"),
    "a zero byte": EXAMPLE.replace(b"\n3\n", b"\n3\x00\n"),
    "not UTF-8": EXAMPLE.replace(b"ledger.", b"ledger\xff", 1),
    "leading zero": EXAMPLE.replace(b"\n3\n", b"\n03\n"),
    "another size": EXAMPLE.replace(b"\n3\n", b"\n4\n"),
    "another origin": EXAMPLE.replace(b"fl-gov\n3", b"fl-gow\n3"),
    "an extension line": EXAMPLE.replace(b"Qqo=\n", b"Qqo=\nextra\n"),
    "only the witness": (TEXT + "\n" + WITNESS_LINE).encode(),
    "empty": b"",
    "too long": b"x" * 70_000,
}


@pytest.mark.parametrize("name", BAD)
def test_a_malformed_note_is_refused(name):
    refused(BAD[name])


@given(st.integers(0, len((TEXT + "\n" + LOG_LINE).encode()) - 1), st.integers(0, 7))
def test_every_flipped_bit_of_text_and_log_line_is_refused(at, bit):
    data = bytearray((TEXT + "\n" + LOG_LINE).encode())
    data[at] ^= 1 << bit
    refused(bytes(data))


@given(st.binary(max_size=200))
def test_parsing_either_refuses_or_reads_exactly_what_it_would_write(tail):
    data = TEXT.encode() + b"\n" + LOG_LINE.encode() + tail
    try:
        parsed = parse(data)
    except LocalFault:
        return
    assert parsed.encode() == data


def test_a_valid_checkpoint_of_another_log_is_refused():
    other = NoteSigner("other.example/log", b"\x05" * 32)
    data = sign(Checkpoint("other.example/log", TreeHead(3, ROOT)), other)
    with pytest.raises(LocalFault):
        open_checkpoint(data, other.verifier, ORIGIN)
    refused(data)


@pytest.mark.parametrize("size", ["", "-1", "+1", "1.0", "1e3", "٣", "9" * 19, " 1"])
def test_a_size_is_plain_digits(size):
    with pytest.raises(LocalFault):
        read_text(TEXT.replace("\n3\n", f"\n{size}\n").encode())


def test_a_note_of_a_hundred_signatures_is_read_and_one_more_is_not():
    lines = tuple(note.SignatureLine(f"k{i}", bytes(4), b"s") for i in range(101))
    assert len(parse(Note(TEXT.encode(), lines[:100]).encode()).lines) == 100
    with pytest.raises(LocalFault):
        parse(Note(TEXT.encode(), lines).encode())
