"""A passive subscriber: when each frame of a task passed the broker, and when it was made.

It costs the broker a copy of every message and this process the reading of it, so rounds that
are observed are not the ones whose time is judged.
"""

import time

from paho.mqtt.client import Client, MQTTMessage

from benchmarks.clients import subscriber
from benchmarks.sightings import Sighting, read
from schemas.topics import PREFIX


class Observer:
    """Sees all that passes from ``start`` to ``stop``."""

    def __init__(self, port: int) -> None:
        self.sightings: list[Sighting] = []
        self._port = port
        self._client = subscriber(f"{PREFIX}/#")
        self._client.on_message = self._on_message

    def start(self) -> None:
        """Connect and observe on a thread of its own."""
        self._client.connect("127.0.0.1", self._port)
        self._client.loop_start()

    def stop(self) -> None:
        """Disconnect."""
        self._client.disconnect()
        self._client.loop_stop()

    def _on_message(self, _client: Client, _userdata: object, message: MQTTMessage) -> None:
        at_s = time.time()
        sighting = read(message.topic, bytes(message.payload), at_s)
        if sighting is not None and not message.retain:
            self.sightings.append(sighting)
