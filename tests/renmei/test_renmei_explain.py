"""Every code is explained, in both languages, with a cause and a way to mend it."""

import json
import subprocess
import sys

import pytest

from fedproto.errors import CODES
from renmei.explain import catalogue

FIELDS = {"cause_en", "mend_en", "cause_ja", "mend_ja"}


def test_the_catalogue_explains_exactly_the_codes_that_exist() -> None:
    assert set(catalogue()) == set(CODES)


@pytest.mark.parametrize("code", list(CODES))
def test_a_code_has_a_paragraph_of_cause_and_of_mend_in_both_languages(code: str) -> None:
    entry = catalogue()[code]
    assert set(entry) == FIELDS
    for name, text in entry.items():
        assert len(text.strip()) >= 20, name
        japanese = any("\u3040" <= char <= "\u30ff" for char in text)
        assert japanese is name.endswith("_ja"), name


@pytest.mark.parametrize("code", list(CODES))
def test_the_titles_are_in_their_own_language(code: str) -> None:
    assert CODES[code].en.isascii()
    assert not CODES[code].ja.isascii()


def _explain(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "renmei.cli", "explain", *words],
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_code_may_be_typed_in_lower_case() -> None:
    assert _explain("rnm-ledger-0003", "--lang", "en").stdout.startswith("RNM-LEDGER-0003  ")


def test_an_unknown_code_exits_2_and_names_the_nearest() -> None:
    result = _explain("RNM-LEDGER-003")
    assert result.returncode == 2
    assert "renmei explain RNM-LEDGER-0003" in result.stderr


def test_without_a_code_all_are_listed_with_their_exit_status() -> None:
    data = json.loads(_explain("--json").stdout)["data"]
    assert [row["code"] for row in data] == list(CODES)
    assert {row["exit"] for row in data} == {int(line.exit) for line in CODES.values()}
