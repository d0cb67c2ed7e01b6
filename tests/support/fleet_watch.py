"""Looking at a fleet from outside: Mosquitto's own clients, and a silent subscriber."""

import queue
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

import pytest
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion

from tests.support.brokers import HOST

T = TypeVar("T")
_PUBLISH_S = 10.0
_END_S = 10.0
_PROBE = "fl-test/probe"


def mosquitto_client(name: str, port: int, *arguments: str) -> list[str]:
    """Return the command line of ``mosquitto_pub`` or ``mosquitto_sub``."""
    if shutil.which(name) is None:
        pytest.fail(f"{name} is not installed; apt-get install mosquitto-clients")
    return [name, "-h", HOST, "-p", str(port), *arguments]


def publish(
    port: int, topic: str, payload: bytes, *options: str
) -> "subprocess.CompletedProcess[bytes]":
    """Publish one message with ``mosquitto_pub``; the payload goes through its stdin."""
    command = mosquitto_client("mosquitto_pub", port, "-q", "1", "-t", topic, "-s", *options)
    return subprocess.run(
        command, input=payload, capture_output=True, timeout=_PUBLISH_S, check=False
    )


def read_retained(port: int, topic: str, within_s: int = 5) -> bytes | None:
    """Return what ``mosquitto_sub`` reads on one topic at once; None when nothing is there."""
    options = ("-t", topic, "-C", "1", "-W", str(within_s), "-N", "--retained-only")
    command = mosquitto_client("mosquitto_sub", port, *options)
    found = subprocess.run(command, capture_output=True, timeout=_END_S, check=False)
    return found.stdout if found.returncode == 0 else None


class Watcher:
    """``mosquitto_sub`` in the background: every message under some filters, in their order.

    It connects again by itself when its broker was away.
    """

    def __init__(self, port: int, filters: Iterable[str]) -> None:
        options = [option for one in filters for option in ("-t", one)]
        command = mosquitto_client("mosquitto_sub", port, "-q", "1", "-F", "%t %x", *options)
        self._messages: list[tuple[str, bytes]] = []
        self._changed = threading.Condition()
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._process.kill()
        self._process.wait(_END_S)
        self._thread.join(_END_S)

    def all(self, topic: str) -> list[bytes]:
        """Return every payload of a topic, the oldest first."""
        with self._changed:
            return [payload for name, payload in self._messages if name == topic]

    def newest(self) -> dict[str, bytes]:
        """Return the last payload of each topic; cleared ones are left out."""
        with self._changed:
            found = dict(self._messages)
        return {topic: payload for topic, payload in found.items() if payload}

    def wait(self, condition: Callable[[], T | None], within_s: float) -> T | None:
        """Return what ``condition`` gives once that is true; it is asked after every message."""
        end = time.monotonic() + within_s
        while True:
            with self._changed:
                count = len(self._messages)
            if found := condition():
                return found
            left = end - time.monotonic()
            if left <= 0:
                return None
            with self._changed:
                self._changed.wait_for(lambda: len(self._messages) > count, min(left, 0.5))  # noqa: B023

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                topic, _, payload = line.rstrip("\n").partition(" ")
                with self._changed:
                    self._messages.append((topic, bytes.fromhex(payload)))
                    self._changed.notify_all()


@dataclass(frozen=True, slots=True)
class Seen:
    """One message that passed by; large ones without their payload."""

    topic: str
    size: int
    payload: bytes | None


class Tap:
    """A silent subscriber that notes every message, and keeps the payload of the small ones."""

    def __init__(self, port: int, *filters: str, keep_bytes: int = 64 * 1024) -> None:
        self.seen: list[Seen] = []
        self._keep_bytes = keep_bytes
        self._subscribed: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._filters = [(one, 1) for one in filters]
        self._client = Client(CallbackAPIVersion.VERSION2)
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = lambda *_: self._subscribed.put(True)
        self._client.on_message = self._on_message
        self._client.reconnect_delay_set(1, 1)
        self._client.connect(HOST, port)
        self._client.loop_start()
        self._subscribed.get(timeout=_END_S)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def drain(self, within_s: float = 30.0) -> None:
        """Return when everything that was published until now has been noted."""
        before = sum(seen.topic == _PROBE for seen in self.seen)
        self._client.publish(_PROBE, b"", qos=1)
        end = time.monotonic() + within_s
        while sum(seen.topic == _PROBE for seen in self.seen) == before:
            assert time.monotonic() < end, f"the subscriber is behind: {len(self.seen)} messages"
            time.sleep(0.05)

    def _on_connect(self, client: Client, *_: object) -> None:
        client.subscribe([*self._filters, (_PROBE, 1)])

    def _on_message(self, _client: Client, _userdata: object, message: MQTTMessage) -> None:
        size = len(message.payload)
        payload = bytes(message.payload) if size <= self._keep_bytes else None
        self.seen.append(Seen(message.topic, size, payload))
