"""The demo's own arithmetic: corpora that do not overlap, a table that arranges nothing."""

import pytest

from base_model.corpus import Split
from base_model.evaluate import DocumentScore
from base_model.sources import Document
from fedproto.errors import FederationError
from fedproto.process import free_ports
from renmei.demo import corpora, table
from renmei.demo.settings import DEMO, FAST, MEMBERS
from renmei.demo.stage import workplace


def split(name: str, documents: int = 400) -> Split:
    def made(part: str) -> tuple[Document, ...]:
        return tuple(
            Document(f"{name}-{part}-{n}", f"{name} {part} {n} " + "x" * 1000)
            for n in range(documents)
        )

    return Split(train=made("train"), test=made("test"), manifest=b"{}")


@pytest.fixture
def splits() -> dict[str, Split]:
    return {name: split(name) for name in (*MEMBERS, "common")}


@pytest.mark.parametrize("settings", [DEMO, FAST], ids=lambda s: s.name)
def test_no_document_stands_in_two_members_corpora(splits, settings):
    dealt = corpora.deal(splits, settings, seed=7)
    texts = [document.text for hand in dealt.values() for document in hand]
    assert len(texts) == len(set(texts))


def test_half_of_a_corpus_is_of_the_members_own_domain(splits):
    dealt = corpora.deal(splits, FAST, seed=7)
    for member, hand in dealt.items():
        size = sum(len(d.text) for d in hand)
        own = sum(len(d.text) for d in hand if d.text.startswith(member))
        common = sum(len(d.text) for d in hand if d.text.startswith("common"))
        assert 0.45 < own / size < 0.55
        assert 0.08 < common / size < 0.17


def test_what_is_held_out_is_never_trained_on(splits):
    dealt = corpora.deal(splits, DEMO, seed=7)
    trained = {document.text for hand in dealt.values() for document in hand}
    held_out = corpora.hold_out(splits, DEMO, seed=7)
    assert not trained & set(held_out.texts)
    assert set(held_out.sets) == {*MEMBERS, *(f"mixture {m}" for m in MEMBERS)}


def test_a_seed_deals_the_same_corpora_and_another_seed_others(splits):
    assert corpora.deal(splits, FAST, 7) == corpora.deal(splits, FAST, 7)
    assert corpora.deal(splits, FAST, 7) != corpora.deal(splits, FAST, 8)


def scores(nats_a_byte: float) -> dict[str, list[DocumentScore]]:
    columns = [*MEMBERS, *(table.mixture(m) for m in MEMBERS)]
    return {c: [DocumentScore(nats_a_byte * 100, 100) for _ in range(9)] for c in columns}


def arms(**changed: float) -> dict[str, dict[str, list[DocumentScore]]]:
    nats = {table.BASE: 3.0, table.FEDERATED: 1.5, table.CENTRALISED: 1.0}
    nats |= {table.local_arm(m): 2.0 for m in MEMBERS}
    nats |= {table.private_arm(m): 1.4 for m in MEMBERS}
    return {name: scores(value) for name, value in (nats | changed).items()}


def test_claims_hold_when_the_figures_say_so():
    rows = table.rows(arms(), MEMBERS, seed=1)
    assert [claim.held for claim in table.claims(rows, MEMBERS)] == [True, True, True]


@pytest.mark.parametrize(
    ("changed", "held"),
    [
        ({table.FEDERATED: 3.1}, [False, False, True]),
        ({table.local_arm("nec"): 1.45}, [True, False, True]),
        ({table.private_arm("sony"): 2.1}, [True, True, False]),
    ],
)
def test_a_claim_that_the_figures_do_not_bear_out_is_shown_as_missed(changed, held):
    rows = table.rows(arms(**changed), MEMBERS, seed=1)
    claims = table.claims(rows, MEMBERS)
    assert [claim.held for claim in claims] == held
    missed = next(claim for claim in claims if not claim.held)
    assert missed.words[0].startswith("✘")
    assert missed.words[1].startswith("✘")


def test_the_short_demo_promises_no_quality_and_the_long_one_does():
    claims = table.claims(table.rows(arms(), MEMBERS, seed=1), MEMBERS)
    assert [claim.required("demo") for claim in claims] == [True, True, False]
    assert not any(claim.required("fast") for claim in claims)


def test_a_private_adapter_is_shown_on_its_own_members_mixture_only():
    rows = {row.name: row for row in table.rows(arms(), MEMBERS, seed=1)}
    cells = rows[table.private_arm("nec")].cells
    assert table.mixture("nec") in cells
    assert table.mixture("sony") not in cells
    shown = table.render(list(rows.values()), MEMBERS, FAST)
    assert max(map(len, shown.splitlines())) <= 125


def test_a_directory_that_holds_something_is_not_used(tmp_path):
    (tmp_path / "mine").write_text("")
    with pytest.raises(FederationError) as caught, workplace(str(tmp_path)):
        pass
    assert caught.value.code == "RNM-CONF-0001"
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


def test_free_ports_are_all_different():
    assert len(set(free_ports(20))) == 20
