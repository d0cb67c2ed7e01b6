"""One thread that does central's heavy work, a job at a time; results go back as events."""

import queue
import threading
from collections.abc import Callable

import structlog

from central.service.ports import ExportModel, Job, JobEvent, JobFailed
from transport.failpoints import failpoint

_log = structlog.get_logger()
_JOIN_S = 5.0


class ThreadWorker:
    """The port ``Worker``: jobs in, events out, in order."""

    def __init__(
        self, events: "queue.SimpleQueue[object]", work: Callable[[Job], JobEvent | None]
    ) -> None:
        self._events = events
        self._work = work
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="central-worker", daemon=True)

    def start(self) -> None:
        """Begin to take jobs."""
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Queue a job."""
        self._jobs.put(job)

    def stop(self) -> None:
        """End after the job in progress; one that takes longer dies with the process."""
        self._jobs.put(None)
        self._thread.join(_JOIN_S)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                event = self._work(job)
            except Exception as error:  # noqa: BLE001 - a job's fault must not end the thread
                _log.exception("job_failed", job=type(job).__name__)
                event = JobFailed(job, f"{type(error).__name__}: {error}"[:500])
            failpoint("central.result.due")
            if event is not None:
                self._events.put(event)


class Workers:
    """The port ``Worker`` over two threads: writing a model out must hold up no round."""

    def __init__(
        self, events: "queue.SimpleQueue[object]", work: Callable[[Job], JobEvent | None]
    ) -> None:
        self._rounds = ThreadWorker(events, work)
        self._exports = ThreadWorker(events, work)

    def start(self) -> None:
        """Begin to take jobs."""
        self._rounds.start()
        self._exports.start()

    def submit(self, job: Job) -> None:
        """Queue a job."""
        (self._exports if isinstance(job, ExportModel) else self._rounds).submit(job)

    def stop(self) -> None:
        """End after the jobs in progress."""
        self._rounds.stop()
        self._exports.stop()
