"""What a fault does to a process or a door, and that all of it is taken back."""

import signal
from pathlib import Path

import pytest

from fedfleet.chaos.nemesis import Fault
from fedfleet.chaos.proxy import Door
from fedfleet.chaos.victims import Victims
from fedfleet.testbed.choices import Options
from fedfleet.testbed.plan import Place, make_plan


class Recorder:
    """Stands in for the processes and for the proxies; notes what it is told."""

    def __init__(self):
        self.told = []
        self.deeds = []

    def kill(self, name):
        self.told.append(("kill", name))

    def start(self, process):
        self.told.append(("start", process.name))

    def send(self, name, number):
        self.told.append((number.name, name))

    def check(self, down):
        self.told.append(("check", *sorted(down)))

    def tell(self, name, what):
        door = Door(1)
        door.let_through()
        what(door)
        self.deeds.append(what)
        self.told.append(
            (name, door.delay_s, *(way for way in ("up", "down") if holds(door, way)))
        )


def holds(door, way):
    return not door._passable[way].is_set()


@pytest.fixture
def recorder():
    return Recorder()


@pytest.fixture
def victims(recorder):
    plan = make_plan(Options(devices=2, regions=1), Place(Path("/run"), 1))
    return Victims(plan, recorder, recorder)


def test_a_killed_process_is_started_again_when_its_time_has_come(victims, recorder):
    victims.strike(Fault("kill", "central", 1.0), 10.0)
    assert (victims.hurt, victims.kills) == ({"central"}, 1)
    assert victims.recover(10.9) == []
    victims.check()
    assert victims.recover(11.0) == ["central"]
    victims.check()
    assert recorder.told == [
        ("kill", "central"), ("check", "central"), ("start", "central"), ("check",),
    ]  # fmt: skip
    assert not victims.hurt


def test_a_stopped_process_goes_on(victims, recorder):
    victims.strike(Fault("stop", "device-1", 1.0), 0.0)
    assert victims.recover(1.0) == []
    assert recorder.told == [("SIGSTOP", "device-1"), ("SIGCONT", "device-1")]
    assert victims.kills == 0


def test_healing_ends_everything_at_once(victims, recorder):
    victims.strike(Fault("kill", "broker", 100.0), 0.0)
    victims.strike(Fault("stop", "device-2", 100.0), 0.0)
    assert victims.heal() == ["broker"]
    assert not victims.hurt
    assert {("start", "broker"), (signal.SIGCONT.name, "device-2")} <= set(recorder.told)


def test_faults_are_counted_by_kind_and_role(victims):
    victims.strike(Fault("kill", "gateway-region-1", 1.0), 0.0)
    victims.strike(Fault("cut", "gateway-region-1/uplink", 1.0), 0.0)
    assert victims.counts == {("kill", "gateway"): 1, ("cut", "gateway"): 1}


def test_a_delay_reaches_its_door(victims, recorder):
    victims.strike(Fault("delay", "device-1", 1.0, delay_s=0.2), 0.0)
    assert recorder.told[0][:2] == ("device-1", 0.2)


def test_a_door_that_drops_at_the_end_is_opened_first_and_then_breaks_off(victims, recorder):
    victims.strike(Fault("hole", "device-1", 1.0, ("up",), drops=True), 0.0)
    victims.recover(2.0)
    assert recorder.told[0] == ("device-1", 0.0, "up")
    assert recorder.deeds[1:] == [Door.let_through, Door.drop]
