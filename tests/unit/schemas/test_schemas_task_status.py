"""When a task has ended or met its target, and what its status carries."""

import json

import pytest

from schemas.tasks import (
    FINAL_STATES,
    RoundSummary,
    Target,
    TaskStatus,
)


@pytest.mark.parametrize(
    ("metric", "got", "met"),
    [
        ("accuracy", 0.5, True),
        ("accuracy", 0.4, False),
        ("accuracy", 0.6, True),
        ("loss", 0.5, True),
        ("loss", 0.4, True),
        ("loss", 0.6, False),
        ("loss", None, False),
        ("accuracy", float("nan"), False),
    ],
)
def test_a_target_is_met_by_accuracy_from_below_and_by_loss_from_above(metric, got, met):
    metrics = {} if got is None else {metric: got}
    assert Target(metric=metric, value=0.5).is_met(metrics) is met


@pytest.mark.parametrize("state", ["waiting", "running", "paused"])
def test_a_task_that_may_still_run_is_not_final(state):
    assert state not in FINAL_STATES
    assert not TaskStatus(task="t-1", state=state).is_final


@pytest.mark.parametrize("state", sorted(FINAL_STATES))
def test_a_final_task_says_so(state):
    assert TaskStatus(task="t-1", state=state).is_final


def test_a_status_survives_json_and_ignores_what_a_newer_central_adds():
    summary = RoundSummary(round=1, outcome="abandoned", reason="late", metrics={"loss": 0.5})
    status = TaskStatus(task="t-1", state="running", history=(summary,))
    content = json.loads(status.model_dump_json()) | {"later": 1}
    assert TaskStatus.model_validate_json(json.dumps(content)) == status
