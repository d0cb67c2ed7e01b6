"""A client of bare MQTT 3.1.1 packets, for what no library would send and no session would show."""

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import TracebackType

import pytest
from typing_extensions import Self

from tests.support.brokers import HOST

CONNACK, PUBLISH, PUBACK, PUBREC, PUBCOMP, SUBACK, PINGRESP = 2, 3, 4, 5, 7, 9, 13


@dataclass(frozen=True)
class Publish:
    """A PUBLISH packet that was received."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    dup: bool
    packet_id: int | None


def text(value: str | bytes) -> bytes:
    encoded = value.encode() if isinstance(value, str) else value
    return struct.pack("!H", len(encoded)) + encoded


def packet(first: int, body: bytes) -> bytes:
    length, encoded = len(body), bytearray()
    while True:
        length, low = divmod(length, 128)
        encoded.append(low | (0x80 if length else 0))
        if not length:
            return bytes([first]) + bytes(encoded) + body


def connect_packet(  # noqa: PLR0913 - the fields of a CONNECT
    client_id: str,
    *,
    clean: bool = False,
    keepalive_s: int = 0,
    will: tuple[str, bytes] | None = None,
    login: tuple[str, str] | None = None,
    level: int = 4,
) -> bytes:
    flags = (0x02 if clean else 0) | (0x0C if will else 0) | (0xC0 if login else 0)
    body = text("MQTT") + bytes([level, flags]) + struct.pack("!H", keepalive_s)
    body += b"\0" if level == 5 else b""
    body += text(client_id)
    for part in (*(will or ()), *(login or ())):
        body += text(part)
    return packet(0x10, body)


def publish_packet(
    topic: str, payload: bytes, *, qos: int = 1, retain: bool = False, packet_id: int = 1
) -> bytes:
    identifier = struct.pack("!H", packet_id) if qos else b""
    return packet(0x30 | qos << 1 | int(retain), text(topic) + identifier + payload)


class RawClient:
    """One socket; every read waits at most ``patience_s``."""

    def __init__(self, port: int, *, receive_buffer: int | None = None) -> None:
        self.socket = socket.socket()
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(5.0)
        self.socket.connect((HOST, port))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def receive(self, patience_s: float = 5.0) -> tuple[int, bytes]:
        """Return the first byte and the body of the next packet.

        Raises:
            TimeoutError: None came.
            EOFError: The broker has closed.
        """
        self.socket.settimeout(patience_s)
        first, length, shift = self._exactly(1)[0], 0, 0
        while True:
            byte = self._exactly(1)[0]
            length |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                return first, self._exactly(length)

    def expect(self, kind: int) -> bytes:
        first, body = self.receive()
        assert first >> 4 == kind, (first >> 4, body[:50])
        return body

    def connect(self, client_id: str, **options: object) -> bytes:
        """Connect; return the CONNACK's two bytes."""
        self.send(connect_packet(client_id, **options))
        return self.expect(CONNACK)

    def subscribe(self, *filters: str, qos: int = 1) -> bytes:
        """Subscribe; return the codes of the SUBACK."""
        body = b"".join(text(topic_filter) + bytes([qos]) for topic_filter in filters)
        self.send(packet(0x82, b"\0\1" + body))
        return self.expect(SUBACK)[2:]

    def publish(self, topic: str, payload: bytes, **options: object) -> None:
        """Publish with QoS 1 and wait for the PUBACK."""
        self.send(publish_packet(topic, payload, **options))
        self.expect(PUBACK)

    def message(self, patience_s: float = 5.0) -> Publish:
        first, body = self.receive(patience_s)
        assert first >> 4 == PUBLISH, first >> 4
        length = struct.unpack_from("!H", body)[0]
        qos, at = first >> 1 & 3, 2 + length
        packet_id = struct.unpack_from("!H", body, at)[0] if qos else None
        payload = body[at + 2 :] if qos else body[at:]
        topic = body[2:at].decode()
        return Publish(topic, payload, qos, bool(first & 1), bool(first & 8), packet_id)

    def acknowledge(self, message: Publish) -> None:
        self.send(packet(0x40, struct.pack("!H", message.packet_id)))

    def disconnect(self) -> None:
        self.send(b"\xe0\0")
        self.expect_closed()

    def expect_silence(self, within_s: float = 0.2) -> None:
        with pytest.raises(TimeoutError):
            self.receive(within_s)

    def expect_closed(self, within_s: float = 5.0) -> None:
        self.socket.settimeout(within_s)
        with suppress(ConnectionResetError):
            assert self.socket.recv(1) == b""

    def _exactly(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            part = self.socket.recv(count - len(data))
            if not part:
                raise EOFError
            data += part
        return bytes(data)


@contextmanager
def serving(handle: Callable[[RawClient], None]) -> Iterator[int]:
    """Serve connections one after another with ``handle``; yield the port."""
    listener = socket.create_server((HOST, 0))

    def run() -> None:
        while True:
            try:
                accepted, _ = listener.accept()
            except OSError:
                return
            client = RawClient.__new__(RawClient)
            client.socket = accepted
            with client, suppress(OSError, EOFError):
                handle(client)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(timeout=5.0)
        assert not thread.is_alive()
