"""An MQTT session over paho: stays connected, stays subscribed, never blocks its program."""

import queue
import secrets
import threading
import time
from pathlib import Path
from typing import Any

import structlog

from schemas.limits import MIB
from transport.broker_url import parse_broker_url
from transport.connection import Connection
from transport.dialect import Dialect, Protocol, reconnect_delay_s
from transport.events import Disconnected, Outgoing
from transport.outgoing import OutgoingQueue, check_size
from transport.paho_client import Identity
from transport.topic_filters import check_filter
from transport.traffic import Traffic, TrafficMeter
from transport.waker import Waker

MAX_FILTERS = 8
DEFAULT_BUDGET_BYTES = 16 * MIB
_FAREWELL_S = 2.0
_JOIN_S = 2.0
#: A connection that stood so long starts the waits between connections afresh.
_STABLE_S = 5.0

_log = structlog.get_logger()


class PahoSession:
    """Implements ``transport.events.Session`` on one thread of its own.

    The broker keeps the session while the program is away (``mqtt_client_id`` is stable, clean
    session is off), and every connection subscribes again all the same. ``Connected`` is told
    when every filter was granted; a refused filter is logged and asked for again. Publishing
    works from CONNACK on. A message that was taken on is sent on at most two connections.

    Attributes:
        name: The session's name, as ``Outgoing.session`` and the events have it.
        will: What the broker publishes when it loses the session; read at every connection, so
            that a new one takes effect with the next.
    """

    def __init__(  # noqa: PLR0913 - settings of a connection, all but one by name
        self,
        url: str,
        *,
        name: str,
        mqtt_client_id: str,
        filters: tuple[str, ...],
        events: "queue.SimpleQueue[Any]",
        will: Outgoing | None = None,
        protocol: Protocol = "auto",
        keepalive_s: int = 60,
        max_inflight: int = 20,
        receive_maximum: int = 64,
        budget_bytes: int = DEFAULT_BUDGET_BYTES,
        max_messages: int = 2000,
        username: str | None = None,
        password: str | None = None,
        ca_file: Path | None = None,
        cert_file: Path | None = None,
        key_file: Path | None = None,
        reconnect_s: tuple[float, float] = (0.2, 5.0),
        is_kept: bool = True,
    ) -> None:
        """Prepare a session; nothing is connected before ``start``.

        Args:
            url: The broker, see ``broker_url``.
            name: Name of the session in events.
            mqtt_client_id: Stable client identifier, unique at the broker.
            filters: At most ``MAX_FILTERS``, not overlapping; subscribed to with QoS 1.
            events: Where ``SessionEvent`` go.
            will: Published by the broker when the session breaks off.
            protocol: Version of MQTT; ``"auto"`` tries 5, then 3.1.1.
            keepalive_s: Longest silence.
            max_inflight: QoS 1 messages sent and not acknowledged, at most.
            receive_maximum: Messages received and not acknowledged, at most (MQTT 5).
            budget_bytes: Taken on and not acknowledged, at most.
            max_messages: The same, in messages.
            username: Overrides the URL's.
            password: Overrides the URL's.
            ca_file: Trusted CAs, PEM; default: the system's.
            cert_file: This program's certificate, PEM.
            key_file: Its private key, PEM.
            reconnect_s: Shortest and longest wait between two connections.
            is_kept: False for a session that only looks on: the broker forgets it at once.

        Raises:
            BrokerUrlError: The URL, the login or the TLS files do not fit together.
            FilterError: A filter is not valid.
            ValueError: Too many filters, or no client identifier.
        """
        if not mqtt_client_id or len(filters) > MAX_FILTERS:
            message = (
                f"mqtt_client_id {mqtt_client_id!r}, {len(filters)} filters (1..{MAX_FILTERS})"
            )
            raise ValueError(message)
        for topic_filter in filters:
            check_filter(topic_filter)
        address = parse_broker_url(url).with_login(username, password)
        address = address.with_tls_files(ca_file, cert_file, key_file)
        self.name = name
        self.will = will
        self._identity = Identity(
            name,
            mqtt_client_id,
            address,
            filters,
            keepalive_s,
            max_inflight,
            receive_maximum,
            is_kept,
        )
        self._events = events
        self._dialect = Dialect(protocol)
        self._reconnect_s = reconnect_s
        self._outgoing = OutgoingQueue(budget_bytes, max_messages)
        self._waker = Waker()
        self._meter = TrafficMeter()
        self._is_connected = False
        self._stop = threading.Event()
        self._connection: Connection | None = None
        self._last_failure = ""
        self._thread = threading.Thread(target=self._run, name=f"mqtt-{name}", daemon=True)

    def start(self) -> None:
        """Begin to connect and keep reconnecting; returns at once."""
        self._waker.open()
        self._thread.start()

    @property
    def is_connected(self) -> bool:
        """Whether the broker has accepted the connection and it still stands."""
        return self._is_connected

    @property
    def is_alive(self) -> bool:
        """Whether the session's own thread still runs; False means restart the program."""
        return self._thread.is_alive()

    @property
    def traffic(self) -> Traffic:
        """Bytes on the wire since ``start``, over all connections; see ``transport.traffic``."""
        return self._meter.read()

    def publish(self, message: Outgoing) -> bool:
        """Hand one message over; never blocks.

        Returns:
            False when nothing was queued: not connected, or the budget is used up.

        Raises:
            ValueError: The payload is larger than one packet may be.
            TopicError: The topic is not one of this protocol's.
        """
        check_size(message)
        if not self._is_connected or not self._outgoing.offer(message, time.monotonic()):
            return False
        self._waker.wake()
        return True

    def stop(self, farewell: Outgoing | None = None) -> None:
        """Publish ``farewell``, wait for its PUBACK (at most 2 s), disconnect, join the thread.

        A farewell that is not acknowledged in time is left to the Will: the connection is cut.
        """
        if not self._thread.is_alive():
            return
        connection = self._connection
        if farewell is not None and self._is_connected and connection is not None:
            check_size(farewell)
            done = self._outgoing.offer_last(farewell, time.monotonic())
            self._waker.wake()
            if not done.wait(_FAREWELL_S):
                connection.cut()
        self._stop.set()
        self._waker.wake()
        self._thread.join(_JOIN_S)
        traffic = self.traffic
        _log.info(
            "session_ended",
            session=self.name,
            sent_bytes=traffic.sent_bytes,
            received_bytes=traffic.received_bytes,
        )

    def _run(self) -> None:
        failures = 0
        while not self._stop.is_set():
            began_s = time.monotonic()
            was_accepted, retry_at_once = self._connect_once()
            if was_accepted and time.monotonic() - began_s >= _STABLE_S:
                failures = 0
            if not retry_at_once:
                shortest_s, longest_s = self._reconnect_s
                jitter = secrets.randbelow(1000) / 1000
                self._stop.wait(
                    reconnect_delay_s(failures, jitter, shortest_s=shortest_s, longest_s=longest_s)
                )
                failures += 1
        self._waker.close()

    def _connect_once(self) -> tuple[bool, bool]:
        """Connect and serve until the connection is lost.

        Returns:
            Whether the broker accepted it, and whether to try again without a wait.
        """
        connection = None
        try:
            connection = self._connection = self._new_connection()
            connection.open()
            connection.run(self._waker, self._stop.is_set)
            reason = connection.reason
        except OSError as error:
            reason = f"{type(error).__name__}: {error}"
        except Exception as error:  # noqa: BLE001 - logged; the thread lives on
            _log.exception("session_failed", session=self.name)
            reason = type(error).__name__
        finally:
            self._is_connected = False
            self._outgoing.connection_lost(time.monotonic())
        if connection is None:
            return False, False
        retry_at_once = connection.version_refused and self._dialect.refused()
        if not retry_at_once:
            self._report(reason, was_accepted=connection.was_accepted)
        return connection.was_accepted, retry_at_once

    def _new_connection(self) -> Connection:
        return Connection(
            self._identity,
            version=self._dialect.version,
            will=self.will,
            outgoing=self._outgoing,
            events=self._events,
            on_accepted=self._on_accepted,
            meter=self._meter,
        )

    def _on_accepted(self) -> None:
        self._dialect.accepted()
        self._is_connected = True
        self._last_failure = ""
        broker = self._identity.address.shown
        _log.info(
            "session_connected", session=self.name, broker=broker, mqtt=self._dialect.version
        )

    def _report(self, reason: str, *, was_accepted: bool) -> None:
        """Log and tell a loss; a broker that stays away is logged once for each reason."""
        if self._stop.is_set():
            return
        if was_accepted:
            _log.warning("session_lost", session=self.name, reason=reason)
            self._events.put(Disconnected(self.name, reason))
        elif reason != self._last_failure:
            self._last_failure = reason
            broker = self._identity.address.shown
            _log.warning("session_not_connected", session=self.name, broker=broker, reason=reason)
