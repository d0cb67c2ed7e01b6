"""A device under systemd, for real: installed, killed, hung, upgraded, rolled back, removed.

Run as root: ``make systemd-test``. Exit code 0 passed, 1 failed, 77 skipped (the reason is told);
with REQUIRE_DEPLOY=1 a skip is a failure. What is large is kept in CACHE.
"""

import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.deploy.systemd import probe, wheel_files
from tests.deploy.systemd.container import (
    Container,
    FailedError,
    Network,
    SkipError,
    check_tools,
    root_archive,
    run,
)
from tests.deploy.systemd.fleet import BROKER, REGION, Fleet, write_examples

PROJECT = Path(__file__).resolve().parents[3]
UNIT = "fedfleet-device.service"
PROGRAMS = ("device", "gateway", "central")
FEDFLEET = "/opt/fedfleet/current/bin/fedfleet"
STATE = "/var/lib/fedfleet-device"
_SKIPPED = 77
_TAIL = 3000
#: Four classes: chance is 0.25.
_LEARNED = 0.5
_MAX_EXPOSURE_X10 = 25
_DYNAMIC_UIDS = range(61184, 65520)
_STARTED_S = time.monotonic()
#: A person's own drop-in, to make the test quick; install must leave it alone.
_QUICK = "[Service]\nWatchdogSec=8\nTimeoutStartSec=12\nRestartSec=1\n"


def say(text: str) -> None:
    """Tell what has been shown, and when."""
    sys.stdout.write(f"[{time.monotonic() - _STARTED_S:4.0f}s] {text}\n")
    sys.stdout.flush()


def check(holds: object, text: str) -> None:
    """Check that something holds.

    Raises:
        FailedError: It does not; ``text`` says what.
    """
    if not holds:
        raise FailedError(text)


@dataclass(frozen=True, slots=True)
class Stage:
    """Everything that the steps act on.

    Attributes:
        container: Where the device is.
        fleet: What it talks to.
        wheels: This version, a later good one, one that crashes, one that hangs; by name.
    """

    container: Container
    fleet: Fleet
    wheels: dict[str, str]

    def shown(self, name: str) -> str:
        """Return one property of the unit."""
        return self.container.do("systemctl", "show", UNIT, "-p", name, "--value").stdout.strip()

    def wait(self, what: Callable[[], bool], text: str, timeout_s: float = 45.0) -> float:
        """Wait until something holds; return how long it took, in seconds.

        Raises:
            FailedError: It did not in time.
        """
        began_s = time.monotonic()
        while time.monotonic() - began_s < timeout_s:
            if what():
                return time.monotonic() - began_s
            time.sleep(0.2)
        message = f"{text}: not within {timeout_s:.0f} s"
        raise FailedError(message)

    def wait_healthy(self, restarts: int | None = None) -> float:
        """Wait until ``fedfleet health`` is content, after so many restarts if told."""

        def is_healthy() -> bool:
            if restarts is not None and int(self.shown("NRestarts")) < restarts:
                return False
            health = self.container.do(FEDFLEET, "health", "--state-dir", STATE, check=False)
            return health.returncode == 0 and self.shown("ActiveState") == "active"

        return self.wait(is_healthy, "the device is not healthy")

    def journal(self) -> str:
        """Return the unit's log."""
        command = ("journalctl", "-u", UNIT, "-o", "cat", "--no-pager")
        return self.container.do(*command, check=False).stdout


def install(stage: Stage) -> None:
    """Install from wheels, without a network; once more changes nothing."""
    do, wheel = stage.container.do, stage.wheels["now"]
    do("mkdir", "-p", f"/etc/systemd/system/{UNIT}.d")
    quick = stage.container.root / f"etc/systemd/system/{UNIT}.d/90-quick.conf"
    quick.write_text(_QUICK)
    own = "/opt/fedfleet/0.1.0"
    do("python3", "-m", "venv", own)
    pip = (f"{own}/bin/pip", "install", "-q", "--no-index", "--find-links", "/srv/wheels")
    do(*pip, f"{wheel}[device]")
    say("a virtual environment from wheels, no network")
    command = [f"{own}/bin/fedfleet", "install", "device", "--region", REGION, "--id", "d1"]
    command += ["--broker", BROKER, "--data", "npz=/srv/examples.npz", "--set", "heartbeat_s=2"]
    command += ["--wheel", wheel, "--from", "/srv/wheels"]
    planned = do(*command, "--dry-run").stdout
    check("would write /etc/systemd/system/fedfleet-device.service" in planned, planned)
    check("s3cret" not in planned, "the dry run shows the password")
    do(*command, "--wait-s", "40")
    say(f"installed and READY, systemd's status: {stage.shown('StatusText')!r}")
    again = do(*command).stdout
    check("nothing was changed" in again, f"a second install is not idempotent: {again}")
    check(stage.shown("NRestarts") == "0", "the device was started more than once")
    check(quick.read_text() == _QUICK, "a person's own drop-in was changed")
    text = do("cat", "/etc/fedfleet/device.toml").stdout
    check("s3cret" not in text, "the password is in the settings file")
    waited_for = do("systemctl", "show", "multi-user.target", "-p", "After").stdout
    check(UNIT not in waited_for, "the boot waits for the device")
    say("a second install changed nothing; the password is a credential; the boot does not wait")


def lint(stage: Stage) -> None:
    """Check the units of all three programs as systemd reads them."""
    root = stage.container.root
    for name in PROGRAMS:
        unit = f"fedfleet-{name}.service"
        if not (root / "etc/systemd/system" / unit).is_file():
            shutil.copy(PROJECT / "deploy/systemd" / unit, root / "etc/systemd/system" / unit)
        verified = run(["systemd-analyze", f"--root={root}", "--man=no", "verify", unit])
        said = (verified.stdout + verified.stderr).strip()
        check(not said, f"systemd-analyze verify {unit}: {said}")
        with tempfile.TemporaryDirectory() as folder:
            alone = shutil.copy(PROJECT / "deploy/systemd" / unit, folder)
            say(f"{unit}: verified, exposure {_exposure(alone)}")
        if name != "device":
            (root / "etc/systemd/system" / unit).unlink()
    jetson = PROJECT / "deploy/systemd" / UNIT
    say(f"{UNIT} with jetson.conf: exposure {_exposure(str(jetson))}")


def _exposure(unit: str) -> str:
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager"]
    last = run([*command, f"--threshold={_MAX_EXPOSURE_X10}", unit]).stdout.splitlines()[-1]
    return re.search(r"service: ([0-9.]+)", last)[1]  # type: ignore[index]


def train(stage: Stage) -> None:
    """Do a task of three rounds."""
    accuracy = stage.fleet.train("first", rounds=3)
    check(accuracy > _LEARNED, f"three rounds gave an accuracy of {accuracy}")
    say(f"trained 3 rounds, accuracy {accuracy:.2f}")


def harden(stage: Stage) -> None:
    """Look at the process, then try from inside its sandbox what is forbidden."""
    do = stage.container.do
    pid = stage.shown("MainPID")
    lines = do("cat", f"/proc/{pid}/status").stdout.splitlines()
    status = dict(line.split(":", 1) for line in lines if ":" in line)
    for name in ("CapBnd", "CapEff", "CapPrm", "CapAmb"):
        check(int(status[name], 16) == 0, f"{name} is {status[name].strip()}")
    check(status["Seccomp"].strip() == "2", f"Seccomp is {status['Seccomp']}")
    check(status["NoNewPrivs"].strip() == "1", "NoNewPrivs is not set")
    uid = int(status["Uid"].split()[0])
    check(uid in _DYNAMIC_UIDS, f"user {uid} is not a dynamic one")
    say(f"from inside: no capability, seccomp 2, no new privileges, dynamic user {uid}")
    _probe(stage)


def _probe(stage: Stage) -> None:
    """Run the probe under the device's own unit, with another program in it."""
    do, root = stage.container.do, stage.container.root
    shutil.copy(PROJECT / "tests/deploy/systemd/probe.py", root / "srv/probe.py")
    text = (root / "etc/systemd/system" / UNIT).read_text()
    text = re.sub(
        "^ExecStart=.*$", "ExecStart=/usr/bin/python3 /srv/probe.py", text, flags=re.MULTILINE
    )
    text = text.replace("Type=notify", "Type=oneshot").replace("Restart=always", "Restart=no")
    text = text.replace("WatchdogSec=60\n", "")
    (root / "etc/systemd/system/fedfleet-probe.service").write_text(text)
    do("systemctl", "daemon-reload")
    do("systemctl", "start", "fedfleet-probe.service")
    said = do("journalctl", "-u", "fedfleet-probe.service", "-o", "cat", "--no-pager").stdout
    found = dict(re.findall(r"^([a-z-]+) (allowed|denied)", said, flags=re.MULTILINE))
    for name in probe.ATTEMPTS:
        wanted = "allowed" if name in probe.ALLOWED else "denied"
        check(found.get(name) == wanted, f"{name} is {found.get(name)}, not {wanted}:\n{said}")
    say(f"from inside: {len(probe.ATTEMPTS)} attempts, all as they should be")


def accompany(stage: Stage) -> None:
    """Install a gateway beside the device and purge it: the device is not disturbed."""
    do, pid = stage.container.do, stage.shown("MainPID")
    command = (FEDFLEET, "install", "gateway", "--region", "south", "--broker", BROKER)
    do(*command, "--wheel", stage.wheels["now"], "--from", "/srv/wheels", "--wait-s", "40")
    shown = do("systemctl", "show", "fedfleet-gateway.service", "-p", "StatusText", "--value")
    ready = "ready; sessions connected: downlink, uplink"
    check(shown.stdout.strip() == ready, f"the gateway's status: {shown.stdout}")
    do(FEDFLEET, "uninstall", "gateway", "--purge")
    left = do("find", "/etc/fedfleet", "/var/lib/private", "-name", "*gateway*").stdout
    check(not left, f"a purge leaves {left}")
    check(stage.shown("MainPID") == pid, "the device was started again")
    say("a gateway beside it: READY with both sessions, purged; the device was not disturbed")


def survive(stage: Stage) -> None:
    """Be killed and hang, each in the middle of a task."""
    do, fleet = stage.container.do, stage.fleet
    fleet.submit("killed", rounds=6)
    do("systemctl", "kill", "-s", "KILL", "--kill-who=main", UNIT)
    back_s = stage.wait_healthy(restarts=1)
    say(f"SIGKILL: healthy again after {back_s:.1f} s, accuracy {fleet.finish('killed'):.2f}")
    fleet.submit("hung", rounds=6)
    do("kill", "-STOP", stage.shown("MainPID"))
    back_s = stage.wait_healthy(restarts=2)
    journal = stage.journal()
    check("result 'watchdog'" in journal, "the restart was not the watchdog's")
    check("Fatal Python error: Aborted" in journal, "the log does not tell where it hung")
    say(
        f"SIGSTOP: watchdog, healthy again after {back_s:.1f} s, "
        f"accuracy {fleet.finish('hung'):.2f}"
    )


def wait_for_broker(stage: Stage) -> None:
    """Lose the broker, then start without one: not healthy, but left alone."""
    do, fleet = stage.container.do, stage.fleet
    fleet.kill_broker()
    stage.wait(lambda: "disconnected" in stage.shown("StatusText"), "the loss does not show")
    health = do(FEDFLEET, "health", "--state-dir", STATE, check=False)
    check(health.returncode == 1, "a device without a broker is called healthy")
    restarts = stage.shown("NRestarts")
    time.sleep(12)  # longer than the watchdog waits
    check(stage.shown("NRestarts") == restarts, "a device that lost its broker was restarted")
    fleet.start_broker()
    back_s = stage.wait_healthy()
    say(f"no broker for 12 s: not healthy, not restarted; healthy {back_s:.1f} s after it is back")
    do("systemctl", "stop", UNIT)
    fleet.kill_broker()
    do("systemctl", "start", "--no-block", UNIT)
    time.sleep(18)  # longer than a start may take
    state = (stage.shown("ActiveState"), stage.shown("NRestarts"))
    check(state == ("activating", "0"), f"a device that waits for its first broker: {state}")
    fleet.start_broker()
    back_s = stage.wait_healthy()
    say(f"started without one: waits past TimeoutStartSec, READY {back_s:.1f} s after it comes")


def upgrade(stage: Stage) -> None:
    """Refuse two broken versions, keep on training, then take a good one."""
    do, fleet = stage.container.do, stage.fleet
    for kind, why in (("crashes", "this version is broken"), ("hangs", f"{UNIT} is")):
        command = (FEDFLEET, "upgrade", "device", "--wheel", stage.wheels[kind])
        began_s = time.monotonic()
        tried = do(*command, "--from", "/srv/wheels", "--wait-s", "15", check=False)
        check(tried.returncode == 1, f"a version that {kind} was taken: {tried.stdout}")
        check(why in tried.stderr, f"the reason is not told: {tried.stderr}")
        check("0.1.0 runs again" in tried.stderr, f"no way back: {tried.stderr}")
        check(_current(stage) == "0.1.0", f"current is {_current(stage)}")
        took_s = time.monotonic() - began_s
        say(f"upgrade to a version that {kind}: rolled back in {took_s:.0f} s, exit 1")
        say(f"the device trains on, accuracy {fleet.train(f'after-{kind}', rounds=2):.2f}")
    command = (FEDFLEET, "upgrade", "device", "--wheel", stage.wheels["good"])
    do(*command, "--from", "/srv/wheels", "--wait-s", "40")
    check(_current(stage) == "0.1.1", f"current is {_current(stage)}")
    check(fleet.train("upgraded", rounds=2) > _LEARNED, "the new version learns nothing")
    say("upgrade to a good version: healthy, trains")


def _current(stage: Stage) -> str:
    return stage.container.do("readlink", "/opt/fedfleet/current").stdout.strip()


def leave(stage: Stage) -> None:
    """Stop, uninstall, purge."""
    do = stage.container.do
    do("systemctl", "stop", UNIT)
    result, active = stage.shown("Result"), stage.shown("ActiveState")
    check((result, active) == ("success", "inactive"), f"stopped with {result}, {active}")
    told = stage.journal() + stage.fleet.logs()
    check("s3cret" not in told, "a log tells the password")
    say("stopped cleanly; no log tells the password")
    do("systemctl", "start", UNIT)
    do("rm", f"/etc/systemd/system/{UNIT}.d/90-quick.conf")
    removed = do(FEDFLEET, "uninstall", "device").stdout
    check("are kept" in removed, removed)
    check(stage.shown("LoadState") == "not-found", "the unit is still there")
    check(do("test", "-f", "/etc/fedfleet/device.toml").returncode == 0, "settings are gone")
    check(not (stage.container.root / "opt/fedfleet").exists(), "/opt/fedfleet is still there")
    say("uninstalled; settings and state are kept")


STEPS = (install, lint, train, harden, accompany, survive, wait_for_broker, upgrade, leave)


def perform(work: Path, cache: Path) -> None:
    """Do everything, in order."""
    check_tools()
    archive = root_archive(cache)
    say("Debian's files")
    now = wheel_files.build(PROJECT, work)
    built = {
        "now": now,
        "good": wheel_files.renamed(now, "0.1.1"),
        "crashes": wheel_files.renamed(now, "0.2.0", wheel_files.CRASHES),
        "hangs": wheel_files.renamed(now, "0.2.1", wheel_files.HANGS),
    }
    folder = wheel_files.dependencies(built["now"], PROJECT, cache)
    say("wheels")
    with Network() as network, Container(archive, work / "root", network) as container:
        shutil.copytree(folder, container.root / "srv/wheels")
        write_examples(container.root / "srv/examples.npz")
        for wheel in built.values():
            shutil.copy(wheel, container.root / "srv")
        say(f"booted: {container.boot()}")
        with Fleet(work, network, container.root / "srv/examples.npz") as fleet:
            wheels = {name: f"/srv/{wheel.name}" for name, wheel in built.items()}
            stage = Stage(container, fleet, wheels)
            try:
                for step in STEPS:
                    step(stage)
            except FailedError:
                sys.stderr.write(stage.journal()[-_TAIL:] + fleet.logs()[-_TAIL:])
                raise
    say("cleaned up; PASS")


def main() -> int:
    """Run the test; return its exit code."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that everything is cleaned up
    cache = Path(os.environ.get("CACHE", "/var/tmp/fedfleet-deploy-cache"))
    try:
        with tempfile.TemporaryDirectory(prefix="fedfleet-systemd-", dir="/var/tmp") as work:
            Path(work).chmod(0o755)
            perform(Path(work), cache)
    except SkipError as reason:
        sys.stdout.write(f"SKIP: {reason}\n")
        return 1 if os.environ.get("REQUIRE_DEPLOY") == "1" else _SKIPPED
    except FailedError as error:
        say(f"FAIL: {error}")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
