"""The command ``fedfleet device``."""

import subprocess
import sys

import pytest
from click.testing import CliRunner
from device_agent_bench import dataset

from device_agent import app
from device_agent.cli import device
from device_agent.settings import DeviceSettings


@pytest.fixture
def given(monkeypatch):
    """Replace the program; return the settings with which it is run."""
    seen: list[DeviceSettings] = []

    def run(settings):
        seen.append(settings)
        return 0

    monkeypatch.setattr(app, "run", run)
    return seen


def invoke(*arguments):
    return CliRunner().invoke(device, arguments)


def test_every_option_has_a_help_text():
    assert all(option.help for option in device.params)
    assert invoke("--help").exit_code == 0


def test_flags_become_settings(given, tmp_path):
    result = invoke(
        *("--region", "r1", "--id", "d1", "--data", "digits", "--data", "har=x.npz"),
        *("--shard", "1/4", "--alpha", "0.5", "--split-seed", "3", "--threads", "2"),
        *("--broker", "mqtt://h:1", "--mqtt-protocol", "3.1.1", "--profile", "jetson-nano"),
        *("--state-dir", str(tmp_path), "--policy", str(tmp_path / "p.toml")),
        *("--outbox-quota-bytes", "2000000", "--precision", "float16"),
        *("--provider", "tensorrt", "--provider", "cpu"),
    )
    assert result.exit_code == 0, result.output
    (settings,) = given
    assert settings.data == ("digits", "har=x.npz")
    assert (settings.shard, settings.alpha, settings.split_seed) == ("1/4", 0.5, 3)
    assert (settings.region, settings.id, settings.threads) == ("r1", "d1", 2)
    assert (settings.broker, settings.mqtt_protocol) == ("mqtt://h:1", "3.1.1")
    assert (settings.state_dir, settings.policy) == (tmp_path, tmp_path / "p.toml")
    assert settings.profile == "jetson-nano"
    assert settings.outbox_quota_bytes == 2_000_000
    assert (settings.providers, settings.precision) == (("tensorrt", "cpu"), "float16")


def test_a_flag_wins_over_the_file(given, tmp_path):
    file = tmp_path / "device.toml"
    file.write_text('region = "r1"\nid = "d1"\ndata = ["digits"]\nthreads = 3\n')
    assert invoke("--config", str(file), "--id", "d2").exit_code == 0
    (settings,) = given
    assert (settings.region, settings.id, settings.data, settings.threads) == (
        "r1",
        "d2",
        ("digits",),
        3,
    )


def test_the_precision_comes_from_flag_environment_or_file_and_is_float32_else(
    given, tmp_path, monkeypatch
):
    file = tmp_path / "device.toml"
    file.write_text('region = "r1"\nid = "d1"\nprecision = "float16"\n')
    assert invoke("--region", "r1", "--id", "d1").exit_code == 0
    assert invoke("--config", str(file)).exit_code == 0
    assert invoke("--config", str(file), "--precision", "float32").exit_code == 0
    monkeypatch.setenv("FEDFLEET_PRECISION", "float16")
    assert invoke("--region", "r1", "--id", "d1").exit_code == 0
    found = [settings.precision for settings in given]
    assert found == ["float32", "float16", "float32", "float16"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((), "region"),
        (("--region", "r1", "--id", "all"), "reserved"),
        (("--region", "r1", "--id", "d1", "--shard", "a"), "shard"),
        (("--region", "r1", "--id", "d1", "--precision", "float64"), "precision"),
        (("--region", "r1", "--id", "d1", "--config", "nowhere.toml"), "nowhere.toml"),
    ],
)
def test_a_setting_that_does_not_fit_is_named_and_exits_with_2(given, arguments, named):
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert named in result.output
    assert given == []


def test_what_is_said_of_machine_and_link_becomes_settings(given, monkeypatch):
    assert invoke("--region", "r1", "--id", "d1").exit_code == 0
    flags = ("--metered", "yes", "--mem-ballast-mb", "5", "--profile", "raspberry-pi-5")
    assert invoke("--region", "r1", "--id", "d1", *flags).exit_code == 0
    monkeypatch.setenv("FEDFLEET_MEM_BALLAST_MB", "7")
    monkeypatch.setenv("FEDFLEET_PROFILE", "jetson-nano")
    assert invoke("--region", "r1", "--id", "d1").exit_code == 0
    found = [(each.profile, each.metered, each.mem_ballast_mb) for each in given]
    assert found == [("auto", "auto", 0), ("raspberry-pi-5", "yes", 5), ("jetson-nano", "auto", 7)]


def test_a_profile_that_is_not_known_exits_with_1_and_names_those_that_are():
    result = invoke("--region", "r1", "--id", "d1", "--profile", "nano")
    assert result.exit_code == 1
    assert "'nano' is not known; there is generic, generic-arm, jetson-agx-orin" in result.output


def test_data_that_cannot_be_loaded_exits_with_1(tmp_path):
    result = invoke(
        "--region", "r1", "--id", "d1", "--data", "npz=nowhere.npz", "--state-dir", str(tmp_path)
    )
    assert result.exit_code == 1
    assert "nowhere.npz" in result.output


def test_a_policy_that_cannot_be_read_exits_with_1(tmp_path):
    result = invoke("--region", "r1", "--id", "d1", "--policy", str(tmp_path / "p.toml"))
    assert result.exit_code == 1
    assert "p.toml" in result.output


def test_a_database_that_is_damaged_exits_with_1(tmp_path, monkeypatch):
    monkeypatch.setattr(app, "load_data", lambda *_: {"digits": dataset()})
    (tmp_path / app.DATABASE).write_bytes(b"this is no database" * 100)
    result = invoke(
        "--region", "r1", "--id", "d1", "--data", "digits", "--state-dir", str(tmp_path)
    )
    assert result.exit_code == 1
    assert "damaged" in result.output


def test_the_program_is_imported_without_a_training_library():
    code = (
        "import sys, device_agent.app; "
        "heavy = {'torch', 'sklearn', 'onnxruntime', 'scipy', 'matplotlib'} & set(sys.modules); "
        "print(sorted(heavy))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
