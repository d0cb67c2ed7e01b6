"""A plain paho client: QoS 0, clean session, no delay at the socket."""

import socket
from typing import Any

from paho.mqtt.client import Client, ConnectFlags
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode


def subscriber(*filters: str) -> Client:
    """Return a client that subscribes on every connect; it is not yet connected."""
    client = Client(CallbackAPIVersion.VERSION2)

    def subscribe(
        _client: Client,
        _data: Any,
        _flags: ConnectFlags,
        _reason: ReasonCode,
        _: Properties | None,
    ) -> None:
        client.subscribe([(one, 0) for one in filters])

    client.on_socket_open = _send_without_delay
    client.on_connect = subscribe
    return client


def _send_without_delay(_client: Client, _userdata: object, opened: Any) -> None:
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
