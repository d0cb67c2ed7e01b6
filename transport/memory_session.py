"""A session at the broker in memory; it tells its program what a real one would."""

import queue
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from transport.events import (
    Connected,
    Disconnected,
    MessageArrived,
    Outgoing,
    Published,
    SessionEvent,
)
from transport.mailbox import Message
from transport.outgoing import check_size

_DEFAULT_BUDGET_BYTES = 16 * 1024 * 1024


class Broker(Protocol):
    """What a session needs of the broker in memory; its methods take ``lock`` themselves."""

    lock: threading.Condition

    def queue(self, action: Callable[[], None]) -> None:
        """Let a later step carry an action out."""

    def attach(self, session: "MemorySession") -> None:
        """Make a session its client's one session, and let it connect."""

    def detach(self, session: "MemorySession", *, with_will: bool) -> None:
        """Let a session go for ever."""

    def route(self, message: Outgoing) -> None:
        """Bring one published message to its receivers."""

    def acknowledge(self, session: "MemorySession", packet_id: int) -> None:
        """Take a session's acknowledgement."""


class MemorySession:
    """Implements ``transport.events.Session``; what it does happens in the broker's steps.

    What was taken on and not yet carried to the broker when the session is parted is carried
    there after it has reconnected, unless its QoS is 0.

    Attributes:
        name: The session's name in events.
        mqtt_client_id: Whose mailbox it has.
        filters: What it subscribes to.
        will: What the broker publishes when it loses the session.
    """

    def __init__(  # noqa: PLR0913 - as PahoSession
        self,
        broker: Broker,
        *,
        name: str,
        mqtt_client_id: str,
        filters: tuple[str, ...],
        events: "queue.SimpleQueue[Any]",
        will: Outgoing | None,
        budget_bytes: int | None,
    ) -> None:
        self.name = name
        self.mqtt_client_id = mqtt_client_id
        self.filters = filters
        self.will = will
        self._broker = broker
        self._events = events
        self._budget_bytes = _DEFAULT_BUDGET_BYTES if budget_bytes is None else budget_bytes
        self._outgoing: deque[Outgoing] = deque()
        self._used_bytes = 0
        self._is_alive = False
        #: Number of the connection; None while there is none.
        self._connection: int | None = None
        self._connections = 0

    @property
    def is_connected(self) -> bool:
        """Whether the broker has accepted the connection and it still stands."""
        return self._connection is not None

    @property
    def is_alive(self) -> bool:
        """Whether the session was started and neither stopped nor crashed."""
        return self._is_alive

    def start(self) -> None:
        """Let the broker connect the session in one of its next steps."""
        self._is_alive = True
        self._broker.attach(self)

    def publish(self, message: Outgoing) -> bool:
        """Queue one message for one of the broker's next steps.

        Returns:
            False when not connected, or when the budget of bytes is used up.

        Raises:
            ValueError: The payload is larger than one packet may be.
            TopicError: The topic is not one of this protocol's.
        """
        check_size(message)
        size = len(message.payload) + len(message.topic.name)
        with self._broker.lock:
            if not self.is_connected or self._used_bytes + size > self._budget_bytes:
                return False
            self._outgoing.append(message)
            self._used_bytes += size
            self._broker.queue(self._carry_one)
            return True

    def stop(self, farewell: Outgoing | None = None) -> None:
        """Carry what waits and ``farewell`` to the broker and leave; no Will is published."""
        with self._broker.lock:
            if farewell is not None and self.is_connected:
                check_size(farewell)
                while self._outgoing:
                    self._carry_one()
                self._broker.route(farewell)
            self._leave(with_will=False)

    def crash(self) -> None:
        """Die: what waits is gone, nothing is told any more, the Will is published."""
        with self._broker.lock:
            self._leave(with_will=self.is_connected)

    def on_connected(self) -> None:
        """Begin a connection; called by the broker."""
        self._connections += 1
        self._connection = self._connections
        self._tell(Connected(self.name))
        for _ in self._outgoing:
            self._broker.queue(self._carry_one)

    def on_lost(self, reason: str) -> None:
        """End a connection; called by the broker."""
        self._connection = None
        self._outgoing = deque(one for one in self._outgoing if one.topic.rule.qos > 0)
        self._used_bytes = sum(len(one.payload) + len(one.topic.name) for one in self._outgoing)
        self._tell(Disconnected(self.name, reason))

    def on_message(self, message: Message, packet_id: int | None) -> None:
        """Tell the program of a message; called by the broker."""
        ack = partial(self._acknowledge, self._connection, packet_id)
        self._tell(
            MessageArrived(self.name, message.topic_name, message.payload, message.retain, ack)
        )

    def _acknowledge(self, connection: int | None, packet_id: int | None) -> None:
        if packet_id is not None and connection == self._connection:
            self._broker.acknowledge(self, packet_id)

    def _carry_one(self) -> None:
        if not self._outgoing or not self.is_connected:
            return
        message = self._outgoing.popleft()
        self._used_bytes -= len(message.payload) + len(message.topic.name)
        self._broker.route(message)
        if message.token is not None:
            self._tell(Published(self.name, message.token))

    def _leave(self, *, with_will: bool) -> None:
        self._is_alive = False
        self._connection = None
        self._outgoing.clear()
        self._broker.detach(self, with_will=with_will)

    def _tell(self, event: SessionEvent) -> None:
        if self._is_alive:
            self._events.put(event)
