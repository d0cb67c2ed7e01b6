"""The training thread: one job at a time, apart from the loop."""

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import structlog

from device_agent.adapters.job_run import JobError, JobRun
from device_agent.adapters.model_rebuild import RebuildError
from device_agent.adapters.pauses import Pauses
from device_agent.core.job import Refusal
from device_agent.service.ports import (
    RebuildFailed,
    TrainingError,
    TrainingFailed,
    TrainingFinished,
    TrainingPaused,
    TrainingProgressed,
    TrainingStoppedError,
    Work,
    WorkerEvent,
)
from transport.failpoints import failpoint

_LOG = structlog.get_logger()
#: Progress is told at most this often.
PROGRESS_S = 2.0


@dataclass(frozen=True, slots=True)
class _Order:
    work: Work
    stop: threading.Event = field(default_factory=threading.Event)


class TrainingWorker:
    """``Worker`` with one thread, which begins with the first job."""

    def __init__(
        self,
        job_run: JobRun,
        events: "queue.SimpleQueue[object]",
        clock: Callable[[], float] = time.monotonic,
        pauses: Pauses | None = None,
    ) -> None:
        """Begin without work.

        Args:
            job_run: Does one job.
            events: The loop's queue.
            clock: Seconds, to space progress.
            pauses: Holds the training up between two steps; None: nothing does.
        """
        self._job_run = job_run
        self._events = events
        self._clock = clock
        self._pauses = pauses
        self._orders: queue.SimpleQueue[_Order | None] = queue.SimpleQueue()
        self._current: _Order | None = None
        self._thread: threading.Thread | None = None
        self._is_warm = False

    @property
    def is_warm(self) -> bool:
        """Whether a job has loaded a training library."""
        return self._is_warm

    def assign(self, work: Work | None) -> None:
        """Make this the work in hand; see ``Worker.assign``."""
        current = self._current
        if current is not None:
            if work is not None and _is_same(work, current.work):
                return
            current.stop.set()
        self._current = None if work is None else _Order(work)
        if self._current is not None:
            self._begin(self._current)

    def close(self, timeout_s: float = 3.0) -> None:
        """Stop the work in hand and the thread; wait for it, but not longer than this."""
        self.assign(None)
        if self._thread is not None:
            self._orders.put(None)
            self._thread.join(timeout_s)

    def _begin(self, order: _Order) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="training", daemon=True)
            self._thread.start()
        self._orders.put(order)

    def _work(self) -> None:
        while (order := self._orders.get()) is not None:
            if order.stop.is_set():
                continue
            event = self._do(order)
            failpoint("device.result.due")
            self._is_warm = self._is_warm or not order.work.plan.training.is_drill
            if event is not None and not order.stop.is_set():
                self._events.put(event)

    def _do(self, order: _Order) -> WorkerEvent | None:
        work = order.work
        try:
            should_stop = partial(self._should_stop, order)
            should_stop()  # a device that is too hot already does not begin
            update = self._job_run.run(work, self._reporter(order), should_stop)
        except TrainingStoppedError:
            return None
        except RebuildError as error:
            return RebuildFailed(work.key, str(error))
        except (JobError, TrainingError, MemoryError) as error:
            return TrainingFailed(work.key, _cause(error))
        except Exception as error:  # noqa: BLE001 - the thread outlives any fault of a trainer
            _LOG.error("training_crashed", task=work.key.task, exc_info=error)
            reason = f"{type(error).__name__}: {error}"
            return TrainingFailed(work.key, Refusal("training", reason))
        return TrainingFinished(work.key, update)

    def _should_stop(self, order: _Order) -> bool:
        """Tell whether the work is to be stopped; wait before that while the device must rest."""
        if self._pauses is not None:
            self._pauses.hold(order.stop, partial(self._tell_pause, order))
        return order.stop.is_set()

    def _tell_pause(self, order: _Order, reason: str | None) -> None:
        if not order.stop.is_set():
            self._events.put(TrainingPaused(order.work.key, reason))

    def _reporter(self, order: _Order) -> Callable[[float], None]:
        told_s = self._clock()

        def report(share: float) -> None:
            nonlocal told_s
            now_s = self._clock()
            if now_s - told_s >= PROGRESS_S and not order.stop.is_set():
                told_s = now_s
                event = TrainingProgressed(order.work.key, min(1.0, max(0.0, share)))
                self._events.put(event)

        return report


def _cause(error: JobError | TrainingError | MemoryError) -> Refusal:
    if isinstance(error, JobError):
        return error.cause
    if isinstance(error, TrainingError):
        return Refusal("training", str(error))
    return Refusal("memory", "the memory did not suffice")


def _is_same(one: Work, other: Work) -> bool:
    """Tell whether it is the same job in the same start, whatever has come since then."""
    return (one.key, one.start) == (other.key, other.start)
