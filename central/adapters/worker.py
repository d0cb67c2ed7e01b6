"""Threads that do central's heavy work, each a job at a time; results go back as events."""

import queue
import threading
import time
from collections.abc import Callable

import structlog

from central.adapters.export_process import ExportProcessError
from central.service.ports import (
    ExportModel,
    Job,
    JobDelayed,
    JobEvent,
    JobFailed,
    PrepareModel,
    StateDamaged,
)
from transport.database import is_damage, is_storage_failure
from transport.failpoints import failpoint

_log = structlog.get_logger()
#: The jobs in progress have so long to end when central stops; what they were for is done again.
_JOIN_S = 4.0
_FIRST_PAUSE_S = 0.1
_MAX_PAUSE_S = 2.0


class ThreadWorker:
    """The port ``Worker``: jobs in, events out, in order."""

    def __init__(
        self, events: "queue.SimpleQueue[object]", work: Callable[[Job], JobEvent | None]
    ) -> None:
        self._events = events
        self._work = work
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="central-worker", daemon=True)

    def start(self) -> None:
        """Begin to take jobs."""
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Queue a job."""
        self._jobs.put(job)

    def end(self) -> None:
        """Begin no further job."""
        self._stopped.set()
        self._jobs.put(None)

    def join(self, timeout_s: float) -> None:
        """Wait for the job in progress; one that takes longer dies with the process."""
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None and not self._stopped.is_set():
            try:
                event = self._persist(job)
            except ExportProcessError as error:  # begun again with the next start
                _log.warning("export_failed", reason=str(error))
                continue
            except Exception as error:  # noqa: BLE001 - a job's fault must not end the thread
                _log.exception("job_failed", job=type(job).__name__)
                event = JobFailed(job, f"{type(error).__name__}: {error}"[:500])
                if is_damage(error):
                    event = StateDamaged(error)
            failpoint("central.result.due")
            if event is not None:
                self._events.put(event)

    def _persist(self, job: Job) -> JobEvent | None:
        """Do a job; a full disk delays it and ends nothing."""
        pauses = 0
        while not self._stopped.is_set():
            try:
                event = self._work(job)
            except Exception as error:  # noqa: PERF203 - each try may fail
                if not is_storage_failure(error):
                    raise
                if not pauses:
                    self._tell_delay(job, error)
                self._stopped.wait(min(_MAX_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** min(pauses, 10)))
                pauses += 1
            else:
                if pauses:
                    _log.info("storage_recovered", job=type(job).__name__, after_pauses=pauses)
                return event
        return None

    def _tell_delay(self, job: Job, error: Exception) -> None:
        _log.error("storage_unavailable", job=type(job).__name__, error=str(error))
        task = job.task if isinstance(job, PrepareModel) else job.task.task
        self._events.put(JobDelayed(task, f"central waits for space on its disk: {error}"[:500]))


class Workers:
    """The port ``Worker`` over three threads: what takes minutes must hold up no round.

    One builds models, one writes them out, one does all else. The jobs of one task come one after
    another by themselves: each is due when the one before it has ended.
    """

    def __init__(
        self, events: "queue.SimpleQueue[object]", work: Callable[[Job], JobEvent | None]
    ) -> None:
        self._rounds = ThreadWorker(events, work)
        self._preparations = ThreadWorker(events, work)
        self._exports = ThreadWorker(events, work)
        self._threads = (self._rounds, self._preparations, self._exports)

    def start(self) -> None:
        """Begin to take jobs."""
        for thread in self._threads:
            thread.start()

    def submit(self, job: Job) -> None:
        """Queue a job."""
        match job:
            case PrepareModel():
                self._preparations.submit(job)
            case ExportModel():
                self._exports.submit(job)
            case _:
                self._rounds.submit(job)

    def end(self) -> None:
        """Begin no further job."""
        for thread in self._threads:
            thread.end()

    def join(self) -> None:
        """Wait for the jobs in progress, but not longer than some seconds."""
        until_s = time.monotonic() + _JOIN_S
        for thread in self._threads:
            thread.join(max(0.0, until_s - time.monotonic()))
