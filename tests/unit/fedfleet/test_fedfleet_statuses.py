import pytest

from fedfleet.client import Message
from fedfleet.statuses import (
    newest,
    ratio_to_float32,
    read_status,
    round_line,
    rounds_table,
    state_line,
)
from schemas.tasks import RoundSummary, TaskStatus
from schemas.topics import Kind, Topic

ROUND = RoundSummary(
    round=3,
    outcome="committed",
    clients=2,
    seconds=1.25,
    uplink_bytes=1000,
    downlink_bytes=8000,
    uplink_wire_bytes=2000,
    downlink_wire_bytes=9000,
    metrics={"accuracy": 0.9, "loss": 0.25},
)


def message(payload, task="t-1", kind=Kind.TASK_STATUS):
    return Message(Topic(kind, task=task), payload, retained=True)


def status_bytes(**fields):
    return TaskStatus(**{"task": "t-1", "state": "running", **fields}).model_dump_json().encode()


def test_a_status_is_read_from_its_topic():
    assert read_status(message(status_bytes(round=2))).round == 2


@pytest.mark.parametrize(
    "other",
    [
        message(b""),
        message(b"not json"),
        message(b'{"task": "t-1"}'),
        message(status_bytes(task="t-2")),
        message(b"{}", kind=Kind.TASK_CONTROL),
    ],
)
def test_what_is_not_this_tasks_status_is_none(other):
    assert read_status(other) is None


def test_the_last_status_of_a_task_counts_and_a_cleared_one_is_gone():
    found = newest(
        [
            message(status_bytes(round=1)),
            message(status_bytes(round=2)),
            message(status_bytes(task="t-2"), task="t-2"),
            message(b"", task="t-2"),
        ]
    )
    assert {task: status.round for task, status in found.items()} == {"t-1": 2}


def test_the_ratio_compares_with_four_bytes_a_parameter_and_client():
    assert ratio_to_float32(ROUND, parameters=1000) == 8.0


@pytest.mark.parametrize(
    ("summary", "parameters"),
    [(ROUND, 0), (ROUND.model_copy(update={"uplink_bytes": 0}), 1000)],
)
def test_the_ratio_is_unknown_without_bytes_or_parameters(summary, parameters):
    assert ratio_to_float32(summary, parameters) is None


def test_the_table_of_rounds_shows_accuracy_seconds_bytes_and_ratio():
    row = rounds_table([ROUND], 1000).splitlines()[-1].split()
    assert row == [
        "3",
        "committed",
        "2",
        "0.9000",
        "0.2500",
        "1.25",
        "1.0",
        "kB",
        "8.0",
        "kB",
        "8.0",
        "2.0",
        "kB",
        "9.0",
        "kB",
        "4.0",
    ]


def test_what_was_granted_is_a_column_where_a_round_had_a_budget():
    with_budget = ROUND.model_copy(update={"bids": 8, "granted": 3})
    lines = rounds_table([ROUND, with_budget], 1000).splitlines()
    assert lines[0].split()[-1] == "granted"
    assert lines[-2].split()[-1] == "-"
    assert lines[-1].endswith("3 of 8 bids")
    assert round_line(with_budget, 1000).endswith("granted 3 of 8 bids")
    assert "granted" not in rounds_table([ROUND], 1000) + round_line(ROUND, 1000)


def test_an_abandoned_round_tells_why():
    summary = RoundSummary(round=4, outcome="abandoned", reason="deadline")
    assert "abandoned: deadline" in round_line(summary, 1000)


def test_a_state_line_names_state_reason_and_progress():
    status = TaskStatus(
        task="t-1", state="running", round=2, phase="reporting", rounds=5, committed=1,
        reported=1, min_clients=4, metrics={"accuracy": 0.5}, reason="why",
    )  # fmt: skip
    assert state_line(status) == (
        "t-1: running, why, 1 of 5 rounds committed, round 2 reporting, 1 of 4 reported, "
        "accuracy 0.5000"
    )


def test_a_final_state_says_nothing_of_a_running_round():
    status = TaskStatus(task="t-1", state="completed", rounds=2, committed=2, round=1)
    assert state_line(status) == "t-1: completed, 2 of 2 rounds committed"
