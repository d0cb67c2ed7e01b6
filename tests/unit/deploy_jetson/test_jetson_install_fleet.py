"""Many hosts over ssh: a fake ssh and scp on PATH answer as the hosts of the test would."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from deploy.jetson.fleet_hosts import HostsError, read_hosts
from deploy.jetson.fleet_install import _LOOK
from deploy.jetson.fleet_ssh import failure
from deploy.jetson.install_fleet import main

GOOD = "python=/usr/bin/python3.11\nversion=3.11\nvenv=1\nfree_mb=9000\nsystemd=1\ncurrent=\n"
#: By host: what the look prints or how ssh fails, and how the installation ends.
HOSTS = {
    "good": {"look": GOOD},
    "again": {"look": GOOD.replace("current=", "current=0.1.0"), "says": "nothing was changed"},
    "older": {"look": GOOD.replace("current=", "current=0.0.9")},
    "away": {"code": 255, "error": "ssh: connect to host away port 22: Connection timed out"},
    "nobody": {"code": 255, "error": "ssh: Could not resolve hostname nobody: Name or service"},
    "locked": {"code": 255, "error": "pi@locked: Permission denied (publickey)."},
    "strange": {"code": 255, "error": "Host key verification failed."},
    "asks": {"code": 1, "error": "sudo: a password is required"},
    "old": {"look": GOOD.replace("3.11", "3.8")},
    "bare": {"look": GOOD.replace("venv=1", "venv=")},
    "full": {"look": GOOD.replace("9000", "12")},
    "sysv": {"look": GOOD.replace("systemd=1", "systemd=")},
    "filled": {"look": GOOD, "end": [1, "OSError: [Errno 28] No space left on device"]},
    "sick": {"look": GOOD, "end": [1, "Error: not healthy after 60 s: the unit is activating"]},
    "babel": {"look": GOOD.replace("9000", "viel")},
    "odd": {"look": GOOD, "end": [1, "Error: something else"]},
}
FAKE = """#!{python} -IS
import json, sys
name = sys.argv[0].rpartition("/")[2]
folder = {folder!r}
words = sys.argv[1:]
with open(folder + "/hosts") as file:
    hosts = json.load(file)
host = next(word for word in words if word.split(":")[0] in hosts)
answer = hosts[host.split(":")[0]]
stdin = sys.stdin.read()
with open(folder + "/calls", "a") as calls:
    calls.write(json.dumps([name, host, words, stdin]) + "\\n")
if "code" in answer:
    sys.exit(print(answer["error"], file=sys.stderr) or answer["code"])
if name == "scp":
    sys.exit(0)
if "free_mb" in words[-1]:
    sys.exit(print(answer["look"], end=""))
code, error = answer.get("end", [0, ""])
print(answer.get("says", "device: set up"))
sys.exit(print(error, file=sys.stderr) or code)
"""


@pytest.fixture
def fleet(tmp_path, monkeypatch):
    binaries = tmp_path / "bin"
    binaries.mkdir()
    for name in ("ssh", "scp"):
        path = binaries / name
        path.write_text(FAKE.format(python=sys.executable, folder=str(tmp_path)))
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{binaries}{os.pathsep}{os.environ['PATH']}")
    (tmp_path / "hosts").write_text(json.dumps(HOSTS))
    (tmp_path / "fedfleet-0.1.0-py3-none-any.whl").write_text("")
    return tmp_path


def install(fleet, names, *flags):
    lines = [f"{name},north,d-{name},jetson-orin-nano" for name in names]
    (fleet / "hosts.csv").write_text("host,region,id,profile\n# mine\n\n" + "\n".join(lines))
    wheel = fleet / "fedfleet-0.1.0-py3-none-any.whl"
    arguments = [str(fleet / "hosts.csv"), "--broker", "mqtt://dev@broker", "--wheel", str(wheel)]
    return CliRunner().invoke(main, [*arguments, *flags])


def calls(fleet):
    return [json.loads(line) for line in (fleet / "calls").read_text().splitlines()]


def test_every_host_gets_its_own_result_and_its_own_reason(fleet):
    result = install(fleet, HOSTS, "--json", "--jobs", "4")
    found = {r["host"]: (r["outcome"], r["kind"]) for r in json.loads(result.stdout)}
    assert result.exit_code == 1
    assert found == {
        "good": ("installed", ""),
        "again": ("unchanged", ""),
        "older": ("upgraded", ""),
        "away": ("failed", "unreachable"),
        "nobody": ("failed", "unreachable"),
        "locked": ("failed", "auth"),
        "strange": ("failed", "host key"),
        "asks": ("failed", "sudo"),
        "old": ("failed", "python too old"),
        "bare": ("failed", "python"),
        "full": ("failed", "disk"),
        "sysv": ("failed", "systemd"),
        "filled": ("failed", "disk"),
        "sick": ("failed", "unit not healthy"),
        "babel": ("failed", "odd answer"),
        "odd": ("failed", "install"),
    }


def test_the_summary_counts_and_says_why(fleet):
    result = install(fleet, ["good", "full", "locked"])
    lines = result.stdout.splitlines()
    assert lines[0] == "2 failed, 1 installed"
    assert lines[1].startswith("  auth ")
    assert lines[1].endswith("locked (d-locked): pi@locked: Permission denied (publickey).")
    assert "12 MB free in /opt, 1000 needed" in lines[2]
    assert "good: installing" in result.stderr


def test_all_good_is_exit_code_0(fleet):
    assert install(fleet, ["good", "again"]).exit_code == 0


def test_a_password_goes_by_stdin_and_by_no_command_line(fleet):
    (fleet / "password").write_text("s3cret\n")
    install(fleet, ["good"], "--password-file", str(fleet / "password"))
    *_, (_, _, words, stdin) = calls(fleet)
    assert stdin == "s3cret\n"
    assert "--password-file /dev/stdin" in words[-1]
    assert not any("s3cret" in " ".join(words) for _, _, words, _ in calls(fleet))


def test_ssh_never_asks_and_gives_up_in_time(fleet):
    install(fleet, ["good"], "--connect-timeout-s", "3")
    for _, _, words, _ in calls(fleet):
        assert {"BatchMode=yes", "ConnectTimeout=3"} <= set(words)


def test_an_older_version_is_upgraded_with_a_way_back(fleet):
    install(fleet, ["older"], "--wait-s", "45")
    script = calls(fleet)[-1][2][-1]
    assert "/opt/fedfleet/current/bin/fedfleet upgrade device --wheel" in script
    assert "--wait-s 45" in script


def test_a_folder_of_wheels_goes_along_and_no_index_is_asked(fleet):
    wheels = fleet / "wheels"
    wheels.mkdir()
    for name in ("numpy-2.0-py3-none-any.whl", "fedfleet-0.1.0-py3-none-any.whl"):
        (wheels / name).write_text("")
    install(fleet, ["good"], "--from", str(wheels))
    copied = [Path(word).name for word in calls(fleet)[1][2] if word.endswith(".whl")]
    assert copied == ["fedfleet-0.1.0-py3-none-any.whl", "numpy-2.0-py3-none-any.whl"]
    assert "--no-index" in calls(fleet)[-1][2][-1]


def test_values_are_quoted_for_the_shell_of_the_host(fleet):
    install(fleet, ["good"], "--data", "npz=/a b/$(reboot).npz")
    script = calls(fleet)[-1][2][-1]
    inner = script.split("sh -c ", 1)[1]
    assert "$(reboot)" in inner
    assert "'\"'\"'npz=/a b/$(reboot).npz'\"'\"'" in inner


def test_a_password_in_the_url_makes_no_sense(fleet):
    result = install(fleet, ["good"], "--broker", "mqtt://dev:s3cret@broker")
    assert (result.exit_code, "s3cret" in result.output) == (2, False)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no host in it"),
        ("a,north", "line 1: 2 columns"),
        ("a,north,d1\na,north,d2", "line 2: host a or id d2 is there before"),
        ("a,north,d1\nb,north,d1", "line 2"),
        ("-oProxyCommand=x,north,d1", "is not"),
        ("a,North,d1", "line 1: region or id"),
        ("a,north,gw", "line 1: region or id"),
    ],
)
def test_a_list_that_makes_no_sense_is_refused_before_anything_is_done(fleet, text, says):
    (fleet / "hosts.csv").write_text(text)
    with pytest.raises(HostsError, match=says):
        read_hosts(fleet / "hosts.csv")


def test_a_denied_file_on_the_host_is_no_denied_login():
    found = failure(1, "cp: cannot create /opt/x: Permission denied", "install")
    assert (found.kind, failure(255, "Permission denied (publickey).", "look").kind) == (
        "install",
        "auth",
    )


def test_the_look_at_a_host_is_a_script_that_a_plain_shell_runs(fleet):
    (fleet / "bin" / "sudo").symlink_to("/bin/true")
    done = subprocess.run(
        ["sh", "-c", _LOOK.format(folder="wheels")],
        capture_output=True,
        text=True,
        check=True,
        cwd=fleet,
    )
    seen = dict(line.split("=", 1) for line in done.stdout.splitlines())
    assert set(seen) == {"python", "version", "venv", "free_mb", "systemd", "current"}
    assert seen["version"].startswith("3.")
    assert stat.S_IMODE((fleet / "wheels").stat().st_mode) == 0o700


def test_what_root_runs_on_a_host_is_valid_shell(fleet):
    install(fleet, ["good", "older"], "--data", "npz=/a b.npz")
    scripts = [words[-1] for name, _, words, _ in calls(fleet) if "sudo -n env" in words[-1]]
    assert len(scripts) == 2
    for script in scripts:
        (fleet / "bin" / "sudo").unlink(missing_ok=True)
        (fleet / "bin" / "sudo").write_text('#!/bin/sh\nshift 5\nexec sh -n -c "$1"\n')
        (fleet / "bin" / "sudo").chmod(0o755)
        assert subprocess.run(["sh", "-c", script], check=False).returncode == 0
