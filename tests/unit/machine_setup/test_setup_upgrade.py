"""An upgrade: taken when the new version becomes healthy, taken back when it does not."""

from dataclasses import replace
from pathlib import Path

import pytest

from fedfleet.machine_setup.actions import MakeVenv, PointTo, Remove, Source
from fedfleet.machine_setup.layout import PROGRAMS, SetupError, venv
from fedfleet.machine_setup.plan import Seen, Venv
from fedfleet.machine_setup.service import Service
from fedfleet.machine_setup.upgrading import Upgrade, UpgradeFailedError
from transport.health_file import Health, write_health

DEVICE = PROGRAMS["device"]
SEEN = Seen(
    files={DEVICE.unit_path: ""},
    venvs={v: Venv(frozenset({"device", "gateway"}), None) for v in ("0.1.0", "0.0.9")},
    current="0.1.0",
)
NEW = Source("0.2.0", Path("/new.whl"), sha256="bb")


class FakeMachine:
    def __init__(self, seen=SEEN):
        self.seen = seen
        self.done = []
        self.fails = None

    def look(self):
        return self.seen

    def real(self, path):
        return Path(path)

    def perform(self, action):
        if isinstance(action, MakeVenv) and self.fails:
            raise self.fails
        self.done.append(action)

    @property
    def current(self):
        return [a.version for a in self.done if isinstance(a, PointTo)]


class FakeService:
    def __init__(self, machine, healthy):
        self.machine = machine
        self.healthy = healthy

    def wait_healthy(self, wait_s):
        return None if self.machine.current[-1] in self.healthy else "it is activating"

    def log_lines(self):
        return ["Traceback", "RuntimeError: broken"]


def run(machine, healthy, source=NEW):
    return Upgrade(DEVICE, machine, FakeService(machine, healthy), 60.0, lambda _: None).to(source)


def test_a_healthy_version_stays_and_the_one_before_is_kept():
    machine = FakeMachine()
    outcome = run(machine, {"0.2.0"})
    assert (outcome.current, outcome.reason, outcome.removed) == ("0.2.0", None, ("0.0.9",))
    assert machine.done[0].extras == ("device", "gateway")
    assert machine.done[-1] == Remove(venv("0.0.9"))


def test_the_program_is_stopped_while_the_link_moves():
    machine = FakeMachine()
    run(machine, {"0.2.0"})
    words = [str(action) for action in machine.done[1:5]]
    assert words == [
        "systemctl stop fedfleet-device.service",
        "point /opt/fedfleet/current to 0.2.0",
        "systemctl reset-failed fedfleet-device.service",
        "systemctl start --no-block fedfleet-device.service",
    ]


def test_a_version_that_is_not_healthy_in_time_is_taken_back():
    machine = FakeMachine()
    with pytest.raises(
        UpgradeFailedError, match=r"it is activating. 0\.1\.0 runs again"
    ) as caught:
        run(machine, {"0.1.0"})
    assert machine.current == ["0.2.0", "0.1.0"]
    assert Remove(venv("0.2.0")) in machine.done
    assert "RuntimeError: broken" in str(caught.value)
    assert caught.value.outcome.current == "0.1.0"


def test_an_upgrade_that_a_person_interrupts_is_taken_back():
    class Impatient(FakeService):
        def wait_healthy(self, wait_s):
            if self.machine.current[-1] == "0.2.0":
                raise KeyboardInterrupt
            return super().wait_healthy(wait_s)

    machine = FakeMachine()
    upgrade = Upgrade(DEVICE, machine, Impatient(machine, {"0.1.0"}), 60.0, lambda _: None)
    with pytest.raises(UpgradeFailedError, match=r"interrupted. 0\.1\.0 runs again"):
        upgrade.to(NEW)
    assert machine.current == ["0.2.0", "0.1.0"]
    assert str(machine.done[-2]) == "systemctl start --no-block fedfleet-device.service"


def test_a_machine_on_which_neither_is_healthy_says_so():
    with pytest.raises(UpgradeFailedError, match=r"0\.1\.0 is back, but: it is activating"):
        run(FakeMachine(), set())


def test_a_version_that_cannot_be_installed_touches_nothing():
    machine = FakeMachine()
    machine.fails = SetupError("no space")
    with pytest.raises(SetupError, match="no space"):
        run(machine, {"0.2.0"})
    assert machine.done == []


def test_the_version_in_use_needs_no_upgrade():
    machine = FakeMachine()
    assert run(machine, set(), Source("0.1.0")).current == "0.1.0"
    assert machine.done == []


def test_what_is_not_installed_cannot_be_upgraded():
    with pytest.raises(SetupError, match="fedfleet install device"):
        run(FakeMachine(replace(SEEN, files={})), set())


class Systemd:
    """Answers for ``systemctl show``, one state after the other; the last one stays."""

    def __init__(self, *states):
        self.states = list(states)

    def __call__(self, command):
        if command[0] == "journalctl":
            return "one\ntwo\n"
        return self.states.pop(0) if len(self.states) > 1 else self.states[0]


def state(active="active", pid=7):
    return f"ActiveState={active}\nMainPID={pid}\nNRestarts=0\nResult=success\n"


@pytest.fixture
def look(tmp_path):
    def make(*states):
        clock = iter(range(1000))
        machine = FakeMachine()
        machine.real = lambda path: tmp_path
        return Service(
            DEVICE,
            machine,
            ask=Systemd(*states),
            clock=lambda: float(next(clock)),
            wall_clock=lambda: 100.0,
            pause=lambda _: None,
        )

    return make


def test_healthy_is_active_and_ready_by_the_same_process(look, tmp_path):
    write_health(tmp_path, Health("ready", ("main",), 99.0, 7))
    assert look(state()).wait_healthy(10.0) is None
    assert "process 8 has not said" in look(state(pid=8)).wait_healthy(3.0)


@pytest.mark.parametrize(
    ("health", "says"),
    [
        (None, "no program has run"),
        (Health("ready", ("main",), 50.0, 7), "50 s old"),
        (Health("disconnected", (), 99.0, 7), "disconnected"),
    ],
)
def test_what_is_wrong_is_told_when_the_time_is_over(look, tmp_path, health, says):
    if health is not None:
        write_health(tmp_path, health)
    assert says in look(state()).wait_healthy(3.0)


def test_one_good_look_is_not_enough(look, tmp_path):
    write_health(tmp_path, Health("ready", ("main",), 99.0, 7))
    flapping = [state(), state("activating"), state("activating")] * 4
    assert "activating" in look(*flapping, state("activating")).wait_healthy(8.0)


def test_a_failed_unit_is_not_waited_for(look):
    service = look(state("failed"))
    assert "is failed" in service.wait_healthy(900.0)
    assert service.log_lines() == ["one", "two"]


def test_an_older_environment_is_completed_before_it_is_used():
    venvs = {**SEEN.venvs, "0.2.0": Venv(frozenset({"device", "torch"}), None)}
    machine = FakeMachine(replace(SEEN, venvs=venvs))
    run(machine, {"0.2.0"}, Source("0.2.0"))
    assert machine.done[0].extras == ("device", "gateway", "torch")
