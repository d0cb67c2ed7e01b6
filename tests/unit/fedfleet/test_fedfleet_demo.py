"""The demo with dummies for programs: a listener for the broker, sleepers for the others."""

import json
import sys

import pytest
from click.testing import CliRunner

from fedfleet.cli import cli
from fedfleet.testbed import demo as demo_module
from fedfleet.testbed import plan as plan_module
from fedfleet.testbed import run as run_module
from schemas.envelope import Header, encode_frame
from schemas.messages import DeviceState, GatewayState
from schemas.tasks import CentralState, RoundSummary, TaskStatus

SLEEP = "import time; time.sleep(600)"
LISTEN = (
    "import socket, sys, time; s = socket.socket();"
    "s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1);"
    "s.bind(('127.0.0.1', int(sys.argv[sys.argv.index('--port') + 1]))); s.listen();"
    "time.sleep(600)"
)
ROUND = RoundSummary(
    round=0, outcome="committed", clients=2, uplink_bytes=100, metrics={"accuracy": 0.75}
)


def frame(src, body):
    header = Header(type=body.TYPE, id="0" * 16, ts=1.0, src=src, boot=1, seq=1)
    return encode_frame(header, body)


def status(state, *rounds, **fields):
    body = TaskStatus(
        task="demo", state=state, rounds=1, committed=len(rounds), history=rounds,
        parameters=200, model_sha256="a" * 64, updates_accepted=2, **fields,
    )  # fmt: skip
    return "fl/v1/ctl/task/demo/status", body.model_dump_json().encode()


@pytest.fixture
def fleet(world, monkeypatch):
    """Two devices and a central that completes the task at once."""

    def dummy(verb, *arguments):
        return (sys.executable, "-c", LISTEN if verb == "broker" else SLEEP, verb, *arguments)

    def write(_state_dir, task, kind, path):
        path.write_text(f"{task} {kind}")

    monkeypatch.setattr(plan_module, "_fedfleet", dummy)
    monkeypatch.setattr(demo_module.exporting, "export_model", write)
    monkeypatch.setattr(demo_module.exporting, "await_files", lambda *_: True)
    online = CentralState(status="online", boot=1, ts=1.0).model_dump_json().encode()
    gateway = frame("gw/region-1", GatewayState(status="online", boot=1))
    world.retained = {"fl/v1/ctl/central/state": online, "fl/v1/gw/region-1/up/state": gateway}
    for device in ("device-1", "device-2"):
        birth = frame(device, DeviceState(status="online", boot=1))
        world.retained[f"fl/v1/region-1/{device}/up/state"] = birth
    world.answer = lambda _: [status("running"), status("completed", ROUND)]
    return world


def run(tmp_path, *arguments):
    standard = ("--devices", "2", "--regions", "1", "--out", str(tmp_path / "run"))
    return CliRunner().invoke(cli, ["demo", *standard, *arguments])


def test_a_run_ends_with_a_table_and_its_files(fleet, tmp_path):
    result = run(tmp_path)
    assert result.exit_code == 0, result.output
    assert "accuracy 0.7500" in result.stdout
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {
        "logs", "model.onnx", "model.safetensors", "plot.png", "result.json", "status.json",
    }  # fmt: skip
    assert json.loads((tmp_path / "run/status.json").read_text())["history"][0]["round"] == 0


def test_the_task_that_is_submitted_is_the_plans(fleet, tmp_path):
    run(tmp_path, "--rounds", "3", "--codec", "float32")
    (message,) = fleet.published
    task = json.loads(message.payload)
    assert message.topic.name == "fl/v1/ctl/task/submit"
    assert (task["rounds"], task["codec"], task["min_clients"]) == (3, "float32", 2)


def test_a_codec_s_settings_are_json_or_one_by_one(fleet, tmp_path):
    result = run(
        tmp_path, "--codec", "symmetric", "--codec-params", '{"bits": 8, "stochastic": true}',
        "--codec-param", "bits=4", "--codec-param", "scope=vector",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    task = json.loads(fleet.published[0].payload)
    assert task["codec_params"] == {"bits": 4, "stochastic": True, "scope": "vector"}


@pytest.mark.parametrize(
    "arguments", [("--codec-params", "[1]"), ("--codec-params", "{"), ("--codec-param", "bits")]
)
def test_settings_that_are_no_settings_are_a_usage_error(fleet, tmp_path, arguments):
    result = run(tmp_path, *arguments)
    assert result.exit_code == 2
    assert not fleet.published


def test_as_json_stdout_is_one_object(fleet, tmp_path):
    found = json.loads(run(tmp_path, "--json").stdout)
    assert (found["rounds_committed"], found["accuracy"]) == (1, 0.75)
    assert found["model_sha256"] == "a" * 64


def test_a_failed_task_is_exit_code_1_with_its_reason(fleet, tmp_path):
    fleet.answer = lambda _: [status("failed", reason="five rounds abandoned")]
    result = run(tmp_path)
    assert (result.exit_code, "five rounds abandoned" in result.stderr) == (1, True)


def test_who_is_not_up_in_time_is_named(fleet, tmp_path):
    del fleet.retained["fl/v1/region-1/device-2/up/state"]
    result = run(tmp_path, "--start-timeout", "0.2")
    assert (result.exit_code, "not up after 0.2 s: device-2" in result.stderr) == (1, True)


def test_a_process_that_dies_is_named_with_its_last_words(fleet, tmp_path, monkeypatch):
    dying = "import sys; sys.exit('no such data')"
    monkeypatch.setattr(
        plan_module,
        "_fedfleet",
        lambda verb, *rest: (sys.executable, "-c", LISTEN if verb == "broker" else dying, *rest),
    )
    fleet.retained.clear()
    result = run(tmp_path)
    assert (result.exit_code, "no such data" in result.stderr) == (1, True)


def test_a_broker_that_never_listens_is_an_error(fleet, tmp_path, monkeypatch):
    monkeypatch.setattr(run_module, "_BROKER_TIMEOUT_S", 0.2)
    monkeypatch.setattr(
        plan_module, "_fedfleet", lambda *rest: (sys.executable, "-c", SLEEP, *rest)
    )
    result = run(tmp_path)
    assert (result.exit_code, "does not listen" in result.stderr) == (1, True)


def test_a_folder_with_something_in_it_is_left_alone(fleet, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/precious.txt").touch()
    result = run(tmp_path)
    assert (result.exit_code, "is not empty" in result.stderr) == (1, True)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--min-clients", "9"),
        ("--data", "cifar"),
        ("--data", "mnist"),
        ("--data", "digits=/tmp"),
        ("--data", "har=/no/such/folder"),
        ("--devices", "0"),
    ],
)
def test_options_that_make_no_fleet_are_usage_errors(fleet, tmp_path, arguments):
    assert run(tmp_path, *arguments).exit_code == 2
    assert not (tmp_path / "run").exists()


def test_an_absent_mosquitto_is_said_to_be_so(fleet, tmp_path, monkeypatch):
    monkeypatch.setattr(demo_module.shutil, "which", lambda *_, **__: None)
    result = run(tmp_path, "--broker", "mosquitto")
    assert (result.exit_code, "mosquitto is not installed" in result.stderr) == (1, True)


def test_a_fleet_that_is_kept_runs_until_a_process_ends(fleet, tmp_path, monkeypatch):
    soon = "import time; time.sleep(2)"
    monkeypatch.setattr(
        plan_module,
        "_fedfleet",
        lambda verb, *rest: (
            sys.executable, "-c", LISTEN if verb == "broker" else soon, verb, *rest,
        ),
    )  # fmt: skip
    result = run(tmp_path, "--keep-running")
    assert "the fleet keeps running" in result.stdout
    assert "accuracy 0.7500" in result.stdout
    assert (result.exit_code, "ended with exit code 0" in result.stderr) == (1, True)
