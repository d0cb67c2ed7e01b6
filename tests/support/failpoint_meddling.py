"""Meddling with the sessions of a fleet: taken over, told of a newer boot, heard twice."""

import threading
import time
from collections.abc import Iterator

import numpy as np
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from typing_extensions import Self

from schemas.messages import ControlNote
from tests.support.brokers import HOST
from tests.support.failpoint_acts import TIMES
from tests.support.failpoint_play import DEVICES, GATEWAY, REGION, SMALL, Play, Step, is_done
from transport.frames import FrameWriter

_STEP_S = 10.0
_ECHO_S = 0.4


def kicks(play: Play) -> Iterator[Step]:
    """Sessions are taken over again and again, before a task and during it."""
    names = [play.victim] if play.victim in DEVICES else [play.victim, GATEWAY, *DEVICES]
    yield lambda: play.until(lambda: play.fleet.boot(play.victim) is not None)
    for _ in range(TIMES):
        yield lambda: kick_all(play, names)
    yield lambda: play.submit(**SMALL)


def rebirths(play: Play) -> Iterator[Step]:
    """The victim is told three times that a newer boot of it was seen."""
    yield lambda: play.submit(**SMALL)
    for _ in range(TIMES):
        yield lambda: play.until(lambda: play.fleet.boot(play.victim) is not None)
        boot = (play.fleet.boot(play.victim) or 0) + 10
        yield lambda boot=boot: tell_rebirth(play, boot)
        yield lambda boot=boot: play.until(lambda: (play.fleet.boot(play.victim) or 0) > boot)


def echoes(play: Play) -> Iterator[Step]:
    """Every manifest comes a second time, a moment later."""
    with Echo(play.fleet.broker.port):
        name = play.submit(**SMALL, rounds=30)
        yield lambda: play.until(lambda: is_done(play, name), within_s=20.0)
        time.sleep(2 * _ECHO_S)


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
        self._said: set[tuple[str, bytes]] = set()
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
        if (message.topic, payload) in self._said:
            return
        self._said.add((message.topic, payload))
        again = threading.Timer(
            _ECHO_S, self._client.publish, (message.topic, payload), {"qos": 1}
        )
        again.daemon = True
        again.start()
