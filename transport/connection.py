"""One connection of a session, from CONNECT to its loss, driven by the session's own thread.

Nothing but this thread touches the paho client: programs hand messages and acknowledgements over
through queues and wake the thread. A client lives for one connection, so nothing that paho keeps
can pile up or be counted twice over a reconnect.
"""

import contextlib
import queue
import selectors
import socket
import time
from collections.abc import Callable
from typing import Any

import structlog
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from transport import paho_client
from transport.dialect import Version
from transport.events import Connected, MessageArrived, Outgoing, Published, SessionEvent
from transport.log_gate import LogGate
from transport.outgoing import OutgoingQueue
from transport.paho_client import Identity
from transport.subscribing import Subscribing
from transport.traffic import TrafficMeter
from transport.waker import Waker, Watched

#: A broker that does not answer CONNECT or SUBSCRIBE for so long is given up.
ANSWER_TIMEOUT_S = 5.0
#: Fixed header, topic length, packet id and properties of a PUBLISH, at most.
_PUBLISH_OVERHEAD_BYTES = 32
#: What paho calls a connection that ended without a DISCONNECT.
_UNSPECIFIED_ERROR = 0x80

_log = structlog.get_logger()


class Connection:
    """Runs one connection.

    Attributes:
        was_accepted: Whether the broker answered CONNECT with success.
        version_refused: Whether it refused the protocol version or never answered CONNECT.
        reason: Why the connection ended.
    """

    def __init__(  # noqa: PLR0913 - one owner, which shares its queues
        self,
        identity: Identity,
        *,
        version: Version,
        will: Outgoing | None,
        outgoing: OutgoingQueue,
        events: "queue.SimpleQueue[Any]",
        on_accepted: Callable[[], None],
        meter: TrafficMeter,
    ) -> None:
        self.was_accepted = False
        self.version_refused = False
        self.reason = "closed"
        self._identity = identity
        self._outgoing = outgoing
        self._events = events
        self._on_accepted = on_accepted
        self._acks: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._window = identity.max_inflight
        self._packet_bytes: int | None = None
        self._subscribing = Subscribing(identity.filters)
        self._answer_by_s: float | None = None
        self._gate = LogGate()
        self._is_leaving = False
        self._waker: Waker | None = None
        self._client = paho_client.build_client(identity, version, will, meter)
        self._client.on_connect = _guarded(self._on_connect)
        self._client.on_disconnect = _guarded(self._on_disconnect)
        self._client.on_subscribe = _guarded(self._on_subscribe)
        self._client.on_message = _guarded(self._on_message)
        self._client.on_publish = _guarded(self._on_publish)

    def open(self) -> None:
        """Connect the socket; blocks for some seconds at most.

        Raises:
            OSError: No connection.
        """
        paho_client.connect(self._client, self._identity)
        self.version_refused = True
        self._answer_by_s = time.monotonic() + ANSWER_TIMEOUT_S

    def run(self, waker: Waker, is_stopping: Callable[[], bool]) -> None:
        """Serve until the connection is lost, or ``is_stopping`` and DISCONNECT is written."""
        self._waker = waker
        with selectors.DefaultSelector() as selector:
            watched = Watched(selector, waker)
            while self._write_what_is_due(leave=is_stopping()):
                is_readable = watched.wait(self._client)
                waker.clear()
                if is_readable:
                    self._client.loop_read()
                self._client.loop_misc()
                self._give_up_if_silent(time.monotonic())

    def cut(self) -> None:
        """Close the socket without DISCONNECT, so that the broker publishes the Will."""
        self._is_leaving = True
        opened: Any = self._client.socket()
        if opened is not None:
            with contextlib.suppress(OSError):
                opened.shutdown(socket.SHUT_RDWR)

    def _write_what_is_due(self, *, leave: bool) -> bool:
        """Hand everything that waits to the socket; return whether it is still open."""
        self._send_acks()
        self._send_waiting()
        self._subscribe_if_due(time.monotonic())
        if leave and not self._is_leaving:
            self._is_leaving = True
            paho_client.leave(self._client)
        if self._client.want_write():
            self._client.loop_write()
        return self._client.socket() is not None

    def _send_acks(self) -> None:
        while not self._acks.empty():
            self._client.ack(self._acks.get_nowait(), 1)

    def _send_waiting(self) -> None:
        while self.was_accepted and (pending := self._outgoing.next(self._window)) is not None:
            size = pending.size + _PUBLISH_OVERHEAD_BYTES
            if self._packet_bytes is not None and size > self._packet_bytes:
                limit = self._packet_bytes
                _log.error("message_over_broker_limit", topic=pending.topic_name, limit=limit)
                self._outgoing.refused(pending)
                continue
            mid = paho_client.publish(self._client, pending.message, pending.topic_name)
            if mid is None:
                self._outgoing.refused(pending)
            else:
                self._outgoing.sent(mid, pending)

    def _subscribe_if_due(self, now_s: float) -> None:
        if wanted := self._subscribing.wanted(now_s):
            _, mid = self._client.subscribe([(topic_filter, 1) for topic_filter in wanted])
            self._subscribing.asked(mid)
            self._answer_by_s = now_s + ANSWER_TIMEOUT_S

    def _give_up_if_silent(self, now_s: float) -> None:
        if self._answer_by_s is None or now_s < self._answer_by_s:
            return
        self._answer_by_s = None
        self.reason = "no SUBACK" if self.was_accepted else "no CONNACK"
        self.cut()

    def _on_connect(
        self,
        _client: Client,
        _userdata: object,
        _flags: object,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        self._answer_by_s = None
        if reason.is_failure:
            self.reason = f"refused: {reason}"
            self.version_refused = str(reason) == "Unsupported protocol version"
            return
        receive_maximum, self._packet_bytes = paho_client.broker_limits(properties)
        self._window = min(self._window, receive_maximum or self._window)
        self.was_accepted, self.version_refused = True, False
        self._on_accepted()
        if self._subscribing.is_complete:
            self._tell(Connected(self._identity.name))
        else:
            self._subscribing.begin(time.monotonic())

    def _on_subscribe(
        self,
        _client: Client,
        _userdata: object,
        mid: int,
        reasons: list[ReasonCode],
        _properties: object,
    ) -> None:
        failures = [str(reason) if reason.is_failure else None for reason in reasons]
        refused = self._subscribing.answered(mid, failures, time.monotonic())
        if refused is None:
            return
        self._answer_by_s = None
        if refused:
            _log.error("filters_refused", session=self._identity.name, refused=refused)
        else:
            self._tell(Connected(self._identity.name))

    def _on_message(self, client: Client, _userdata: object, message: MQTTMessage) -> None:
        try:
            topic_name = message.topic
        except UnicodeDecodeError:
            client.ack(message.mid, message.qos)
            return
        ack = _Ack(self, message.mid) if message.qos > 0 else _no_ack
        payload, retained = bytes(message.payload), bool(message.retain)
        self._tell(MessageArrived(self._identity.name, topic_name, payload, retained, ack))

    def _on_publish(
        self, _client: Client, _userdata: object, mid: int, reason: ReasonCode, *_: object
    ) -> None:
        message = self._outgoing.acknowledged(mid)
        if message is None:
            return
        if reason.is_failure:
            self._log_refusal(message, str(reason))
        if message.token is not None:
            self._tell(Published(self._identity.name, message.token))

    def _log_refusal(self, message: Outgoing, reason: str) -> None:
        kind = message.topic.kind.name
        if self._gate.admit(f"{kind} {reason}", time.monotonic()) is not None:
            name = self._identity.name
            _log.error("message_refused", session=name, kind=kind, reason=reason)

    def _on_disconnect(
        self, _client: Client, _userdata: object, _flags: object, reason: ReasonCode, *_: object
    ) -> None:
        if self.reason == "closed":
            is_known = reason.value != _UNSPECIFIED_ERROR
            self.reason = str(reason) if is_known else "connection lost"

    def _tell(self, event: SessionEvent) -> None:
        self._events.put(event)

    def acknowledge(self, mid: int) -> None:
        """Queue the PUBACK of a message of this connection; safe from any thread, at any time."""
        self._acks.put(mid)
        if self._waker is not None:
            self._waker.wake()


class _Ack:
    """Acknowledges one message once, and only on the connection that it came over."""

    __slots__ = ("_connection", "_mid")

    def __init__(self, connection: Connection, mid: int) -> None:
        self._connection: Connection | None = connection
        self._mid = mid

    def __call__(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.acknowledge(self._mid)


def _no_ack() -> None:
    """Do nothing: a message of QoS 0 is not acknowledged."""


def _guarded(callback: Callable[..., None]) -> Callable[..., None]:
    """Return the callback with its exceptions logged: paho would drop them, or die of them."""

    def guarded(*args: object) -> None:
        try:
            callback(*args)
        except Exception:  # noqa: BLE001 - and is logged
            _log.exception("callback_failed", callback=callback.__name__)

    return guarded
