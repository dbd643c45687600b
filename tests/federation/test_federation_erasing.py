"""Commitments of a party: opened by it alone, erased for good, also after an interruption."""

from dataclasses import replace

import pytest
from governing_kit import Governed
from hypothesis import given
from hypothesis import strategies as st

from federation import openings
from fedproto.errors import LocalFault

SECRET = b"the laptop of room 12 was stolen"


@pytest.fixture(scope="module")
def governed(tmp_path_factory):
    made = Governed(tmp_path_factory.mktemp("erasing") / "c")
    yield made
    made.close()


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_a_commitment_says_nothing_without_its_salt(content, guess):
    opening = openings.seal("incident-report", content)
    openings.verify(opening)
    # Without the salt a right guess looks like a wrong one.
    assert openings.seal("incident-report", content).commitment != opening.commitment
    other = replace(opening, content=guess)
    if guess != content:
        with pytest.raises(LocalFault):
            openings.verify(other)


@pytest.mark.parametrize("change", [{"kind": "vote-reason"}, {"salt": bytes(32)}])
def test_a_commitment_is_opened_by_its_own_salt_and_kind_only(change):
    opening = openings.seal("incident-report", SECRET)
    with pytest.raises(LocalFault) as caught:
        openings.verify(replace(opening, **change))
    assert caught.value.code == "RNM-FORM-0002"


def test_an_opening_is_found_by_its_first_digits_and_verified(tmp_path):
    opening = openings.seal("incident-report", SECRET)
    path = openings.keep(tmp_path, opening)
    assert openings.find(tmp_path, opening.commitment[:10]) == opening
    path.write_bytes(path.read_bytes().replace(b"incident", b"accident"))
    with pytest.raises(LocalFault) as caught:
        openings.find(tmp_path, opening.commitment)
    assert caught.value.code == "RNM-FORM-0002"


@pytest.mark.parametrize("left", ["zeros", "nothing"])
def test_an_erasure_that_was_broken_off_is_finished(tmp_path, left):
    opening = openings.seal("incident-report", SECRET)
    path = openings.keep(tmp_path, opening)
    if left == "zeros":
        path.write_bytes(bytes(path.stat().st_size))
    else:
        path.unlink()
    assert not openings.is_kept(tmp_path, opening.commitment)
    openings.erase(tmp_path, opening.commitment)
    assert list((tmp_path / openings.DIRECTORY).iterdir()) == []


def test_a_report_is_opened_then_erased_and_the_ledger_says_so(governed):
    report = governed.file("report.txt", SECRET.decode())
    words = ("report-incident", "--category", "theft", "--severity", 3, "--report", report)
    governed.ok("nec", *words)
    (path,) = (governed.dir("nec") / openings.DIRECTORY).glob("*.json")
    name = path.stem
    shown = governed.run("nec", "open", name[:12])
    assert SECRET.decode() in shown.out
    assert governed.fails("nec", "erase", name[:12], "--authority", "retention")[0] == 2
    assert path.is_file()
    words = ("erase", name[:12], "--authority", "data-subject", "--yes", name[:8])
    governed.ok("nec", *words)
    left = [p.read_bytes() for p in governed.dir("nec").rglob("*") if p.is_file()]
    assert not any(SECRET in data or path.stem.encode() in data[:200] for data in left if data)
    assert name in governed.state.erased
    assert governed.fails("nec", "open", name)[0] == 2
    again = ("erase", name, "--authority", "data-subject", "--yes", name[:8])
    assert governed.fails("nec", *again) == (8, "RNM-GOV-0003")
