"""One task as a state machine: it waits for devices, runs rounds, and ends once.

Rules:

1. ``rounds`` counts committed ones; round numbers are never used twice.
2. Five abandoned rounds in a row fail the task.
3. With too few devices it waits, saying both numbers, and fails after ``selection_timeout_s``.
4. A target metric, once reached, completes the task early.
5. A paused task finishes the round that is open and opens no other.
6. Preparing or evaluating that was begun ``MAX_ATTEMPTS`` times without an end is given up: it is
   what ends the program.
7. A central that was restored from a backup may have run rounds that it has forgotten: what was
   open in the backup is given up, and numbers go on in a later million, above all forgotten ones.
"""

from dataclasses import dataclass, replace
from typing import Literal

from schemas.tasks import FINAL_STATES, Target, TaskState

MAX_ABANDONED_IN_A_ROW = 5
MAX_ATTEMPTS = 5
#: More than a task can ever use: 100,000 rounds, each after at most four abandoned ones.
ROUNDS_AN_EPOCH = 1_000_000

#: What a task without an open round is doing; ``round`` means that one is open.
Step = Literal["selecting", "preparing", "round", "evaluating"]


@dataclass(frozen=True, slots=True)
class LostRounds:
    """Rounds that central may have run and has forgotten, ``last`` included."""

    first: int
    last: int
    reason: str


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
    #: How often central ended out of order while it prepared or evaluated, in this step.
    interruptions: int = 0
    reason: str | None = None
    #: What restored backups knew nothing of, the oldest first.
    lost: tuple[LostRounds, ...] = ()

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
    return replace(task, step="preparing", interruptions=0, reason=None)


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
        interruptions=0,
        round=task.round + 1,
        committed=task.committed + 1,
        abandoned_in_a_row=0,
        reason=None,
    )


def interrupt(task: TaskProgress) -> tuple[TaskProgress, bool]:
    """Return the task after central ended out of order in this step, and whether to try again."""
    count = task.interruptions + 1
    return replace(task, interruptions=count), count < MAX_ATTEMPTS


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


def first_round(epoch: int) -> int:
    """Return the number of a task's first round on a central that was restored ``epoch`` times.

    A task of the same name may have run before the restore and be remembered by devices.
    """
    return epoch * ROUNDS_AN_EPOCH + 1


def restore(task: TaskProgress, reason: str, epoch: int, now_s: float) -> TaskProgress:
    """Return the task as it goes on after central was restored from a backup.

    An open round is abandoned and does not count towards those in a row; a model that was being
    evaluated stays without metrics, which may complete the task.

    Args:
        task: The task as the backup has it.
        reason: Which backup, in words.
        epoch: Number of this restore; rounds go on above its million.
        now_s: The time, unix seconds.
    """
    if task.step == "evaluating":
        task = evaluate(task, {}, now_s)
    if task.is_final:
        return task
    is_open = task.step == "round"
    first = task.round + 1 if is_open else task.round
    last = max(epoch, first // ROUNDS_AN_EPOCH + 1) * ROUNDS_AN_EPOCH
    lost = LostRounds(first, last, f"rounds {first} to {last} are unknown: {reason}")
    moved = replace(
        task, round=last + 1, abandoned=task.abandoned + is_open, lost=(*task.lost, lost)
    )
    if task.step == "preparing":
        return replace(moved, waiting_since_s=now_s, reason=reason)
    return replace(_select(moved, now_s), reason=reason)


def lost_reason(task: TaskProgress, number: int) -> str | None:
    """Return why there is no record of round ``number``; None: no restore is to blame."""
    for lost in task.lost:
        if lost.first <= number <= lost.last:
            return lost.reason
    if number < task.round - task.round % ROUNDS_AN_EPOCH:
        return "central was restored from a backup that does not know it"
    return None


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


def cancel(task: TaskProgress, *, in_round: bool = False) -> TaskProgress:
    """Return the task cancelled; the model of the last committed round stays.

    Args:
        task: The task.
        in_round: Whether a round was open, which is abandoned by it.
    """
    if task.is_final:
        return task
    return replace(
        task,
        state="cancelled",
        step="selecting",
        reason="cancelled by a person",
        abandoned=task.abandoned + in_round,
    )


def fail(task: TaskProgress, reason: str) -> TaskProgress:
    """Return the task failed."""
    return replace(task, state="failed", step="selecting", reason=reason)


def _select(task: TaskProgress, now_s: float) -> TaskProgress:
    state: TaskState = "paused" if task.is_paused else "running" if task.committed else "waiting"
    return replace(task, state=state, step="selecting", waiting_since_s=now_s, reason=None)
