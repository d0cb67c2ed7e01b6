"""Sessions of one test, and a broker that answers them as it is told."""

import queue
import time
from typing import Any

from schemas.topics import Address, Kind, Topic
from tests.support.brokers_raw import CONNACK, RawClient, packet
from transport.session import PahoSession

DEVICE = Address("eu", "d1")
STATE = Topic(Kind.STATE, DEVICE)
ACCEPT = packet(CONNACK << 4, b"\0\0")
GRANTED, REFUSED = b"\1", b"\x80"

Events = queue.SimpleQueue[Any]


def block(k: int = 0) -> Topic:
    return Topic(Kind.BLOCK, DEVICE, sha16="0" * 16, k=k)


class Sessions:
    """Makes sessions for one test and stops them after it."""

    def __init__(self) -> None:
        self._made: list[PahoSession] = []

    def start(self, url: str, **options: Any) -> tuple[PahoSession, Events]:
        events: Events = queue.SimpleQueue()
        options = {
            "name": "main",
            "mqtt_client_id": f"client-{len(self._made)}",
            "filters": (),
            "protocol": "3.1.1",
            "reconnect_s": (0.02, 0.1),
            **options,
        }
        session = PahoSession(url, events=events, **options)
        self._made.append(session)
        session.start()
        return session, events

    def close(self) -> None:
        for session in self._made:
            session.stop()


def expect(events: Events, kind: type, within_s: float = 10.0) -> Any:
    """Return the next event, which must be of this kind."""
    event = events.get(timeout=within_s)
    assert isinstance(event, kind), event
    return event


class FakeBroker:
    """Answers as told, and keeps what it was sent.

    Attributes:
        levels: Protocol level of every CONNECT.
        packets: First byte and body of every later packet, by connection.
    """

    def __init__(self) -> None:
        self.levels: list[int] = []
        self.packets: list[list[tuple[int, bytes]]] = []
        self.silent_levels: set[int] = set()
        self.suback_codes: list[bytes] = []
        self.acknowledges = True
        self.closes_on_publish = False

    def serve(self, client: RawClient) -> None:
        _, body = client.receive()
        self.levels.append(body[6])
        self.packets.append([])
        if body[6] in self.silent_levels:
            client.receive(30.0)
            return
        client.send(ACCEPT)
        while True:
            first, body = client.receive(30.0)
            self.packets[-1].append((first, body))
            self._answer(client, first, body)

    def _answer(self, client: RawClient, first: int, body: bytes) -> None:
        kind = first >> 4
        if kind == 8 and self.suback_codes:
            client.send(packet(0x90, body[:2] + self.suback_codes.pop(0)))
        if kind == 3 and self.closes_on_publish:
            raise EOFError
        if kind == 3 and self.acknowledges:
            length = int.from_bytes(body[:2], "big")
            client.send(packet(0x40, body[2 + length : 4 + length]))

    def publishes(self) -> int:
        return sum(first >> 4 == 3 for packets in self.packets for first, _ in packets)


def wait_until(condition: Any, within_s: float = 5.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)
