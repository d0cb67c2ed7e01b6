"""Signs of life: what systemd hears, what health.json says, and that only the work loop speaks."""

import contextlib
import errno
import os
import queue
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest

from transport.database import open_database
from transport.events import Connected, Disconnected, MessageArrived
from transport.health_file import HEALTH_FILE, HealthError, problem, read_health
from transport.liveness import REPORT_INTERVAL_S, Liveness
from transport.loop import ServiceLoop
from transport.notify import NotifySocket

WALL_S = 1_700_000_000.0


class Manager:
    """The other end of the notify socket."""

    def __init__(self, address):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self.socket.setblocking(False)

    def heard(self):
        datagrams = []
        with contextlib.suppress(BlockingIOError):
            while True:
                datagrams.append(self.socket.recv(4096).decode().split("\n"))
        return datagrams


class Watched:
    """A program's liveness with a clock and sessions of the test's own."""

    def __init__(self, tmp_path, *names, watchdog_s=None):
        self.path = tmp_path / "notify"
        self.manager = Manager(str(self.path))
        self.state_dir = tmp_path
        self.now_s = 50.0
        self.sessions = {
            name: SimpleNamespace(is_connected=False, is_alive=True) for name in names
        }
        self.liveness = Liveness(
            tmp_path,
            NotifySocket(str(self.path), watchdog_s),
            clock=lambda: self.now_s,
            wall_clock=lambda: WALL_S + self.now_s,
        )

    def turn(self, *events, after_s=0.0):
        self.now_s += after_s
        self.liveness.turned(events, self.sessions)

    def connect(self, name):
        self.sessions[name].is_connected = True
        self.turn(Connected(name))

    def health(self):
        return read_health(self.state_dir)


@pytest.fixture
def device(tmp_path):
    made = Watched(tmp_path, "main", watchdog_s=20.0)
    yield made
    made.manager.socket.close()


@pytest.fixture
def gateway(tmp_path):
    made = Watched(tmp_path, "uplink", "downlink")
    yield made
    made.manager.socket.close()


def test_a_program_that_has_not_connected_is_starting_and_asks_for_time(device):
    (words,) = device.manager.heard()
    assert words == ["STATUS=starting; sessions connected: none", "EXTEND_TIMEOUT_USEC=60000000"]
    assert (device.health().status, device.health().pid) == ("starting", os.getpid())


def test_time_to_start_is_asked_for_only_while_the_loop_turns(device):
    device.manager.heard()
    for _ in range(4):
        device.turn(after_s=REPORT_INTERVAL_S / 2)
    assert len(device.manager.heard()) == 2


def test_ready_is_told_once_when_the_session_has_subscribed(device):
    device.manager.heard()
    device.sessions["main"].is_connected = True
    device.turn()
    assert device.manager.heard() == []
    device.turn(Connected("main"))
    ready, beat = device.manager.heard()
    assert ready == ["STATUS=ready; sessions connected: main", "READY=1"]
    assert beat == ["WATCHDOG=1"]
    device.turn(after_s=REPORT_INTERVAL_S)
    assert device.manager.heard() == []


def test_a_gateway_is_ready_with_both_sessions_only(gateway):
    gateway.connect("uplink")
    assert (gateway.health().status, gateway.health().connected) == ("starting", ("uplink",))
    gateway.connect("downlink")
    assert gateway.health().connected == ("downlink", "uplink")
    assert gateway.health().status == "ready"


@pytest.mark.parametrize("is_told", [True, False])
def test_a_lost_session_shows_at_once_and_until_it_has_subscribed_again(device, is_told):
    device.connect("main")
    device.sessions["main"].is_connected = False
    device.turn(*([Disconnected("main", "gone")] if is_told else []))
    assert (device.health().status, device.health().connected) == ("disconnected", ())
    device.sessions["main"].is_connected = True
    device.turn()
    assert device.health().status == "disconnected"
    device.turn(Connected("main"))
    assert device.health().status == "ready"


def test_the_watchdog_is_fed_at_half_its_time_and_not_between(device):
    device.connect("main")
    device.manager.heard()
    beats = []
    for _ in range(8):
        device.turn(after_s=5.0)
        beats.append(device.manager.heard())
    assert beats == [[], [["WATCHDOG=1"]]] * 4


def test_the_watchdog_is_fed_while_the_broker_is_away(device):
    device.connect("main")
    device.sessions["main"].is_connected = False
    device.turn()
    device.manager.heard()
    device.turn(after_s=10.0)
    assert device.manager.heard() == [["WATCHDOG=1"]]


def test_a_program_that_nobody_watches_sends_no_beats(gateway):
    gateway.connect("uplink")
    gateway.connect("downlink")
    gateway.manager.heard()
    gateway.turn(after_s=1000.0)
    assert gateway.manager.heard() == []


def test_the_end_is_told_and_written(device):
    device.connect("main")
    device.manager.heard()
    device.liveness.stopping()
    assert device.manager.heard() == [["STATUS=stopping; sessions connected: none", "STOPPING=1"]]
    assert device.health().status == "stopping"


def test_a_word_that_did_not_leave_is_said_again(device):
    device.manager.heard()
    device.path.rename(device.path.with_name("away"))
    device.connect("main")
    device.turn(after_s=100.0)
    assert device.manager.heard() == []
    device.path.with_name("away").rename(device.path)
    device.turn()
    assert device.manager.heard()[0] == ["STATUS=ready; sessions connected: main", "READY=1"]


def test_health_is_written_anew_every_few_seconds_by_the_machines_clock(device):
    device.connect("main")
    first = device.health().ts
    device.turn(after_s=REPORT_INTERVAL_S - 0.1)
    assert device.health().ts == first
    device.turn(after_s=0.1)
    assert device.health().ts == WALL_S + device.now_s == first + REPORT_INTERVAL_S


def test_a_state_directory_that_takes_no_file_stops_nobody(device):
    (device.state_dir / f".{HEALTH_FILE}.new").mkdir()
    device.manager.heard()
    device.connect("main")
    assert device.manager.heard()[0][-1] == "READY=1"
    assert device.health().status == "starting"


def test_an_abstract_name_is_reached(tmp_path):
    name = f"fedfleet-test-{os.getpid()}"
    manager = Manager("\0" + name)
    assert NotifySocket("@" + name).send(READY=1, STATUS="two\nlines")
    assert manager.heard() == [["READY=1", "STATUS=two lines"]]
    manager.socket.close()


def test_a_manager_that_does_not_listen_holds_nobody_up(tmp_path):
    manager = Manager(str(tmp_path / "notify"))
    notify = NotifySocket(str(tmp_path / "notify"))
    sent = 0
    while notify.send(STATUS="again") and sent < 10_000:
        sent += 1
    assert 0 < sent < 10_000
    manager.socket.close()


@pytest.mark.parametrize(
    ("environment", "is_open", "watchdog_s"),
    [
        ({}, False, None),
        ({"NOTIFY_SOCKET": "/run/n"}, True, None),
        ({"NOTIFY_SOCKET": "/run/n", "WATCHDOG_USEC": "3000000"}, True, 3.0),
        ({"NOTIFY_SOCKET": "@n", "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "7"}, True, 3.0),
        ({"NOTIFY_SOCKET": "@n", "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "8"}, True, None),
        ({"NOTIFY_SOCKET": "@n", "WATCHDOG_USEC": "soon"}, True, None),
        ({"NOTIFY_SOCKET": "@n", "WATCHDOG_USEC": "0"}, True, None),
        ({"NOTIFY_SOCKET": "vsock:2:1234"}, False, None),
        ({"WATCHDOG_USEC": "3000000"}, False, None),
    ],
)
def test_the_environment_says_who_watches_whom(environment, is_open, watchdog_s):
    notify = NotifySocket.of_environment(environment, pid=7)
    assert (notify.is_open, notify.watchdog_s) == (is_open, watchdog_s)


class EchoHandler:
    """Takes as long over every event as the test says."""

    def __init__(self, watched):
        self.watched = watched
        self.error = None

    def handle(self, event, now_s):
        self.watched.now_s += 4.0
        if self.error is not None:
            raise self.error
        return []

    def tick(self, now_s):
        return []

    def next_due_s(self, now_s):
        return None

    def give_up(self, event, why, now_s):
        return []

    def after_commit(self):
        pass


@pytest.fixture
def looped(device, tmp_path):
    connection = open_database(tmp_path / "state.db", "CREATE TABLE note (text TEXT)", 1)
    device.events, device.handler = queue.SimpleQueue(), EchoHandler(device)
    device.loop = ServiceLoop(
        connection,
        device.events,
        device.sessions,
        device.handler,
        lambda: device.now_s,
        pause=lambda _: None,
        liveness=device.liveness,
    )
    device.sessions["main"].is_connected = True
    device.events.put(Connected("main"))
    device.loop.turn()
    yield device
    connection.close()


def test_the_loop_makes_a_program_ready_and_says_when_it_ends(looped):
    assert looped.health().status == "ready"
    looped.loop.stop()
    looped.loop.run()
    assert looped.health().status == "stopping"


def test_a_loop_that_dies_says_so_too(looped):
    looped.sessions["main"].is_alive = False
    with pytest.raises(Exception, match="thread has ended"):
        looped.loop.run()
    assert looped.health().status == "stopping"


def test_a_long_batch_feeds_the_watchdog_while_it_gets_on(looped):
    looped.manager.heard()
    for _ in range(10):
        looped.events.put(MessageArrived("main", "t", b"", retained=False, ack=lambda: None))
    looped.loop.turn()
    assert looped.manager.heard().count(["WATCHDOG=1"]) >= 3


def test_a_loop_that_waits_for_a_full_disk_feeds_the_watchdog(looped):
    looped.manager.heard()
    full = OSError(28, "No space left on device")
    looped.handler.error = full
    looped.events.put(MessageArrived("main", "t", b"", retained=False, ack=lambda: None))
    for _ in range(6):
        looped.loop.turn()
    assert looped.loop.counts["storage_failures"] == 6
    assert looped.manager.heard().count(["WATCHDOG=1"]) >= 2


@pytest.mark.parametrize(
    ("age_s", "says"), [(0.0, None), (30.0, None), (31.0, "31 s old"), (-31.0, "old")]
)
def test_only_a_fresh_word_counts(device, age_s, says):
    device.connect("main")
    health = device.health()
    found = problem(health, health.ts + age_s, max_age_s=30.0)
    assert (found is None) if says is None else (says in found)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"connected": 3}', "\xff"])
def test_a_torn_report_is_an_error_in_words(tmp_path, text):
    (tmp_path / HEALTH_FILE).write_text(text, encoding="latin-1")
    with pytest.raises(HealthError, match=HEALTH_FILE):
        read_health(tmp_path)


def test_a_beat_that_did_not_leave_is_sent_again_at_the_next_turn(device):
    device.connect("main")
    device.manager.heard()
    away = device.path.with_suffix(".away")
    device.path.rename(away)
    device.turn(after_s=10.0)
    away.rename(device.path)
    device.turn(after_s=1.0)
    assert ["WATCHDOG=1"] in device.manager.heard()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_program_that_waits_for_room_on_its_disk_is_not_ready_and_shows_that_it_turns(
    device, monkeypatch, code
):
    device.connect("main")

    def no_room(*_, **__):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Path, "write_text", no_room)
    path = device.state_dir / HEALTH_FILE
    os.utime(path, (1.0, 1.0))
    device.turn(after_s=60.0)
    assert path.stat().st_mtime > 1.0
    assert problem(device.health(), WALL_S + device.now_s, 30.0) is not None
    monkeypatch.undo()
    device.connect("main")
    assert device.health().status == "ready"
