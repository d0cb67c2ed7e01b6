"""Optimizers' states that are kept from round to round."""

import numpy as np
import pytest

from device_agent.adapters.optimizer_states import OptimizerStates
from device_agent.core.job import JobKey
from schemas.limits import MIB


def state(value, size=100):
    return np.full(size, value, np.float32)


@pytest.fixture
def states(tmp_path):
    return OptimizerStates(tmp_path / "optimizer", MIB)


def test_a_round_begins_with_the_state_of_the_newest_one_before_it(states):
    assert states.load(JobKey("t", 1), "sgd") is None
    states.save(JobKey("t", 1), "sgd", state(1))
    states.save(JobKey("t", 4), "sgd", state(4))
    assert states.load(JobKey("t", 9), "sgd")[0] == 4
    assert states.load(JobKey("t", 4), "sgd")[0] == 1
    assert states.load(JobKey("t", 1), "sgd") is None


def test_a_round_that_is_done_again_begins_with_the_same_state(states):
    for number in (1, 2, 3):
        before = states.load(JobKey("t", number), "sgd")
        states.save(JobKey("t", number), "sgd", state(number))
        again = states.load(JobKey("t", number), "sgd")
        assert (before is None) == (again is None)
        assert before is None or before.tobytes() == again.tobytes()


def test_tasks_and_kinds_are_kept_apart(states):
    states.save(JobKey("t", 1), "sgd", state(1))
    assert states.load(JobKey("u", 2), "sgd") is None
    assert states.load(JobKey("t", 2), "adam") is None


def test_two_states_of_a_task_are_kept(states, tmp_path):
    for number in range(1, 9):
        states.save(JobKey("t", number), "sgd", state(number))
    assert len(list((tmp_path / "optimizer").iterdir())) == 2


def test_the_oldest_go_when_there_is_too_much(tmp_path):
    states = OptimizerStates(tmp_path, 100_000)
    for number in range(8):
        states.save(JobKey(f"t{number}", 1), "sgd", state(number, 10_000))
    kept = [n for n in range(8) if states.load(JobKey(f"t{n}", 2), "sgd") is not None]
    assert kept == [6, 7]


def test_a_state_larger_than_all_that_may_be_kept_is_not_kept(tmp_path):
    states = OptimizerStates(tmp_path / "optimizer", 1000)
    states.save(JobKey("t", 1), "sgd", state(1, 1000))
    assert states.load(JobKey("t", 2), "sgd") is None
    assert not (tmp_path / "optimizer").exists()


@pytest.mark.parametrize("content", [b"", b"torn", b"\x93NUMPY\x01\x00"])
def test_a_torn_state_is_none(states, tmp_path, content):
    states.save(JobKey("t", 1), "sgd", state(1))
    (file,) = (tmp_path / "optimizer").iterdir()
    file.write_bytes(content)
    assert states.load(JobKey("t", 2), "sgd") is None


def test_a_state_that_is_not_finite_or_no_vector_is_none(states, tmp_path):
    states.save(JobKey("t", 1), "sgd", state(np.nan))
    assert states.load(JobKey("t", 2), "sgd") is None
    (file,) = (tmp_path / "optimizer").iterdir()
    np.save(file, np.ones((2, 2), np.float32))
    assert states.load(JobKey("t", 2), "sgd") is None
