"""Tasks and controls as persons publish them: accepted, or rejected in words."""

import json
from collections.abc import Iterator
from dataclasses import replace

from central.core import tasks
from central.core.tasks import TaskProgress
from central.service.announcements import Announcements
from central.service.desk import Desk
from central.service.openings import Openings
from central.service.records import TaskRecord
from central.service.rounds import Rounds
from schemas.errors import WireError
from schemas.ids import derived_task_id, is_id
from schemas.limits import MAX_SUBMIT_BYTES
from schemas.tasks import TaskSubmission, parse_control, parse_submission
from transport.events import Outgoing
from transport.failpoints import failpoint
from updates import presets

#: For this long after its end, the same message is still the same task.
SAME_TASK_S = 600.0
_MAX_REASON = 2000


class Intake:
    """Turns messages of persons into tasks."""

    def __init__(
        self, desk: Desk, rounds: Rounds, openings: Openings, announcements: Announcements
    ) -> None:
        self._desk = desk
        self._rounds = rounds
        self._openings = openings
        self._announcements = announcements

    def submit(self, payload: bytes, now_s: float) -> Iterator[Outgoing]:
        """Take a submission; a repeated one is the same task, whose status is told again."""
        try:
            submission = presets.resolve(parse_submission(payload))
            min_clients = self._check(submission)
        except (WireError, ValueError) as error:
            name = self._name_for_rejection(payload)
            yield self._announcements.rejected(name, str(error)[:_MAX_REASON], now_s)
            return
        name = submission.task or self._derived_name(payload, now_s)
        if self._desk.store.task(name) is None:
            self._add(name, submission, min_clients, now_s)
        self._desk.touch(name)

    def not_handled(self, payload: bytes, why: str, now_s: float) -> Iterator[Outgoing]:
        """Tell a person that central failed at a submission; a task that exists stays as it is."""
        name = self._name_for_rejection(payload)
        if self._desk.store.task(name) is None:
            yield self._announcements.rejected(name, why[:_MAX_REASON], now_s)

    def control(self, name: str, payload: bytes, now_s: float) -> Iterator[Outgoing]:
        """Cancel, pause or resume a task.

        Raises:
            WireError: The message cannot be understood.
        """
        action = parse_control(payload).action
        task = self._desk.store.task(name)
        if task is None or task.progress.is_final:
            return
        if action == "cancel":
            yield from self._rounds.cancel(task, now_s)
            return
        progress = (
            tasks.pause(task.progress) if action == "pause" else tasks.resume(task.progress, now_s)
        )
        self._desk.save_task(replace(task, progress=progress))
        failpoint("central.task.controlled")

    def _check(self, submission: TaskSubmission) -> int:
        self._desk.catalog.check(submission)
        min_clients = submission.min_clients or self._desk.min_clients
        if submission.cohort is not None and submission.cohort < min_clients:
            message = (
                f"cohort: {submission.cohort} is below min_clients: {min_clients} "
                "(MIN_CLIENTS); a round could never end"
            )
            raise ValueError(message)
        return min_clients

    def _add(self, name: str, submission: TaskSubmission, min_clients: int, now_s: float) -> None:
        progress = TaskProgress(
            rounds=submission.rounds,
            round=tasks.first_round(self._desk.store.epoch()),
            selection_timeout_s=submission.selection_timeout_s,
            target=submission.target,
            waiting_since_s=now_s,
        )
        self._desk.save_task(TaskRecord(name, submission, min_clients, now_s, progress))
        failpoint("central.task.added")

    def _derived_name(self, payload: bytes, now_s: float) -> str:
        base = derived_task_id(payload)
        name, count = base, 1
        while True:
            known = self._desk.store.task(name)
            if known is None or known.ended_s is None or now_s - known.ended_s < SAME_TASK_S:
                return name
            count += 1
            name = f"{base}-{count}"

    def _name_for_rejection(self, payload: bytes) -> str:
        """Return the id under which a rejection is told: never that of a task that exists."""
        asked = _asked_name(payload)
        if asked is not None and self._desk.store.task(asked) is None:
            return asked
        return derived_task_id(payload)


def _asked_name(payload: bytes) -> str | None:
    if len(payload) > MAX_SUBMIT_BYTES:
        return None
    try:
        found = json.loads(payload)
    except (ValueError, RecursionError):
        return None
    name = found.get("task") if isinstance(found, dict) else None
    return name if isinstance(name, str) and is_id(name) else None
