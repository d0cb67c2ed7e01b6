"""A machine below another root: what is written there, by the command itself."""

import json
import os
import shutil
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner

from fedfleet.cli import cli
from fedfleet.machine_setup import venvs
from fedfleet.machine_setup.actions import MakeVenv, PointTo, Source
from fedfleet.machine_setup.layout import MARKER, SetupError
from fedfleet.machine_setup.machine import Machine
from fedfleet.machine_setup.request import default_id
from fedfleet.machine_setup.wheels import find_source

MACHINES = Path(__file__).parents[2] / "golden" / "machines"
DEVICE = ["device", "--region", "north", "--broker", "mqtt://dev:s3%2Fcret@h", "--id", "d1"]


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A tree in which version 0.1.0 is whole, so that pip is not run."""

    def make(action, folder, run=None):
        folder.mkdir(parents=True, exist_ok=True)
        marker = {"extras": list(action.extras), "sha256": action.source.sha256}
        (folder / MARKER).write_text(json.dumps(marker))

    monkeypatch.setattr(venvs, "make", make)
    return tmp_path


def fedfleet(root, *words):
    return CliRunner().invoke(cli, [*words, "--root", str(root)])


def test_install_writes_files_with_their_modes_and_again_changes_nothing(root):
    first = fedfleet(root, "install", *DEVICE, "--set", "heartbeat_s=5", "--data", "digits")
    assert first.exit_code == 0, first.output
    settings = root / "etc/fedfleet/device.toml"
    assert settings.read_text().splitlines()[2:] == [
        'broker = "mqtt://dev@h"',
        'data = ["digits"]',
        "heartbeat_s = 5",
        'id = "d1"',
        'region = "north"',
    ]
    password = root / "etc/fedfleet/credentials/device/broker-password"
    assert (password.read_text(), stat.S_IMODE(password.stat().st_mode)) == ("s3/cret\n", 0o600)
    assert stat.S_IMODE(password.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(settings.stat().st_mode) == 0o640
    assert (root / "opt/fedfleet/current").readlink() == Path("0.1.0")
    again = fedfleet(root, "install", *DEVICE)
    assert "nothing was changed" in again.output


def test_a_dry_run_touches_nothing(root):
    result = fedfleet(root, "install", *DEVICE, "--dry-run")
    assert "would write /etc/fedfleet/device.toml (0640)" in result.output
    assert list(root.iterdir()) == []


def test_json_lists_the_actions(root):
    found = json.loads(fedfleet(root, "install", *DEVICE, "--json").stdout)
    assert (found["name"], found["dry_run"], len(found["actions"])) == ("device", False, 6)


def test_uninstall_and_purge(root):
    fedfleet(root, "install", *DEVICE)
    assert "are kept" in fedfleet(root, "uninstall", "device").output
    assert (root / "etc/fedfleet/device.toml").exists()
    fedfleet(root, "uninstall", "device", "--purge")
    assert not (root / "etc/fedfleet/device.toml").exists()
    assert "nothing was changed" in fedfleet(root, "uninstall", "device").output


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--region", "North"], "region"),
        (["--region", "n", "--broker", "http://h"], "neither mqtt nor mqtts"),
        (["--region", "n", "--set", "no_such_setting=1"], "no_such_setting"),
        (["--region", "n", "--wheel", "/no/such.whl"], "no such file"),
        (["--broker", "mqtt://h"], "region"),
    ],
)
def test_what_does_not_fit_is_told_before_anything_is_done(root, words, says, monkeypatch):
    monkeypatch.setenv("FEDFLEET_REGION", "from-the-environment")
    result = fedfleet(root, "install", "device", "--id", "d1", *words)
    assert (result.exit_code, says in result.output) == (1, True), result.output
    assert list(root.iterdir()) == []


def test_a_program_that_does_not_exist_makes_no_sense(root):
    assert fedfleet(root, "install", "broker").exit_code == 2


def test_an_id_is_made_of_the_hosts_name():
    assert default_id("Jetson_07.example.org") == "jetson-07"
    with pytest.raises(SetupError, match="give --id"):
        default_id("___")


def test_the_link_is_replaced_in_one_step(tmp_path):
    (tmp_path / "opt/fedfleet").mkdir(parents=True)
    machine = Machine(tmp_path)
    for version in ("0.1.0", "0.2.0"):
        machine.perform(PointTo(version))
        assert machine.look().current == version
    assert [path.name for path in (tmp_path / "opt/fedfleet").iterdir()] == ["current"]


def test_an_environment_counts_only_when_it_is_whole(tmp_path):
    folder, ran = tmp_path / "0.1.0", []
    action = MakeVenv(Source("0.1.0", Path("/w.whl"), Path("/wheels"), "aa"), ("device",), "/py")

    def run(command):
        ran.append(command)
        folder.mkdir(exist_ok=True)
        if fails and "pip" in command:
            message = "no space"
            raise SetupError(message)

    fails = True
    with pytest.raises(SetupError, match="no space"):
        venvs.make(action, folder, run)
    assert (folder.exists(), venvs.read(folder)) == (False, None)
    fails = False
    venvs.make(action, folder, run)
    assert venvs.read(folder) == venvs.Venv(frozenset({"device"}), "aa")
    assert ran[-1][-4:] == ["--no-index", "--find-links", "/wheels", "/w.whl[device]"]


def test_a_wheel_tells_its_version_and_a_folder_must_have_one(tmp_path):
    (tmp_path / "fedfleet-0.3.0-py3-none-any.whl").write_text("x")
    assert find_source(None, tmp_path, None).version == "0.3.0"
    with pytest.raises(SetupError, match=r"has version 0\.3\.0, not 0\.4\.0"):
        find_source(tmp_path / "fedfleet-0.3.0-py3-none-any.whl", None, "0.4.0")
    (tmp_path / "fedfleet-0.4.0-py3-none-any.whl").write_text("x")
    with pytest.raises(SetupError, match="must hold one wheel"):
        find_source(None, tmp_path, None)
    assert find_source(None, tmp_path, "0.4.0").version == "0.4.0"
    (tmp_path / "other-1.0-py3-none-any.whl").write_text("x")
    with pytest.raises(SetupError, match="not named like"):
        find_source(tmp_path / "other-1.0-py3-none-any.whl", None, None)


@pytest.mark.parametrize(
    ("machine", "memory", "gpu"),
    [("jetson-orin-nano", 2048 + 256, True), ("raspberry-pi-4", 512 + 256, False)],
)
def test_the_units_limits_are_those_of_the_profile_that_the_machine_is_found_to_have(
    root, machine, memory, gpu
):
    shutil.copytree(MACHINES / machine, root, dirs_exist_ok=True)
    assert fedfleet(root, "install", *DEVICE).exit_code == 0
    drop_ins = root / "etc/systemd/system/fedfleet-device.service.d"
    assert f"MemoryMax={memory * 2**20}\n" in (drop_ins / "20-profile.conf").read_text()
    assert (drop_ins / "jetson.conf").exists() == gpu


def test_a_profile_in_settings_that_are_kept_counts_and_an_unknown_one_is_refused(root):
    assert fedfleet(root, "install", *DEVICE, "--profile", "raspberry-pi-5").exit_code == 0
    again = fedfleet(root, "install", *DEVICE)
    assert "nothing was changed" in again.output
    unknown = fedfleet(root, "install", *DEVICE, "--profile", "toaster")
    assert (unknown.exit_code, "toaster" in unknown.output) == (1, True)


def test_a_second_install_without_an_id_keeps_the_one_that_is_there(root):
    words = [word for word in DEVICE if word not in ("--id", "d1")]
    assert fedfleet(root, "install", *DEVICE).exit_code == 0
    again = fedfleet(root, "install", *words)
    assert "nothing was changed" in again.output, again.output
    other = fedfleet(root, "install", *words, "--set", "heartbeat_s=9", "--overwrite-settings")
    assert other.exit_code == 0, other.output
    text = (root / "etc/fedfleet/device.toml").read_text()
    assert ('id = "d1"' in text, "heartbeat_s = 9" in text) == (True, True)


@pytest.mark.parametrize(
    ("profile", "says"),
    [("jetson", "'jetson' is not known"), ("/no/such.yaml", "No such file"), ("auto", "set up")],
)
def test_a_profile_is_a_name_a_file_or_auto_and_is_checked_first(root, profile, says):
    result = fedfleet(root, "install", *DEVICE, "--profile", profile)
    assert says in result.output, result.output
    assert (root / "etc").exists() == (profile == "auto")


def test_what_the_services_must_read_does_not_depend_on_roots_umask(root):
    before = os.umask(0o077)
    try:
        assert fedfleet(root, "install", *DEVICE).exit_code == 0
    finally:
        os.umask(before)
    for folder in ("opt/fedfleet", "etc/fedfleet", "etc/systemd/system"):
        assert stat.S_IMODE((root / folder).stat().st_mode) == 0o755
    assert stat.S_IMODE((root / "etc/fedfleet/credentials/device").stat().st_mode) == 0o700


def test_an_id_is_one_even_of_a_long_name():
    assert default_id("a" * 31 + "-b") == "a" * 31
