"""Signed notes and keys: the worked example byte for byte, and every second spelling refused."""

import base64
import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PublicKey
from hypothesis import given
from hypothesis import strategies as st

from audit import cosignature, note
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
    "too long": EXAMPLE + b"x" * note.MAX_NOTE,
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


def test_a_note_of_130_signatures_is_read_and_one_more_is_not():
    lines = tuple(note.SignatureLine(f"k{i}", bytes(4), b"s") for i in range(131))
    assert len(parse(Note(TEXT.encode(), lines[:130]).encode()).lines) == 130
    with pytest.raises(LocalFault) as caught:
        parse(Note(TEXT.encode(), lines).encode())
    assert "130" in caught.value.why


ML_DSA = NoteSigner("w.example/w1", b"\x07" * 32, cosigner=True, post_quantum=True)
ML_DSA_LINE = ML_DSA.cosign(TEXT.encode(), 1_790_000_060)


def test_an_ml_dsa_cosignature_has_the_bytes_of_the_specification():
    assert ML_DSA.verifier.kind == 0x06
    assert len(ML_DSA.verifier.public) == 1312
    assert len(ML_DSA_LINE.signature) == 2428
    # Built by hand from tlog-cosignature's `cosigned_message`.
    message = (
        b"subtree/v1\n\0"
        + bytes([12])
        + b"w.example/w1"
        + (1_790_000_060).to_bytes(8, "big")
        + bytes([32])
        + ORIGIN.encode()
        + bytes(8)
        + (3).to_bytes(8, "big")
        + bytes.fromhex(ROOT)
    )
    public = MLDSA44PublicKey.from_public_bytes(ML_DSA.verifier.public)
    public.verify(ML_DSA_LINE.signature[8:], message)
    assert ML_DSA_LINE.signature[:8] == (1_790_000_060).to_bytes(8, "big")
    assert NoteVerifier.from_vkey(ML_DSA.vkey) == ML_DSA.verifier


def test_an_ml_dsa_cosignature_is_over_its_name_time_origin_size_and_root():
    text = TEXT.encode()
    assert ML_DSA.verifier.verify(ML_DSA_LINE, text) == 1_790_000_060
    other_name = NoteSigner("w.example/w2", ML_DSA.seed, cosigner=True, post_quantum=True).verifier
    renamed = note.SignatureLine(other_name.name, other_name.key_id, ML_DSA_LINE.signature)
    later = note.SignatureLine(
        ML_DSA.name, ML_DSA_LINE.key_id, bytes([0, 0, 0, 1]) + ML_DSA_LINE.signature[4:]
    )
    attacks = [
        (other_name, renamed, text),
        (ML_DSA.verifier, later, text),
        (ML_DSA.verifier, ML_DSA_LINE, text.replace(b"fl-gov", b"fl-gow")),
        (ML_DSA.verifier, ML_DSA_LINE, text.replace(b"\n3\n", b"\n4\n")),
        (ML_DSA.verifier, ML_DSA_LINE, text.replace(b"OF2j", b"OF2k")),
        (ML_DSA.verifier, ML_DSA_LINE, text + b"extension\n"),
    ]
    for verifier, line, body in attacks:
        with pytest.raises(LocalFault) as caught:
            verifier.verify(line, body)
        assert caught.value.code == "RNM-LEDGER-0001"


def test_the_two_kinds_of_cosignature_never_pass_for_each_other():
    ed25519 = NoteSigner(ML_DSA.name, ML_DSA.seed, cosigner=True)
    theirs = ed25519.cosign(TEXT.encode(), 5)
    for verifier, line in ((ML_DSA.verifier, theirs), (ed25519.verifier, ML_DSA_LINE)):
        forged = note.SignatureLine(verifier.name, verifier.key_id, line.signature)
        with pytest.raises(LocalFault):
            verifier.verify(forged, TEXT.encode())


@pytest.mark.parametrize("signer", [ML_DSA, NoteSigner("w", bytes(32), cosigner=True)])
def test_a_cosignature_at_no_time_is_neither_made_nor_accepted(signer):
    for timestamp in (0, 2**63, -1):
        with pytest.raises(ValueError, match="1970"):
            signer.cosign(TEXT.encode(), timestamp)
    public = signer.verifier
    cosigner = cosignature.Cosigner(name=public.name, kind=public.kind, public=public.public)
    for timestamp in (0, 2**63):
        message = cosignature.signed_message(cosigner, timestamp, TEXT.encode())
        raw = cosignature._sign(public.kind, signer.seed, message)
        line = note.SignatureLine(public.name, public.key_id, timestamp.to_bytes(8, "big") + raw)
        with pytest.raises(LocalFault):
            public.verify(line, TEXT.encode())


def test_what_ml_dsa_cannot_cover_is_refused():
    with pytest.raises(ValueError, match="at most 255"):
        _ = NoteSigner("w" * 256, bytes(32), cosigner=True, post_quantum=True).verifier
    with pytest.raises(LocalFault):
        ML_DSA.cosign(TEXT.replace(ORIGIN, "o" * 256).encode(), 5)
    with pytest.raises(ValueError, match="Ed25519"):
        NoteSigner(ORIGIN, bytes(32), post_quantum=True)
    with pytest.raises(ValueError, match="1312"):
        NoteVerifier("w", 0x06, bytes(32))


def test_a_note_that_64_witnesses_cosign_twice_is_read():
    text = Checkpoint("o" * 255, TreeHead(10**17, ROOT)).text
    lines = [note.SignatureLine("o" * 255, bytes(4), bytes(64))]
    for number in range(64):
        name = f"{number:0255d}"
        lines.append(note.SignatureLine(name, b"ed25", bytes(72)))
        lines.append(note.SignatureLine(name, b"mlds", bytes(2428)))
    data = Note(text, tuple(lines)).encode()
    assert note.MAX_NOTE * 9 // 10 < len(data) <= note.MAX_NOTE
    assert parse(data).encode() == data


@pytest.mark.parametrize("root", ["", "!!!!", "OF2j", "é" * 44])
def test_a_root_is_32_bytes_in_base64(root):
    with pytest.raises(LocalFault) as caught:
        read_text(f"{ORIGIN}\n3\n{root}\n".encode())
    assert caught.value.code == "RNM-LEDGER-0001"


def test_keys_and_signatures_have_their_length():
    with pytest.raises(ValueError, match="32 bytes"):
        NoteVerifier(ORIGIN, 0x01, bytes(31))
    with pytest.raises(ValueError, match="32 bytes"):
        NoteSigner(ORIGIN, bytes(31))
    line = note.SignatureLine(ORIGIN, LOG.key_id, LOG_KEY.sign(TEXT.encode()).signature[:-1])
    with pytest.raises(LocalFault):
        LOG.verify(line, TEXT.encode())
