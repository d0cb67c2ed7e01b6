"""What devices keep from round to round of a task, as central tells and checks it.

The only authority is the table of contributions: a device builds on its round that was counted
last. While a round is open that cannot change, since no other round of its task can end.
"""

from collections.abc import Iterable

from central.service.ports import Store
from central.service.records import TaskRecord
from schemas.ids import MARK_LENGTH
from schemas.messages import Memory
from schemas.tasks import TaskSubmission
from updates.choice import task_memory
from updates.feedback import REACH_ROUNDS


def kind(submission: TaskSubmission) -> Memory:
    """Return what the devices of a task keep.

    Raises:
        CodecParameterError: The codec is not known, or forbids what the task asks for.
    """
    return task_memory(submission.codec, submission.codec_params, submission.error_feedback)


def references(
    store: Store, task: TaskRecord, devices: Iterable[str]
) -> tuple[tuple[int, ...], str]:
    """Return the round that each device builds on, 0 for none, and all their marks in one text.

    Both are empty for a task without memory.
    """
    if kind(task.submission) == "none":
        return (), ""
    names = tuple(devices)
    found = store.references(task.task, names, REACH_ROUNDS)
    told = [found.get(name, (0, "0" * MARK_LENGTH)) for name in names]
    return tuple(number for number, _ in told), "".join(mark for _, mark in told)


def fault(store: Store, task: TaskRecord, device: str, reference: int) -> str | None:
    """Return what is wrong with the reference of an update; None: nothing."""
    numbers, _ = references(store, task, (device,))
    (told,) = numbers or (0,)
    if reference in (0, told):
        return None
    instead = f"round {told}, or on none (0)" if told else "none (0)"
    return f"reference: {reference}, the update must build on {instead}"
