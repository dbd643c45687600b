"""Reports: every statement names its entries; nothing that a member wrote becomes markup."""

import base64
import hashlib
import html.parser
import re
from dataclasses import replace
from functools import cache

import ledger_kit as kit
import pytest
import question_kit as cases

from audit import lineage
from audit.answers.integrity import integrity
from audit.citation import Citations
from audit.history import History
from audit.reports.document import Report, Section, cited
from audit.reports.integrity import integrity_report
from audit.reports.page import page
from audit.reports.plain import plain
from audit.reports.templates import lineage_report, round_report
from fedproto.errors import LocalFault
from fedproto.statements import leaf_id

ATTACK = "<script>alert(1)</script>\"'&<img src=x onerror=alert(2)>\u202e\x1b[31m"


def english(*, en: str, ja: str) -> str:
    return en


def japanese(*, en: str, ja: str) -> str:
    return ja


SAY = {"en": english, "ja": japanese}
TEMPLATES = ("round", "lineage", "integrity")
ABSENT = {"It is not released.", "No expense of ε is recorded for this run."}


def citations(history: History, leaves: tuple[bytes, ...], witnessed: int) -> Citations:
    return Citations(
        entries=leaves,
        events=history.events,
        state=history.state,
        note=kit.cosigned_note(list(leaves)),
        witnessed=witnessed,
    )


def sections(template: str, history: History, language: str) -> tuple[Section, ...]:
    say = SAY[language]
    if template == "round":
        return round_report(history, kit.RUN, None, say)
    if template == "lineage":
        return lineage_report(history, lineage.trace(history, kit.digest("adapter:1")), say)
    return integrity_report(
        history,
        integrity(history, log=kit.LOG_KEY.verifier),
        cosigned=(),
        validated=(),
        witnessed=history.state.size - 1,
        unpinned=("log_vkey",),
        say=say,
    )


@cache
def made(template: str, language: str = "en", *, hostile: bool = False) -> Report:
    leaves = _hostile_log() if hostile else cases.year().leaves
    history = cases.Year(leaves=leaves, at={}).history
    found = sections(template, history, language)
    return Report(
        code="R1",
        template=template,
        language="ja" if language == "ja" else "en",
        title="Report",
        consortium=history.state.charter.consortium,
        origin=history.state.charter.origin,
        size=history.state.size,
        root=history.state.root,
        note=kit.cosigned_note(list(leaves)).decode(),
        sections=found,
        entries=cited(found, citations(history, leaves, len(leaves) - 1)),
    )


def _hostile_log() -> tuple[bytes, ...]:
    """A log of which a member, and the consortium, bear a name that is an attack (T47)."""
    story = kit.Story()
    own = kit.charter_of()
    members = tuple(replace(member, name=ATTACK) for member in own.members)
    story.genesis(replace(own, consortium="lab<b>", members=members))
    story.base_model()
    story.datasets()
    proposed = story.proposal()
    for member in kit.TRAINERS:
        story.vote(member, proposed)
    story.mandate(proposed)
    story.whole_round(1)
    return tuple(story.leaves)


class Reader(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


def read(document: str) -> Reader:
    reader = Reader()
    reader.feed(document)
    return reader


@pytest.mark.parametrize("template", ["round", "lineage"])
def test_a_name_that_is_an_attack_stays_text(template: str) -> None:
    document = page(made(template, hostile=True), english)
    reader = read(document)
    assert not reader.tags & {"script", "img", "iframe", "object", "form", "base", "b"}
    assert not [name for name, _ in reader.attributes if name.startswith("on")]
    assert "<script>alert(1)</script>" in reader.text
    # What cannot be seen, or turns the writing, is spelt out.
    assert "\u202e" not in document
    assert "\x1b" not in document
    assert "\\u202e" in reader.text


def test_a_name_that_is_an_attack_does_not_move_the_cursor() -> None:
    text = plain(made("round", hostile=True))
    assert "\x1b" not in text
    assert "\u202e" not in text


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_page_asks_for_nothing_outside_of_itself(template: str) -> None:
    document = page(made(template), english)
    reader = read(document)
    for name, value in reader.attributes:
        assert name not in {"src", "srcset", "action", "data", "poster"}
        if name == "href":
            assert value.startswith("#entry-")
    assert "url(" not in document
    assert "@import" not in document
    assert "script" not in reader.tags


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_pages_policy_allows_its_own_style_sheet_and_nothing_else(template: str) -> None:
    document = page(made(template), english)
    style = re.search(r"<style>(.*)</style>", document, re.DOTALL)
    assert style is not None
    named = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    policy = dict(read(document).attributes)["content"]
    policies = [v for n, v in read(document).attributes if n == "content" and "default-src" in v]
    assert policies[0].startswith(f"default-src 'none'; style-src 'sha256-{named}'")
    assert policy
    assert " style=" not in document


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("language", ["en", "ja"])
def test_every_citation_leads_to_an_entry_with_its_leaf_hash(template: str, language: str) -> None:
    report = made(template, language)
    document = page(report, SAY[language])
    leaves = [leaf_id(leaf) for leaf in cases.year().leaves]
    targets = set(re.findall(r'id="entry-(\d+)"', document))
    links = set(re.findall(r'href="#entry-(\d+)"', document))
    assert links == targets == {str(item.row.index) for item in report.entries}
    for index in targets:
        assert leaves[int(index)] in document


@pytest.mark.parametrize("template", ["round", "lineage"])
def test_no_row_and_no_claim_stands_without_an_entry(template: str) -> None:
    for section in made(template).sections:
        for line in section.lines:
            assert line.cites, (section.title, line)
        for item in section.statements:
            # Only of what is absent no entry can be named.
            assert item.cites or item.text in ABSENT, item


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_japanese_report_has_japanese_headings_only(template: str) -> None:
    report = made(template, "ja")
    for section in report.sections:
        assert any(ord(char) > 0x3000 for char in section.title)
        for item in section.statements:
            assert item.cites or any(ord(char) > 0x3000 for char in item.text)
    assert '<html lang="ja">' in page(report, japanese)


def test_an_entry_that_waits_for_its_witnesses_is_shown_as_pending() -> None:
    assert ">pending<" in page(made("integrity"), english)
    assert "! The last 1 entries wait" in plain(made("integrity"))


def test_a_lineage_report_warns_of_what_was_withdrawn_and_revoked() -> None:
    history = cases.year().history
    found = lineage.trace(history, kit.digest("adapter:2"))
    alarms = [s for s in lineage_report(history, found, english)[0].statements if s.alarm]
    assert [item.cites[0] for item in alarms] == [
        cases.year().at["withdrawn"],
        cases.year().at["revoked"],
    ]


def test_a_round_report_of_what_is_not_there_is_refused() -> None:
    with pytest.raises(LocalFault):
        round_report(cases.year().history, "cd" * 16, None, english)
    with pytest.raises(LocalFault):
        round_report(cases.year().history, kit.RUN, 9, english)


def test_a_round_report_of_one_round_leaves_out_the_others() -> None:
    found = round_report(cases.year().history, kit.RUN, 1, english)
    rounds = {line.cells[0] for line in found[1].lines} | {line.cells[0] for line in found[2].lines}
    assert rounds == {"1.1"}
