"""MQTT 3.1.1 packets at the embedded broker's socket: framed and bounded before they are read."""

import asyncio
import struct

from amqtt.mqtt.packet import MQTTFixedHeader
from amqtt.mqtt.publish import PublishPacket

from schemas.limits import MAX_PACKET_BYTES
from transport.mailbox import Message

_MAX_LENGTH_BYTES = 4
_MORE = 0x80
MQTT_5 = 5
#: CONNACK of MQTT 5 with reason 0x84, Unsupported Protocol Version (MQTT 5, section 3.1.2.2).
CONNACK_UNSUPPORTED_V5 = b"\x20\x03\x00\x84\x00"


class ProtocolViolationError(Exception):
    """A client breaks MQTT or a limit; its connection is closed."""


async def read_packet(
    reader: asyncio.StreamReader, limit_bytes: int = MAX_PACKET_BYTES
) -> tuple[MQTTFixedHeader, bytes]:
    """Read one whole packet; nothing of its body is read when it is too large.

    Returns:
        Its fixed header, and everything after it.

    Raises:
        ProtocolViolationError: The length is malformed or over the limit.
        asyncio.IncompleteReadError: The client has closed.
    """
    first = (await reader.readexactly(1))[0]
    length = 0
    for i in range(_MAX_LENGTH_BYTES):
        byte = (await reader.readexactly(1))[0]
        length += (byte & 0x7F) << (7 * i)
        if not byte & _MORE:
            break
    else:
        message = "packet length has more than 4 bytes"
        raise ProtocolViolationError(message)
    size = 2 + i + length
    if size > limit_bytes:
        message = f"packet has {size} bytes, limit {limit_bytes}"
        raise ProtocolViolationError(message)
    return MQTTFixedHeader(first >> 4, first & 0x0F, length), await reader.readexactly(length)


def protocol_level(connect_body: bytes) -> int | None:
    """Return the protocol level of a CONNECT, or None when it has none."""
    if len(connect_body) < struct.calcsize("!H"):
        return None
    (name_length,) = struct.unpack_from("!H", connect_body)
    at = 2 + name_length
    return connect_body[at] if at < len(connect_body) else None


def encode_publish(message: Message, packet_id: int | None, *, dup: bool) -> bytes:
    """Return the PUBLISH packet of one message."""
    packet = PublishPacket.build(
        message.topic_name, message.payload, packet_id, dup, message.qos, message.retain
    )
    encoded: bytes = packet.to_bytes()
    return encoded
