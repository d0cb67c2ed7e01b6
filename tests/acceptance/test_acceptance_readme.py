"""What a newcomer does first: a fleet by hand, one message, and the verbs of a person."""

import json
import math

import numpy as np
import onnxruntime
import pytest
from safetensors.numpy import load_file

from schemas.tasks import TaskStatus
from tests.support.fleet import Shape, running_fleet
from tests.support.fleet_books import Books
from tests.support.fleet_programs import run_verb
from tests.support.fleet_watch import publish

README_TASK = '{"model":"mlp","data":"digits","rounds":3,"min_clients":2}'
LAST = "d4"
DRILL = ("--model", "mlp", "--data", "digits", "--epochs", "0")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    shape = Shape(central=("--eval-data", "digits"))
    with running_fleet(tmp_path_factory.mktemp("fleet"), shape) as running:
        yield running


@pytest.fixture(scope="module")
def trained(fleet):
    """Return the id of a task that was published as README says, and has ended."""
    published = publish(fleet.broker.port, "fl/v1/ctl/task/submit", README_TASK.encode())
    assert published.returncode == 0
    (task,) = fleet.watcher.wait(fleet.tasks, 10.0) or ["none"]
    fleet.complete(task)
    return task


@pytest.fixture
def held(fleet, request):
    """Return a task whose first round is open until its last device is thawed."""
    fleet.freeze(LAST)
    task = "held-" + request.node.name.rsplit("_", 1)[-1]
    done = verb(fleet, "submit", *DRILL, "--task", task, "--rounds", "2", "--min-clients", "4")
    assert done.returncode == 0
    fleet.wait_for(task, lambda status: status["reported"] == 3)
    yield task
    fleet.heal()


def verb(fleet, *arguments):
    return run_verb(*arguments, FEDFLEET_BROKER=fleet.broker.url)


def test_a_task_published_with_mosquitto_pub_is_trained_to_its_end(fleet, trained):
    status = fleet.retained(trained)
    assert (status["state"], status["committed"], status["rounds"]) == ("completed", 3, 3)
    assert status["metrics"]["accuracy"] > 0.6
    assert math.isfinite(status["metrics"]["loss"])
    assert [summary["clients"] for summary in status["history"]] == [2, 2, 2]
    assert status["history"][-1]["metrics"] == status["metrics"]
    kept = Books(fleet.state_dir("central"), trained)
    kept.check()
    assert kept.recompute()[-1] == status["model_sha256"]


def test_tasks_and_status_show_what_is_retained(fleet, trained):
    shown = json.loads(verb(fleet, "status", trained, "--json").stdout)
    listed = {one["task"]: one for one in json.loads(verb(fleet, "tasks", "--json").stdout)}
    retained = fleet.retained(trained)
    for name in ("state", "rounds", "committed", "metrics", "model_sha256", "updates_accepted"):
        assert shown[name] == listed[trained][name] == retained[name]
    assert TaskStatus.model_validate_json(json.dumps(shown)).is_final
    text = verb(fleet, "status", trained).stdout
    assert f"{trained}: completed, 3 of 3 rounds committed, accuracy 0." in text
    assert shown["model_sha256"] in text
    assert trained in verb(fleet, "tasks").stdout


def test_an_unknown_task_is_exit_code_1_and_a_bad_id_2(fleet):
    unknown = verb(fleet, "status", "nobody")
    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert "'nobody' is not known" in unknown.stderr
    assert verb(fleet, "watch", "nobody", "--wait", "1").returncode == 1
    assert verb(fleet, "cancel", "nobody", "--wait", "1").returncode == 1
    assert verb(fleet, "status", "a/b").returncode == 2


def test_a_rejected_task_is_exit_code_1_with_the_reason(fleet):
    done = verb(fleet, "submit", '{"model":"mlp","round":3}')
    assert done.returncode == 1
    assert "rejected" in done.stdout
    assert "round" in done.stdout
    assert "rounds" in done.stdout
    assert verb(fleet, "submit", "{").returncode == 2


def test_devices_are_listed_with_their_data(fleet):
    found = json.loads(verb(fleet, "devices", "--json").stdout)
    assert [one["device"] for one in found["devices"]] == ["d1", "d3", "d2", "d4"]
    assert {one["status"] for one in found["devices"]} == {"online"}
    assert [one["region"] for one in found["gateways"]] == ["north", "south"]
    assert sum(one["data"][0]["examples"] for one in found["devices"]) > 1400
    text = verb(fleet, "devices").stdout
    assert "digits[" in text
    assert "2 of 2 devices online" in text


def test_a_model_is_exported_for_inference(fleet, trained, tmp_path):
    files = {"onnx": tmp_path / "model.onnx", "safetensors": tmp_path / "model.safetensors"}
    flags = [flag for kind, path in files.items() for flag in (f"--{kind}", str(path))]
    state = ("--state-dir", str(fleet.state_dir("central")))
    done = verb(fleet, "export", trained, *flags, *state, "--json")
    assert (done.returncode, json.loads(done.stdout)) == (
        0,
        {kind: str(path) for kind, path in files.items()},
    )
    session = onnxruntime.InferenceSession(files["onnx"], providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"input": np.zeros((3, 1, 8, 8), np.float32)})
    assert logits.shape == (3, 10)
    assert sum(array.size for array in load_file(files["safetensors"]).values()) == 15010
    assert verb(fleet, "export", "nobody", *flags, *state).returncode == 1
    assert verb(fleet, "export", trained, *state).returncode == 2


def test_watch_follows_a_task_to_its_end(fleet):
    done = verb(fleet, "submit", *DRILL, "--task", "watched", "--rounds", "3", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["task"] == "watched"
    watched = verb(fleet, "watch", "watched", "--json")
    assert watched.returncode == 0
    states = [json.loads(line)["state"] for line in watched.stdout.splitlines()]
    assert states[-1] == "completed"
    assert "3 of 3 rounds committed" in verb(fleet, "watch", "watched").stdout


def test_a_task_is_paused_and_resumed(fleet, held):
    paused = verb(fleet, "pause", held, "--json")
    assert paused.returncode == 0, paused.stderr
    assert json.loads(paused.stdout)["state"] == "paused"
    fleet.thaw(LAST)
    fleet.wait_for(held, lambda status: status["committed"] == 1)
    assert fleet.retained(held)["state"] == "paused"
    resumed = verb(fleet, "resume", held, "--json")
    assert resumed.returncode == 0
    assert json.loads(resumed.stdout)["state"] in ("running", "waiting")
    assert fleet.complete(held)["committed"] == 2
    late = verb(fleet, "pause", held)
    assert late.returncode == 1
    assert "it is completed" in late.stderr


def test_a_task_is_cancelled(fleet, held):
    cancelled = verb(fleet, "cancel", held)
    assert cancelled.returncode == 0
    assert f"{held}: cancelled" in cancelled.stdout
    assert verb(fleet, "cancel", held).returncode == 0
    assert verb(fleet, "watch", held).returncode == 1


def test_without_a_broker_every_verb_says_so_and_ends(fleet):
    lost = run_verb("tasks", "--broker", "mqtt://127.0.0.1:9")
    assert lost.returncode == 1
    assert "no answer from the broker at mqtt://127.0.0.1:9" in lost.stderr
