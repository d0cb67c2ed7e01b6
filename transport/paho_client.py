"""One paho client for one connection: persistent session, manual acknowledgement, Will, TLS.

The client is only ever touched by the thread that drives it (see ``connection.py``).
"""

import contextlib
import socket
import ssl
import time
from dataclasses import dataclass
from typing import Any

from paho.mqtt.client import Client, MQTTv5, MQTTv311
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from schemas.limits import MAX_PACKET_BYTES
from transport.broker_url import BrokerAddress
from transport.dialect import Version
from transport.events import Outgoing
from transport.traffic import TrafficMeter

#: How long the broker keeps a session whose client is away (MQTT 5).
SESSION_EXPIRY_S = 86_400
_SOCKET_TIMEOUT_S = 5.0
_LINGER_S = 0.5
_LEAVING = "leaving"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who connects where, and how.

    Attributes:
        name: The session's name in events and logs.
        mqtt_client_id: Stable client identifier: the broker keeps the session under it.
        address: The broker.
        filters: What is subscribed to, each with QoS 1.
        keepalive_s: Seconds of silence after which a ping is sent.
        max_inflight: Messages of QoS 1 sent and not acknowledged, at most.
        receive_maximum: Messages received and not acknowledged, at most (MQTT 5).
        is_kept: Whether the broker keeps the session while its program is away.
    """

    name: str
    mqtt_client_id: str
    address: BrokerAddress
    filters: tuple[str, ...]
    keepalive_s: int
    max_inflight: int
    receive_maximum: int
    is_kept: bool = True


class _Client(Client):
    """paho's client, which counts its bytes and closes a socket whose TLS handshake has failed.

    Attributes:
        meter: Where the bytes are counted.
    """

    meter: TrafficMeter

    def _sock_send(self, buf: bytes | bytearray) -> int:
        sent = super()._sock_send(buf)
        self.meter.sent(sent, _tls_version(self.socket()))
        return sent

    def _sock_recv(self, bufsize: int) -> bytes:
        opened: Any = self.socket()
        tls = _tls_version(opened)
        # One call never returns more than is left of one record, so records can be counted.
        is_new_record = tls is not None and opened.pending() == 0
        data = super()._sock_recv(bufsize)
        self.meter.received(len(data), tls, is_new_record=is_new_record)
        return data

    def _ssl_wrap_socket(self, tcp_sock: socket.socket) -> ssl.SSLSocket:
        assert self._ssl_context is not None  # noqa: S101 - paho calls this with TLS only
        wrapped = self._ssl_context.wrap_socket(
            tcp_sock, server_hostname=self._host, do_handshake_on_connect=False
        )
        try:
            wrapped.settimeout(self._connect_timeout)
            wrapped.do_handshake()
        except BaseException:
            wrapped.close()
            raise
        return wrapped


def build_client(
    identity: Identity, version: Version, will: Outgoing | None, meter: TrafficMeter
) -> Client:
    """Return a client that is ready to connect; its bytes are counted in ``meter``.

    Raises:
        OSError: A TLS file cannot be read.
    """
    is_v5 = version == "5"
    client = _Client(
        CallbackAPIVersion.VERSION2,
        client_id=identity.mqtt_client_id,
        clean_session=None if is_v5 else not identity.is_kept,
        protocol=MQTTv5 if is_v5 else MQTTv311,
        reconnect_on_failure=False,
        manual_ack=True,
    )
    client.meter = meter
    client.suppress_exceptions = True
    client.connect_timeout = _SOCKET_TIMEOUT_S
    client.max_inflight_messages_set(0)  # OutgoingQueue keeps the window and the queue
    client.max_queued_messages_set(identity.max_inflight)
    client.on_socket_open = _send_without_delay
    client.on_socket_close = _linger
    # With this callback set, paho leaves every write to the thread that drives it.
    client.on_socket_register_write = _leave_to_loop
    _set_login(client, identity.address)
    if will is not None:
        _set_will(client, will, is_v5=is_v5)
    return client


def connect(client: Client, identity: Identity) -> None:
    """Open the socket and queue CONNECT; blocks for some seconds at most.

    Raises:
        OSError: No connection, or the TLS handshake failed.
    """
    address = identity.address
    if client.protocol != MQTTv5:
        client.connect(address.host, address.port, identity.keepalive_s)
        return
    properties = _properties(PacketTypes.CONNECT)
    properties.SessionExpiryInterval = SESSION_EXPIRY_S if identity.is_kept else 0
    properties.ReceiveMaximum = identity.receive_maximum
    properties.MaximumPacketSize = MAX_PACKET_BYTES
    client.connect(
        address.host,
        address.port,
        identity.keepalive_s,
        clean_start=not identity.is_kept,
        properties=properties,
    )


def publish(client: Client, message: Outgoing, topic_name: str) -> int | None:
    """Queue one message in the client.

    Returns:
        Its packet id, or None when paho did not take it.
    """
    rule = message.topic.rule
    retain = rule.retain if message.retain is None else message.retain
    properties = None
    if client.protocol == MQTTv5 and rule.expiry_s is not None:
        properties = _expiring(PacketTypes.PUBLISH, rule.expiry_s)
    info = client.publish(topic_name, message.payload, rule.qos, retain, properties)
    return int(info.mid) if info.rc == 0 else None


def broker_limits(properties: Properties | None) -> tuple[int | None, int | None]:
    """Return the broker's Receive Maximum and Maximum Packet Size, where its CONNACK has them."""
    receive_maximum: Any = getattr(properties, "ReceiveMaximum", None)
    packet_bytes: Any = getattr(properties, "MaximumPacketSize", None)
    return receive_maximum, packet_bytes


def tls_context(address: BrokerAddress) -> ssl.SSLContext:
    """Return what a broker's certificate is checked with, and this program's own.

    Raises:
        OSError: A TLS file cannot be read.
    """
    cafile = None if address.ca_file is None else str(address.ca_file)
    context = ssl.create_default_context(cafile=cafile)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if address.cert_file is not None:
        context.load_cert_chain(address.cert_file, address.key_file)
    return context


def _set_login(client: Client, address: BrokerAddress) -> None:
    if address.username is not None:
        client.username_pw_set(address.username, address.password)
    if address.is_tls:
        client.tls_set_context(tls_context(address))


def _set_will(client: Client, will: Outgoing, *, is_v5: bool) -> None:
    rule = will.topic.rule
    retain = rule.retain if will.retain is None else will.retain
    properties = None
    if is_v5 and rule.expiry_s is not None:
        properties = _expiring(PacketTypes.WILLMESSAGE, rule.expiry_s)
    client.will_set(will.topic.name, will.payload, rule.qos, retain, properties)


def _properties(packet_type: int) -> Properties:
    return Properties(packet_type)  # type: ignore[no-untyped-call]


def _expiring(packet_type: int, expiry_s: int) -> Properties:
    properties = _properties(packet_type)
    properties.MessageExpiryInterval = expiry_s
    return properties


def _tls_version(opened: object) -> str | None:
    return opened.version() if isinstance(opened, ssl.SSLSocket) else None


def _send_without_delay(_client: Client, _userdata: object, opened: Any) -> None:  # noqa: ANN401
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def leave(client: Client) -> None:
    """Queue DISCONNECT; the client closes the socket when it is written."""
    client.user_data_set(_LEAVING)
    client.disconnect()


def _linger(_client: Client, userdata: object, closing: Any) -> None:  # noqa: ANN401
    """After a DISCONNECT, read what is still coming until the broker closes, for a moment.

    Closing with unread bytes would reset the connection, and the reset may overtake the last
    acknowledgements and the DISCONNECT.
    """
    if userdata != _LEAVING:
        return
    deadline_s = time.monotonic() + _LINGER_S
    with contextlib.suppress(OSError):
        closing.settimeout(_LINGER_S)
        while closing.recv(65536) and time.monotonic() < deadline_s:
            pass


def _leave_to_loop(_client: Client, _userdata: object, _socket: object) -> None:
    """Do nothing: the loop asks ``want_write`` itself."""
