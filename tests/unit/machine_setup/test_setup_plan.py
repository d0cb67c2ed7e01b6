"""What is still to be done to a machine: planned from what is there, again and again."""

from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest

from fedfleet.machine_setup import drop_ins
from fedfleet.machine_setup.actions import (
    MakeGroup,
    MakeVenv,
    PointTo,
    Remove,
    RemoveGroup,
    Source,
    Systemctl,
    WriteFile,
)
from fedfleet.machine_setup.drop_ins import Limits
from fedfleet.machine_setup.layout import PROGRAMS, SetupError
from fedfleet.machine_setup.plan import Seen, Venv, Wanted, plan_install
from fedfleet.machine_setup.plan_removal import plan_uninstall

DEVICE = PROGRAMS["device"]
UNIT = DEVICE.unit
WANTED = Wanted(
    DEVICE,
    Source("0.1.0", Path("/w.whl"), sha256="aa"),
    "/usr/bin/python3",
    settings={"region": "north", "id": "d1", "broker": "mqtt://u@h"},
    credentials={"broker-password": "s3cret\n"},
    profile="jetson-nano",
    limits=Limits(memory_bytes=2**30, threads=2),
)


def after(actions, seen=None):  # noqa: C901 - one case a kind of action
    """Return what a machine has once the actions are carried out."""
    seen = seen or Seen()
    files, groups, venvs = dict(seen.files), set(seen.groups), dict(seen.venvs)
    for action in actions:
        match action:
            case WriteFile(path, text):
                files[path] = text
            case Remove(path):
                files = {p: t for p, t in files.items() if not p.is_relative_to(path)}
            case MakeGroup():
                groups.add("fedfleet")
            case MakeVenv(source, extras):
                venvs[source.version] = Venv(frozenset(extras), source.sha256)
            case PointTo(version):
                seen = replace(seen, current=version)
            case Systemctl(("enable", unit)):
                seen = replace(seen, enabled=seen.enabled | {unit})
            case Systemctl(("start", _, unit)):
                seen = replace(seen, active=seen.active | {unit})
    return replace(seen, files=files, groups=frozenset(groups), venvs=venvs)


@pytest.fixture
def installed():
    return after(plan_install(WANTED, Seen()))


def written(actions):
    return {str(action.path): action for action in actions if isinstance(action, WriteFile)}


def test_a_bare_machine_gets_everything_in_order():
    actions = plan_install(WANTED, Seen())
    kinds = [type(action) for action in actions]
    assert kinds[:3] == [MakeGroup, MakeVenv, PointTo]
    assert actions[-3:] == [
        Systemctl(("daemon-reload",)),
        Systemctl(("enable", UNIT)),
        Systemctl(("start", "--no-block", UNIT)),
    ]


def test_a_second_install_does_nothing(installed):
    assert plan_install(WANTED, installed) == []


def test_a_second_install_by_fewer_words_does_nothing_either(installed):
    fewer = replace(WANTED, settings={"region": "north"}, credentials={}, profile=None)
    assert plan_install(fewer, installed) == []


def test_settings_are_kept_and_never_overwritten_silently(installed):
    other = replace(WANTED, settings={"region": "south", "id": "d1"})
    with pytest.raises(SetupError, match="region is 'north' there, 'south' here"):
        plan_install(other, installed)
    actions = plan_install(replace(other, overwrite_settings=True), installed)
    assert 'region = "south"' in written(actions)[str(DEVICE.settings)].text


def test_a_persons_own_setting_is_kept(installed):
    text = installed.files[DEVICE.settings] + "heartbeat_s = 5\n"
    seen = replace(installed, files={**installed.files, DEVICE.settings: text})
    assert plan_install(WANTED, seen) == []


def test_a_changed_unit_is_written_anew_and_the_program_started_again(installed):
    seen = replace(installed, files={**installed.files, DEVICE.unit_path: "old"})
    assert [str(action) for action in plan_install(WANTED, seen)] == [
        "write /etc/systemd/system/fedfleet-device.service (0644)",
        "systemctl daemon-reload",
        f"systemctl stop {UNIT}",
        f"systemctl start --no-block {UNIT}",
    ]


def test_files_are_readable_by_whom_they_concern():
    files = written(plan_install(WANTED, Seen()))
    assert files["/etc/fedfleet/credentials/device/broker-password"].mode == 0o600
    assert files["/etc/fedfleet/device.toml"].mode == 0o640
    assert not any(
        "s3cret" in str(action) or "s3cret" in repr(action) for action in files.values()
    )


def test_the_profiles_limits_become_the_units():
    text = written(plan_install(WANTED, Seen()))[
        f"/etc/systemd/system/{UNIT}.d/20-profile.conf"
    ].text
    assert {"MemoryMax=1073741824", "CPUQuota=200%", "TasksMax=72"} <= set(text.splitlines())


def test_only_a_jetson_gets_the_gpu_and_groups_that_exist():
    path = f"/etc/systemd/system/{UNIT}.d/jetson.conf"
    pi = replace(WANTED, profile="raspberry-pi-5")
    assert path not in written(plan_install(pi, Seen()))
    plain = written(plan_install(WANTED, Seen()))[path].text
    newer = written(plan_install(WANTED, Seen(groups=frozenset({"render"}))))[path].text
    assert ("render\n" in plain.replace("render node", ""), "Groups=render\n" in newer) == (
        False,
        True,
    )


def test_another_profile_takes_back_what_the_first_gave(installed):
    pi = replace(WANTED, profile="raspberry-pi-5", limits=Limits(), overwrite_settings=True)
    removed = {str(a.path) for a in plan_install(pi, installed) if isinstance(a, Remove)}
    assert {Path(path).name for path in removed} == {"20-profile.conf", "jetson.conf"}


@pytest.mark.parametrize(
    ("systemd", "line", "mode"),
    [
        (
            252,
            "LoadCredential=broker-password:/etc/fedfleet/credentials/device/broker-password",
            0o600,
        ),
        (245, "Environment=CREDENTIALS_DIRECTORY=/etc/fedfleet/credentials/device", 0o640),
    ],
)
def test_an_old_systemd_leaves_credentials_to_the_group(systemd, line, mode):
    files = written(plan_install(WANTED, Seen(systemd_version=systemd)))
    assert line in files[f"/etc/systemd/system/{UNIT}.d/10-credentials.conf"].text
    assert files["/etc/fedfleet/credentials/device/broker-password"].mode == mode


def test_torch_may_compile_on_a_device_that_has_it():
    files = written(plan_install(replace(WANTED, extras=frozenset({"torch"})), Seen()))
    assert files[f"/etc/systemd/system/{UNIT}.d/30-torch.conf"].text == drop_ins.torch()


def test_another_version_is_for_upgrade(installed):
    newer = replace(WANTED, source=Source("0.2.0"))
    with pytest.raises(SetupError, match="fedfleet upgrade device"):
        plan_install(newer, installed)


def test_another_wheel_of_the_same_version_is_refused(installed):
    other = replace(WANTED, source=Source("0.1.0", Path("/w.whl"), sha256="bb"))
    with pytest.raises(SetupError, match="a version of its own"):
        plan_install(other, installed)


def test_a_second_program_adds_its_extra_and_keeps_the_first(installed):
    gateway = replace(
        WANTED, program=PROGRAMS["gateway"], profile=None, settings={}, credentials={}
    )
    (venv,) = [a for a in plan_install(gateway, installed) if isinstance(a, MakeVenv)]
    assert venv.extras == ("device", "gateway")


def test_below_another_root_nothing_is_started():
    actions = plan_install(WANTED, Seen(has_systemd=False))
    assert not any(isinstance(action, Systemctl) for action in actions)


def test_uninstall_keeps_settings_and_state_unless_purged(installed):
    seen = replace(installed, states=frozenset({"device"}))
    kept = after(plan_uninstall(DEVICE, seen, purge=False), seen)
    assert DEVICE.settings in kept.files
    assert DEVICE.unit_path not in kept.files
    purged = plan_uninstall(DEVICE, seen, purge=True)
    assert {Remove(DEVICE.state), Remove(DEVICE.private_state), RemoveGroup()} <= set(purged)
    assert not after(purged, seen).files


def test_the_last_program_takes_the_environments_with_it(installed):
    opt = Remove(PurePosixPath("/opt/fedfleet"))
    assert opt in plan_uninstall(DEVICE, installed, purge=False)
    both = replace(installed, files={**installed.files, PROGRAMS["gateway"].unit_path: ""})
    assert opt not in plan_uninstall(DEVICE, both, purge=True)


def test_what_is_not_installed_needs_no_uninstall():
    assert plan_uninstall(DEVICE, Seen(), purge=True) == []


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_unit_says_what_the_layout_says(name):
    program, text = PROGRAMS[name], drop_ins.unit(PROGRAMS[name])
    assert f"/opt/fedfleet/current/bin/fedfleet {name} --config {program.settings}" in text
    assert f"StateDirectory={program.state.name}\n" in text
    assert {"Type=notify", "NotifyAccess=main", "Restart=always", "DynamicUser=yes"} <= set(
        text.splitlines()
    )


@pytest.mark.parametrize("name", ["device", "gateway"])
def test_a_machine_of_many_cores_does_not_exceed_the_tasks_of_a_unit(name):
    assert "OPENBLAS_NUM_THREADS=1" in drop_ins.unit(PROGRAMS[name])


@pytest.mark.parametrize("kept", ["settings", "credentials"])
def test_a_purge_leaves_what_another_program_was_promised_to_keep(installed, kept):
    gateway = PROGRAMS["gateway"]
    path = gateway.settings if kept == "settings" else gateway.credentials / "broker-password"
    seen = replace(installed, files={**installed.files, path: "kept"})
    actions = plan_uninstall(DEVICE, seen, purge=True)
    assert path in after(actions, seen).files
    assert RemoveGroup() not in actions
