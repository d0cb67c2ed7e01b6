"""One client's connection at the embedded broker: what it sends in, what is sent to it."""

import asyncio
import itertools
from typing import Any, Protocol

from amqtt.adapters import BufferReader
from amqtt.mqtt import packet_class
from amqtt.mqtt.packet import (
    DISCONNECT,
    PINGREQ,
    PUBACK,
    PUBLISH,
    PUBREL,
    SUBSCRIBE,
    UNSUBSCRIBE,
    MQTTFixedHeader,
)
from amqtt.mqtt.pingresp import PingRespPacket
from amqtt.mqtt.puback import PubackPacket
from amqtt.mqtt.pubcomp import PubcompPacket
from amqtt.mqtt.pubrec import PubrecPacket
from amqtt.mqtt.suback import SubackPacket
from amqtt.mqtt.unsuback import UnsubackPacket

from schemas.limits import MIB
from transport.embedded_packets import ProtocolViolationError, encode_publish, read_packet
from transport.mailbox import Mailbox

#: Answers that a client does not fetch, at most; then it is cut off.
_MAX_UNREAD_BYTES = 4 * MIB
_MAX_QOS_2 = 20
_KEEPALIVE_FACTOR = 1.5
#: Buffered packets of one client that are handled before the others get a turn.
_PACKETS_A_TURN = 32


class Router(Protocol):
    """What a connection needs of its broker."""

    def publish(self, topic_name: str, payload: bytes, qos: int, *, retain: bool) -> None:
        """Bring a message to every subscriber, and keep it if it is to be retained."""

    def subscribe(self, client_id: str, topic_filter: str, qos: int) -> int:
        """Record a subscription; return the SUBACK code."""

    def unsubscribe(self, client_id: str, topic_filter: str) -> None:
        """Forget a subscription."""

    def send_retained(self, client_id: str, topic_filter: str, qos: int) -> None:
        """Put the retained messages of one new subscription into its client's mailbox."""


class ClientConnection:
    """Serves one accepted client until it leaves.

    Attributes:
        ended: Set when nothing of this connection runs any more.
    """

    def __init__(
        self,
        router: Router,
        client_id: str,
        mailbox: Mailbox,
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        keepalive_s: int,
    ) -> None:
        self.ended = asyncio.Event()
        self._router = router
        self._client_id = client_id
        self._mailbox = mailbox
        self._reader, self._writer = streams
        self._silence_s = keepalive_s * _KEEPALIVE_FACTOR
        self._heard_s = 0.0
        self._unreleased: dict[int, Any] = {}
        self._has_mail = asyncio.Event()

    async def run(self) -> bool:
        """Serve the client; return whether it said DISCONNECT.

        Raises:
            ProtocolViolationError: It broke the protocol or a limit.
        """
        delivery = asyncio.create_task(self._deliver())
        watchdog = asyncio.create_task(self._watch_silence())
        try:
            return await self._read_until_end()
        except (OSError, asyncio.IncompleteReadError):
            return False
        finally:
            delivery.cancel()
            watchdog.cancel()
            await asyncio.gather(delivery, watchdog, return_exceptions=True)

    def wake(self) -> None:
        """Make the connection look into its mailbox."""
        self._has_mail.set()

    def abort(self) -> None:
        """Close the socket at once."""
        self._writer.transport.abort()

    async def stop(self) -> None:
        """Close the socket and wait for the end."""
        self.abort()
        await self.ended.wait()

    async def _read_until_end(self) -> bool:
        loop = asyncio.get_running_loop()
        for number in itertools.count(1):
            self._heard_s = loop.time()
            if number % _PACKETS_A_TURN == 0:
                await asyncio.sleep(0)
            if self._writer.transport.is_closing():
                break
            header, body = await read_packet(self._reader)
            if header.packet_type == DISCONNECT:
                return True
            try:
                await self._handle(header, body)
            except ProtocolViolationError:
                raise
            except Exception as error:
                message = f"packet type {header.packet_type}: {type(error).__name__}: {error}"
                raise ProtocolViolationError(message) from error
        return False

    async def _handle(self, header: MQTTFixedHeader, body: bytes) -> None:
        handler = _HANDLERS.get(header.packet_type)
        if handler is None:
            message = f"packet type {header.packet_type} is not a client's"
            raise ProtocolViolationError(message)
        kind = packet_class(header)
        packet = await kind.from_stream(BufferReader(body), fixed_header=header)
        handler(self, packet)
        if self._writer.transport.get_write_buffer_size() > _MAX_UNREAD_BYTES:
            message = "the client does not read what it is sent"
            raise ProtocolViolationError(message)

    def _on_publish(self, packet: Any) -> None:  # noqa: ANN401 - amqtt has no types
        if not packet.topic_name or "\0" in packet.topic_name or packet.qos > 2:  # noqa: PLR2004
            message = f"PUBLISH to {packet.topic_name[:80]!r} with QoS {packet.qos}"
            raise ProtocolViolationError(message)
        if packet.qos == 2:  # noqa: PLR2004 - exactly once
            self._on_publish_2(packet)
            return
        self._route(packet)
        if packet.qos == 1:
            self._send(PubackPacket.build(packet.packet_id))

    def _on_publish_2(self, packet: Any) -> None:  # noqa: ANN401
        self._unreleased.setdefault(packet.packet_id, packet)
        if len(self._unreleased) > _MAX_QOS_2:
            message = f"more than {_MAX_QOS_2} messages of QoS 2 in flight"
            raise ProtocolViolationError(message)
        self._send(PubrecPacket.build(packet.packet_id))

    def _on_pubrel(self, packet: Any) -> None:  # noqa: ANN401
        released = self._unreleased.pop(packet.packet_id, None)
        if released is not None:
            self._route(released)
        self._send(PubcompPacket.build(packet.packet_id))

    def _route(self, packet: Any) -> None:  # noqa: ANN401
        name, qos, retain = packet.topic_name, min(packet.qos, 1), bool(packet.retain_flag)
        self._router.publish(name, packet.data or b"", qos, retain=retain)

    def _on_puback(self, packet: Any) -> None:  # noqa: ANN401
        if self._mailbox.acknowledge(packet.variable_header.packet_id):
            self.wake()

    def _on_subscribe(self, packet: Any) -> None:  # noqa: ANN401
        topics = packet.payload.topics
        codes = [self._router.subscribe(self._client_id, name, qos) for name, qos in topics]
        self._send(SubackPacket.build(packet.variable_header.packet_id, codes))
        for (topic_filter, _), code in zip(topics, codes, strict=True):
            if code <= 1:
                self._router.send_retained(self._client_id, topic_filter, code)

    def _on_unsubscribe(self, packet: Any) -> None:  # noqa: ANN401
        for topic_filter in packet.payload.topics:
            self._router.unsubscribe(self._client_id, topic_filter)
        self._send(UnsubackPacket.build(packet.variable_header.packet_id))

    def _on_pingreq(self, _packet: Any) -> None:  # noqa: ANN401
        self._send(PingRespPacket.build())

    def _send(self, packet: Any) -> None:  # noqa: ANN401
        self._writer.write(packet.to_bytes())

    async def _deliver(self) -> None:
        """Send what an earlier connection left unacknowledged, then the mailbox as it fills."""
        for packet_id, message in self._mailbox.unacknowledged():
            self._writer.write(encode_publish(message, packet_id, dup=True))
            await self._writer.drain()
        while True:
            self._has_mail.clear()
            while (taken := self._mailbox.next()) is not None:
                self._writer.write(encode_publish(taken[1], taken[0], dup=False))
                await self._writer.drain()
            await self._has_mail.wait()

    async def _watch_silence(self) -> None:
        """Cut a client off that was silent for 1.5 times its keepalive (section 3.1.2.10)."""
        loop = asyncio.get_running_loop()
        while self._silence_s > 0:
            left_s = self._heard_s + self._silence_s - loop.time()
            if left_s <= 0:
                self.abort()
                return
            await asyncio.sleep(left_s)


_HANDLERS = {
    PUBLISH: ClientConnection._on_publish,  # noqa: SLF001 - the class's own table
    PUBREL: ClientConnection._on_pubrel,  # noqa: SLF001
    PUBACK: ClientConnection._on_puback,  # noqa: SLF001
    SUBSCRIBE: ClientConnection._on_subscribe,  # noqa: SLF001
    UNSUBSCRIBE: ClientConnection._on_unsubscribe,  # noqa: SLF001
    PINGREQ: ClientConnection._on_pingreq,  # noqa: SLF001
}
