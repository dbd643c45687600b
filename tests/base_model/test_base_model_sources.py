import gzip
import json
import lzma
import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from base_model.sources import MAX_DOCUMENT, MIN_DOCUMENT, READERS, Document, pieces


def read(reader: str, name: str, data: bytes) -> list[Document]:
    return list(READERS[reader](name, data))


def test_parts_and_brands_of_one_car_maker_are_one_group() -> None:
    names = ["dbc/honda_civic.dbc", "dbc/acura_ilx.dbc", "dbc/generator/honda/_bosch.dbc"]
    assert {read("dbc", name, b"BO_")[0].group for name in names} == {"honda"}
    assert read("dbc", "dbc/vw_golf.dbc", b"BO_")[0].group == "vw"


def test_one_command_of_two_device_makers_is_one_group() -> None:
    first = read("textfsm", "t/cisco_ios_show_version.textfsm", b"Value")
    second = read("textfsm", "t/arista_eos_show_version.textfsm", b"Value")
    assert first[0].group == second[0].group == "show version"


def test_a_tune_and_its_variant_are_one_group_and_transcribers_are_left_out() -> None:
    tunes = b"X:1\nT:The Humours\nZ:A. Person ray:davies99.example\nK:G\nGAB\n\nX: 2\nT: the humours!\nK:D\n"
    found = read("abc", "ryan.abc", tunes)
    assert [document.group for document in found] == ["thehumours", "thehumours"]
    assert not any("Person" in document.text for document in found)


def test_docstrings_are_read_without_running_the_module() -> None:
    words = "what it does " * 12
    source = (
        f'raise SystemExit("ran")\nclass A:\n    """{words}"""\n    def f(self):\n        "short"\n'
    )
    (document,) = read("docstrings", "m.py", source.encode())
    assert document.text == f"A\n{words.strip()}"
    assert read("docstrings", "m.py", b"def (:") == []


def test_a_check_is_read_as_prose() -> None:
    check = {
        "Provider": "aws",
        "ServiceName": "s3",
        "CheckTitle": "Bucket is private",
        "Risk": "It leaks.",
        "Remediation": {"Code": {"CLI": "aws s3api"}, "Recommendation": {"Text": "Close it."}},
    }
    (document,) = read("prowler", "x.metadata.json", json.dumps(check).encode())
    assert document.group == "aws/s3"
    assert "Risk: It leaks.\nRemediation: Close it.\nCLI:\naws s3api" in document.text


def test_descriptions_of_a_bundle_are_grouped_by_name() -> None:
    bundle = {"objects": [{"name": "Phish", "description": "Sends mail."}, {"id": "x"}]}
    found = read("stix", "b.json", json.dumps(bundle).encode())
    assert found == [Document("Phish", "Phish\nSends mail.")]


def test_a_manual_page_is_read_without_its_requests() -> None:
    page = '.\\" comment\n.TH LS 1\n.SH 名前\nls \\- \\fB一覧\\fR を表示\n.nf\n'
    (document,) = read("man", "ls.1.gz", gzip.compress(page.encode()))
    assert document.text.split("\n")[:3] == ["LS 1", "名前", "ls - 一覧 を表示"]


def test_a_web_page_is_read_without_tags_and_scripts() -> None:
    page = b"<head><title>x</title></head><h2>A &amp; B</h2><script>evil()</script><p>text</p>"
    text = " ".join(d.text for d in read("html", "p.html", page))
    assert text.split() == ["A", "&", "B", "text"]


def test_definitions_leave_the_licence_header_out() -> None:
    source = b"# Copyright header\nimport x\nclass Attach(Envelope):\n    pass\n"
    (document,) = read("definitions", "nas.py", source)
    assert document.text.startswith("class Attach")


def test_a_lexicon_is_read_from_its_database(tmp_path) -> None:
    path = tmp_path / "jamdict.db"
    with sqlite3.connect(path) as connection:
        connection.executescript(
            "CREATE TABLE Kanji(idseq, text); CREATE TABLE Kana(idseq, text);"
            "CREATE TABLE Sense(ID, idseq); CREATE TABLE SenseGloss(sid, text);"
        )
        for number in range(0, 320, 4):
            connection.execute("INSERT INTO Kanji VALUES (?, '連盟')", (number,))
            connection.execute("INSERT INTO Kana VALUES (?, 'れんめい')", (number,))
            connection.execute("INSERT INTO Sense VALUES (?, ?)", (number, number))
            connection.execute("INSERT INTO SenseGloss VALUES (?, 'league')", (number,))
    connection.close()
    found = read("jmdict", "jamdict.db.xz", lzma.compress(path.read_bytes()))
    assert len(found) == 2
    assert found[0].text.split("\n") == ["連盟【れんめい】 league"] * 40


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("ask taro.yamada+x@mail.example.co.jp today", "ask [address] today"),
        ("@pytest.mark.slow", "@pytest.mark.slow"),
        ("user@host", "user@host"),
    ],
)
def test_no_address_of_a_person_reaches_a_corpus(text: str, kept: str) -> None:
    filler = "x" * MIN_DOCUMENT
    assert [p.text for p in pieces(Document("g", f"{text} {filler}"))] == [f"{kept} {filler}"]


def test_a_long_run_of_signs_takes_no_time_to_search_for_addresses() -> None:
    # A pattern that tries again at each sign would need a minute here; the test's timeout is less.
    assert list(pieces(Document("g", "-" * 400_000))) == []


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=600), max_size=60))
def test_pieces_are_never_too_long_too_short_or_of_another_group(lines: list[str]) -> None:
    for piece in pieces(Document("g", "\n".join(lines))):
        assert piece.group == "g"
        assert MIN_DOCUMENT <= len(piece.text.encode()) <= MAX_DOCUMENT
