"""The plan of a fleet that trains nothing, and the disk probe."""

import json
from pathlib import Path

from benchmarks.disk import DiskProbe
from benchmarks.fleet import Counts, noop_plan
from fedfleet.testbed.plan import Place
from schemas.tasks import parse_submission


def plan(devices: int):
    return noop_plan(devices, 30, Place(Path("/runs/x"), 1883, "/usr/sbin/mosquitto"))


def test_the_task_trains_nothing_and_sends_raw_float32() -> None:
    submission = parse_submission(json.dumps(plan(10).submission).encode())
    assert submission.training.is_drill
    assert (submission.model, submission.codec, submission.data) == ("lenet5", "raw-f32", "digits")
    assert (submission.rounds, submission.min_clients, submission.cohort) == (30, 10, 10)


def test_every_device_is_a_process_behind_one_gateway() -> None:
    names = [process.name for process in plan(3).services]
    assert names == ["central", "gateway-region-1", "device-1", "device-2", "device-3"]


def test_central_has_nothing_to_evaluate_on() -> None:
    assert all("--eval-data" not in process.argv for process in plan(2).services)


def test_the_task_has_rounds_for_all_that_is_measured() -> None:
    counts = Counts(warm_up=3, timed=20, observed=15)
    assert counts.in_all > 3 + 20 + 15


def test_the_disk_probe_measures_both_ways_and_leaves_nothing(tmp_path: Path) -> None:
    probe = DiskProbe(tmp_path)
    probe.measure(2)
    probe.measure(1)
    assert len(probe.appends_s) == len(probe.commits_s) == 3
    assert 0 < probe.unit_s <= max(probe.appends_s)
    assert list(tmp_path.iterdir()) == []
