"""Bytes that a program's session writes and reads: whole MQTT packets, and TLS around them.

Counted where the bytes are handed to and taken from the socket, over all connections: CONNECT,
SUBSCRIBE, PUBLISH both ways, acknowledgements, pings. What TLS adds is computed: the records are
counted, each with the fixed cost of the usual AEAD ciphers (RFC 5288 section 3, RFC 8446 section
5.2). Not in it: TLS handshakes, and the headers of TCP and IP.
"""

from dataclasses import dataclass

#: The most that one record carries.
TLS_RECORD_BYTES = 16384
#: Header 5, explicit nonce 8, tag 16 of TLS 1.2; header 5, content type 1, tag 16 of TLS 1.3.
_RECORD_OVERHEAD_BYTES = {"TLSv1.2": 29, "TLSv1.3": 22}
_OLDER_OVERHEAD_BYTES = 29
#: The length of the topic and the packet id of a PUBLISH with QoS 1.
_PUBLISH_FIXED_BYTES = 2 + 2
_SHORT_LENGTHS = (128, 16384, 2097152)


@dataclass(frozen=True, slots=True)
class Traffic:
    """What went over one session, bytes."""

    sent_bytes: int = 0
    received_bytes: int = 0

    def since(self, earlier: "Traffic") -> "Traffic":
        """Return what came after ``earlier``; never negative."""
        return Traffic(
            max(0, self.sent_bytes - earlier.sent_bytes),
            max(0, self.received_bytes - earlier.received_bytes),
        )


def no_traffic() -> Traffic:
    """Return the count of a session that counts nothing."""
    return Traffic()


class TrafficMeter:
    """Counts one session; the session's thread writes, any thread reads."""

    def __init__(self) -> None:
        self._sent_bytes = 0
        self._received_bytes = 0

    def sent(self, size: int, tls: str | None) -> None:
        """Count what was handed to the socket in one go.

        Args:
            size: Bytes.
            tls: The connection's version of TLS, as ``ssl`` names it; None: there is none.
        """
        self._sent_bytes += size + records(size) * record_overhead_bytes(tls)

    def received(self, size: int, tls: str | None, *, is_new_record: bool) -> None:
        """Count what was taken from the socket in one go.

        Args:
            size: Bytes; 0 at the end of the connection.
            tls: As in ``sent``.
            is_new_record: Whether a TLS record had to be opened for it.
        """
        opened = 1 if is_new_record and size else 0
        self._received_bytes += size + opened * record_overhead_bytes(tls)

    def read(self) -> Traffic:
        """Return what was counted so far."""
        return Traffic(self._sent_bytes, self._received_bytes)


def records(size: int) -> int:
    """Return how many TLS records carry so many bytes that are written in one go."""
    return -(-size // TLS_RECORD_BYTES)


def record_overhead_bytes(tls: str | None) -> int:
    """Return what one record adds in a version of TLS, as ``ssl`` names it; None: no TLS."""
    return 0 if tls is None else _RECORD_OVERHEAD_BYTES.get(tls, _OLDER_OVERHEAD_BYTES)


def publish_bytes(topic_name: str, payload_bytes: int) -> int:
    """Return the size of a PUBLISH packet of QoS 1 in MQTT 3.1.1; MQTT 5 adds some bytes.

    Source: MQTT 3.1.1, sections 2.2.3 and 3.3, https://docs.oasis-open.org/mqtt/mqtt/v3.1.1/.
    """
    remaining = _PUBLISH_FIXED_BYTES + len(topic_name.encode()) + payload_bytes
    length_bytes = 1 + sum(remaining >= limit for limit in _SHORT_LENGTHS)
    return 1 + length_bytes + remaining
