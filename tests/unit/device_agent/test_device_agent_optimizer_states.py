"""Optimizers' states that are kept from round to round."""

import errno

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


@pytest.mark.parametrize(("room", "is_kept"), [(1_000_000, False), (1_200_000, True)])
def test_a_round_done_again_begins_with_the_same_however_little_room_there_is(
    tmp_path, room, is_kept
):
    states = OptimizerStates(tmp_path, room)
    for number in (1, 2, 3):
        before = states.load(JobKey("t", number), "sgd")
        states.save(JobKey("t", number), "sgd", state(number, 150_000))
        again = states.load(JobKey("t", number), "sgd")
        assert (before is not None) == (again is not None) == (is_kept and number > 1)


def test_other_tasks_states_make_room_for_those_of_the_task_at_work(tmp_path):
    states = OptimizerStates(tmp_path, 2 * 600_000)
    states.save(JobKey("t", 1), "sgd", state(1, 150_000))
    states.save(JobKey("u", 1), "sgd", state(5, 150_000))  # newer than what t begins with
    states.save(JobKey("t", 2), "sgd", state(2, 150_000))
    assert states.load(JobKey("t", 2), "sgd")[0] == 1
    assert states.load(JobKey("u", 2), "sgd") is None


def test_a_state_that_cannot_be_written_leaves_nothing(states, tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    states.save(JobKey("t", 1), "sgd", state(1))
    monkeypatch.setattr("device_agent.adapters.optimizer_states.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        states.save(JobKey("t", 2), "sgd", state(2))
    assert [path.suffix for path in (tmp_path / "optimizer").iterdir()] == [".npy"]
    assert states.load(JobKey("t", 3), "sgd")[0] == 1


def test_what_a_killed_device_was_writing_is_removed_when_it_begins_again(states, tmp_path):
    states.save(JobKey("t", 1), "sgd", state(1))
    left = tmp_path / "optimizer" / "half.tmp"
    left.write_bytes(b"half a state")
    again = OptimizerStates(tmp_path / "optimizer", MIB)
    assert not left.exists()
    assert again.load(JobKey("t", 2), "sgd")[0] == 1


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


def test_a_state_of_which_two_do_not_fit_is_not_kept(tmp_path):
    states = OptimizerStates(tmp_path / "optimizer", 7_999)
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


def test_a_states_name_is_on_disk_before_the_round_goes_on(states, tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(
        "device_agent.adapters.optimizer_states.sync",
        lambda path: synced.append([one.suffix for one in path.iterdir()]),
    )
    states.save(JobKey("t", 1), "sgd", state(1))
    assert synced == [[".npy"]]
