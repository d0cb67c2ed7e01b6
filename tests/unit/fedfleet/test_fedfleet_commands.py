import json

import pytest
from click.testing import CliRunner

from fedfleet.cli import cli
from schemas.envelope import Header, encode_frame
from schemas.ids import derived_task_id
from schemas.messages import Capabilities, DataDescription, DeviceState, GatewayState
from schemas.tasks import CentralState, RoundSummary, TaskStatus
from schemas.topics import Kind

SUBMIT_TOPIC = "fl/v1/ctl/task/submit"
CENTRAL_TOPIC = "fl/v1/ctl/central/state"
TASK_JSON = '{"model": "mlp",  "rounds": 2}'
DERIVED = derived_task_id(TASK_JSON.encode())
ROUND = RoundSummary(
    round=1, outcome="committed", clients=2, uplink_bytes=100, metrics={"accuracy": 0.75}
)


def run(*arguments, **options):
    return CliRunner().invoke(cli, list(arguments), **options)


def topic_of(task):
    return f"fl/v1/ctl/task/{task}/status"


def status(task="t-1", state="running", **fields):
    return topic_of(task), TaskStatus(task=task, state=state, **fields).model_dump_json().encode()


def frame(src, body, ts=1.0):
    header = Header(type=body.TYPE, id="0" * 16, ts=ts, src=src, boot=body.boot, seq=1)
    return encode_frame(header, body)


def answering(*replies):
    return lambda message: replies if message.topic.kind is Kind.TASK_SUBMIT else ()


def test_submitted_json_is_published_byte_for_byte(world):
    world.answer = answering(status(DERIVED, "waiting"))
    result = run("submit", TASK_JSON)
    assert result.exit_code == 0, result.stderr
    (message,) = world.published
    assert (message.topic.name, message.payload) == (SUBMIT_TOPIC, TASK_JSON.encode())
    assert f"{DERIVED}: waiting" in result.stdout


def test_a_submitted_file_is_published_byte_for_byte(world, tmp_path):
    path = tmp_path / "task.json"
    path.write_bytes(TASK_JSON.encode() + b"\n")
    world.answer = answering(status(derived_task_id(path.read_bytes()), "running"))
    assert run("submit", "-f", str(path)).exit_code == 0
    assert world.published[0].payload == path.read_bytes()


def test_a_task_may_come_from_standard_input(world):
    world.answer = answering(status("mine"))
    assert run("submit", "-f", "-", input='{"task": "mine"}').exit_code == 0


def test_flags_become_the_fields_of_a_task(world):
    world.answer = answering(status("mine"))
    result = run(
        "submit", "--task", "mine", "--model", "mlp", "--rounds", "3", "--min-clients", "2",
        "--region", "north", "--learning-rate", "0.1", "--set", "training.momentum=0",
        "--downlink", "topk", "--set", "downlink.codec_params.fraction=0.1",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert json.loads(world.published[0].payload) == {
        "task": "mine",
        "model": "mlp",
        "rounds": 3,
        "min_clients": 2,
        "regions": ["north"],
        "training": {"learning_rate": 0.1, "momentum": 0},
        "downlink": {"codec": "topk", "codec_params": {"fraction": 0.1}},
    }


def test_a_codec_s_settings_become_one_field_of_a_task(world):
    world.answer = answering(status("mine"))
    result = run(
        "submit", "--task", "mine", "--model", "mlp", "--codec", "auto",
        "--codec-param", "accuracy=small",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    task = json.loads(world.published[0].payload)
    assert (task["codec"], task["codec_params"]) == ("auto", {"accuracy": "small"})


@pytest.mark.parametrize(
    ("option", "value", "bits"),
    [("--uplink-budget-bits", "5000", 5000), ("--uplink-budget-kib", "3", 24_576)],
)
def test_a_budget_is_given_in_bits_or_in_kib(world, option, value, bits):
    world.answer = answering(status("mine"))
    assert run("submit", "--task", "mine", "--model", "mlp", option, value).exit_code == 0
    assert json.loads(world.published[0].payload)["uplink_budget_bits"] == bits


def test_a_rejected_task_shows_the_reason_and_exits_1(world):
    world.answer = answering(status(DERIVED, "rejected", reason="rounds: 0: too few"))
    result = run("submit", TASK_JSON)
    assert (result.exit_code, "rounds: 0: too few" in result.stdout) == (1, True)


def test_what_central_would_refuse_is_still_sent_to_it(world):
    text = '{"no": "model"}'
    world.answer = answering(
        status(derived_task_id(text.encode()), "rejected", reason="model: ...")
    )
    assert run("submit", text).exit_code == 1
    assert len(world.published) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("{",),
        (TASK_JSON, "--model", "mlp"),
        ("--set", "novalue"),
        ("--rounds", "x"),
        ("--uplink-budget-bits", "8000", "--uplink-budget-kib", "1"),
        (TASK_JSON, "--broker", "http://host"),
        (TASK_JSON, "--mqtt-protocol", "4"),
    ],
)
def test_a_senseless_submit_exits_2_and_sends_nothing(world, arguments):
    assert run("submit", *arguments).exit_code == 2
    assert world.published == []


def test_a_silent_central_is_said_to_be_offline(world):
    state = CentralState(status="offline", boot=1, ts=1.0)
    world.retained = {CENTRAL_TOPIC: state.model_dump_json().encode()}
    result = run("submit", TASK_JSON, "--wait", "0.05")
    assert (result.exit_code, "it is offline" in result.stderr) == (1, True)


@pytest.mark.parametrize(
    ("retained", "words"),
    [({}, "no central has ever been seen"), ({CENTRAL_TOPIC: b"?"}, "cannot be read")],
)
def test_a_central_that_was_never_seen_is_said_to_be_so(world, retained, words):
    world.retained = retained
    result = run("submit", TASK_JSON, "--wait", "0.05")
    assert (result.exit_code, words in result.stderr) == (1, True)


def test_a_task_that_runs_already_is_shown_when_central_keeps_silent(world, monkeypatch):
    monkeypatch.setattr("fedfleet.commands.submit._KNOWN_TASK_WAIT_S", 0.02)
    world.retained = dict([status(DERIVED, "running", round=4)])
    result = run("submit", TASK_JSON, "--json")
    assert (result.exit_code, json.loads(result.stdout)["round"]) == (0, 4)


def test_the_numbered_successor_of_an_ended_task_is_the_answer(world):
    world.retained = dict([status(DERIVED, "completed"), status(f"{DERIVED}-2", "completed")])
    world.answer = answering(
        status("t-other", "running"),
        status(f"{DERIVED}-x", "running"),
        status(f"{DERIVED}-3", "waiting"),
    )
    result = run("submit", TASK_JSON, "--json")
    assert json.loads(result.stdout)["task"] == f"{DERIVED}-3"


def test_tasks_are_listed_the_newest_last(world):
    world.retained = dict([status("t-b", "completed", ts=2.0), status("t-a", ts=3.0, model="mlp")])
    result = run("tasks")
    assert result.exit_code == 0
    assert [line.split()[0] for line in result.stdout.splitlines()[2:]] == ["t-b", "t-a"]
    assert [item["task"] for item in json.loads(run("tasks", "--json").stdout)] == ["t-b", "t-a"]


def test_no_tasks_is_not_a_failure_and_leaves_stdout_empty(world):
    result = run("tasks")
    assert (result.exit_code, result.stdout) == (0, "")
    assert json.loads(run("tasks", "--json").stdout) == []


def test_a_password_is_never_shown(world):
    result = run("tasks", "--broker", "mqtt://ann:secret@host")
    assert "mqtt://host:1883" in result.stderr
    assert "secret" not in result.output
    world.is_reachable = False
    assert "secret" not in run("tasks", "--broker", "mqtt://ann:secret@host").output


def test_status_shows_the_rounds_of_a_task(world):
    world.retained = dict([status(history=(ROUND,), parameters=100, model_sha256="a" * 64)])
    result = run("status", "t-1")
    assert result.exit_code == 0
    assert "0.7500" in result.stdout
    assert "a" * 64 in result.stdout
    assert json.loads(run("status", "t-1", "--json").stdout)["task"] == "t-1"


def test_status_tells_bytes_ratios_and_codecs_and_draws_them(world, tmp_path):
    name, payload = status(
        updates_accepted=2, uplink_bytes=1000, downlink_bytes=8000, uplink_wire_bytes=4000,
        downlink_wire_bytes=9000, uplink_ratio=8.0, uplink_wire_ratio=2.0,
        codecs={"int8": 1, "fp16": 1}, history=(ROUND,),
    )  # fmt: skip
    world.retained[name] = payload
    result = run("status", "t-1", "--plot", str(tmp_path / "t.png"))
    assert result.exit_code == 0, result.stderr
    assert "updates up 1.0 kB (8.0 x smaller than float32), models down 8.0 kB" in result.stdout
    assert "on the wire up 4.0 kB (2.0 x smaller), down 9.0 kB" in result.stdout
    assert "picked by devices in the last round: fp16: 1, int8: 1" in result.stdout
    assert (tmp_path / "t.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("verb", ["status", "watch", "cancel"])
def test_a_task_that_nobody_knows_is_a_failure(world, verb):
    result = run(verb, "t-9", "--wait", "0.05")
    assert (result.exit_code, "'t-9' is not known" in result.stderr) == (1, True)


@pytest.mark.parametrize("verb", ["status", "watch", "cancel", "pause", "resume"])
def test_what_is_not_an_id_is_a_usage_error(world, verb):
    assert run(verb, "Not/An+Id").exit_code == 2


def test_the_broker_comes_from_the_flag_before_the_environment(world):
    run("tasks", env={"FEDFLEET_BROKER": "mqtt://from-env"})
    assert world.settings.broker == "mqtt://from-env"
    run("tasks", "--broker", "mqtt://from-flag", env={"FEDFLEET_BROKER": "mqtt://from-env"})
    assert world.settings.broker == "mqtt://from-flag"


@pytest.mark.parametrize(
    ("verb", "before", "after"),
    [
        ("cancel", "running", "cancelled"),
        ("pause", "running", "paused"),
        ("resume", "paused", "running"),
    ],
)
def test_central_is_told_and_its_answer_is_shown(world, verb, before, after):
    world.retained = dict([status(state=before)])
    world.answer = lambda _: [status(state=before), status(state=after)]
    result = run(verb, "t-1", "--json")
    assert (result.exit_code, json.loads(result.stdout)["state"]) == (0, after)
    (message,) = world.published
    assert message.topic.name == "fl/v1/ctl/task/t-1/control"
    assert json.loads(message.payload) == {"action": verb}


def test_what_is_done_already_is_not_asked_again(world):
    world.retained = dict([status(state="paused")])
    assert run("pause", "t-1").exit_code == 0
    assert world.published == []


def test_an_ended_task_cannot_be_paused(world):
    world.retained = dict([status(state="completed")])
    result = run("pause", "t-1")
    assert (result.exit_code, "it is completed" in result.stderr) == (1, True)
    assert world.published == []


@pytest.mark.parametrize("reply", [[], [status(state="completed")]])
def test_a_control_that_central_did_not_follow_is_a_failure(world, reply):
    world.retained = dict([status(state="running")])
    world.answer = lambda _: reply
    result = run("pause", "t-1", "--wait", "0.05")
    assert (result.exit_code, "was not done" in result.stderr) == (1, True)


@pytest.mark.parametrize(
    ("state", "code"), [("completed", 0), ("failed", 1), ("cancelled", 1), ("rejected", 1)]
)
def test_watching_ends_with_the_task_and_tells_how(world, state, code):
    world.retained = dict([status()])
    world.later = [status(history=(ROUND,)), status(state=state, history=(ROUND,))]
    result = run("watch", "t-1")
    assert result.exit_code == code
    assert result.stderr.count("round 1 committed") == 1
    assert f"t-1: {state}" in result.stdout


def test_watching_as_json_is_one_status_a_line(world):
    world.retained = dict([status()])
    world.later = [status(round=1), status(state="completed")]
    lines = [json.loads(line) for line in run("watch", "t-1", "--json").stdout.splitlines()]
    assert [line["state"] for line in lines] == ["running", "running", "completed"]


@pytest.fixture
def fleet(world):
    device = DeviceState(
        status="online",
        boot=1,
        profile="raspberry-pi-5",
        capabilities=Capabilities(
            backends=("onnx", "torch"),
            memory_bytes=8_000_000_000,
            providers=("cuda", "cpu"),
            fallback="float16 asked, CUDAExecutionProvider computes in float32",
        ),
        data=(DataDescription(name="har", shape=(6, 100), classes=5, examples=321),),
        versions={"fedfleet": "0.1.0"},
    )
    gateway = GatewayState(
        status="online", boot=1, devices_known=3, devices_online=2, silent=("s02-watch",)
    )
    world.retained = {
        "fl/v1/gw/north/up/state": frame("gw/north", gateway),
        "fl/v1/north/s01-phone/up/state": frame("s01-phone", device),
        "fl/v1/north/s02-watch/up/state": frame("s02-watch", device),
        "fl/v1/north/s03-watch/up/state": frame(
            "s03-watch", DeviceState(status="offline", boot=1)
        ),
        "fl/v1/north/broken/up/state": b"not a frame",
        "fl/v1/north/cleared/up/state": b"",
    }
    return world


def test_devices_are_listed_with_what_they_have(fleet):
    lines = run("devices").stdout.splitlines()
    assert [line.split()[1:3] for line in lines[2:6]] == [
        ["(gateway)", "online"],
        ["s01-phone", "online"],
        ["s02-watch", "silent"],
        ["s03-watch", "offline"],
    ]
    assert "raspberry-pi-5  onnx,torch  cuda,cpu float32  har[321 of 6x100, 5 classes]" in lines[3]
    assert "8.0 GB  0.1.0" in lines[3]
    assert "  -  " in lines[5]  # it was never said what it computes on
    assert lines[6:] == [
        f"north/{device}: float16 asked, CUDAExecutionProvider computes in float32"
        for device in ("s01-phone", "s02-watch")
    ]


def test_devices_as_json_keep_gateways_apart(fleet):
    found = json.loads(run("devices", "--json").stdout)
    assert [item["region"] for item in found["gateways"]] == ["north"]
    assert {item["device"]: item["status"] for item in found["devices"]} == {
        "s01-phone": "online",
        "s02-watch": "silent",
        "s03-watch": "offline",
    }


def test_no_devices_is_not_a_failure(world):
    result = run("devices")
    assert (result.exit_code, result.stdout) == (0, "")


def test_an_export_without_a_file_is_a_usage_error(tmp_path):
    assert run("export", "t-1", "--state-dir", str(tmp_path)).exit_code == 2


def test_a_model_is_written_in_every_format_asked_for(tmp_path, monkeypatch):
    def write(_state_dir, task, kind, path, config):
        assert config is None
        path.write_text(f"{task} {kind}")

    monkeypatch.setattr("fedfleet.exporting.export_model", write)
    onnx, tensors = tmp_path / "m.onnx", tmp_path / "m.safetensors"
    result = run(
        "export", "t-1", "--onnx", str(onnx), "--safetensors", str(tensors),
        "--state-dir", str(tmp_path), "--json",
    )  # fmt: skip
    assert json.loads(result.stdout) == {"onnx": str(onnx), "safetensors": str(tensors)}
    assert (onnx.read_text(), tensors.read_text()) == ("t-1 onnx", "t-1 safetensors")


def test_an_unknown_model_is_one_line_and_exit_code_1(tmp_path):
    result = run("export", "t-1", "--onnx", str(tmp_path / "m"), "--state-dir", str(tmp_path))
    assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)
