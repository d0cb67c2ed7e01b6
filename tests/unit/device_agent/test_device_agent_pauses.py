"""Training waits between two steps while the device is too hot or its battery too low."""

import queue
import threading

import numpy as np
import pytest
from device_agent_bench import (
    DEVICE,
    SMALL,
    TASK,
    Bench,
    NoiseTrainer,
    dataset,
    model_file,
    plan_for,
    states,
    statuses,
)

from device_agent.adapters.job_run import JobRun
from device_agent.adapters.optimizer_states import OptimizerStates
from device_agent.adapters.pauses import Pauses
from device_agent.adapters.worker import TrainingWorker
from device_agent.core.job import JobKey
from device_agent.core.pauses import Condition, is_limited, look
from device_agent.service.ports import (
    TrainingFinished,
    TrainingPaused,
    TrainingResult,
    TrainingStoppedError,
    Vitals,
    Work,
)
from device_agent.training.steps import follow
from schemas.limits import MIB
from schemas.profiles import Limits
from transport.events import Connected
from transport.objects import ObjectStore

WAIT_S = 10
HOT = Limits(temperature_ceiling_celsius=80, temperature_resume_celsius=70)
LOW = Limits(battery_floor_percent=30)


def heat(*degrees):
    """Return for each temperature in turn whether training waits."""
    pause, waits = None, []
    for one in degrees:
        pause = look(HOT, Condition(one), pause)
        waits.append(pause is not None)
    return waits


def test_a_pause_begins_at_the_ceiling_and_ends_at_the_lower_mark():
    assert heat(79.9, 80, 75, 70.1, 70, 75, 79.9, 81) == [
        *(False, True, True, True),
        *(False, False, False, True),
    ]


def test_a_sensor_that_tells_nothing_holds_nothing_up():
    assert heat(None, 90, None) == [False, True, False]


def test_a_low_battery_waits_for_some_percent_more_or_for_a_charger():
    def waits(percent, before, **more):
        return look(LOW, Condition(None, percent, **more), before)

    pause = waits(29, None)
    assert pause is not None
    assert waits(30, None) is None
    assert waits(34, pause) is not None
    assert waits(35, pause) is None
    assert waits(29, pause, is_plugged=True) is None
    assert waits(None, None) is None


def test_the_reason_names_each_cause_with_its_numbers():
    both = Limits(temperature_ceiling_celsius=80, battery_floor_percent=30)
    pause = look(both, Condition(85.5, 12), None)
    assert pause.reason == (
        "paused: 85.5 degrees Celsius, the ceiling is 80, it goes on at 72; "
        "battery at 12 %, the floor is 30, it goes on at 35 or when charged"
    )


def test_one_cause_s_margin_is_not_the_other_s():
    both = Limits(
        temperature_ceiling_celsius=80, temperature_resume_celsius=70, battery_floor_percent=30
    )
    low = look(both, Condition(75, 20), None)
    assert "Celsius" not in low.reason
    assert look(both, Condition(75, 50), low) is None


def test_a_device_without_such_limits_reads_no_sensor():
    def no_sensor():
        pytest.fail("read")

    assert not is_limited(Limits(threads=1))
    Pauses(Limits(threads=1), no_sensor).hold(threading.Event(), pytest.fail)


class Sensors:
    """Tells one temperature after the other; the last one from then on."""

    def __init__(self, *degrees):
        self.degrees = list(degrees)
        self.looks = 0

    def __call__(self):
        self.looks += 1
        told = self.degrees.pop(0) if len(self.degrees) > 1 else self.degrees[0]
        return Vitals(0.0, 0, told)


def test_sensors_are_read_now_and_then_not_at_every_step():
    now_s, sensors = [0.0], Sensors(40)
    pauses = Pauses(HOT, sensors, lambda: now_s[0], look_s=2.0)
    for _ in range(50):
        pauses.hold(threading.Event(), pytest.fail)
        now_s[0] += 0.1
    assert sensors.looks == 3


def test_the_time_of_work_is_without_the_pauses():
    now_s = [100.0]

    class Waiting(threading.Event):
        def wait(self, timeout=None):
            now_s[0] += timeout
            return False

    told = []
    pauses = Pauses(HOT, Sensors(85, 84, 69), lambda: now_s[0], look_s=2.0)
    pauses.hold(Waiting(), told.append)
    assert now_s[0] == 104.0
    assert pauses.working_s() == 100.0
    assert told[0].startswith("paused: 85 degrees")
    assert told[1:] == [None]


class SteppingTrainer(NoiseTrainer):
    """Takes steps that each depend on the one before, as real training does."""

    def train(self, request, progress, should_stop):
        after_step = follow(20, progress, should_stop)
        values = request.parameters.copy()
        rng = np.random.default_rng(request.round_seed)
        for number in range(1, 21):
            values = np.float32(0.9) * values + rng.standard_normal(len(values), dtype=np.float32)
            after_step(number)
        return TrainingResult(values - request.parameters, len(request.data), {"loss": 0.1})


@pytest.fixture
def train(tmp_path):
    """Yield a function: pauses -> a worker that has begun a job, and its queue."""
    objects = ObjectStore(tmp_path)
    sha256 = objects.put(model_file(SMALL), durable=False)
    opened = []

    def begin(pauses=None):
        run = JobRun(
            DEVICE,
            {"digits": dataset()},
            objects,
            lambda *_: SteppingTrainer(),
            tmp_path / "parts",
            OptimizerStates(tmp_path / "optimizer", MIB),
        )
        events = queue.SimpleQueue()
        worker = TrainingWorker(run, events, pauses=pauses)
        opened.append(worker)
        worker.assign(Work(JobKey(TASK, 1), plan_for(SMALL, codec="int8"), sha256, "noise"))
        return worker, events

    yield begin
    for worker in opened:
        worker.close()
        assert not worker._thread.is_alive()


def test_a_pause_changes_nothing_of_what_training_gives(train):
    _, events = train()
    undisturbed = events.get(timeout=WAIT_S)
    hot = Sensors(40, 40, 40, 85, 82, 60, 40, 40, 90, 71, 70, 40)
    _, events = train(Pauses(HOT, hot, look_s=0.0))
    seen = []
    while not seen or not isinstance(seen[-1], TrainingFinished):
        seen.append(events.get(timeout=WAIT_S))
    pauses = [event.reason for event in seen if isinstance(event, TrainingPaused)]
    assert [reason and reason[:18] for reason in pauses] == [
        *("paused: 85 degrees", None),
        *("paused: 90 degrees", None),
    ]
    assert seen[-1].update.tail == undisturbed.update.tail
    assert seen[-1].update.metrics == undisturbed.update.metrics


def test_a_device_that_is_hot_does_not_begin_and_stops_when_it_is_told_to(train):
    worker, events = train(Pauses(HOT, Sensors(95), look_s=0.01))
    assert events.get(timeout=WAIT_S).reason.startswith("paused: 95 degrees")
    worker.assign(None)
    worker.close()
    assert events.empty()


def test_stopping_a_pause_ends_the_training_as_stopping_a_step_does():
    stop = threading.Event()
    stop.set()
    pauses = Pauses(HOT, Sensors(95), look_s=60.0)
    told = []

    def should_stop():
        pauses.hold(stop, told.append)
        return stop.is_set()

    with pytest.raises(TrainingStoppedError):
        follow(3, lambda _: None, should_stop)(1)
    assert len(told) == 2


def test_a_pause_is_told_in_the_job_s_status_and_its_end_too(bench: Bench):
    bench.assign()
    key = JobKey(TASK, 1)
    (waits,) = statuses(bench.give(TrainingPaused(key, "paused: 85 degrees")))
    assert (waits.state, waits.reason, waits.code) == ("training", "paused: 85 degrees", None)
    (goes_on,) = statuses(bench.give(TrainingPaused(key, None)))
    assert (goes_on.state, goes_on.reason) == ("training", None)
    assert states(bench.train()) == ["uploading"]


def test_a_pause_of_a_job_that_has_ended_is_not_told(bench: Bench):
    bench.assign()
    bench.train()
    for key in (JobKey(TASK, 1), JobKey("t-9", 1)):
        assert statuses(bench.give(TrainingPaused(key, "paused: 85 degrees"))) == []


def test_a_new_connection_is_told_of_the_pause_again(bench: Bench):
    bench.assign()
    bench.give(TrainingPaused(JobKey(TASK, 1), "paused: 85 degrees"))
    bench.lose_connection()
    bench.sent.clear()
    bench.give(Connected("main"))
    assert [status.reason for status in statuses(bench.sent)] == ["paused: 85 degrees"]
