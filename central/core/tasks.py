"""One task as a state machine: it waits for devices, runs rounds, and ends once.

Rules:

1. ``rounds`` counts committed ones; round numbers are never used twice.
2. Five abandoned rounds in a row fail the task.
3. With too few devices it waits, saying both numbers, and fails after ``selection_timeout_s``.
4. A target metric, once reached, completes the task early.
5. A paused task finishes the round that is open and opens no other.
"""

from dataclasses import dataclass, replace
from typing import Literal

from schemas.tasks import FINAL_STATES, Target, TaskState

MAX_ABANDONED_IN_A_ROW = 5

#: What a task without an open round is doing; ``round`` means that one is open.
Step = Literal["selecting", "preparing", "round", "evaluating"]


@dataclass(frozen=True, slots=True)
class TaskProgress:
    """All that decides what a task does next."""

    rounds: int
    selection_timeout_s: float
    target: Target | None = None
    state: TaskState = "waiting"
    step: Step = "selecting"
    #: Number of the open round, or of the next one to open.
    round: int = 1
    committed: int = 0
    abandoned: int = 0
    abandoned_in_a_row: int = 0
    waiting_since_s: float = 0.0
    is_paused: bool = False
    reason: str | None = None

    @property
    def is_final(self) -> bool:
        """Whether nothing more happens to the task."""
        return self.state in FINAL_STATES

    @property
    def wants_round(self) -> bool:
        """Whether a round should be opened as soon as enough devices are there."""
        return self.step == "selecting" and not self.is_paused and not self.is_final


def too_few(task: TaskProgress, reason: str, now_s: float) -> TaskProgress:
    """Return the task after a search for clients that found too few.

    Args:
        task: The task.
        reason: Both numbers, in words.
        now_s: The time, unix seconds.
    """
    waited_s = now_s - task.waiting_since_s
    if waited_s < 0:  # the clock was set back meanwhile
        task = replace(task, waiting_since_s=now_s)
    if waited_s >= task.selection_timeout_s:
        text = f"{reason}; gave up after {task.selection_timeout_s:g} s (selection_timeout_s)"
        return fail(task, text)
    return replace(task, state="waiting", reason=reason)


def prepare(task: TaskProgress) -> TaskProgress:
    """Return the task while its first model is being built."""
    return replace(task, step="preparing", reason=None)


def prepared(task: TaskProgress, now_s: float) -> TaskProgress:
    """Return the task once its first model stands."""
    return _select(task, now_s)


def open_round(task: TaskProgress) -> TaskProgress:
    """Return the task with the round ``task.round`` open."""
    return replace(task, state="running", step="round", reason=None)


def commit_round(task: TaskProgress) -> TaskProgress:
    """Return the task after its round gave a new model, which is now to be evaluated."""
    return replace(
        task,
        step="evaluating",
        round=task.round + 1,
        committed=task.committed + 1,
        abandoned_in_a_row=0,
        reason=None,
    )


def evaluate(task: TaskProgress, metrics: dict[str, float], now_s: float) -> TaskProgress:
    """Return the task once the newest model's metrics (perhaps none) are known."""
    if task.target is not None and task.target.is_met(metrics):
        reached = f"target {task.target.metric} {task.target.value:g} reached"
        return replace(task, state="completed", step="selecting", reason=reached)
    if task.committed >= task.rounds:
        return replace(task, state="completed", step="selecting", reason=None)
    return _select(task, now_s)


def abandon_round(task: TaskProgress, reason: str, now_s: float) -> TaskProgress:
    """Return the task after its round ended without a model."""
    in_a_row = task.abandoned_in_a_row + 1
    ended = replace(
        task,
        round=task.round + 1,
        abandoned=task.abandoned + 1,
        abandoned_in_a_row=in_a_row,
    )
    if in_a_row >= MAX_ABANDONED_IN_A_ROW:
        return fail(ended, f"{in_a_row} rounds abandoned in a row; the last: {reason}")
    return replace(_select(ended, now_s), reason=f"round {task.round} abandoned: {reason}")


def pause(task: TaskProgress) -> TaskProgress:
    """Return the task paused, and said to be so at once; an open round goes on to its end."""
    if task.is_final:
        return task
    return replace(task, is_paused=True, state="paused")


def resume(task: TaskProgress, now_s: float) -> TaskProgress:
    """Return the task going on; its time to find clients starts anew."""
    if not task.is_paused or task.is_final:
        return task
    return replace(
        task,
        is_paused=False,
        state="running" if task.step == "round" else "waiting",
        waiting_since_s=now_s,
    )


def cancel(task: TaskProgress) -> TaskProgress:
    """Return the task cancelled; the model of the last committed round stays."""
    if task.is_final:
        return task
    return replace(task, state="cancelled", step="selecting", reason="cancelled by a person")


def fail(task: TaskProgress, reason: str) -> TaskProgress:
    """Return the task failed."""
    return replace(task, state="failed", step="selecting", reason=reason)


def _select(task: TaskProgress, now_s: float) -> TaskProgress:
    state: TaskState = "paused" if task.is_paused else "running" if task.committed else "waiting"
    return replace(task, state=state, step="selecting", waiting_since_s=now_s, reason=None)
