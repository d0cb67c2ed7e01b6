"""Who receives what at the embedded broker: subscriptions, retained messages, mailboxes."""

from dataclasses import dataclass, field

import structlog
from amqtt.session import Session

from transport.embedded_client import ClientConnection
from transport.mailbox import Mailbox, Message
from transport.topic_filters import FilterError, FilterTree, check_filter, matches

MAX_RETAINED = 10_000
_REFUSED = 0x80

_log = structlog.get_logger()


@dataclass(slots=True)
class Client:
    """What the broker knows of one client identifier.

    Attributes:
        session: amqtt's record of its last CONNECT.
        mailbox: What waits for it, also while it is away.
        filters: What it has subscribed to.
        connection: Where it is connected, if it is.
    """

    session: Session
    mailbox: Mailbox = field(default_factory=Mailbox)
    filters: set[str] = field(default_factory=set)
    connection: ClientConnection | None = None


class MailRouter:
    """Brings messages into the mailboxes of their receivers.

    Attributes:
        clients: Every client that the broker knows, connected or away, by client identifier.
    """

    def __init__(self) -> None:
        self.clients: dict[str, Client] = {}
        self._tree: FilterTree[str] = FilterTree()
        self._retained: dict[str, Message] = {}

    def forget(self, client_id: str) -> None:
        """Drop a client, its subscriptions and its mailbox."""
        client = self.clients.pop(client_id, None)
        for topic_filter in client.filters if client is not None else ():
            self._tree.remove(topic_filter, client_id)

    def publish(self, topic_name: str, payload: bytes, qos: int, *, retain: bool) -> None:
        """Bring a message to every subscriber, and keep it if it is to be retained."""
        if topic_name.startswith("$"):
            return
        if retain:
            self._retain(Message(topic_name, payload, qos, retain=True))
        for client_id, granted in self._tree.match(topic_name).items():
            self._post(client_id, Message(topic_name, payload, min(qos, granted)))

    def subscribe(self, client_id: str, topic_filter: str, qos: int) -> int:
        """Record a subscription; return the SUBACK code."""
        try:
            check_filter(topic_filter)
        except FilterError as error:
            _log.warning("embedded_filter_refused", reason=str(error))
            return _REFUSED
        granted = min(qos, 1)
        self._tree.add(topic_filter, client_id, granted)
        self.clients[client_id].filters.add(topic_filter)
        return granted

    def unsubscribe(self, client_id: str, topic_filter: str) -> None:
        """Forget a subscription."""
        self._tree.remove(topic_filter, client_id)
        self.clients[client_id].filters.discard(topic_filter)

    def send_retained(self, client_id: str, topic_filter: str, qos: int) -> None:
        """Put the retained messages of one new subscription into its client's mailbox."""
        for stored in self._retained.values():
            if matches(topic_filter, stored.topic_name):
                sent = Message(
                    stored.topic_name, stored.payload, min(stored.qos, qos), retain=True
                )
                self._post(client_id, sent)

    def _post(self, client_id: str, message: Message) -> None:
        client = self.clients[client_id]
        connection = client.connection
        if connection is None and message.qos == 0:
            return
        if not client.mailbox.put(message) and client.mailbox.dropped == 1:
            _log.warning("embedded_mailbox_full", mqtt_client_id=client_id)
        if connection is not None:
            connection.wake()

    def _retain(self, message: Message) -> None:
        name = message.topic_name
        if not message.payload:
            self._retained.pop(name, None)
        elif name in self._retained or len(self._retained) < MAX_RETAINED:
            self._retained[name] = message
        else:
            _log.warning("embedded_retained_full", limit=MAX_RETAINED)
