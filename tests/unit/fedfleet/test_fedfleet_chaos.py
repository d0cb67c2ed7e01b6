"""The parts of a chaos run: what is drawn, what the proxies do, what is measured and judged."""

import json
import socket
import threading
from collections import Counter
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from central.adapters.audit import TaskAudit
from fedfleet.auditing import Audit, ReceiptsAudit
from fedfleet.chaos import report
from fedfleet.chaos.choices import ChaosOptions, submission
from fedfleet.chaos.nemesis import MAX_AT_ONCE, Nemesis
from fedfleet.chaos.proxy import Door, Proxy
from fedfleet.chaos.report import Outcome
from fedfleet.chaos.victims import role
from fedfleet.chaos.watch import Watch
from fedfleet.client import Message
from fedfleet.testbed.choices import Options
from fedfleet.testbed.plan import Place, make_plan
from learning.models.registry import build
from schemas.messages import NoJob, Receipt
from schemas.tasks import TaskStatus, parse_submission
from schemas.topics import Address, Kind, Topic
from transport.frames import FrameWriter

PROCESSES = ("broker", "central", "gateway-region-1", "device-1", "device-2")
DOORS = ("central", "gateway-region-1", "gateway-region-1/uplink", "device-1", "device-2")


# -- what is drawn -------------------------------------------------------------------------


def drawn(seed, count=300):
    nemesis = Nemesis(seed, PROCESSES, DOORS, pace_s=1.0)
    return [(nemesis.wait_s(), nemesis.fault(())) for _ in range(count)]


def test_one_seed_gives_one_sequence_of_faults():
    assert drawn(5) == drawn(5)
    assert drawn(5) != drawn(6)


def test_every_fault_comes_and_everybody_is_hit():
    faults = [fault for _, fault in drawn(1)]
    assert Counter(fault.kind for fault in faults).keys() == {
        "kill",
        "stop",
        "cut",
        "hole",
        "delay",
    }
    assert {fault.victim for fault in faults if fault.kind == "kill"} == set(PROCESSES)
    assert {fault.victim for fault in faults if fault.kind in ("cut", "hole")} == set(DOORS)
    assert {fault.ways for fault in faults if fault.kind == "hole"} == {
        ("up",), ("down",), ("up", "down"),
    }  # fmt: skip


def test_nobody_is_hurt_twice_at_the_same_time_and_not_too_many():
    nemesis = Nemesis(1, PROCESSES, DOORS, pace_s=1.0)
    hurt = {"central", "device-1"}
    assert not {nemesis.fault(hurt).victim for _ in range(200)} & hurt
    assert nemesis.fault({str(index) for index in range(MAX_AT_ONCE)}) is None


@pytest.mark.parametrize("update_mb", [1.0, 4.0])
def test_an_update_is_as_large_as_was_asked_for(update_mb):
    options = ChaosOptions(update_mb=update_mb)
    params = submission(options, 1)["model_params"]
    module = build("mlp", {"hidden": tuple(params["hidden"])}, (1, 8, 8), 10)
    size = 4 * sum(tensor.numel() for tensor in module.state_dict().values())
    assert update_mb * 2**20 <= size < 1.01 * update_mb * 2**20


def test_central_would_take_every_task():
    for number in range(1, 40):
        task = submission(ChaosOptions(seed=3), number)
        parsed = parse_submission(json.dumps(task).encode())
        assert parsed.task == f"chaos-{number}"
        assert 2 <= parsed.min_clients <= 4
        assert parsed.training.epochs == (0 if number % 2 == 0 else 1)


def test_each_session_has_a_door_of_its_own():
    options = Options(devices=2, regions=1)
    doors = {"central": 2, "gateway-region-1": 3, "gateway-region-1/uplink": 4, "device-1": 5}
    plan = make_plan(options, Place(Path("/run"), 1, doors=doors))
    urls = {
        process.name: [word for word in process.argv if word.startswith("mqtt://")]
        for process in plan.services
    }
    base = "mqtt://127.0.0.1"
    assert urls == {
        "central": [f"{base}:2"],
        "gateway-region-1": [f"{base}:3", f"{base}:4"],
        "device-1": [f"{base}:5"],
        "device-2": [f"{base}:1"],
    }
    assert plan.url == f"{base}:1"


@pytest.mark.parametrize("name", ["gateway-region-1", "gateway-region-1/uplink"])
def test_a_door_belongs_to_the_role_of_its_program(name):
    assert role(name) == "gateway"


# -- the proxies ---------------------------------------------------------------------------


@contextmanager
def echo_behind_a_door():
    """Yield a proxy, and a function that connects through its one door to an echo."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve():
        with suppress(OSError):
            while True:
                end, _ = server.accept()
                threading.Thread(target=echo, args=(end,), daemon=True).start()

    def echo(end):
        with end, suppress(OSError):
            while data := end.recv(65536):
                end.sendall(data)

    threading.Thread(target=serve, daemon=True).start()
    with ExitStack() as opened:
        opened.enter_context(server)
        proxy = opened.enter_context(Proxy(["a"], server.getsockname()[1]))

        def connect():
            end = socket.create_connection(("127.0.0.1", proxy.ports["a"]), timeout=5)
            return opened.enter_context(end)

        yield proxy, connect


def answered(end, data=b"hello", timeout_s=5.0):
    end.settimeout(timeout_s)
    try:
        end.sendall(data)
        return end.recv(65536)
    except TimeoutError:
        return None
    except OSError:
        return b""


def test_a_door_lets_everything_through_and_counts_it():
    with echo_behind_a_door() as (proxy, connect):
        assert answered(connect()) == b"hello"
        assert proxy.moved_bytes == 10


def test_a_door_that_is_shut_breaks_off_and_refuses_until_it_is_opened():
    with echo_behind_a_door() as (proxy, connect):
        end = connect()
        assert answered(end) == b"hello"
        proxy.tell("a", Door.shut)
        assert answered(end) == b""
        assert answered(connect()) == b""
        proxy.tell("a", Door.let_through)
        assert answered(connect()) == b"hello"


@pytest.mark.parametrize("ways", [("up",), ("down",), ("up", "down")])
def test_a_hole_holds_bytes_back_and_the_connection_stays(ways):
    with echo_behind_a_door() as (proxy, connect):
        end = connect()
        proxy.tell("a", lambda door: door.hold(ways))
        assert answered(end, timeout_s=0.2) is None
        proxy.tell("a", Door.let_through)
        end.settimeout(5)
        assert end.recv(100) == b"hello"


def test_what_is_in_a_hole_is_gone_when_its_connection_breaks_off():
    with echo_behind_a_door() as (proxy, connect):
        end = connect()
        proxy.tell("a", lambda door: door.hold(("up",)))
        assert answered(end, timeout_s=0.2) is None
        proxy.tell("a", Door.drop)
        proxy.tell("a", Door.let_through)
        assert answered(end) == b""
        assert answered(connect()) == b"hello"


def test_a_slow_door_delays_each_piece():
    with echo_behind_a_door() as (proxy, connect):
        end = connect()
        proxy.tell("a", lambda door: setattr(door, "delay_s", 0.3))
        assert answered(end, timeout_s=0.3) is None
        end.settimeout(5)
        assert end.recv(100) == b"hello"


def test_without_a_broker_a_door_breaks_off():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with Proxy(["a"], port) as proxy:
        end = socket.create_connection(("127.0.0.1", proxy.ports["a"]), timeout=5)
        assert answered(end) == b""
        end.close()


# -- what is measured ----------------------------------------------------------------------


def central_says(boot, body, kind=Kind.RECEIPT):
    writer = FrameWriter("central", boot, np.random.default_rng(boot), lambda: 0.0)
    address = Address.of_gateway("r1")
    topic = Topic(kind, address, xfer="0" * 32 if kind is Kind.RECEIPT else None)
    return Message(topic, writer.frame(body), retained=False)


def status_says(ts, state="running"):
    status = TaskStatus(task="chaos-1", state=state, ts=ts)
    topic = Topic(Kind.TASK_STATUS, task="chaos-1")
    return Message(topic, status.model_dump_json().encode(), retained=False)


RECEIPT = Receipt(xfer="0" * 32, status="accepted", sha256="0" * 64)


def test_a_recovery_ends_with_the_first_word_of_the_new_life():
    watch = Watch()
    watch.take(status_says(99.0), 0.0)
    watch.take(central_says(5, RECEIPT), 0.0)
    watch.central_killed()
    watch.central_started(10.0, 100.0, is_disturbed=False)
    watch.take(central_says(5, RECEIPT), 10.5)  # an old word, underway until now
    watch.take(status_says(99.5), 10.6)
    watch.take(central_says(6, NoJob(), Kind.TASK), 10.7)
    watch.take(status_says(101.0), 11.0)
    watch.take(central_says(6, RECEIPT), 12.0)
    watch.take(central_says(6, RECEIPT), 13.0)
    (recovery,) = watch.recoveries
    assert (recovery.told_s, recovery.moved_s) == (1.0, 2.0)


def test_a_life_that_ends_before_its_first_word_is_no_recovery():
    watch = Watch()
    watch.take(status_says(99.0), 0.0)
    watch.central_started(10.0, 100.0, is_disturbed=True)
    watch.central_killed()
    watch.take(central_says(6, RECEIPT), 12.0)
    (recovery,) = watch.recoveries
    assert (recovery.told_s, recovery.moved_s) == (None, None)


@pytest.mark.parametrize("state", ["waiting", "completed"])
def test_a_start_without_a_running_task_is_no_recovery(state):
    watch = Watch()
    watch.take(status_says(99.0, state), 0.0)
    watch.central_started(10.0, 100.0, is_disturbed=False)
    assert watch.recoveries == []


def test_an_older_status_does_not_take_a_newer_one_back():
    watch = Watch()
    watch.take(status_says(99.0, "completed"), 0.0)
    watch.take(status_says(98.0, "running"), 1.0)
    assert watch.is_ended("chaos-1")


# -- what is judged ------------------------------------------------------------------------


def outcome(task=None, devices=None, told="aa", **options):
    task = task or TaskAudit(
        "chaos-1", "completed", 1, accepted=2, counted=2, recomputed={1: "aa"}
    )
    devices = devices or ReceiptsAudit(read=2, counted=2)
    chosen = ChaosOptions(kills=1, updates=2, seed=77, **options)
    counts = Counter({("kill", "central"): 1})
    audit = Audit((task,), devices, ReceiptsAudit())
    return Outcome(chosen, counts, audit, (), {"chaos-1": told}, 0, (1.0, 1.0), Path("/run"))


def test_a_run_in_which_all_is_receipted_and_counted_holds():
    assert outcome().broken == outcome().missed == ()
    assert report.as_object(outcome())["holds"]
    assert report.as_text(outcome()).endswith("the promise holds (--seed 77)")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"devices": ReceiptsAudit(read=1, counted=1)}, "2 updates are accepted, 1 are receipted"),
        (
            {"devices": ReceiptsAudit(read=2, counted=2, waiting=1)},
            "1 updates have no final receipt",
        ),
        ({"devices": ReceiptsAudit(read=2, counted=2, findings=["d1: gone"])}, "d1: gone"),
        ({"told": "bb"}, "its status names model bb, recomputed aa"),
    ],
)
def test_a_run_that_breaks_the_promise_says_how_and_the_seed(changes, said):
    found = outcome(**changes)
    assert said in " ".join(found.broken)
    text = report.as_text(found)
    assert f"BROKEN: {found.broken[0]}" in text
    assert text.endswith("the promise is BROKEN (--seed 77)")


def test_a_run_in_which_too_little_happened_says_so():
    task = TaskAudit("chaos-1", "completed", 1, accepted=1, counted=1, recomputed={1: "aa"})
    found = outcome(task, ReceiptsAudit(read=1, counted=1))
    assert found.broken == ()
    assert found.missed == ("1 updates, 2 were wanted",)
