"""What a fleet is put through while a failpoint is armed, so that its victim comes by there.

An act is a list of steps; the steps of one life of the victim end when the victim does.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from typing_extensions import Self

from schemas.messages import ControlNote
from tests.support.brokers import HOST
from tests.support.fleet import Fleet, is_final
from transport.frames import FrameWriter

REGION = "north"
GATEWAY = f"gateway-{REGION}"
DEVICES = ("d1", "d2", "d3")
ROUNDS = 6
_TIMES = 3
_STEP_S = 10.0
_ECHO_S = 0.4

_DRILL = {"epochs": 0}
_TRAINED = {"epochs": 1, "batch_size": 32}
#: An update of 0.76 MB: three chunks.
_LARGE = {"model": "mlp", "model_params": {"hidden": [400, 400]}, "codec": "raw-f32"}
_SMALL = {"model": "softmax"}

Step = Callable[[], None]


@dataclass
class Play:
    """One cell on one fleet.

    Attributes:
        fleet: The running fleet.
        victim: The program that is killed.
        tasks: Every task that was submitted for this cell; each must complete.
        cancelled: Those that must end as cancelled instead.
        life: How many lives of the victim were armed.
    """

    fleet: Fleet
    victim: str
    name: str
    tasks: dict[str, dict[str, Any]] = field(default_factory=dict)
    cancelled: set[str] = field(default_factory=set)
    life: int = 0

    def submit(self, **task: object) -> str:
        """Submit a task of this cell; it gets an id of its own."""
        name = f"{self.name}-{len(self.tasks) + 1}"
        common = {"task": name, "data": "tiny", "rounds": ROUNDS, "min_clients": len(DEVICES)}
        self.tasks[name] = {**common, "training": _DRILL, **task}
        self.fleet.submit(self.tasks[name])
        return name

    def submit_again(self, task: str) -> None:
        """Submit the same task once more, as a person does who sees nothing of it."""
        self.fleet.submit(self.tasks[task])

    def until(self, condition: Callable[[], bool], within_s: float = _STEP_S) -> None:
        """Wait for a condition, for the victim's end, or for some time; it says which by no word."""
        end = time.monotonic() + within_s
        victim = self.fleet.program(self.victim)
        while time.monotonic() < end and victim.is_running and not condition():
            time.sleep(0.02)

    def newest(self, task: str) -> Mapping[str, Any]:
        statuses = self.fleet.statuses(task)
        return statuses[-1] if statuses else {}

    def committed(self, task: str, count: int) -> Callable[[], bool]:
        return lambda: self.newest(task).get("committed", 0) >= count


Act = Callable[[Play], Iterator[Step]]


def one_task(**task: object) -> Act:
    """Return an act: one task, over all lives of the victim."""

    def act(play: Play) -> Iterator[Step]:
        if not play.tasks:
            yield lambda: play.submit(**task)

    return act


small = one_task(**_SMALL)
trained = one_task(**_SMALL, training=_TRAINED)
large = one_task(**_LARGE, training=_TRAINED)
late = one_task(**_SMALL, training=_TRAINED, min_clients=2, cohort=3)
late_large = one_task(**_LARGE, training=_TRAINED, min_clients=2, cohort=3, rounds=12)


def many(play: Play) -> Iterator[Step]:
    """Three tasks of one round in each life."""
    for _ in range(_TIMES):
        yield lambda: play.submit(**_SMALL, rounds=1)
    names = list(play.tasks)
    yield lambda: play.until(lambda: all(is_done(play, name) for name in names))


def three(play: Play) -> Iterator[Step]:
    """Three tasks side by side, over all lives of the victim."""
    if not play.tasks:
        for _ in range(_TIMES):
            yield lambda: play.submit(**_SMALL)


def cancels(play: Play) -> Iterator[Step]:
    """Tasks that are cancelled in the middle, three in each life."""
    for _ in range(_TIMES):
        name = play.submit(**_SMALL, rounds=100_000)
        play.cancelled.add(name)
        yield lambda name=name: play.until(play.committed(name, 1))
        yield lambda name=name: play.fleet.control(name, "cancel")
        yield lambda name=name: play.until(lambda: is_done(play, name))


def pauses(play: Play) -> Iterator[Step]:
    """A task that is paused and resumed twice in each life."""
    if not play.tasks:
        yield lambda: play.submit(**_SMALL, rounds=30)
    for action in ("pause", "resume", "pause", "resume"):
        yield lambda action=action: play.fleet.control(next(iter(play.tasks)), action)


def abandons(play: Play) -> Iterator[Step]:
    """A device dies in three rounds of each life, which cannot end without it."""
    task = {**_SMALL, "rounds": 100_000, "on_shortfall": "abandon"}
    fleet, last = play.fleet, DEVICES[-1]
    name = play.submit(**task)
    play.cancelled.add(name)
    yield lambda: play.until(play.committed(name, 1))
    for _ in range(_TIMES):
        before = play.newest(name).get("abandoned", 0)
        yield lambda: fleet.freeze(last)
        yield lambda: play.until(lambda: play.newest(name).get("reported", 0) >= len(DEVICES) - 1)
        yield lambda: fleet.kill(last)
        fleet.program(last).start()
        yield lambda before=before: play.until(
            lambda: play.newest(name).get("abandoned", 0) > before
        )
        rounds = play.newest(name).get("committed", 0) + 1
        yield lambda rounds=rounds: play.until(play.committed(name, rounds))
    fleet.control(name, "cancel")


def leftovers(play: Play) -> Iterator[Step]:
    """Tasks that are under way when the victim starts."""
    if not play.life:
        for _ in range(_TIMES):
            play.submit(**_SMALL, rounds=40)
        for name in play.tasks:
            play.until(play.committed(name, 1))
    yield lambda: None


def kicks(play: Play) -> Iterator[Step]:
    """Sessions are taken over again and again, before a task and during it."""
    names = [play.victim] if play.victim in DEVICES else [play.victim, GATEWAY, *DEVICES]
    yield lambda: play.until(lambda: play.fleet.boot(play.victim) is not None)
    for _ in range(_TIMES):
        yield lambda: kick_all(play, names)
    yield lambda: play.submit(**_SMALL)


def rebirths(play: Play) -> Iterator[Step]:
    """The victim is told three times that a newer boot of it was seen."""
    yield lambda: play.submit(**_SMALL)
    for _ in range(_TIMES):
        yield lambda: play.until(lambda: play.fleet.boot(play.victim) is not None)
        boot = (play.fleet.boot(play.victim) or 0) + 10
        yield lambda boot=boot: tell_rebirth(play, boot)
        yield lambda boot=boot: play.until(lambda: (play.fleet.boot(play.victim) or 0) > boot)


def echoes(play: Play) -> Iterator[Step]:
    """Every manifest comes a second time, a moment later."""
    with Echo(play.fleet.broker.port):
        name = play.submit(**_SMALL, rounds=30)
        yield lambda: play.until(lambda: is_done(play, name), within_s=20.0)
        time.sleep(2 * _ECHO_S)


def is_done(play: Play, task: str) -> bool:
    newest = play.newest(task)
    return bool(newest) and is_final(newest)


def mqtt_client_id(name: str) -> str:
    """Return the id under which a program of the fleet connects; a gateway's to central."""
    if name == "central":
        return "fedfleet-central"
    if name == GATEWAY:
        return f"fedfleet-gw-{REGION}-up"
    return f"fedfleet-dev-{name}"


def kick_all(play: Play, names: list[str]) -> None:
    """Take these programs' sessions over for a moment, and wait until they are back."""
    watcher = play.fleet.watcher
    topics = {name: play.fleet.state_topic(name) for name in names}
    births = {name: len(watcher.all(topic)) for name, topic in topics.items()}
    for name in names:
        kick(play.fleet.broker.port, mqtt_client_id(name))
    play.until(
        lambda: all(
            len(watcher.all(topics[name])) > births[name] and play.fleet.boot(name) is not None
            for name in names
        )
    )
    time.sleep(0.3)


def kick(port: int, client_id: str) -> None:
    """Connect under a client's id; the broker then ends the client's connection."""
    connected = threading.Event()
    client = Client(
        CallbackAPIVersion.VERSION2,
        client_id=client_id,
        protocol=MQTTProtocolVersion.MQTTv5,
        manual_ack=True,
    )
    client.on_connect = lambda *_: connected.set()
    kept = Properties(PacketTypes.CONNECT)
    kept.SessionExpiryInterval = 3600
    client.connect(HOST, port, clean_start=False, properties=kept)
    client.loop_start()
    assert connected.wait(_STEP_S), f"{client_id} could not be taken over"
    client.disconnect()
    client.loop_stop()


def tell_rebirth(play: Play, boot: int) -> None:
    clock = time.time
    frames = FrameWriter("central", int(clock()), np.random.default_rng(), clock)
    note = frames.frame(ControlNote(action="rebirth", boot=boot))
    place = f"gw/{REGION}" if play.victim == GATEWAY else f"{REGION}/{play.victim}"
    play.fleet.publish(f"fl/v1/{place}/dn/ctl", note)


class Echo:
    """Publishes every manifest once more, as a broker may that delivers at least once."""

    def __init__(self, port: int) -> None:
        self._said: set[bytes] = set()
        self._client = Client(CallbackAPIVersion.VERSION2)
        self._client.on_message = self._on_message
        self._client.connect(HOST, port)
        self._client.subscribe("fl/v1/+/+/up/m/+", 1)
        self._client.loop_start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _on_message(self, _client: Client, _userdata: object, message: MQTTMessage) -> None:
        payload = bytes(message.payload)
        if payload in self._said:
            return
        self._said.add(payload)
        again = threading.Timer(
            _ECHO_S, self._client.publish, (message.topic, payload), {"qos": 1}
        )
        again.daemon = True
        again.start()


def act_of(program: str, name: str) -> Act:
    """Return what makes a program come by a failpoint three times."""
    default = small if program == "device" else trained
    if name in EVERY_TURN:
        default = long_drill if program == "device" else long_trained
    return _ACTS.get((program, name)) or _ACTS.get(("", name)) or default


def _acts(program: str, act: Act, *names: str) -> dict[tuple[str, str], Act]:
    return {(program, name): act for name in names}


_ACTS: dict[tuple[str, str], Act] = {
    **_acts(
        "",
        large,
        "transport.pull.begun",
        "transport.pull.finished",
        "transport.part.created",
        "transport.part.whole",
        "transport.chunk.written",
        "transport.chunks.answered",
        "transport.outbox.held",
    ),
    **_acts(
        "central",
        late,
        "central.refusal.added",
        "central.refusal.counted",
    ),
    **_acts("central", large, "central.upload.whole"),
    **_acts("central", late_large, "central.object.discarded", "transport.object.removed"),
    **_acts(
        "central",
        many,
        "central.task.added",
        "central.task.ended",
        "central.task.prepared",
        "central.preparation.due",
        "central.preparation.begun",
        "central.preparation.stored",
        "central.export.copied",
        "central.export.written",
        "central.export.noted",
    ),
    **_acts("central", cancels, "central.task.cancelled"),
    **_acts("central", pauses, "central.task.controlled"),
    **_acts("central", abandons, "central.round.abandoned"),
    **_acts("central", leftovers, "central.work.recovered"),
    **_acts(
        "central",
        kicks,
        "central.birth.due",
        "central.birth.told",
        "central.device.saved",
        "central.gateway.saved",
        "central.question.answered",
    ),
    **_acts("central", echoes, "central.receipt.repeated"),
    **_acts(
        "gateway",
        large,
        "transport.object.fsynced",
        "transport.object.renamed",
        "transport.object.settled",
        "transport.object.removed",
        "gateway.custody.taken",
        "gateway.offer.noted",
        "gateway.object.removed",
        "gateway.model.fetched",
        "gateway.model.cast",
    ),
    **_acts("gateway", many, "gateway.cancel.applied"),
    **_acts("gateway", three, "gateway.status.saved"),
    **_acts(
        "gateway",
        kicks,
        "gateway.answer.taken",
        "gateway.birth.due",
        "gateway.device.saved",
        "transport.outbox.woken",
    ),
    **_acts("gateway", rebirths, "gateway.boot.adopted"),
    **_acts("gateway", echoes, "gateway.receipt.repeated"),
    **_acts(
        "device",
        large,
        "transport.object.fsynced",
        "transport.object.settled",
        "device.model.arrived",
        "device.update.written",
        "device.update.fsynced",
        "device.update.adopted",
    ),
    **_acts("device", cancels, "device.job.cancelled"),
    **_acts("device", kicks, "device.birth.due", "device.jobs.dropped", "transport.outbox.woken"),
    **_acts("device", rebirths, "device.boot.adopted"),
}
#: Where one life of a program comes by once, however long it lasts.
ONCE_A_LIFE = frozenset(
    {
        "transport.boot.persisted",
        "central.tasks.purged",
        "gateway.rows.purged",
        "gateway.orphans.removed",
        "device.jobs.resumed",
    }
)


def describe(play: Play) -> str:
    return json.dumps({name: play.newest(name) for name in play.tasks}, indent=1)[:3000]


__all__ = ["DEVICES", "GATEWAY", "ONCE_A_LIFE", "REGION", "Act", "Play", "act_of"]
