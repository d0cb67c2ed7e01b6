"""Simulated brokers and sessions: what MQTT loses, repeats, delays and forgets, from the seed.

A broker acknowledges what it then loses; it keeps messages for clients that are away, unless it
is killed and forgets; it sends again what was not acknowledged, or does not; it publishes Wills
late. Connections break, and one direction of a connection goes dumb while both ends believe in it.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from tests.simulation.clockwork import Clockwork
from tests.simulation.swarm import Swarm
from transport.events import (
    Connected,
    Disconnected,
    MessageArrived,
    Outgoing,
    Published,
    SessionEvent,
)
from transport.outgoing import check_size
from transport.topic_filters import FilterTree, matches

#: What a broker keeps for one client that is away.
MAX_MAILBOX = 200
_RECONNECT_S = 5.0


@dataclass(frozen=True, slots=True)
class Letter:
    """One message on its way to one client."""

    topic_name: str
    payload: bytes
    qos: int
    is_retained: bool = False


class Host(Protocol):
    """The program behind a session."""

    name: str

    def receive(self, event: SessionEvent) -> None:
        """Put an event on the program's queue."""

    def effect(self, label: str) -> None:
        """Come to a point at which the program may be killed."""

    def published(self, message: Outgoing) -> None:
        """See what the program hands over."""


@dataclass(slots=True)
class Client:
    """What a broker knows of one client identifier."""

    filters: tuple[str, ...] = ()
    mailbox: deque[Letter] = field(default_factory=deque)
    unacknowledged: dict[int, Letter] = field(default_factory=dict)
    session: "SimulatedSession | None" = None
    last_id: int = 0


class SimulatedSession:
    """Implements ``transport.events.Session`` on a simulated broker."""

    def __init__(
        self,
        broker: "SimulatedBroker",
        host: Host,
        name: str,
        mqtt_client_id: str,
        filters: tuple[str, ...],
    ) -> None:
        self.name = name
        self.mqtt_client_id = mqtt_client_id
        self.filters = filters
        self.will: Outgoing | None = None
        #: The Will that the broker was told with the connection that stands.
        self.told_will: Outgoing | None = None
        self.host = host
        self.is_connected = False
        self.is_alive = True
        #: Until when messages vanish on the way up, and wait on the way down.
        self.dumb_up_s = self.dumb_down_s = float("-inf")
        #: How this program writes what it says.
        self.spoken: Callable[[Outgoing], bytes] = _as_it_is
        self._broker = broker

    def start(self) -> None:
        self._broker.attach(self)

    def publish(self, message: Outgoing) -> bool:
        self.host.effect(f"publish {message.topic.kind.name}")
        check_size(message)
        self.host.published(message)
        if not self.is_connected:
            return False
        self._broker.take(self, message)
        return True

    def stop(self, farewell: Outgoing | None = None) -> None:
        if farewell is not None and self.is_connected:
            self._broker.take(self, farewell)
        self.leave(with_will=False)

    def leave(self, *, with_will: bool) -> None:
        """Be gone: the program has ended."""
        self.is_alive = False
        self._broker.detach(self, with_will=with_will and self.is_connected)
        self.is_connected = False


class SimulatedBroker:
    """Routes letters between sessions with the swarm's bad luck, as long as that lasts."""

    def __init__(self, work: Clockwork, swarm: Swarm, name: str) -> None:
        self.name = name
        self.retained: dict[str, bytes] = {}
        self.is_up = True
        self._work = work
        self._swarm = swarm
        self._is_healed = False
        self._clients: dict[str, Client] = {}
        self._tree: FilterTree[str] = FilterTree()
        #: Tells apart letters that were under way before the broker was killed.
        self._life = 0

    def heal(self) -> None:
        self._is_healed = True
        self.is_up = True
        for client in self._clients.values():
            session = client.session
            if session is not None:
                session.dumb_up_s = session.dumb_down_s = float("-inf")
                if not session.is_connected:
                    self._plan_connection(session, 1.0)

    # -- for sessions ------------------------------------------------------------------------

    def attach(self, session: SimulatedSession) -> None:
        client = self._clients.setdefault(session.mqtt_client_id, Client())
        former = client.session
        if former is not None and former.is_connected:
            self._lose(former, "taken over")
        client.session = session
        self._plan_connection(session, 0.5)

    def detach(self, session: SimulatedSession, *, with_will: bool) -> None:
        client = self._clients[session.mqtt_client_id]
        if client.session is session:
            client.session = None
        if with_will:
            self._publish_will(session)

    def take(self, session: SimulatedSession, message: Outgoing) -> None:
        """Take one message over from a program that is connected."""
        topic_name = message.topic.name
        if message.token is not None:
            told = partial(self._tell, session, Published(session.name, message.token))
            self._work.after(self._delay_s(), told)
        if self._work.now_s < session.dumb_up_s or self._is_lost():
            return
        rule = message.topic.rule
        letter = Letter(topic_name, session.spoken(message), rule.qos)
        is_retained = rule.retain if message.retain is None else message.retain
        arrive = partial(self._route, letter, is_retained, self._life)
        self._work.after(self._delay_s(), arrive)

    def acknowledge(self, session: SimulatedSession, packet_id: int) -> None:
        client = self._clients[session.mqtt_client_id]
        if client.session is session:
            client.unacknowledged.pop(packet_id, None)

    # -- faults ------------------------------------------------------------------------------

    def cut(self, session: SimulatedSession, away_s: float) -> None:
        """Break a connection; the program notices, and comes back after a while."""
        if session.is_connected:
            self._lose(session, "cut")
        self._plan_connection(session, away_s)

    def kill(self, down_s: float, *, forgets: bool) -> None:
        """Kill the broker: letters under way are gone, no Will is published."""
        self._life += 1
        self.is_up = False
        if forgets:
            self.retained.clear()
            self._tree = FilterTree()
        for client in self._clients.values():
            if forgets:
                client.mailbox.clear()
                client.unacknowledged.clear()
                client.filters = ()
            session = client.session
            if session is not None and session.is_connected:
                session.is_connected = False
                self._tell(session, Disconnected(session.name, "broker killed"))
        self._work.after(down_s, self._rise)

    # -- inside ------------------------------------------------------------------------------

    def _rise(self) -> None:
        self.is_up = True
        for client in self._clients.values():
            if client.session is not None and not client.session.is_connected:
                self._plan_connection(client.session, _RECONNECT_S)

    def _plan_connection(self, session: SimulatedSession, longest_s: float) -> None:
        wait_s = self._work.between(0.01, max(0.02, longest_s))
        self._work.after(wait_s, partial(self._connect, session))

    def _connect(self, session: SimulatedSession) -> None:
        client = self._clients[session.mqtt_client_id]
        if client.session is not session or session.is_connected or not session.is_alive:
            return
        if not self.is_up:
            return
        session.is_connected = True
        session.told_will = session.will
        self._work.note(session.host.name, f"connected {session.name}")
        self._tell(session, Connected(session.name))
        again = list(client.unacknowledged.values())
        client.unacknowledged.clear()
        self._subscribe(session, client)
        waiting, client.mailbox = list(client.mailbox), deque()
        repeated = again if self._is_healed or self._work.chance(0.8) else []
        for letter in (*repeated, *waiting):
            self._send(session.mqtt_client_id, letter)

    def _subscribe(self, session: SimulatedSession, client: Client) -> None:
        if client.filters != session.filters:
            for topic_filter in client.filters:
                self._tree.remove(topic_filter, session.mqtt_client_id)
            client.filters = session.filters
        for topic_filter in session.filters:
            self._tree.add(topic_filter, session.mqtt_client_id, 1)
        for topic_name in sorted(self.retained):
            if any(matches(one, topic_name) for one in session.filters):
                letter = Letter(topic_name, self.retained[topic_name], 1, is_retained=True)
                self._send(session.mqtt_client_id, letter)

    def _route(self, letter: Letter, is_retained: bool, life: int) -> None:
        if life != self._life or not self.is_up:
            return
        if is_retained:
            if letter.payload:
                self.retained[letter.topic_name] = letter.payload
            else:
                self.retained.pop(letter.topic_name, None)
        for client_id in sorted(self._tree.match(letter.topic_name)):
            if self._is_lost():
                continue
            copies = 1 if self._is_healed else 1 + self._work.chance(self._swarm.duplicate)
            for _ in range(copies):
                self._send(client_id, letter)

    def _send(self, client_id: str, letter: Letter) -> None:
        client = self._clients[client_id]
        if client.session is None or not client.session.is_connected:
            self._keep(client, letter)
            return
        deliver = partial(self._deliver, client_id, letter, self._life)
        self._work.after(self._delay_s(), deliver)

    def _deliver(self, client_id: str, letter: Letter, life: int) -> None:
        if life != self._life:
            return
        client = self._clients[client_id]
        session = client.session
        if session is None or not session.is_connected:
            self._keep(client, letter)
            return
        if self._work.now_s < session.dumb_down_s:
            wait_s = session.dumb_down_s - self._work.now_s + 0.01
            self._work.after(wait_s, partial(self._deliver, client_id, letter, life))
            return
        ack: Callable[[], None] = _nothing
        if letter.qos > 0:
            client.last_id += 1
            client.unacknowledged[client.last_id] = letter
            ack = partial(self._acknowledged, session, client.last_id)
        event = MessageArrived(
            session.name, letter.topic_name, letter.payload, letter.is_retained, ack
        )
        self._tell(session, event)

    def _acknowledged(self, session: SimulatedSession, packet_id: int) -> None:
        session.host.effect("ack")
        self.acknowledge(session, packet_id)

    def _keep(self, client: Client, letter: Letter) -> None:
        if letter.qos > 0 and len(client.mailbox) < MAX_MAILBOX:
            client.mailbox.append(letter)

    def _lose(self, session: SimulatedSession, why: str) -> None:
        session.is_connected = False
        self._work.note(session.host.name, f"lost {session.name}: {why}")
        self._tell(session, Disconnected(session.name, why))
        self._publish_will(session)

    def _publish_will(self, session: SimulatedSession) -> None:
        will = session.told_will
        if will is None or self._is_lost():
            return
        letter = Letter(will.topic.name, session.spoken(will), will.topic.rule.qos)
        late_s = self._work.between(0.0, 2.0 if self._is_healed else 60.0)
        self._work.after(late_s, partial(self._route, letter, will.topic.rule.retain, self._life))

    def _tell(self, session: SimulatedSession, event: SessionEvent) -> None:
        if session.is_alive:
            session.host.receive(event)

    def _is_lost(self) -> bool:
        return not self._is_healed and self._work.chance(self._swarm.loss)

    def _delay_s(self) -> float:
        longest_s = 0.02 if self._is_healed else self._swarm.delay_s
        return self._work.between(0.0005, longest_s)


def _nothing() -> None:
    return


def _as_it_is(message: Outgoing) -> bytes:
    return message.payload
