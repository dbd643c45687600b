import json
import os
import signal
import subprocess
import sys
import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedproto.errors import FederationError
from member_node.marks import NEVER, Mark, MarkBook

RUN = "1" * 32
OTHER = "2" * 32


def test_an_attempt_is_answered_once_and_only_forwards(tmp_path):
    book = MarkBook.create(tmp_path)
    book.advance(RUN, Mark(1, 1))
    for mark in (Mark(1, 1), Mark(0, 9)):
        with pytest.raises(FederationError) as refusal:
            book.advance(RUN, mark)
        assert refusal.value.code == "RNM-CONSENT-0003"
    book.advance(RUN, Mark(1, 2))
    book.advance(RUN, Mark(2, 1))
    with pytest.raises(FederationError):
        book.advance(RUN, Mark(1, 3))


def test_a_pass_follows_the_one_before_it_in_the_same_attempt_or_is_refused(tmp_path):
    book = MarkBook.create(tmp_path)
    for mark in (Mark(1, 1, 2), Mark(1, 2, 3)):
        with pytest.raises(FederationError):
            book.advance(RUN, mark)
    book.advance(RUN, Mark(1, 1, 1))
    # Pass 1 again, a pass left out, and pass 2 of an attempt whose pass 1 this node did not see.
    for mark in (Mark(1, 1, 1), Mark(1, 1, 3), Mark(1, 2, 2), Mark(2, 1, 2)):
        with pytest.raises(FederationError) as refusal:
            book.advance(RUN, mark)
        assert refusal.value.code == "RNM-CONSENT-0003"
    book.advance(RUN, Mark(1, 1, 2))
    assert MarkBook.open(tmp_path).last(RUN) == Mark(1, 1, 2)
    with pytest.raises(FederationError):
        book.advance(RUN, Mark(1, 1, 2))
    book.advance(RUN, Mark(1, 2, 1))


def test_runs_have_marks_of_their_own(tmp_path):
    book = MarkBook.create(tmp_path)
    book.advance(RUN, Mark(5, 1))
    assert book.last(OTHER) == NEVER
    book.advance(OTHER, Mark(1, 1))
    assert MarkBook.open(tmp_path).last(RUN) == Mark(5, 1)


def test_a_round_is_opened_over_one_set_of_members_in_all_of_its_attempts(tmp_path):
    """Four, then the same without one: the difference of the two sums would be that one's delta."""
    book = MarkBook.create(tmp_path)
    four = ("honda", "nec", "softbank", "sony")
    book.open_sum(RUN, 1, four)
    book = MarkBook.open(tmp_path)
    assert book.opened(RUN, 1) == four
    for others in (four[1:], four[:3], ("honda", "nec", "softbank", "sony", "toyota")):
        with pytest.raises(FederationError) as refusal:
            book.open_sum(RUN, 1, others)
        assert refusal.value.code == "RNM-CONSENT-0003"
    assert MarkBook.open(tmp_path).opened(RUN, 1) == four
    book.open_sum(RUN, 1, four)
    # The next round has other deltas, so it may lose a member.
    assert book.opened(RUN, 2) is None
    book.open_sum(RUN, 2, four[1:])
    assert book.opened(OTHER, 2) is None
    book.advance(RUN, Mark(3, 1))
    assert MarkBook.open(tmp_path).opened(RUN, 2) == four[1:]


def test_a_node_killed_right_after_the_mark_refuses_the_attempt_when_it_is_back(tmp_path):
    MarkBook.create(tmp_path)
    program = f"""
        import os, signal
        from pathlib import Path
        from member_node.marks import Mark, MarkBook
        MarkBook.open(Path({str(tmp_path)!r})).advance({RUN!r}, Mark(3, 2))
        os.kill(os.getpid(), signal.SIGKILL)
    """
    child = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=False)
    assert child.returncode == -signal.SIGKILL
    with pytest.raises(FederationError) as refusal:
        MarkBook.open(tmp_path).advance(RUN, Mark(3, 2))
    assert refusal.value.code == "RNM-CONSENT-0003"


# A node of its own process whose consent is given; the first answer of an attempt leaves in `_exchange`.
ANSWERING = """
    import os, signal, sys
    from pathlib import Path
    from types import SimpleNamespace as Given
    from fedproto.errors import FederationError
    from member_node import participation
    from member_node.log import Log
    from member_node.marks import Mark, MarkBook

    root, dies = Path(sys.argv[1]), sys.argv[2] == "dies"
    synced = []
    sync = os.fsync
    os.fsync = lambda handle: (sync(handle), synced.append(os.readlink(f"/proc/self/fd/{handle}")))
    participation.consents = Given(check_model=lambda *_: None)

    class Node(participation.Participation):
        def _consent(self, raw):
            plan = Given(plan=None)
            return Given(content=Given(run="1" * 32, round=3), mark=Mark(3, 2), mandate=plan)

        def _model_in(self, consent):
            return None

        def _exchange(self, *_):
            # The new file, then the directory that names it.
            assert len(synced) == 2 and synced[1] == str(root), synced
            if dies:
                os.kill(os.getpid(), signal.SIGKILL)
            print("answered")

    given = Given(ensure=lambda _: Given(dataset=""), declare=lambda _: None)
    rest = dict.fromkeys(("party", "channel", "journal", "ledger", "acts", "artifacts", "training"))
    log = Log(member="honda", stream=sys.stderr)
    node = Node(**rest, marks=MarkBook.open(root), preparation=given, log=log)
    try:
        node._take_part(b"")
    except FederationError as error:
        print(error.code)
"""


def test_a_node_killed_between_the_mark_and_its_first_answer_never_answers_that_attempt(tmp_path):
    MarkBook.create(tmp_path)
    said = []
    for how in ("dies", "lives", "lives"):
        child = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(ANSWERING), str(tmp_path), how],
            check=False,
            capture_output=True,
            text=True,
        )
        said.append((child.returncode, child.stdout.strip()))
    assert said == [(-signal.SIGKILL, ""), *[(0, "RNM-CONSENT-0003")] * 2], child.stderr


def test_the_same_node_answers_where_it_was_not_killed_before(tmp_path):
    MarkBook.create(tmp_path)
    program = [sys.executable, "-c", textwrap.dedent(ANSWERING), str(tmp_path), "lives"]
    child = subprocess.run(program, check=False, capture_output=True, text=True)
    assert child.stdout.strip() == "answered", child.stderr


def test_a_vanished_book_is_an_error_and_not_an_empty_one(tmp_path):
    MarkBook.create(tmp_path)
    os.unlink(tmp_path / "marks.json")
    with pytest.raises(FederationError) as refusal:
        MarkBook.open(tmp_path)
    assert refusal.value.code == "RNM-STATE-0001"


def test_making_a_book_again_keeps_its_marks(tmp_path):
    MarkBook.create(tmp_path).advance(RUN, Mark(1, 1))
    assert MarkBook.create(tmp_path).last(RUN) == Mark(1, 1)


def test_a_mark_set_back_by_hand_is_noticed(tmp_path):
    MarkBook.create(tmp_path).advance(RUN, Mark(4, 1))
    path = tmp_path / "marks.json"
    value = json.loads(path.read_bytes())
    value["marks"]["runs"][RUN]["round"] = 1
    path.write_bytes(json.dumps(value, separators=(",", ":"), sort_keys=True).encode())
    with pytest.raises(FederationError) as refusal:
        MarkBook.open(tmp_path)
    assert refusal.value.code == "RNM-STATE-0001"


@given(st.data())
def test_any_changed_byte_is_noticed(tmp_path_factory, data):
    root = tmp_path_factory.mktemp("marks")
    MarkBook.create(root).advance(RUN, Mark(2, 1))
    path = root / "marks.json"
    raw = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(raw) - 1))
    raw[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(raw)
    with pytest.raises(FederationError) as refusal:
        MarkBook.open(root)
    assert refusal.value.code == "RNM-STATE-0001"
