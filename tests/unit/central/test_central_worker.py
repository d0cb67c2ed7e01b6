"""The worker's threads: what takes minutes holds up no round."""

import queue
import threading
import time

import pytest

from central.adapters.worker import ThreadWorker, Workers
from central.core.tasks import TaskProgress
from central.service.ports import EvaluateModel, ExportModel, ModelEvaluated, PrepareModel
from central.service.records import TaskRecord
from schemas.messages import DataDescription
from schemas.tasks import TaskSubmission

WAIT_S = 20.0
SUBMISSION = TaskSubmission(model="softmax")
DATA = DataDescription(name="blobs", shape=(4,), classes=3, examples=9)
TASK = TaskRecord("t", SUBMISSION, 2, 0.0, TaskProgress(1, 60.0))
PREPARE, EXPORT = PrepareModel("slow", SUBMISSION, DATA), ExportModel(TASK)


class Gate:
    """A job's work that waits, for one kind of job, until the test lets it go."""

    def __init__(self, kind):
        self.kind = kind
        self.begun, self.free = threading.Event(), threading.Event()
        self.threads = {}

    def __call__(self, job):
        self.threads[type(job)] = threading.current_thread()
        if isinstance(job, self.kind):
            self.begun.set()
            assert self.free.wait(WAIT_S)
            return None
        return ModelEvaluated(job.task.task, job.round)


@pytest.mark.parametrize("slow", [PREPARE, EXPORT], ids=["preparation", "export"])
def test_a_slow_one_holds_up_no_round(slow):
    work, events = Gate(type(slow)), queue.SimpleQueue()
    workers = Workers(events, work)
    workers.start()
    workers.submit(slow)
    assert work.begun.wait(WAIT_S)
    workers.submit(EvaluateModel(TASK, 1))
    assert events.get(timeout=WAIT_S) == ModelEvaluated("t", 1)
    assert work.threads[type(slow)] is not work.threads[EvaluateModel]
    work.free.set()
    workers.end()
    workers.join()


def test_the_end_waits_a_while_for_what_is_in_progress_and_begins_nothing_more(monkeypatch):
    monkeypatch.setattr("central.adapters.worker._JOIN_S", 0.2)
    work, events = Gate(PrepareModel), queue.SimpleQueue()
    workers = Workers(events, work)
    workers.start()
    workers.submit(PREPARE)
    assert work.begun.wait(WAIT_S)
    workers.end()
    workers.submit(EvaluateModel(TASK, 1))
    begun = time.monotonic()
    workers.join()
    assert 0.1 < time.monotonic() - begun < WAIT_S
    assert set(work.threads) == {PrepareModel}
    work.free.set()


def test_jobs_of_one_thread_are_done_in_order():
    events = queue.SimpleQueue()
    thread = ThreadWorker(events, lambda job: ModelEvaluated("t", job.round))
    thread.start()
    for number in range(5):
        thread.submit(EvaluateModel(TASK, number))
    assert [events.get(timeout=WAIT_S).round for _ in range(5)] == [0, 1, 2, 3, 4]
    thread.end()
    thread.join(WAIT_S)
