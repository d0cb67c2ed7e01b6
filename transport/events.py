"""What a session tells its program, what a program gives a session, and the port between them.

A session runs its own threads; a program sees only events on one queue and calls ``publish``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from schemas.topics import Topic


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One message to publish; QoS, retain and expiry are the topic's rule.

    Attributes:
        topic: Where to.
        payload: At most ``limits.MAX_PAYLOAD_BYTES``; larger is a programming error.
        session: Name of the session that carries it (``"main"``, or a gateway's ``"uplink"``).
        token: When set, a ``Published`` event with this token follows the broker's PUBACK.
        retain: Overrides the rule, to clear a retained message with an empty payload.
    """

    topic: Topic
    payload: bytes
    session: str = "main"
    token: int | None = None
    retain: bool | None = None


@dataclass(frozen=True, slots=True)
class Connected:
    """The session is connected and has subscribed; it happens again after every reconnect."""

    session: str


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The session lost its broker; it reconnects by itself. May be told twice for one loss."""

    session: str
    reason: str


@dataclass(frozen=True, slots=True)
class MessageArrived:
    """One message, not yet acknowledged: ``ack`` is called after the commit, from any thread."""

    session: str
    topic_name: str
    payload: bytes
    retained: bool
    ack: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Published:
    """The broker has acknowledged one message. It is a pace-maker, never a proof of delivery."""

    session: str
    token: int


SessionEvent = Connected | Disconnected | MessageArrived | Published


class Session(Protocol):
    """One MQTT session of one program."""

    name: str

    def start(self) -> None:
        """Begin to connect and keep reconnecting; returns at once."""

    def publish(self, message: Outgoing) -> bool:
        """Hand one message over; never blocks.

        Returns:
            False when nothing was queued because the session is not connected or its budget of
            bytes in flight is used up. The caller's own repetition heals that.

        Raises:
            ValueError: The payload is larger than one packet may be.
        """

    @property
    def is_connected(self) -> bool:
        """Whether the broker has accepted the connection and it still stands."""

    @property
    def is_alive(self) -> bool:
        """Whether the session's own thread still runs; False means restart the program."""

    def stop(self, farewell: Outgoing | None = None) -> None:
        """Publish ``farewell``, wait for its PUBACK (at most 2 s), disconnect, join the thread."""
