"""A person's side of the fleet: connect, publish, read what is retained, follow.

It speaks through the same session as the programs, and to a session's port only, so that the
whole command line can be tried without a broker.
"""

import queue
import secrets
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType

from typing_extensions import Self

from fedfleet.errors import FleetError
from schemas.topics import Topic, TopicError, parse
from transport.broker_url import parse_broker_url
from transport.events import Connected, MessageArrived, Outgoing, Published, Session, SessionEvent
from transport.session import PahoSession
from transport.settings import ConnectionSettings

CONNECT_TIMEOUT_S = 10.0
PUBLISH_TIMEOUT_S = 10.0
#: Retained messages follow the subscription at once; MQTT says nothing when they end.
QUIET_S = 0.4


class BrokerUnreachableError(FleetError):
    """No broker accepted the connection, or it took a message and did not acknowledge it."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message under the filters of a client.

    Attributes:
        topic: Its topic, taken apart.
        payload: As it was sent; empty where a retained message was cleared.
        retained: Whether it was there before the subscription.
    """

    topic: Topic
    payload: bytes
    retained: bool


class FleetClient:
    """One short-lived session; a context manager that disconnects at its end."""

    def __init__(self, session: Session, events: "queue.SimpleQueue[SessionEvent]") -> None:
        self._session = session
        self._events = events
        self._backlog: deque[Message] = deque()
        self._token = 0

    def __enter__(self) -> Self:
        """Return the client."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Disconnect."""
        self.close()

    def close(self) -> None:
        """Disconnect."""
        self._session.stop()

    def connect(self, broker: str, timeout_s: float) -> None:
        """Wait until the broker has accepted the connection and the subscriptions.

        Args:
            broker: Its address, for the error's text.
            timeout_s: How long to wait.

        Raises:
            BrokerUnreachableError: It has not within ``timeout_s``.
        """
        self._session.start()
        if not self._wait_for(Connected, timeout_s):
            message = f"no answer from the broker at {broker} within {timeout_s:g} s"
            raise BrokerUnreachableError(message)

    def publish(self, topic: Topic, payload: bytes, timeout_s: float = PUBLISH_TIMEOUT_S) -> None:
        """Publish one message and wait for the broker's acknowledgement.

        Raises:
            BrokerUnreachableError: There was none within ``timeout_s``.
        """
        self._token += 1
        outgoing = Outgoing(topic, payload, self._session.name, token=self._token)
        sent = self._session.publish(outgoing)
        if not sent or not self._wait_for(Published, timeout_s):
            message = f"the broker did not acknowledge {topic.name} within {timeout_s:g} s"
            raise BrokerUnreachableError(message)

    def messages(self, timeout_s: float) -> Iterator[Message]:
        """Yield messages as they come, until ``timeout_s`` have passed in all."""
        end = time.monotonic() + timeout_s
        while (message := self.next_message(end - time.monotonic())) is not None:
            yield message

    def next_message(self, timeout_s: float) -> Message | None:
        """Return the next message, or None when none came within ``timeout_s``."""
        end = time.monotonic() + timeout_s
        while not self._backlog:
            left = end - time.monotonic()
            if left <= 0:
                return None
            self._take(left)
        return self._backlog.popleft()

    def collect(self, timeout_s: float) -> list[Message]:
        """Return what is retained: all that comes until it has been quiet for ``QUIET_S``."""
        end = time.monotonic() + timeout_s
        found: list[Message] = []
        while (message := self.next_message(min(QUIET_S, end - time.monotonic()))) is not None:
            found.append(message)
        return found

    def _wait_for(self, kind: type[Connected] | type[Published], timeout_s: float) -> bool:
        end = time.monotonic() + timeout_s
        while (left := end - time.monotonic()) > 0:
            event = self._take(left)
            if isinstance(event, Published) and event.token != self._token:
                continue
            if isinstance(event, kind):
                return True
        return False

    def _take(self, timeout_s: float) -> SessionEvent | None:
        try:
            event = self._events.get(timeout=timeout_s)
        except queue.Empty:
            return None
        if isinstance(event, MessageArrived):
            event.ack()
            self._keep(event)
        return event

    def _keep(self, event: MessageArrived) -> None:
        try:
            topic = parse(event.topic_name)
        except TopicError:
            return  # a broker may be shared with others
        self._backlog.append(Message(topic, event.payload, event.retained))


def open_client(settings: ConnectionSettings, filters: tuple[str, ...]) -> FleetClient:
    """Return a connected client that is subscribed to ``filters``.

    Raises:
        BrokerUnreachableError: No broker answers there.
    """
    events: queue.SimpleQueue[SessionEvent] = queue.SimpleQueue()
    client = FleetClient(make_session(settings, filters, events), events)
    try:
        client.connect(broker_name(settings), CONNECT_TIMEOUT_S)
    except BaseException:
        client.close()
        raise
    return client


def broker_name(settings: ConnectionSettings) -> str:
    """Return the broker's address as it may be shown: without user and password."""
    return parse_broker_url(settings.broker).shown


def make_session(
    settings: ConnectionSettings,
    filters: tuple[str, ...],
    events: "queue.SimpleQueue[SessionEvent]",
) -> Session:
    """Return a session under an identifier of its own, so that many persons may look on."""
    return PahoSession(
        settings.broker,
        name="main",
        mqtt_client_id=f"fedfleet-cli-{secrets.token_hex(6)}",
        filters=filters,
        events=events,
        protocol=settings.mqtt_protocol,
        keepalive_s=settings.keepalive_s,
        password=settings.password,
        ca_file=settings.ca_file,
        cert_file=settings.cert_file,
        key_file=settings.key_file,
        is_kept=False,
    )
