"""What the device says of its jobs: the latest word on each, not every one on the way to it.

A job that is accepted, trained and delivered within a moment is told once instead of five times:
the first word waits that moment too, unless it is the last. Every message of a device costs its
gateway and central one each, and more bytes than a small update has. Nothing here is on disk: on
every connect all jobs that go on are told again.
"""

from dataclasses import dataclass

from device_agent.core.job import Job, JobKey
from device_agent.service.wire import Wire
from transport.events import Outgoing

#: Shortest time between two words on one job, and from its beginning to the first. A gateway asks
#: again after half a second.
PACE_S = 0.25
_PACED_JOBS = 64


@dataclass(slots=True)
class _Word:
    job: Job
    progress: float | None
    not_before_s: float


class Statuses:
    """The words that wait, by job; a word is forgotten once the turn that sent it is committed."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._waiting: dict[JobKey, _Word] = {}
        self._sent: dict[JobKey, _Word] = {}
        self._told_s: dict[JobKey, float] = {}
        #: The last choice by task, and why it was made, for the jobs that tell it.
        self._choices: dict[str, str] = {}
        self._reasons: dict[JobKey, str] = {}
        #: What jobs wait for that are held up.
        self._held: dict[JobKey, str] = {}

    def put(self, job: Job, now_s: float, progress: float | None = None) -> None:
        """Say how far a job is, as soon as it may be said; an older word is replaced."""
        last_s = self._told_s.setdefault(job.key, float("-inf") if job.has_ended else now_s)
        self._waiting[job.key] = _Word(job, progress, last_s + PACE_S)

    def explain(self, key: JobKey, choice: str, reason: str) -> None:
        """Give the words on a job a reason, if the task's jobs before it were done otherwise.

        Args:
            key: The job.
            choice: What was chosen for it.
            reason: Why.
        """
        if self._choices.get(key.task) != choice:
            self._choices[key.task] = choice
            self._reasons[key] = reason

    def hold(self, key: JobKey, reason: str | None) -> None:
        """Give the words on a job that is held up a reason, until there is none any more."""
        self._held.pop(key, None)
        if reason is not None:
            self._held[key] = reason

    def due(self, now_s: float) -> list[Outgoing]:
        """Return the messages to publish now."""
        words = [word for word in self._waiting.values() if word.not_before_s <= now_s]
        for word in words:
            self._sent[word.job.key] = word
            self._told_s.pop(word.job.key, None)
            self._told_s[word.job.key] = now_s
        return [self._wire.status(word.job, word.progress, self._why(word.job)) for word in words]

    def next_due_s(self) -> float | None:
        """Return when ``due`` may have something to say; None: not before ``put``."""
        return min((word.not_before_s for word in self._waiting.values()), default=None)

    def _why(self, job: Job) -> str | None:
        return self._held.get(job.key) or self._reasons.get(job.key)

    def committed(self) -> None:
        """Forget what was sent: the turn is committed, and its messages were published."""
        for key, word in self._sent.items():
            if self._waiting.get(key) is word:
                del self._waiting[key]
        self._sent.clear()
        for key in list(self._told_s)[:-_PACED_JOBS]:
            del self._told_s[key]
        for explained in list(self._reasons)[:-_PACED_JOBS]:
            del self._reasons[explained]
        for held in list(self._held)[:-_PACED_JOBS]:
            del self._held[held]
        for task in list(self._choices)[:-_PACED_JOBS]:
            del self._choices[task]
