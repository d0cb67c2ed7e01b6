"""The training thread, the machine, the policy file and the data."""

import hashlib
import queue
import threading
from dataclasses import replace

import numpy as np
import psutil
import pytest
from device_agent_bench import DEVICE, LARGE, SMALL, NoiseTrainer, dataset, model_file, plan_for

from device_agent.adapters.data_sources import load_data
from device_agent.adapters.job_run import JobError, JobRun
from device_agent.adapters.machine import LocalMachine
from device_agent.adapters.optimizer_states import OptimizerStates
from device_agent.adapters.policy_file import PolicyError, load_policy
from device_agent.adapters.worker import PROGRESS_S, TrainingWorker, _Order
from device_agent.core.job import JobKey
from device_agent.core.policy import LocalPolicy
from device_agent.service.ports import (
    TrainingFailed,
    TrainingFinished,
    TrainingProgressed,
    TrainingStoppedError,
    Work,
)
from device_agent.training.onnx_runtime import Providers
from learning.data.dataset import DataError
from schemas.limits import MIB
from schemas.tasks import Privacy
from transport.objects import ObjectStore
from updates.codecs.registry import create

WAIT_S = 10


class PatientTrainer(NoiseTrainer):
    """Trains until it is told to stop or to finish; reports on the way."""

    def __init__(self):
        super().__init__()
        self.began = threading.Event()
        self.may_finish = threading.Event()

    def train(self, request, progress, should_stop):
        self.began.set()
        progress(0.5)
        while not self.may_finish.wait(0.005):
            if should_stop():
                message = "told to"
                raise TrainingStoppedError(message)
        return super().train(request, progress, should_stop)


@pytest.fixture
def shop(tmp_path):
    """Yield a function: trainer -> worker; all of them are closed at the end."""
    objects = ObjectStore(tmp_path)
    sha256 = objects.put(model_file(SMALL), durable=False)
    opened = []

    def open_worker(trainer, clock=lambda: 0.0):
        run = JobRun(
            DEVICE,
            {"digits": dataset()},
            objects,
            lambda *_: trainer,
            tmp_path / "parts",
            OptimizerStates(tmp_path / "optimizer", MIB),
        )
        worker = TrainingWorker(run, queue.SimpleQueue(), clock)
        worker.work = lambda number: Work(JobKey("t-1", number), plan_for(SMALL), sha256, "noise")
        opened.append(worker)
        return worker

    yield open_worker
    for worker in opened:
        worker.close()
        assert worker._thread is None or not worker._thread.is_alive()


def next_event(worker):
    return worker._events.get(timeout=WAIT_S)


def test_the_training_thread_puts_its_update_on_the_queue(shop):
    worker = shop(NoiseTrainer())
    assert not worker.is_warm
    worker.assign(worker.work(1))
    event = next_event(worker)
    assert isinstance(event, TrainingFinished)
    assert event.update.manifest.inline
    assert event.update.train_s >= 0
    assert worker.is_warm


def test_the_same_work_is_not_begun_twice(shop):
    worker = shop(NoiseTrainer())
    worker.assign(worker.work(1))
    next_event(worker)
    worker.assign(worker.work(1))
    worker.assign(worker.work(2))
    assert next_event(worker).key == JobKey("t-1", 2)
    assert worker._events.empty()


def test_other_work_stops_what_is_in_hand_and_silences_it(shop):
    trainer = PatientTrainer()
    worker = shop(trainer)
    worker.assign(worker.work(1))
    assert trainer.began.wait(WAIT_S)
    worker.assign(worker.work(2))
    trainer.may_finish.set()
    assert next_event(worker).key == JobKey("t-1", 2)
    assert worker._events.empty()


def test_work_that_is_taken_back_before_it_began_is_not_begun(shop):
    trainer = PatientTrainer()
    worker = shop(trainer)
    worker.assign(worker.work(1))
    assert trainer.began.wait(WAIT_S)
    worker.assign(worker.work(2))
    worker.assign(None)
    worker.close()
    assert worker._events.empty()


def test_progress_is_spaced(shop):
    now_s = [0.0]
    trainer = PatientTrainer()
    worker = shop(trainer, lambda: now_s[0])
    report = worker._reporter(_Order(worker.work(1)))
    report(0.1)
    now_s[0] = PROGRESS_S
    report(0.2)
    report(0.3)
    now_s[0] = 2 * PROGRESS_S
    report(1.5)
    shares = []
    while not worker._events.empty():
        event = worker._events.get()
        assert isinstance(event, TrainingProgressed)
        shares.append(event.share)
    assert shares == [0.2, 1.0]


@pytest.mark.parametrize(
    ("fault", "code"),
    [(RuntimeError("odd"), "training"), (MemoryError(), "memory"), (OSError("gone"), "training")],
)
def test_a_trainer_that_crashes_fails_the_job_and_the_thread_lives(shop, fault, code):
    trainer = NoiseTrainer()
    trainer.fault = fault
    worker = shop(trainer)
    worker.assign(worker.work(1))
    event = next_event(worker)
    assert isinstance(event, TrainingFailed)
    assert event.cause.code == code
    trainer.fault = None
    worker.assign(worker.work(2))
    assert isinstance(next_event(worker), TrainingFinished)


@pytest.fixture
def job_run(tmp_path):
    objects = ObjectStore(tmp_path)
    trainer = NoiseTrainer()
    run = JobRun(
        DEVICE,
        {"digits": dataset()},
        objects,
        lambda *_: trainer,
        tmp_path / "parts",
        OptimizerStates(tmp_path / "optimizer", MIB),
        lambda: 0.0,
    )
    return trainer, run, objects.put(model_file(LARGE), durable=False)


def run_one(run, plan, sha256):
    return run.run(Work(JobKey("t-1", 1), plan, sha256, "noise"), lambda _: None, lambda: False)


def test_a_large_update_is_a_file_with_the_bytes_of_its_digest(job_run):
    _, run, sha256 = job_run
    update = run_one(run, plan_for(LARGE), sha256)
    data = update.file.read_bytes()
    assert hashlib.sha256(data).hexdigest() == update.manifest.sha256
    assert len(update.tail) == 32 * update.manifest.chunks


def test_the_same_work_gives_the_same_bytes_and_another_round_gives_others(job_run):
    _, run, sha256 = job_run
    plan = plan_for(LARGE, codec="int8")
    assert run_one(run, plan, sha256).tail == run_one(run, plan, sha256).tail
    other = run.run(Work(JobKey("t-1", 2), plan, sha256, "noise"), lambda _: None, lambda: False)
    assert other.tail != run_one(run, plan, sha256).tail


def test_an_update_is_clipped_as_the_plan_says(job_run):
    _, run, sha256 = job_run
    plan = plan_for(LARGE).model_copy(update={"privacy": Privacy(clip_norm=0.5)})
    payload = run_one(run, plan, sha256).file.read_bytes()
    norm = np.linalg.norm(create("raw-f32").decode(payload, LARGE))
    assert norm == pytest.approx(0.5, rel=1e-5)


def refusal_of(run, plan, sha256):
    with pytest.raises(JobError) as caught:
        run_one(run, plan, sha256)
    return caught.value.cause


def test_a_job_for_data_that_is_gone_is_refused(job_run):
    _, run, sha256 = job_run
    plan = plan_for(LARGE).model_copy(update={"data": "har"})
    assert refusal_of(run, plan, sha256).code == "data"


def test_a_job_whose_model_is_gone_is_refused(job_run):
    _, run, _ = job_run
    assert refusal_of(run, plan_for(LARGE), "0" * 64).code == "model"


def test_an_update_that_is_not_finite_is_never_sent(job_run):
    trainer, run, sha256 = job_run
    trainer.factor = np.float32("inf")
    cause = refusal_of(run, plan_for(LARGE), sha256)
    assert cause.code == "training"
    assert "finite" in cause.reason


def test_a_disk_that_is_full_fails_the_job_and_leaves_no_file(job_run, tmp_path):
    _, run, sha256 = job_run
    full = replace(run, scratch=tmp_path / "nowhere")
    assert refusal_of(full, plan_for(LARGE), sha256).code == "storage"


def test_a_worker_without_work_closes_at_once(shop):
    shop(NoiseTrainer()).close()


def test_the_machine_tells_what_it_has():
    machine = LocalMachine(("torch",))
    found = machine.capabilities()
    assert found.backends == ("torch",)
    assert 0 < found.memory_bytes <= psutil.virtual_memory().total
    assert found.cores >= 1
    vitals = machine.vitals()
    assert vitals.load >= 0
    assert 0 <= vitals.memory_free_bytes <= psutil.virtual_memory().total


def test_the_machine_tells_what_onnx_computes_on_and_in():
    providers = Providers(("tensorrt", "cpu"), "cuda: not in this onnxruntime", "float16")
    found = LocalMachine(("onnx",), providers).capabilities()
    assert found.providers == ("tensorrt", "cpu")
    assert (found.accelerator, found.precision) == ("tensorrt", "float16")
    assert found.fallback == "cuda: not in this onnxruntime"
    assert LocalMachine(("torch",)).capabilities().precision == "float32"


def test_the_limit_of_a_control_group_is_the_machines_memory(tmp_path):
    (tmp_path / "memory.max").write_text(f"{100 * MIB}\n")
    (tmp_path / "memory.current").write_text(f"{60 * MIB}\n")
    (tmp_path / "memory.stat").write_text(f"anon 5\ninactive_file {10 * MIB}\n")
    machine = LocalMachine((), None, tmp_path)
    assert machine.capabilities().memory_bytes == 100 * MIB
    assert machine.vitals().memory_free_bytes == 50 * MIB


def test_a_control_group_without_a_limit_limits_nothing(tmp_path):
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text(f"{60 * MIB}\n")
    machine = LocalMachine((), None, tmp_path)
    assert machine.capabilities().memory_bytes == psutil.virtual_memory().total


def test_a_control_group_that_is_full_leaves_nothing(tmp_path):
    (tmp_path / "memory.max").write_text("1000")
    (tmp_path / "memory.current").write_text("2000")
    assert LocalMachine((), None, tmp_path).vitals().memory_free_bytes == 0


def test_an_update_has_the_chunks_that_its_profile_says(job_run):
    _, run, sha256 = job_run
    update = run_one(replace(run, chunk_bytes=65536), plan_for(LARGE), sha256)
    assert update.manifest.chunk_bytes == 65536
    assert update.manifest.chunks == -(-update.manifest.size // 65536)
    assert len(update.tail) == 32 * update.manifest.chunks


def test_a_policy_file_is_read(tmp_path):
    file = tmp_path / "policy.toml"
    file.write_text('tasks = ["a-*"]\nmax_epochs = 2\nquiet_hours = "22:00-06:00"\n')
    policy = load_policy(file)
    assert policy == LocalPolicy(tasks=("a-*",), max_epochs=2, quiet_hours="22:00-06:00")
    assert load_policy(None) == LocalPolicy()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("max_epoch = 2", "max_epochs"),
        ("max_epochs = 0", "max_epochs"),
        ('max_epochs = "2"', "max_epochs"),
        ("quiet_hours = 22:00:00", "quiet_hours"),
        ("tasks = ", "policy.toml"),
    ],
)
def test_a_policy_file_that_does_not_fit_is_refused_by_name(tmp_path, text, named):
    file = tmp_path / "policy.toml"
    file.write_text(text)
    with pytest.raises(PolicyError, match=named):
        load_policy(file)


def test_a_policy_file_that_is_missing_is_refused(tmp_path):
    with pytest.raises(PolicyError, match=r"nowhere\.toml"):
        load_policy(tmp_path / "nowhere.toml")


@pytest.fixture
def npz(tmp_path):
    def write(name, examples):
        data = dataset(examples)
        file = tmp_path / f"{name}.npz"
        np.savez(file, x=data.x, y=data.y)
        return f"npz={file}"

    return write


def test_a_device_without_data_says_so():
    with pytest.raises(DataError, match="no source is given"):
        load_data((), None, None, 0)


def test_data_that_cannot_be_loaded_is_named():
    with pytest.raises(DataError, match="nowhere"):
        load_data(("npz=nowhere.npz",), None, None, 0)


def test_shards_of_all_devices_are_the_whole_source(npz):
    spec = npz("a", 20)
    (name,) = load_data((spec,), None, None, 0)
    sizes = [len(load_data((spec,), f"{k}/3", None, 5)[name]) for k in (1, 2, 3)]
    assert sum(sizes) == 20
    uneven = [len(load_data((spec,), f"{k}/2", 0.1, 5)[name]) for k in (1, 2)]
    assert sum(uneven) == 20
