"""What a session has taken on and the broker has not acknowledged, within a budget."""

import threading
from collections import deque
from dataclasses import dataclass

from schemas.limits import MAX_PAYLOAD_BYTES
from schemas.topics import Kind
from transport.events import Outgoing

#: A message whose second connection is lost too is given up: it may be what ends them.
_MAX_SENDS = 2
#: Their topics name the object and the piece, so a repetition has the same bytes.
_PIECES = frozenset({Kind.CHUNK, Kind.BLOCK})


@dataclass(slots=True)
class Pending:
    """One message on its way.

    Attributes:
        message: As the program gave it.
        topic_name: Its topic, formatted once.
        expires_s: When it is worth nothing any more, on the monotonic clock; None: never.
        sends: On how many connections it was sent.
        done: Set when the broker has acknowledged it.
    """

    message: Outgoing
    topic_name: str
    expires_s: float | None
    sends: int = 0
    done: threading.Event | None = None

    @property
    def qos(self) -> int:
        """QoS of the topic's rule."""
        return self.message.topic.rule.qos

    @property
    def size(self) -> int:
        """Bytes that count against the budget."""
        return len(self.message.payload) + len(self.topic_name)


class OutgoingQueue:
    """Waiting and unacknowledged messages; ``offer`` from any thread, the rest from one.

    What was sent but not acknowledged when a connection ends goes back to the front and is sent
    once more on the next connection, unless its topic's expiry has passed.

    A chunk or block that is on its way is not taken on twice: on a slow link its receiver asks
    again before it can have arrived, and every copy would make the next one later still.
    """

    def __init__(self, budget_bytes: int, max_messages: int) -> None:
        self._budget_bytes = budget_bytes
        self._max_messages = max_messages
        self._lock = threading.Lock()
        self._waiting: deque[Pending] = deque()
        self._sent: dict[int, Pending] = {}
        self._pieces: dict[str, bytes] = {}
        self._used_bytes = 0
        self._unacknowledged = 0

    @property
    def used_bytes(self) -> int:
        """Bytes taken on and not yet acknowledged."""
        return self._used_bytes

    def offer(self, message: Outgoing, now_s: float) -> bool:
        """Take a message on if it fits the budget, or if it is a piece that is on its way.

        Args:
            message: What to send.
            now_s: Now, on the monotonic clock.

        Raises:
            TopicError: The topic is not one of this protocol's.
        """
        pending = _pending(message, now_s)
        with self._lock:
            if self._is_on_its_way(pending):
                return True
            if self._is_full(pending):
                return False
            if message.topic.kind in _PIECES:
                self._pieces[pending.topic_name] = message.payload
            self._waiting.append(pending)
            self._used_bytes += pending.size
        return True

    def offer_last(self, message: Outgoing, now_s: float) -> threading.Event:
        """Take a program's last message on, before all others and whatever the budget says.

        Returns:
            What is set when the broker has acknowledged it.
        """
        pending = _pending(message, now_s)
        pending.done = threading.Event()
        with self._lock:
            self._waiting.appendleft(pending)
            self._used_bytes += pending.size
        return pending.done

    def next(self, window: int) -> Pending | None:
        """Return what to send now; at most ``window`` messages of QoS 1 are out at once."""
        with self._lock:
            if not self._waiting:
                return None
            if self._waiting[0].qos > 0 and self._unacknowledged >= window:
                return None
            return self._waiting.popleft()

    def sent(self, mid: int, pending: Pending) -> None:
        """Record that a message went out under a packet id."""
        pending.sends += 1
        with self._lock:
            self._sent[mid] = pending
            self._unacknowledged += pending.qos > 0

    def refused(self, pending: Pending) -> None:
        """Forget a message that ``next`` returned and that cannot be sent."""
        with self._lock:
            self._used_bytes -= pending.size
            self._pieces.pop(pending.topic_name, None)

    def acknowledged(self, mid: int) -> Outgoing | None:
        """Record a PUBACK, or that a message of QoS 0 was written; return the message."""
        with self._lock:
            pending = self._sent.pop(mid, None)
            if pending is None:
                return None
            self._unacknowledged -= pending.qos > 0
            self._used_bytes -= pending.size
            self._pieces.pop(pending.topic_name, None)
        if pending.done is not None:
            pending.done.set()
        return pending.message

    def connection_lost(self, now_s: float) -> None:
        """Put back what deserves another connection; forget the rest."""
        with self._lock:
            kept = [one for one in (*self._sent.values(), *self._waiting) if _keep(one, now_s)]
            self._waiting = deque(kept)
            self._sent.clear()
            self._unacknowledged = 0
            self._used_bytes = sum(one.size for one in kept)
            topics = {one.topic_name for one in kept}
            self._pieces = {name: data for name, data in self._pieces.items() if name in topics}

    def _is_on_its_way(self, pending: Pending) -> bool:
        """Tell whether the same piece is; one whose PUBACK somebody awaits is sent each time."""
        if pending.message.token is not None:
            return False
        return self._pieces.get(pending.topic_name) == pending.message.payload

    def _is_full(self, pending: Pending) -> bool:
        count = len(self._waiting) + len(self._sent)
        return count >= self._max_messages or self._used_bytes + pending.size > self._budget_bytes


def check_size(message: Outgoing) -> None:
    """Refuse what no packet may carry.

    Raises:
        ValueError: The payload is larger than ``MAX_PAYLOAD_BYTES``.
    """
    if len(message.payload) > MAX_PAYLOAD_BYTES:
        text = f"payload has {len(message.payload)} bytes, limit {MAX_PAYLOAD_BYTES}"
        raise ValueError(text)


def _pending(message: Outgoing, now_s: float) -> Pending:
    expiry_s = message.topic.rule.expiry_s
    return Pending(message, message.topic.name, None if expiry_s is None else now_s + expiry_s)


def _keep(pending: Pending, now_s: float) -> bool:
    is_fresh = pending.expires_s is None or now_s < pending.expires_s
    return pending.qos > 0 and pending.sends < _MAX_SENDS and is_fresh
