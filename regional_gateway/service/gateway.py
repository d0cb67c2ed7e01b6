"""The gateway's handler: each event to the use case that it belongs to, and what is due.

Work that is due is done in ``tick``, which the loop runs in the same transaction as the events
that made it due.
"""

from regional_gateway.service.arrivals import FromCentral, FromDevices
from regional_gateway.service.due import NOW_S, earliest
from regional_gateway.service.links import DOWNLINK, UPLINK
from regional_gateway.service.parts import Parts
from schemas.topics import Kind, TopicError, parse
from transport.events import Connected, Disconnected, MessageArrived, Outgoing, Published
from transport.failpoints import failpoint

_PURGE_EVERY_S = 300.0


class Gateway:
    """Implements ``transport.loop.Handler``."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._from_central = FromCentral(parts)
        self._from_devices = FromDevices(parts)
        self._purge_s = NOW_S

    def handle(self, event: object, now_s: float) -> list[Outgoing]:
        """Handle one event of a session; what is not known is ignored.

        Raises:
            WireError: A message breaks the contract.
        """
        match event:
            case MessageArrived():
                return self._on_message(event, now_s)
            case Published(session=session, token=token):
                return self._on_published(session, token, now_s)
            case Connected(session=session):
                return self._on_connected(session, now_s)
            case Disconnected(session=session) if session == UPLINK:
                self._parts.uplink.on_disconnected()
        return []

    def tick(self, now_s: float) -> list[Outgoing]:
        """Do what is due."""
        parts = self._parts
        is_up = parts.uplink.is_up
        outgoing = parts.assignments.due(now_s)
        outgoing += parts.uplink.due(now_s)
        outgoing += parts.custody.due(now_s)
        if is_up and earliest(parts.sender.next_due_s()) <= now_s:
            outgoing += parts.sender.due(now_s)
        outgoing += parts.pulls.due(now_s, uplink_up=is_up)
        outgoing += parts.models.due(now_s, uplink_up=is_up)
        if parts.statuses.is_due(now_s) and (done := parts.statuses.write()) is not None:
            parts.deferred.add(done)
        if now_s >= self._purge_s:
            self._purge_s = now_s + _PURGE_EVERY_S
            self._purge(now_s)
        return outgoing

    def next_due_s(self, now_s: float) -> float | None:  # noqa: ARG002 - the handler's port
        """Return when ``tick`` is needed next."""
        parts = self._parts
        is_up = parts.uplink.is_up
        return earliest(
            parts.assignments.next_due_s(),
            parts.uplink.next_due_s(),
            parts.custody.next_due_s(),
            parts.sender.next_due_s() if is_up else None,
            parts.pulls.next_due_s(uplink_up=is_up),
            parts.models.next_due_s(uplink_up=is_up),
        )

    def after_commit(self) -> None:
        """Do what had to wait for the commit."""
        self._parts.deferred.run()

    def give_up(self, event: object, why: str, now_s: float) -> list[Outgoing]:  # noqa: ARG002 - the handler's port
        """Do nothing: whoever awaits an answer sends its message again."""
        return []

    def _on_message(self, message: MessageArrived, now_s: float) -> list[Outgoing]:
        topic = parse(message.topic_name)
        if message.session == UPLINK and topic.kind is Kind.CENTRAL_STATE:
            return self._on_central_state(message, now_s)
        address = topic.address
        if address is None or address.region != self._parts.links.region:
            reason = f"topic {message.topic_name!r} is not one of this gateway's"
            raise TopicError(reason)
        if message.session == UPLINK and address.is_gateway:
            return self._from_central.on_message(topic, message.payload, now_s)
        if message.session == DOWNLINK and not address.is_gateway:
            return self._from_devices.on_message(topic, address.node, message.payload, now_s)
        return []

    def _on_central_state(self, message: MessageArrived, now_s: float) -> list[Outgoing]:
        uplink = self._parts.uplink
        if not uplink.is_news_of_central(message.payload, retained=message.retained):
            return []
        return [*uplink.announce(now_s), *self._wake(now_s)]

    def _on_connected(self, session: str, now_s: float) -> list[Outgoing]:
        parts = self._parts
        if session == UPLINK:
            return [*parts.uplink.on_connected(now_s), *self._wake(now_s)]
        parts.assignments.wake()
        return parts.pulls.wake(now_s)

    def _wake(self, now_s: float) -> list[Outgoing]:
        self._parts.sender.wake(now_s)
        return [*self._parts.pulls.bid_again(), *self._parts.models.wake(now_s)]

    def _on_published(self, session: str, token: int, now_s: float) -> list[Outgoing]:
        if session == DOWNLINK:
            return self._parts.models.on_published(token, now_s)
        self._parts.relay.on_published(token)
        return []

    def _purge(self, now_s: float) -> None:
        parts = self._parts
        parts.store.purge(now_s)
        failpoint("gateway.rows.purged")
        parts.pulls.expire(now_s)
        parts.models.release()
        parts.devices.forget_strangers()
        parts.deferred.add(parts.assignments.forget_dropped)
        parts.deferred.add(parts.custody.remove_orphans)
