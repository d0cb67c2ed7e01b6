"""A client that looks at a broker from outside of any program: ``fedfleet doctor``'s.

It has an identifier of its own, no Will, and publishes nothing that is retained. It is driven by
its caller's thread; every wait is bounded.
"""

import selectors
import ssl
import time
from collections.abc import Callable, Sequence
from typing import Any

from paho.mqtt.client import Client, MQTTMessage, MQTTv5
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from transport import paho_client
from transport.broker_url import BrokerAddress
from transport.dialect import Version
from transport.paho_client import Identity
from transport.probe_answers import Answer, Echo, Heard
from transport.traffic import TrafficMeter

#: How long a broker keeps the session with which it is asked whether it keeps any.
_KEPT_S = 60
_KEEPALIVE_S = 60
_TURN_S = 0.05
_LEAVE_S = 0.5
#: What is kept of messages that are not the probe's own.
_MAX_HEARD, _MAX_HEARD_BYTES = 200, 65_536


class BrokerProbe:
    """One connection of the probe; ``close`` ends it.

    Attributes:
        heard: Messages of others, the first few.
    """

    def __init__(
        self, address: BrokerAddress, version: Version, mqtt_client_id: str, *, is_kept: bool
    ) -> None:
        """Prepare a connection.

        Raises:
            OSError: A TLS file cannot be read.
        """
        self.heard: list[Heard] = []
        self._address = address
        self._is_kept = is_kept
        self._answer: Answer | None = None
        self._granted: dict[int | None, list[str | None]] = {}
        self._acknowledged: dict[int, str | None] = {}
        self._acknowledged_s: dict[int, float] = {}
        self._grace_s = 0.0
        self._returned: set[str] = set()
        self._closed: str | None = None
        identity = Identity(
            *("probe", mqtt_client_id, address, (), _KEEPALIVE_S),
            max_inflight=20,
            receive_maximum=100,
            is_kept=is_kept,
        )
        self._client = paho_client.build_client(identity, version, None, TrafficMeter())
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_subscribe = self._on_subscribe
        self._client.on_publish = self._on_publish
        self._client.on_message = self._on_message

    @property
    def is_v5(self) -> bool:
        """Whether it speaks MQTT 5."""
        return bool(self._client.protocol == MQTTv5)

    def connect(self, within_s: float) -> Answer:
        """Connect and wait for the broker's answer."""
        self._client.connect_timeout = max(0.1, within_s)
        try:
            self._connect()
        except OSError as error:
            return Answer(error.strerror or str(error))
        self._turn(lambda: self._answer is not None, within_s)
        if self._answer is None:
            problem = f"no answer to CONNECT within {within_s:g} s"
            return Answer(self._closed or problem, is_version_refused=True)
        return self._answer

    def subscribe(self, topic_filter: str, within_s: float, *, retained: bool) -> str | None:
        """Subscribe and wait for the answer.

        Args:
            topic_filter: The filter.
            within_s: How long to wait.
            retained: Whether retained messages are wanted (only MQTT 5 can do without).

        Returns:
            Why it was not granted, or None.
        """
        handling = SubscribeOptions.RETAIN_SEND_ON_SUBSCRIBE
        if not retained:
            handling = SubscribeOptions.RETAIN_DO_NOT_SEND
        options = SubscribeOptions(qos=1, retainHandling=handling)
        asked: Any = (topic_filter, options) if self.is_v5 else (topic_filter, 1)
        _, mid = self._client.subscribe([asked])
        self._turn(lambda: mid in self._granted, within_s)
        if mid not in self._granted:
            return self._closed or f"no answer to SUBSCRIBE within {within_s:g} s"
        return next((reason for reason in self._granted[mid] if reason), None)

    def unsubscribe(self, topic_filter: str) -> None:
        """Want no more of a filter; the answer is not awaited."""
        self._client.unsubscribe(topic_filter)

    def echoes(
        self, messages: Sequence[tuple[str, bytes]], within_s: float, grace_s: float
    ) -> list[Echo]:
        """Publish messages under filters that were subscribed to; return what became of each.

        Args:
            messages: Topic names, each used once, with their payloads.
            within_s: How long to wait for all of them.
            grace_s: How long to wait after an acknowledgement, beyond twice the time that it took.
        """
        begun_s, self._grace_s = time.monotonic(), grace_s
        mids = [self._client.publish(name, payload, 1).mid for name, payload in messages]
        asked = [(name, mid) for (name, _), mid in zip(messages, mids, strict=True)]
        self._turn(lambda: all(self._is_settled(*one, begun_s) for one in asked), within_s)
        return [self._echo(*one) for one in asked]

    def listen(self, seconds: float) -> None:
        """Take what comes for a while."""
        self._turn(lambda: False, seconds)

    def close(self) -> None:
        """Disconnect."""
        paho_client.leave(self._client)
        self._turn(lambda: self._client.socket() is None, _LEAVE_S)
        opened: Any = self._client.socket()
        if opened is not None:
            opened.close()

    def _connect(self) -> None:
        host, port = self._address.host, self._address.port
        if not self.is_v5:
            self._client.connect(host, port, _KEEPALIVE_S)
            return
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = _KEPT_S if self._is_kept else 0
        clean = not self._is_kept
        self._client.connect(host, port, _KEEPALIVE_S, clean_start=clean, properties=properties)

    def _turn(self, is_done: Callable[[], bool], within_s: float) -> None:
        """Drive the client until something is done, the connection has ended, or time is up."""
        deadline = time.monotonic() + within_s
        while not is_done() and self._closed is None and time.monotonic() < deadline:
            opened: Any = self._client.socket()
            if opened is None:
                self._closed = "the broker closed the connection"
            else:
                self._step(opened)

    def _step(self, opened: Any) -> None:  # noqa: ANN401 - a socket, of TLS or not
        """Move what can be moved; paho's own ``loop`` would open two sockets more."""
        events = selectors.EVENT_READ
        if self._client.want_write():
            events |= selectors.EVENT_WRITE
        is_pending = isinstance(opened, ssl.SSLSocket) and opened.pending() > 0
        with selectors.DefaultSelector() as selector:
            selector.register(opened, events)
            ready = sum(mask for _, mask in selector.select(0 if is_pending else _TURN_S))
        if is_pending or ready & selectors.EVENT_READ:
            self._client.loop_read()
        if ready & selectors.EVENT_WRITE:
            self._client.loop_write()
        self._client.loop_misc()

    def _is_settled(self, topic_name: str, mid: int, begun_s: float) -> bool:
        if topic_name in self._returned:
            return True
        if mid not in self._acknowledged:
            return False
        told_s = self._acknowledged_s[mid]
        patience_s = self._grace_s + 2 * (told_s - begun_s)
        return self._acknowledged[mid] is not None or time.monotonic() > told_s + patience_s

    def _echo(self, topic_name: str, mid: int) -> Echo:
        came_back = topic_name in self._returned
        is_answered = mid in self._acknowledged
        refusal = self._acknowledged.get(mid)
        if not came_back and not is_answered:
            refusal = self._closed
        return Echo(came_back, is_answered and refusal is None, refusal)

    def _on_connect(
        self,
        _client: Client,
        _userdata: object,
        flags: Any,  # noqa: ANN401 - paho's ConnectFlags
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        if reason.is_failure:
            version_refused = str(reason) == "Unsupported protocol version"
            self._answer = Answer(str(reason), is_version_refused=version_refused)
            return
        _, packet_bytes = paho_client.broker_limits(properties)
        self._answer = Answer(
            session_present=bool(flags.session_present), packet_bytes=packet_bytes
        )

    def _on_disconnect(
        self, _client: Client, _userdata: object, _flags: object, reason: ReasonCode, *_: object
    ) -> None:
        self._closed = f"the broker closed the connection ({reason})"

    def _on_subscribe(
        self, _client: Client, _userdata: object, mid: int, reasons: list[ReasonCode], *_: object
    ) -> None:
        self._granted[mid] = [str(code) if code.is_failure else None for code in reasons]

    def _on_publish(
        self, _client: Client, _userdata: object, mid: int, reason: ReasonCode, *_: object
    ) -> None:
        self._acknowledged[mid] = str(reason) if reason.is_failure else None
        self._acknowledged_s[mid] = time.monotonic()

    def _on_message(self, client: Client, _userdata: object, message: MQTTMessage) -> None:
        if message.qos:
            client.ack(message.mid, message.qos)
        try:
            topic_name = message.topic
        except UnicodeDecodeError:
            return
        self._returned.add(topic_name)
        if len(self.heard) < _MAX_HEARD and len(message.payload) <= _MAX_HEARD_BYTES:
            self.heard.append(Heard(topic_name, bytes(message.payload), bool(message.retain)))
