"""Write the test vectors of the ledger's formats: `python tests/vectors/make_ledger.py`.

Good vectors pin bytes that another implementation must produce or accept; bad ones (`*_bad_*`) pin what
it must refuse, each with the code of the refusal. A new run writes the same bytes. Only ML-DSA signing is
randomised: the line that is there is kept as long as it verifies.
"""

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

from audit import cbor, merkle, proof, receipt, tiles
from audit.checkpoint import Checkpoint, TreeHead, open_checkpoint, sign
from audit.note import Note, NoteSigner, NoteVerifier, SignatureLine, parse, parse_lines
from fedproto.errors import LocalFault
from fedproto.ids import Digest

HERE = Path(__file__).parent / "ledger"
UNVERIFIED, TOO_FEW, CONFIGURATION = "RNM-LEDGER-0001", "RNM-LEDGER-0006", "RNM-CONF-0001"
ORIGIN = "ledger.consortium.example/fl-gov"
ENTRIES = (b"alpha", b"beta", b"gamma")
TIME = 1_790_000_060
Vectors = dict[str, Any]


def signer(name: str, label: str, **kind: bool) -> NoteSigner:
    """Return the key whose seed is the SHA-256 of its label."""
    return NoteSigner(name, hashlib.sha256(f"lab-seed:{label}".encode()).digest(), **kind)


LOG = signer(ORIGIN, "log")
SOFTBANK = signer("witness.softbank.example/w1", "softbank", cosigner=True)
NEC = signer("witness.nec.example/w1", "nec", cosigner=True)
SONY = signer("witness.sony.example/w1", "sony", cosigner=True, post_quantum=True)
LEAVES = [merkle.leaf_hash(entry) for entry in ENTRIES]
ROOT = merkle.root_of(LEAVES)
CHECKPOINT = Checkpoint(ORIGIN, TreeHead(len(ENTRIES), Digest(ROOT.hex())))
TEXT = CHECKPOINT.text
POLICY = (
    f"log {LOG.vkey}\nwitness softbank {SOFTBANK.vkey}\nwitness nec {NEC.vkey}\n"
    f"witness sony {SONY.vkey}\ngroup two-of-three 2 softbank nec sony\nquorum two-of-three\n"
)


def post_quantum_line() -> SignatureLine:
    """Return the ML-DSA line of the file that is there, or a new one."""
    path = HERE / "cosignatures.json"
    if path.exists():
        kept = json.loads(path.read_text("utf-8"))["cases"][-1]["line"]
        line = parse_lines(kept.encode())[0]
        try:
            SONY.verifier.verify(line, TEXT)
        except LocalFault:
            return SONY.cosign(TEXT, TIME)
        return line
    return SONY.cosign(TEXT, TIME)


def signed_note(*lines: SignatureLine) -> str:
    """Return the checkpoint with the log's line and others'."""
    return Note(TEXT, (LOG.sign(TEXT), *lines)).encode().decode()


def tree() -> Vectors:
    """The worked example: every hash of a tree of three."""
    pairs = [(old, new) for new in range(1, 4) for old in range(1, new + 1)]
    return {
        "entries": [entry.decode() for entry in ENTRIES],
        "bundle": tiles.encode_bundle(ENTRIES).hex(),
        "tile_0": b"".join(LEAVES).hex(),
        "roots": [merkle.root_of(LEAVES[:size]).hex() for size in range(4)],
        "inclusion": [
            {
                "index": index,
                "size": size,
                "proof": hexes(merkle.prove_inclusion(node, index, size)),
            }
            for size in range(1, 4)
            for index in range(size)
        ],
        "consistency": [
            {"old": old, "size": new, "proof": hexes(merkle.prove_consistency(node, old, new))}
            for old, new in pairs
        ],
        "tiles_of_70000": [tile.path for tile in tiles.hash_tiles(70_000) if tile.width < 256],
    }


def node(height: int, index: int) -> bytes:
    """Return a node of the tree of three."""
    return merkle.root_of(LEAVES[index << height : (index + 1) << height])


def hexes(hashes: list[bytes]) -> list[str]:
    """Return hashes in hex."""
    return [item.hex() for item in hashes]


def tree_bad() -> Vectors:
    """Proofs that lead nowhere; a consistency proof names the roots that it is said to join."""
    l0, l1, l2 = LEAVES
    roots = [merkle.root_of(LEAVES[:size]) for size in range(4)]
    return {
        "inclusion": [
            {"name": name, "index": i, "size": n, "proof": hexes(p), "error": UNVERIFIED}
            for name, i, n, p in [
                ("a cut proof", 1, 3, [l0]),
                ("a proof with a hash more", 1, 3, [l0, l2, l2]),
                ("swapped hashes", 1, 3, [l2, l0]),
                ("another index", 0, 3, [l0, l2]),
                ("an index beyond the tree", 3, 3, [l0, l2]),
                ("an index in a tree of none", 0, 0, []),
                ("a hash of 31 bytes", 1, 3, [l0, l2[:31]]),
            ]
        ],
        "consistency": [
            {
                "name": name,
                "old": old,
                "size": new,
                "old_root": a.hex(),
                "root": b.hex(),
                "proof": hexes(p),
                "error": UNVERIFIED,
            }
            for name, old, new, a, b, p in [
                ("no hashes", 2, 3, roots[2], roots[3], []),
                ("a proof with a hash more", 2, 3, roots[2], roots[3], [l2, l2]),
                ("another old root", 2, 3, l1, roots[3], [l2]),
                ("two roots of one size", 3, 3, roots[2], roots[3], []),
                ("a proof between equal sizes", 3, 3, roots[3], roots[3], [l2]),
                ("a proof from nothing", 0, 3, roots[0], roots[3], [l2]),
                ("an empty tree with a root", 0, 3, l0, roots[3], []),
                ("a tree that shrinks", 3, 2, roots[3], roots[2], [l2]),
            ]
        ],
    }


def checkpoints_bad() -> Vectors:
    """Checkpoints under the worked example's key that are refused."""
    good = signed_note()
    root = base64.b64encode(ROOT).decode()
    spare = root[:-2] + "p="
    texts = {
        "a leading zero": TEXT.replace(b"\n3\n", b"\n03\n"),
        "a sign": TEXT.replace(b"\n3\n", b"\n+3\n"),
        "an extension line": TEXT + b"extension\n",
        "another origin": TEXT.replace(b"fl-gov", b"fl-gow"),
        "a root of 31 bytes": TEXT.replace(root.encode(), base64.b64encode(ROOT[:31])),
        "spare bits in the root": TEXT.replace(root.encode(), spare.encode()),
        "two lines": TEXT.rpartition(b"\n")[0].rpartition(b"\n")[0] + b"\n",
    }
    notes = {name: Note(text, (LOG.sign(text),)).encode().decode() for name, text in texts.items()}
    notes |= {
        "CRLF": good.replace("\n", "\r\n"),
        "another size under the signature": good.replace("\n3\n", "\n4\n"),
        "no signature": TEXT.decode() + "\n",
        "a cut last line": good[:-1],
        "a line twice": good + good.rpartition("\n\n")[2],
        "a hyphen for the dash": good.replace("\u2014", "-"),
        "another key under the log's name": Note(
            TEXT, (signer(ORIGIN, "forger").sign(TEXT),)
        ).encode().decode(),
    }  # fmt: skip
    return {
        "vkey": LOG.vkey,
        "origin": ORIGIN,
        "cases": [
            {"name": name, "note": data, "error": UNVERIFIED} for name, data in notes.items()
        ],
    }


def cosignatures(line: SignatureLine) -> Vectors:
    """One cosignature of each kind over the worked example."""
    return {
        "text": TEXT.decode(),
        "cases": [
            {
                "vkey": SOFTBANK.vkey,
                "time": TIME,
                "line": SOFTBANK.cosign(TEXT, TIME).encode().decode(),
            },
            {"vkey": SONY.vkey, "time": TIME, "line": line.encode().decode()},
        ],
    }


def cosignatures_bad(pq: SignatureLine) -> Vectors:
    """Lines in a witness's name that it never signed."""
    cases = []
    for key, line in ((SOFTBANK.verifier, SOFTBANK.cosign(TEXT, TIME)), (SONY.verifier, pq)):
        other = TEXT.replace(b"\n3\n", b"\n4\n")
        stamp, rest = line.signature[:8], line.signature[8:]
        for name, signature, text in [
            ("another time", stamp[:-1] + b"\x00" + rest, TEXT),
            ("no time", bytes(8) + rest, TEXT),
            ("another size", line.signature, other),
            ("a flipped bit", line.signature[:-1] + bytes([line.signature[-1] ^ 1]), TEXT),
            ("a cut signature", line.signature[:-1], TEXT),
            ("a longer signature", line.signature + b"\x00", TEXT),
        ]:
            forged = SignatureLine(key.name, key.key_id, signature).encode().decode()
            cases.append(_bad_line(f"type {key.kind:02x}: {name}", key, forged, text))
    return {"cases": cases}


def _bad_line(name: str, key: NoteVerifier, line: str, text: bytes) -> Vectors:
    return {
        "name": name,
        "vkey": key.vkey,
        "line": line,
        "text": text.decode(),
        "error": UNVERIFIED,
    }


def vkeys_bad() -> Vectors:
    """Verifier keys with a second spelling, a wrong id, or of an unknown type."""
    good, pq = LOG.vkey, SONY.vkey
    raw = bytes([5]) + LOG.verifier.public
    key_id = hashlib.sha256(ORIGIN.encode() + b"\n" + raw).hexdigest()[:8]
    return {
        "cases": {
            "another id": good.replace("3e2300b9", "3e2300ba"),
            "an id in capitals": good.replace("3e2300b9", "3E2300B9"),
            "another id of an ML-DSA key": pq.replace(SONY.verifier.key_id.hex(), "00000000"),
            "a cut ML-DSA key": pq[:-4],
            "spare bits": good[:-1] + "j",
            "an unknown type": f"{ORIGIN}+{key_id}+{base64.b64encode(raw).decode()}",
            "no name": good.removeprefix(ORIGIN),
            "a space in the name": good.replace("fl-gov", "fl gov"),
        }
    }


def proofs(full: str) -> Vectors:
    """tlog-proof files of each entry, and one with extra data."""
    made = [
        (entry, proof.make(i, merkle.prove_inclusion(node, i, 3), full.encode(), extra))
        for i, entry in enumerate(ENTRIES)
        for extra in ((b"", b"extra data") if i == 1 else (b"",))
    ]
    return {
        "policy": POLICY,
        "cases": [{"entry": entry.decode(), "proof": data.decode()} for entry, data in made],
    }


def proofs_bad(full: str) -> Vectors:
    """tlog-proof files that are refused."""
    good = proof.make(1, [LEAVES[0], LEAVES[2]], full.encode()).decode()
    l0, l2 = (base64.b64encode(LEAVES[i]).decode() for i in (0, 2))
    softbank = SOFTBANK.cosign(TEXT, TIME)
    cases = {
        "CRLF": (good.replace("\n", "\r\n"), UNVERIFIED),
        "another version": (good.replace("@v1", "@v2"), UNVERIFIED),
        "a leading zero": (good.replace("index 1", "index 01"), UNVERIFIED),
        "another index": (good.replace("index 1", "index 0"), UNVERIFIED),
        "an empty extra": (good.replace("index", "extra \nindex"), UNVERIFIED),
        "a cut proof": (good.replace(l2 + "\n", ""), UNVERIFIED),
        "an extended proof": (good.replace(l2, l2 + "\n" + l2), UNVERIFIED),
        "swapped hashes": (good.replace(f"{l0}\n{l2}", f"{l2}\n{l0}"), UNVERIFIED),
        "a hash in a second spelling": (good.replace(l0, l0[:-2] + "t="), UNVERIFIED),
        "no witness": (_proof_under(signed_note()), TOO_FEW),
        "one witness": (_proof_under(signed_note(softbank)), TOO_FEW),
        "one witness twice": (
            _proof_under(signed_note(softbank), SOFTBANK.cosign(TEXT, TIME + 1).encode().decode()),
            UNVERIFIED,
        ),
        "one witness's key under two names": (
            _proof_under(
                signed_note(softbank),
                signer("alias.example/w1", "softbank", cosigner=True)
                .cosign(TEXT, TIME)
                .encode()
                .decode(),
            ),
            TOO_FEW,
        ),
    }
    return {
        "policy": POLICY,
        "entry": "beta",
        "cases": [{"name": n, "proof": data, "error": code} for n, (data, code) in cases.items()],
    }


def _proof_under(note: str, more: str = "") -> str:
    return proof.TlogProof(
        index=1, hashes=(LEAVES[0], LEAVES[2]), checkpoint=(note + more).encode()
    ).encode().decode()  # fmt: skip


def receipts() -> Vectors:
    """COSE receipts of each entry."""
    signed = open_checkpoint(sign(CHECKPOINT, LOG), LOG.verifier, ORIGIN)
    return {
        "vkey": LOG.vkey,
        "cases": [
            {
                "entry": entry.decode(),
                "index": i,
                "size": 3,
                "receipt": receipt.issue(
                    entry, i, merkle.prove_inclusion(node, i, 3), signed, LOG
                ).hex(),
            }
            for i, entry in enumerate(ENTRIES)
        ],
    }


def receipts_bad() -> Vectors:
    """COSE receipts of `beta` that are refused."""
    good = bytes.fromhex(receipts()["cases"][1]["receipt"])
    value = cbor.decode(good)
    assert isinstance(value, cbor.Tagged)
    assert isinstance(value.value, list)
    protected, unprotected, _, signature = value.value
    moved = {396: {-1: [cbor.encode([3, 0, [LEAVES[0], LEAVES[2]]])]}}
    cases = {
        "no tag": good[1:],
        "a byte after the end": good + b"\x00",
        "a length that is not the shortest": b"\xd8\x12" + good[1:],
        "an attached payload": _sign1(protected, unprotected, ROOT, signature),
        "another index": _sign1(protected, moved, None, signature),
        "a flipped bit in the signature": good[:-1] + bytes([good[-1] ^ 1]),
        "another algorithm": good.replace(b"\x01\x27\x04", b"\x01\x26\x04"),
        "another issuer": good.replace(b"fl-gov", b"fl-gow"),
    }
    return {
        "vkey": LOG.vkey,
        "entry": "beta",
        "cases": [
            {"name": n, "receipt": data.hex(), "error": UNVERIFIED} for n, data in cases.items()
        ],
    }


def _sign1(*parts: Any) -> bytes:
    return cbor.encode(cbor.Tagged(18, list(parts)))


def policies_bad() -> Vectors:
    """Policy files that are refused."""
    head = f"log {LOG.vkey}\nwitness a {SOFTBANK.vkey}\nwitness b {NEC.vkey}\n"
    cases = {
        "no quorum": head,
        "no log": head.partition("\n")[2] + "quorum a\n",
        "an unknown word": head + "threshold 2\nquorum a\n",
        "a threshold above the members": head + "group g 3 a b\nquorum g\n",
        "a threshold of zero": head + "group g 0 a b\nquorum g\n",
        "a witness in two groups": head + "group g any a\ngroup h 2 a g\nquorum h\n",
        "a name that is not defined before": head + "group g any h\ngroup h any a\nquorum g\n",
        "one key under two names": head
        + f"witness c {signer('alias.example/w1', 'softbank', cosigner=True).vkey}\nquorum a\n",
        "CRLF": (head + "quorum a\n").replace("\n", "\r\n"),
    }
    return {
        "cases": [{"name": n, "policy": text, "error": CONFIGURATION} for n, text in cases.items()]
    }


def build() -> dict[str, str]:
    """Return each file's name and text."""
    line = post_quantum_line()
    full = signed_note(SOFTBANK.cosign(TEXT, TIME), NEC.cosign(TEXT, TIME), line)
    assert parse(full.encode()).text == TEXT
    vectors: dict[str, Vectors] = {
        "tree": tree(),
        "tree_bad_proofs": tree_bad(),
        "checkpoint": {
            "vkey": LOG.vkey,
            "origin": ORIGIN,
            "size": 3,
            "root": ROOT.hex(),
            "note": full,
        },
        "checkpoint_bad_notes": checkpoints_bad(),
        "cosignatures": cosignatures(line),
        "cosignatures_bad_lines": cosignatures_bad(line),
        "vkeys_bad": vkeys_bad(),
        "policies_bad": policies_bad(),
        "proofs": proofs(full),
        "proofs_bad_files": proofs_bad(full),
        "receipts": receipts(),
        "receipts_bad": receipts_bad(),
    }
    return {
        f"{name}.json": json.dumps(data, indent=1, ensure_ascii=False) + "\n"
        for name, data in vectors.items()
    }


if __name__ == "__main__":
    HERE.mkdir(exist_ok=True)
    for name, text in build().items():
        (HERE / name).write_text(text, "utf-8")
