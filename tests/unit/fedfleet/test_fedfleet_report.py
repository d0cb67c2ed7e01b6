import json
from dataclasses import replace

import pytest

from fedfleet.testbed.plot import Point, save_plot, series
from fedfleet.testbed.report import Outcome, as_object, as_text
from schemas.tasks import RoundSummary, TaskStatus

ROUNDS = (
    RoundSummary(round=0, outcome="committed", clients=2, uplink_bytes=500_000,
                 downlink_bytes=1_500_000, uplink_wire_bytes=750_000, seconds=0.5, metrics={"accuracy": 0.5}),
    RoundSummary(round=1, outcome="abandoned", reason="deadline", downlink_bytes=1_000_000,
                 uplink_wire_bytes=250_000),
    RoundSummary(round=2, outcome="committed", clients=2, uplink_bytes=500_000,
                 downlink_bytes=1_500_000, uplink_wire_bytes=750_000, seconds=0.5, metrics={"accuracy": 0.75}),
)  # fmt: skip


@pytest.fixture
def outcome(tmp_path):
    (tmp_path / "logs").mkdir()
    (tmp_path / "plot.png").touch()
    status = TaskStatus(
        task="demo", state="completed", rounds=2, committed=2, abandoned=1, updates_accepted=4,
        uplink_bytes=1_000_000, downlink_bytes=4_000_000, parameters=500_000,
        model_sha256="a" * 64,
    )  # fmt: skip
    return Outcome(status, ROUNDS, 12.3456, 3.0, tmp_path, {"model": "mlp"})


def test_the_object_has_what_a_program_needs(outcome):
    found = json.loads(json.dumps(as_object(outcome)))
    assert found["rounds_committed"] == 2
    assert found["updates_accepted"] == 4
    assert found["accuracy"] == 0.75
    assert found["seconds"] == 12.346
    assert (found["uplink_bytes"], found["downlink_bytes"]) == (1_000_000, 4_000_000)
    assert found["model_sha256"] == "a" * 64
    assert found["submission"] == {"model": "mlp"}


def test_the_accuracy_of_the_status_counts_before_that_of_the_last_round(outcome):
    status = outcome.status.model_copy(update={"metrics": {"accuracy": 0.8}})
    assert replace(outcome, status=status).accuracy == 0.8


def test_an_accuracy_that_nobody_measured_is_none(outcome):
    assert replace(outcome, rounds=ROUNDS[1:2]).accuracy is None
    assert as_object(replace(outcome, rounds=()))["accuracy"] is None


def test_the_text_has_a_line_for_each_round_and_names_the_folder(outcome):
    text = as_text(outcome)
    assert len([line for line in text.splitlines() if line.strip()[:1] in set("012")]) >= 3
    assert "8.0" in text
    assert "accuracy 0.7500" in text
    assert f"{outcome.folder}: logs/, plot.png" in text


def test_bytes_of_an_abandoned_round_count_in_the_picture():
    assert series(ROUNDS) == [Point(0, 0.5, 0.5, 0.75), Point(2, 0.75, 1.0, 1.75)]


def test_without_measurements_the_picture_is_empty():
    assert series(()) == []


@pytest.mark.parametrize("rounds", [ROUNDS, ()])
def test_the_picture_is_a_png(tmp_path, rounds):
    path = tmp_path / "plot.png"
    save_plot(rounds, "mlp on digits", path)
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
