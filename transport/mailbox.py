"""What a broker holds for one client: messages that wait, and those not yet acknowledged."""

from collections import deque
from dataclasses import dataclass, field

from schemas.limits import MIB

MAX_PACKET_ID = 65535


@dataclass(frozen=True, slots=True)
class Message:
    """One message on its way to one client.

    Attributes:
        topic_name: Its topic.
        payload: Its bytes, shared by all receivers.
        qos: The lower of the publisher's and the subscriber's.
        retain: Whether it was stored before the client subscribed.
    """

    topic_name: str
    payload: bytes
    qos: int
    retain: bool = False


@dataclass(slots=True)
class Mailbox:
    """Keeps the order, the window and the bounds of one client's messages.

    Attributes:
        max_inflight: QoS 1 messages sent and not acknowledged, at most.
        max_queued: Messages that wait, at most; newer ones are dropped.
        max_queued_bytes: The same, in bytes.
        dropped: How many messages found no room.
    """

    max_inflight: int = 20
    max_queued: int = 1000
    max_queued_bytes: int = 64 * MIB
    dropped: int = 0
    _queue: deque[Message] = field(default_factory=deque)
    _inflight: dict[int, Message] = field(default_factory=dict)
    _queued_bytes: int = 0
    _last_id: int = 0

    @property
    def queued(self) -> int:
        """Number of messages that wait."""
        return len(self._queue)

    def put(self, message: Message) -> bool:
        """Let a message wait; return False when there is no room and it was dropped."""
        size = len(message.payload)
        if (
            len(self._queue) >= self.max_queued
            or self._queued_bytes + size > self.max_queued_bytes
        ):
            self.dropped += 1
            return False
        self._queue.append(message)
        self._queued_bytes += size
        return True

    def next(self, position: int = 0) -> tuple[int | None, Message] | None:
        """Take out what is to be sent now, with its packet id (None for QoS 0).

        Args:
            position: Which of the waiting ones; any but 0 changes the order.
        """
        if position >= len(self._queue):
            return None
        message = self._queue[position]
        if message.qos > 0 and len(self._inflight) >= self.max_inflight:
            return None
        del self._queue[position]
        self._queued_bytes -= len(message.payload)
        if message.qos == 0:
            return None, message
        packet_id = self._free_id()
        self._inflight[packet_id] = message
        return packet_id, message

    def unacknowledged(self) -> list[tuple[int, Message]]:
        """Return what was sent and not acknowledged, oldest first: it is sent again."""
        return list(self._inflight.items())

    def acknowledge(self, packet_id: int) -> bool:
        """Forget a message in flight; return whether there was one."""
        return self._inflight.pop(packet_id, None) is not None

    def drop_qos_0(self) -> None:
        """Forget waiting messages that nobody promised to keep for a client that is away."""
        self._queue = deque(message for message in self._queue if message.qos > 0)
        self._queued_bytes = sum(len(message.payload) for message in self._queue)

    def _free_id(self) -> int:
        while True:
            self._last_id = self._last_id % MAX_PACKET_ID + 1
            if self._last_id not in self._inflight:
                return self._last_id
