"""Exports: JSON Lines that hash, CSV without formulas, in-toto statements, CycloneDX."""

import csv
import io
import json
import re

import ledger_kit as kit
import pytest
import question_kit as cases

from audit import lineage, merkle
from audit.citation import Citations
from audit.exports.cyclonedx import bill
from audit.exports.in_toto import ADAPTER, COMMITMENT, PAYLOAD_TYPE, statements
from audit.exports.rows import BYTE_ORDER_MARK, COLUMNS, comma_separated, json_lines, safe
from fedproto import envelope
from fedproto.errors import LocalFault

YEAR = cases.year()
AT, HISTORY = YEAR.at, YEAR.history
CITED = Citations(
    entries=YEAR.leaves,
    events=HISTORY.events,
    state=HISTORY.state,
    note=kit.cosigned_note(list(YEAR.leaves)),
    witnessed=AT["left"],
)
ALL = range(len(YEAR.leaves))
FOUND = lineage.trace(HISTORY, kit.digest("adapter:2"))
STATEMENTS = list(statements(HISTORY, CITED, FOUND))
BILL = bill(HISTORY, CITED, FOUND)


def test_each_json_line_holds_the_bytes_that_its_leaf_hash_is_of() -> None:
    lines = [json.loads(line) for line in json_lines(HISTORY, CITED, YEAR.leaves, ALL)]
    assert [line["index"] for line in lines] == list(ALL)
    for line, leaf in zip(lines, YEAR.leaves, strict=True):
        assert merkle.leaf_hash(line["entry"].encode()).hex() == line["leaf"]
        assert line["entry"].encode() == leaf
    last = lines[-1]
    assert last["state"] == "pending witness"
    assert last["witnessed_until"] is None
    assert lines[0]["witnessed_until"] == "2026-09-21T14:23:20Z"
    assert lines[0]["event"]["type"] == "charter.adopted"


def rows() -> list[list[str]]:
    return list(csv.reader(io.StringIO(comma_separated(HISTORY, CITED, ALL), newline="")))


def test_a_table_has_one_row_an_entry_in_rfc_4180_form() -> None:
    text = comma_separated(HISTORY, CITED, ALL)
    assert text.count("\r\n") == len(YEAR.leaves) + 1
    head, *entries = rows()
    assert tuple(head) == COLUMNS
    assert all(len(row) == len(COLUMNS) for row in entries)
    closed = dict(zip(COLUMNS, entries[AT["closed:2"]], strict=True))
    assert (closed["round"], closed["attempt"], closed["outcome"]) == ("2", "2", "aggregated")
    assert json.loads(closed["body"])["model_out"] == kit.digest("adapter:2")


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠"])
def test_no_cell_starts_a_formula(start: str) -> None:
    attack = f'{start}HYPERLINK("http://evil.example";"x")'
    assert safe(attack) == f"'{attack}"
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerow([safe(attack)])
    (row,) = csv.reader(io.StringIO(text.getvalue(), newline=""))
    assert row == [f"'{attack}"]


def test_a_plain_cell_stays_as_it_is() -> None:
    for cell in ("", "nec", "0", "2026-09-21T14:23:20Z", '{"a":"=1"}'):
        assert safe(cell) == cell


def test_a_byte_order_mark_stands_first_where_excel_asks_for_it() -> None:
    plain = comma_separated(HISTORY, CITED, ALL)
    assert comma_separated(HISTORY, CITED, ALL, mark=True) == BYTE_ORDER_MARK + plain


def test_provenance_is_an_in_toto_statement_of_the_adapter_and_all_that_it_was_made_of() -> None:
    provenance = STATEMENTS[0]
    assert provenance["_type"] == "https://in-toto.io/Statement/v1"
    assert provenance["predicateType"] == "https://slsa.dev/provenance/v1"
    assert provenance["subject"][0]["digest"] == {ADAPTER: kit.digest("adapter:2")}
    definition = provenance["predicate"]["buildDefinition"]
    base, *datasets = definition["resolvedDependencies"]
    assert base["digest"] == {"sha256": kit.digest("base")}
    assert {item["digest"][COMMITMENT] for item in datasets} == {
        kit.digest(f"dataset:{member}") for member in kit.TRAINERS
    }
    gone = [item["name"] for item in datasets if item["annotations"]["withdrawn"]]
    assert gone == ["dataset/sony"]
    assert definition["externalParameters"]["plan"]["purpose"] == "demo"
    run = provenance["predicate"]["runDetails"]
    assert run["metadata"]["invocationId"] == kit.RUN
    assert run["metadata"]["startedOn"] <= run["metadata"]["finishedOn"]


def test_a_commitment_is_never_called_a_sha256_of_content() -> None:
    text = json.dumps(STATEMENTS)
    for named in (kit.digest("adapter:2"), kit.digest("dataset:nec")):
        assert f'"sha256": "{named}"' not in text
        assert f'"content": "{named}"' not in json.dumps(BILL)


def test_a_test_result_is_stated_for_each_evaluation_that_the_release_rests_on() -> None:
    results = STATEMENTS[1:]
    assert [item["predicateType"].rsplit("/", 2)[-2] for item in results] == ["test-result"] * 2
    members = [i["predicate"]["configuration"][0]["annotations"]["member"] for i in results]
    assert members == ["nec", "sony"]
    assert {item["predicate"]["result"] for item in results} == {"PASSED"}


def test_figures_that_no_release_rests_on_have_no_verdict() -> None:
    story = kit.copy_of(kit.full_story(1))
    story.act("nec", cases.evaluated(1, "0.10"))
    history = cases.Year(leaves=tuple(story.leaves), at={}).history
    found = lineage.trace(history, kit.digest("adapter:1"))
    cited = Citations(
        entries=story.leaves,
        events=history.events,
        state=history.state,
        note=kit.cosigned_note(story.leaves),
        witnessed=0,
    )
    assert len(list(statements(history, cited, found))) == 1


def test_every_entry_that_a_statement_names_is_in_the_log() -> None:
    named = re.findall(r'\{"index": (\d+), "leaf": "([0-9a-f]{64})"\}', json.dumps(STATEMENTS))
    assert len(named) > 20
    for index, leaf in named:
        assert HISTORY.leaves[int(index)] == leaf


def test_a_signed_statement_opens_with_the_members_key_in_force_and_no_other() -> None:
    sealed = envelope.seal(PAYLOAD_TYPE, STATEMENTS[0], (kit.key_of("meti"),))
    opened = envelope.open_envelope(sealed, PAYLOAD_TYPE, HISTORY.state.verify_key)
    assert opened.payload == STATEMENTS[0]
    stranger = envelope.seal(PAYLOAD_TYPE, STATEMENTS[0], (kit.key_of("stranger"),))
    with pytest.raises(LocalFault):
        envelope.open_envelope(stranger, PAYLOAD_TYPE, HISTORY.state.verify_key)


def test_a_bill_has_what_cyclonedx_1_6_requires() -> None:
    assert (BILL["bomFormat"], BILL["specVersion"], BILL["version"]) == ("CycloneDX", "1.6", 1)
    uuid = r"urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
    assert re.fullmatch(uuid, BILL["serialNumber"])
    components = [BILL["metadata"]["component"], *BILL["components"]]
    refs = [component["bom-ref"] for component in components]
    assert len(set(refs)) == len(refs)
    for component in components:
        assert component["type"] in {"machine-learning-model", "data"}
        assert component["name"]
        assert all(
            item["url"] and item["type"] == "evidence" for item in component["externalReferences"]
        )
    linked = {item["ref"] for item in BILL["dependencies"]}
    assert linked == set(refs)
    named = {ref for item in BILL["dependencies"] for ref in item.get("dependsOn", ())}
    assert named == set(refs[1:])


def test_a_bill_has_a_model_card_and_its_datasets_by_commitment() -> None:
    model = BILL["metadata"]["component"]
    card = model["modelCard"]
    assert {item["ref"] for item in card["modelParameters"]["datasets"]} == {
        f"dataset:{kit.digest(f'dataset:{member}')}" for member in kit.TRAINERS
    }
    figures = card["quantitativeAnalysis"]["performanceMetrics"]
    assert [item["value"] for item in figures] == ["0.91", "0.90"]
    assert {"name": "renmei:withdrawn-dataset", "value": kit.digest("dataset:sony")} in model[
        "properties"
    ]


def test_the_same_log_gives_the_same_bytes() -> None:
    assert json.dumps(bill(HISTORY, CITED, FOUND)) == json.dumps(BILL)
