"""The embedded broker: amqtt's lifecycle, sessions and codecs; this module's rules.

What amqtt 0.12 does by itself is not safe enough even for a testbed, so a connection never runs
through its handlers:

- A CONNECT has 10 s, and a packet 1 MiB; what is larger or malformed closes the connection.
- The incoming client is authenticated before anything of an existing session is touched.
- A new connection ends the old one first: the old Will is published, never the new one's.
- Retained messages go to the one subscription that asked, with the lower of both QoS.
- Every session has a bounded mailbox; what is in flight is sent again after a reconnect.
- A client that is silent for 1.5 times its keepalive is cut off and its Will published.
- MQTT 5 is refused with an answer; shared subscriptions are refused.
"""

import asyncio
import hmac
from collections.abc import Mapping
from functools import partial
from typing import Any

import structlog
from amqtt.adapters import BufferReader, StreamWriterAdapter
from amqtt.broker import Broker
from amqtt.contexts import BrokerConfig, ListenerConfig
from amqtt.mqtt.connack import (
    CONNECTION_ACCEPTED,
    NOT_AUTHORIZED,
    SERVER_UNAVAILABLE,
    ConnackPacket,
)
from amqtt.mqtt.packet import CONNECT
from amqtt.mqtt.protocol.broker_handler import BrokerProtocolHandler
from amqtt.session import Session

from transport.embedded_client import ClientConnection
from transport.embedded_packets import (
    CONNACK_UNSUPPORTED_V5,
    MQTT_5,
    ProtocolViolationError,
    protocol_level,
    read_packet,
)
from transport.embedded_router import Client, MailRouter

CONNECT_TIMEOUT_S = 10.0
SESSION_EXPIRY_S = 86_400
MAX_SESSIONS = 4096
_READ_BUFFER_BYTES = 256 * 1024
_LISTENER = "default"

_log = structlog.get_logger()


class HardenedBroker(Broker):  # type: ignore[misc]
    """Serves MQTT 3.1.1 clients on one loopback listener."""

    def __init__(self, host: str, port: int, users: Mapping[str, str] | None = None) -> None:
        """Prepare a broker; ``start`` opens the listener.

        Args:
            host: A loopback address.
            port: 0 for any free one.
            users: Passwords by user name; None admits everyone.
        """
        listener = ListenerConfig(bind=f"{host}:{port}")
        config = BrokerConfig(
            listeners={_LISTENER: listener}, plugins={}, session_expiry_interval=SESSION_EXPIRY_S
        )
        super().__init__(config)
        self._host, self._wanted_port = host, port
        self._users = users
        self._router = MailRouter()
        self._writers: set[asyncio.StreamWriter] = set()
        self._admission = asyncio.Lock()

    @property
    def port(self) -> int:
        """The port that the broker listens on."""
        port: int = self._servers[_LISTENER].instance.sockets[0].getsockname()[1]
        return port

    async def shutdown(self) -> None:
        """Cut all clients off, publish nothing more, close the listener."""
        self._router.clients.clear()
        for writer in list(self._writers):
            writer.transport.abort()
        await super().shutdown()

    async def _create_server_instance(self, listener_name: str, *_: object) -> asyncio.Server:
        return await asyncio.start_server(
            partial(self.stream_connected, listener_name=listener_name),
            self._host,
            self._wanted_port,
            limit=_READ_BUFFER_BYTES,
        )

    async def stream_connected(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        listener_name: str,  # noqa: ARG002 - amqtt's signature
    ) -> None:
        """Serve one connection from its CONNECT to its end."""
        self._writers.add(writer)
        try:
            incoming = await asyncio.wait_for(
                self._read_connect(reader, writer), CONNECT_TIMEOUT_S
            )
            if incoming is not None:
                await self._serve(incoming, reader, writer)
        except ProtocolViolationError as error:
            _log.warning("embedded_client_dropped", reason=str(error))
            writer.transport.abort()
        except (OSError, asyncio.IncompleteReadError, asyncio.TimeoutError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _read_connect(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> Session | None:
        """Return the session that a CONNECT asks for, or None when it was refused."""
        header, body = await read_packet(reader)
        if header.packet_type != CONNECT:
            message = f"packet type {header.packet_type} before CONNECT"
            raise ProtocolViolationError(message)
        if protocol_level(body) == MQTT_5:
            writer.write(CONNACK_UNSUPPORTED_V5)
            return None
        whole = BufferReader(header.to_bytes() + body)
        adapter = StreamWriterAdapter(writer)
        try:
            _, incoming = await BrokerProtocolHandler.init_from_connect(
                whole, adapter, self.plugins_manager
            )
            if incoming.will_flag:
                _check_will(incoming)
        except Exception as error:
            message = f"CONNECT: {type(error).__name__}: {error}"
            raise ProtocolViolationError(message) from error
        return incoming

    def _admits(self, incoming: Session, writer: asyncio.StreamWriter) -> bool:
        """Authenticate the incoming client; nothing else has been touched so far."""
        code = CONNECTION_ACCEPTED
        known = self._router.clients.get(incoming.client_id)
        is_anothers = known is not None and known.session.username != incoming.username
        if is_anothers or not self._is_authentic(incoming):
            code = NOT_AUTHORIZED
        elif known is None and len(self._router.clients) >= MAX_SESSIONS:
            code = SERVER_UNAVAILABLE
        if code != CONNECTION_ACCEPTED:
            _log.warning("embedded_client_refused", mqtt_client_id=incoming.client_id, code=code)
            writer.write(ConnackPacket.build(0, code).to_bytes())
        return bool(code == CONNECTION_ACCEPTED)

    def _is_authentic(self, incoming: Session) -> bool:
        if self._users is None:
            return True
        expected = self._users.get(incoming.username or "")
        given = (incoming.password or "").encode()
        return expected is not None and hmac.compare_digest(expected.encode(), given)

    async def _serve(
        self, incoming: Session, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        async with self._admission:
            if not self._admits(incoming, writer):
                return
            client, is_known = await self._replace(incoming)
            connection = ClientConnection(
                self._router,
                incoming.client_id,
                client.mailbox,
                (reader, writer),
                incoming.keep_alive,
            )
            client.connection = connection
        left_politely = False
        try:
            writer.write(ConnackPacket.build(int(is_known), CONNECTION_ACCEPTED).to_bytes())
            left_politely = await connection.run()
        finally:
            self._part(client, connection, left_politely=left_politely)

    async def _replace(self, incoming: Session) -> tuple[Client, bool]:
        """End the client's former connection; return the client, and whether it was known."""
        client_id = incoming.client_id
        known = self._router.clients.get(client_id)
        if known is not None and known.connection is not None:
            await known.connection.stop()
        if known is not None and (incoming.clean_session or known.session.clean_session):
            self._forget(client_id)
        client = self._router.clients.get(client_id)
        is_known = client is not None
        if client is None:
            client = self._router.clients[client_id] = Client(incoming)
        client.session = incoming
        incoming.transitions.connect()
        self._sessions[client_id] = (incoming, None)  # for amqtt's expiry
        return client, is_known

    def _part(self, client: Client, connection: ClientConnection, *, left_politely: bool) -> None:
        connection.ended.set()
        session = client.session
        session.transitions.disconnect()
        client.connection = None
        client.mailbox.drop_qos_0()
        is_known = self._router.clients.get(session.client_id) is client
        if is_known and session.will_flag and not left_politely:
            will = bytes(session.will_message), min(session.will_qos or 0, 1)
            self._router.publish(session.will_topic, *will, retain=bool(session.will_retain))
        if is_known and session.clean_session:
            self._forget(session.client_id)

    async def _cleanup_session(self, client_id: str) -> None:
        """Forget an expired session; called by amqtt's monitor."""
        self._forget(client_id)

    def _forget(self, client_id: str) -> None:
        self._sessions.pop(client_id, None)
        self._router.forget(client_id)


def _check_will(incoming: Any) -> None:  # noqa: ANN401 - amqtt has no types
    topic_name = incoming.will_topic
    if not topic_name or topic_name.startswith("$") or any(c in topic_name for c in "+#\0"):
        message = f"Will topic {topic_name[:80]!r}"
        raise ProtocolViolationError(message)
