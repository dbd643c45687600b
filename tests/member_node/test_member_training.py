import threading

import numpy as np
import pytest

from fedproto.errors import FederationError, LocalFault
from member_node.session import TrainedDelta
from member_node.training import BackgroundTraining, Lesson

ADAPTER = np.zeros(4, np.float32)
FIRST = Lesson(run="7" * 32, round=1, model_in="a" * 64)
SECOND = Lesson(run="7" * 32, round=2, model_in="b" * 64)


class Trainer:
    def __init__(self):
        self.calls = []
        self.go_on = threading.Event()
        self.fail = None

    def train(self, round_no, adapter):
        self.calls.append(round_no)
        assert self.go_on.wait(10)
        if self.fail:
            raise self.fail
        return TrainedDelta(delta=adapter + round_no, weight=1.0)


@pytest.fixture
def trainer():
    return Trainer()


@pytest.fixture
def failures():
    return []


@pytest.fixture
def training(trainer, failures):
    return BackgroundTraining(trainer, lambda: failures.append(1))


def test_a_second_attempt_at_a_round_waits_for_the_training_of_the_first(training, trainer):
    first, second = training.start(FIRST, ADAPTER), training.start(FIRST, ADAPTER)
    trainer.go_on.set()
    assert np.array_equal(first.result(10).delta, second.result(10).delta)
    assert trainer.calls == [1]


def test_another_round_is_trained_anew(training, trainer):
    trainer.go_on.set()
    training.start(FIRST, ADAPTER).result(10)
    assert training.start(SECOND, ADAPTER).result(10).delta[0] == 2
    assert trainer.calls == [1, 2]


def test_a_dropped_delta_is_not_given_out_again(training, trainer):
    trainer.go_on.set()
    training.start(FIRST, ADAPTER).result(10)
    training.drop()
    training.start(FIRST, ADAPTER).result(10)
    assert trainer.calls == [1, 1]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (LocalFault("RNM-DATA-0003", what="x", why="y", mend="z"), "RNM-DATA-0003"),
        (ZeroDivisionError("secret text of the corpus"), "RNM-BUG-0001"),
    ],
)
def test_a_failure_is_named_and_the_next_attempt_trains_anew(
    training, trainer, failures, capfd, error, code
):
    trainer.fail = error
    trainer.go_on.set()
    with pytest.raises(FederationError) as named:
        training.start(FIRST, ADAPTER).result(10)
    assert named.value.code == code
    assert "secret" not in str(named.value)
    assert "secret" not in "".join(capfd.readouterr())
    assert failures == [1]
    trainer.fail = None
    assert training.start(FIRST, ADAPTER).result(10).delta[0] == 1
