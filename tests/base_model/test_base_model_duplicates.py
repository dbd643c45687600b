import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from base_model.duplicates import remove, similarity
from base_model.sources import Document

LETTERS = np.array(list("車速信号制御値通信端末試験結果記録装置運転abcdefghij klmnopqr"))

_DIGEST = """
import sys
sys.path.insert(0, sys.argv[1])
from test_base_model_duplicates import digest_of_removed
print(digest_of_removed())
"""


def edited(text: str, rng: np.random.Generator, share: float) -> str:
    letters = np.array(list(text))
    places = rng.random(len(letters)) < share
    letters[places] = rng.choice(LETTERS, places.sum())
    return "".join(letters)


def planted() -> tuple[list[Document], dict[int, float]]:
    """300 texts, 100 near-copies at many distances, 100 that share a part; shuffled.

    Returns the documents and, of each, its similarity to the nearest document before it.
    """
    rng = np.random.default_rng(11)
    texts = ["".join(rng.choice(LETTERS, rng.integers(80, 1500))) for _ in range(300)]
    copies = [edited(texts[n], rng, 0.001 * (n % 80)) for n in range(100)]
    halves = [t[: len(t) // 2] + "".join(rng.choice(LETTERS, len(t) // 2)) for t in texts[100:200]]
    pool = texts + copies + halves
    order = rng.permutation(len(pool))
    made = [Document(str(n), pool[n]) for n in order]
    related = {n + 300: n for n in range(200)}
    place = {int(n): at for at, n in enumerate(order)}
    nearest: dict[int, float] = {}
    for copy, origin in related.items():
        later = max(place[copy], place[origin])
        nearest[later] = max(nearest.get(later, 0), similarity(pool[copy], pool[origin]))
    return made, nearest


def digest_of_removed() -> str:
    return hashlib.sha256(repr(remove(planted()[0]).removed).encode()).hexdigest()


def test_planted_near_duplicates_are_found_and_nothing_else() -> None:
    documents, nearest = planted()
    found = {duplicate.place for duplicate in remove(documents, threshold=0.8).removed}
    wanted = {place for place, value in nearest.items() if value >= 0.8}
    recall, precision = len(found & wanted) / len(wanted), len(found & wanted) / len(found)
    print(f"planted {len(wanted)}: recall {recall:.3f}, precision {precision:.3f}")
    assert 20 < len(wanted) < 100
    assert recall >= 0.99
    assert precision == 1.0


def test_the_first_is_kept_and_what_replaced_a_document_is_named() -> None:
    base = "".join(f"信号{n}の値は{n * n}分の一の単位で送られる。" for n in range(9)) + "終わり"
    documents = [
        Document("a", "全く別の文書です。ここには似たものがありません。"),
        Document("b", base),
        Document("c", base.replace("終わり", "おわり")),
        Document("d", base),
    ]
    made = remove(documents)
    assert made.kept == tuple(documents[:2])
    assert [(d.place, d.of) for d in made.removed] == [(2, 1), (3, 1)]
    assert made.removed[1].similarity == 1.0
    assert 0.8 <= made.removed[0].similarity < 1


def test_width_case_and_spaces_do_not_make_another_document() -> None:
    assert similarity("ＡＢＣ１２３ ｶﾞｲﾄﾞ", "abc123\n  ガイド") == 1.0


def test_short_and_empty_texts_are_compared_too() -> None:
    documents = [Document("g", text) for text in ("車", "車", "速", "", " ")]
    assert [d.place for d in remove(documents).removed] == [1, 4]


@given(st.lists(st.text(alphabet="あい ab", max_size=12), max_size=30))
def test_no_two_kept_documents_are_near_duplicates_by_more_than_chance(texts: list[str]) -> None:
    made = remove([Document("g", text) for text in texts], threshold=0.95)
    assert len(made.kept) + len(made.removed) == len(texts)
    for duplicate in made.removed:
        assert similarity(texts[duplicate.place], texts[duplicate.of]) >= 0.95
    folded = [" ".join(d.text.split()) for d in made.kept]
    assert len(set(folded)) == len(folded)


def test_the_result_is_the_same_in_every_process_whatever_its_hash_seed() -> None:
    here = str(Path(__file__).parent)
    found = {
        subprocess.run(
            [sys.executable, "-c", _DIGEST, here],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("0", "4242")
    }
    assert found == {digest_of_removed()}


@pytest.mark.parametrize("threshold", [0.5, 1.1])
def test_a_threshold_that_the_bands_cannot_serve_is_refused(threshold: float) -> None:
    with pytest.raises(ValueError, match="threshold"):
        remove([], threshold=threshold)
