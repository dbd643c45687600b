"""The published vectors of the ledger's formats: good ones are read, bad ones refused by their code."""

import importlib.util
import json
from pathlib import Path

import pytest

from audit import merkle, proof, receipt, tiles
from audit.checkpoint import open_checkpoint
from audit.note import NoteVerifier, parse_lines
from audit.policy import WitnessPolicy, read_policy
from fedproto.errors import LocalFault

VECTORS = Path(__file__).parents[1] / "vectors"


def load(name):
    return json.loads((VECTORS / "ledger" / f"{name}.json").read_text("utf-8"))


def cases(name, key="cases"):
    return [pytest.param(case, id=case["name"]) for case in load(name)[key]]


def refused(case, call, *args):
    with pytest.raises(LocalFault) as caught:
        call(*args)
    assert caught.value.code == case["error"]


def test_the_script_writes_the_files_that_are_there():
    spec = importlib.util.spec_from_file_location("make_ledger", VECTORS / "make_ledger.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    there = {path.name: path.read_text("utf-8") for path in (VECTORS / "ledger").iterdir()}
    assert module.build() == there


def test_the_worked_example_is_the_one_of_the_design():
    tree, checkpoint = load("tree"), load("checkpoint")
    assert tree["bundle"] == "0005616c706861000462657461000567616d6d61"
    assert tree["roots"][0] == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert tree["roots"][3] == "385da30f3917282c8939dff851957e519ab1846b1351a14c0adb3b11632742aa"
    assert tree["tiles_of_70000"] == ["tile/0/273.p/112", "tile/1/001.p/17", "tile/2/000.p/1"]
    assert checkpoint["vkey"].endswith("+3e2300b9+ARWNjAfqwgHFK6KOlFRdC5/WYqg0x0SsFHmjaDs6ljiD")
    assert "H8M0ngAAAABqsTu8SJGLv7imJrAvgbLKiFbYF3JWKnajMPHgu6" in checkpoint["note"]


def test_the_tree_proves_what_the_vectors_say():
    tree = load("tree")
    data = bytes.fromhex(tree["bundle"])
    entries = list(tiles.decode_bundle(data, first=0, width=3))
    leaves = [merkle.leaf_hash(entry) for entry in entries]
    assert [entry.decode() for entry in entries] == tree["entries"]
    assert b"".join(leaves).hex() == tree["tile_0"]
    roots = [bytes.fromhex(root) for root in tree["roots"]]
    assert [merkle.root_of(leaves[:size]) for size in range(4)] == roots
    for case in tree["inclusion"]:
        index, size = case["index"], case["size"]
        hashes = [bytes.fromhex(item) for item in case["proof"]]
        merkle.verify_inclusion(leaves[index], index, size, hashes, roots[size])
    for case in tree["consistency"]:
        old, size = case["old"], case["size"]
        hashes = [bytes.fromhex(item) for item in case["proof"]]
        merkle.verify_consistency(old, size, roots[old], roots[size], hashes)


@pytest.mark.parametrize("case", cases("tree_bad_proofs", "inclusion"))
def test_a_false_inclusion_proof_is_refused(case):
    tree = load("tree")
    leaf, root = merkle.leaf_hash(b"beta"), bytes.fromhex(tree["roots"][case["size"]])
    hashes = [bytes.fromhex(item) for item in case["proof"]]
    refused(case, merkle.verify_inclusion, leaf, case["index"], case["size"], hashes, root)


@pytest.mark.parametrize("case", cases("tree_bad_proofs", "consistency"))
def test_a_false_consistency_proof_is_refused(case):
    roots = (bytes.fromhex(case["old_root"]), bytes.fromhex(case["root"]))
    hashes = [bytes.fromhex(item) for item in case["proof"]]
    refused(case, merkle.verify_consistency, case["old"], case["size"], *roots, hashes)


def test_the_checkpoint_is_read():
    found = load("checkpoint")
    log = NoteVerifier.from_vkey(found["vkey"])
    signed = open_checkpoint(found["note"].encode(), log, found["origin"])
    assert (signed.head.size, signed.head.root) == (found["size"], found["root"])
    assert signed.note.encode() == found["note"].encode()


@pytest.mark.parametrize("case", cases("checkpoint_bad_notes"))
def test_a_bad_checkpoint_is_refused(case):
    found = load("checkpoint_bad_notes")
    log = NoteVerifier.from_vkey(found["vkey"])
    refused(case, open_checkpoint, case["note"].encode(), log, found["origin"])


@pytest.mark.parametrize("number", [0, 1])
def test_a_cosignature_of_each_kind_is_verified(number):
    found = load("cosignatures")
    case = found["cases"][number]
    verifier = NoteVerifier.from_vkey(case["vkey"])
    assert verifier.kind == (4, 6)[number]
    (line,) = parse_lines(case["line"].encode())
    assert verifier.verify(line, found["text"].encode()) == case["time"]


@pytest.mark.parametrize("case", cases("cosignatures_bad_lines"))
def test_a_bad_cosignature_is_refused(case):
    verifier = NoteVerifier.from_vkey(case["vkey"])
    (line,) = parse_lines(case["line"].encode())
    refused(case, verifier.verify, line, case["text"].encode())


@pytest.mark.parametrize("name", load("vkeys_bad")["cases"])
def test_a_bad_verifier_key_is_refused(name):
    with pytest.raises(ValueError, match=r"."):
        NoteVerifier.from_vkey(load("vkeys_bad")["cases"][name])


@pytest.mark.parametrize("case", cases("policies_bad"))
def test_a_bad_policy_is_refused(case):
    refused(case, read_policy, case["policy"].encode())


def test_each_proof_is_verified_and_written_as_it_was():
    found = load("proofs")
    policy = WitnessPolicy.from_text(found["policy"])
    for case in found["cases"]:
        data = case["proof"].encode()
        assert proof.verify(data, case["entry"].encode(), policy).signed.head.size == 3
        assert proof.parse(data).encode() == data


@pytest.mark.parametrize("case", cases("proofs_bad_files"))
def test_a_bad_proof_is_refused(case):
    found = load("proofs_bad_files")
    policy = WitnessPolicy.from_text(found["policy"])
    refused(case, proof.verify, case["proof"].encode(), found["entry"].encode(), policy)


def test_each_receipt_is_verified():
    found = load("receipts")
    log = NoteVerifier.from_vkey(found["vkey"])
    for case in found["cases"]:
        place = receipt.verify(bytes.fromhex(case["receipt"]), case["entry"].encode(), log)
        assert (place.index, place.size) == (case["index"], case["size"])


@pytest.mark.parametrize("case", cases("receipts_bad"))
def test_a_bad_receipt_is_refused(case):
    found = load("receipts_bad")
    log = NoteVerifier.from_vkey(found["vkey"])
    refused(case, receipt.verify, bytes.fromhex(case["receipt"]), found["entry"].encode(), log)
