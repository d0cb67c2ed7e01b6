"""A broker in memory: the same sessions without a network, one step at a time, on a seed.

Nothing happens by itself: ``start`` and ``publish`` only queue actions, and ``step`` carries one
of them out. So a test, or a simulation of a whole fleet, decides when what happens, and a seed
repeats it. What brokers and networks do happens on demand: a message is acknowledged and lost,
delivered twice or out of order; a client is cut off; the broker restarts and has forgotten
everything. Message expiry is not imitated.
"""

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from transport.events import Outgoing
from transport.mailbox import Mailbox, Message
from transport.memory_session import MemorySession
from transport.topic_filters import FilterTree, check_filter, matches


@dataclass(slots=True)
class _Client:
    """What the broker knows of one client identifier, connected or away."""

    mailbox: Mailbox = field(default_factory=Mailbox)
    filters: tuple[str, ...] = ()
    #: The session that is started and neither stopped nor crashed.
    session: MemorySession | None = None
    is_cut: bool = False
    is_due: bool = False


class MemoryBroker:
    """Routes messages between sessions; safe from several threads, but has none of its own.

    Attributes:
        loss: Probability that a published message is acknowledged and lost.
        duplicate: Probability that a receiver gets a message twice.
        reorder: Probability that a message overtakes others that wait for the same receiver.
        lost: How many messages were lost.
        lock: Held while anything changes.
        retained: Payload by topic name.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        *,
        loss: float = 0.0,
        duplicate: float = 0.0,
        reorder: float = 0.0,
    ) -> None:
        self.loss, self.duplicate, self.reorder = loss, duplicate, reorder
        self.lost = 0
        self.retained: dict[str, bytes] = {}
        self._rng = rng
        self._clients: dict[str, _Client] = {}
        self._tree: FilterTree[str] = FilterTree()
        self._actions: deque[Callable[[], None]] = deque()
        self.lock = threading.Condition(threading.RLock())

    def session(  # noqa: PLR0913 - as PahoSession
        self,
        *,
        name: str,
        mqtt_client_id: str,
        filters: tuple[str, ...],
        events: "queue.SimpleQueue[Any]",
        will: Outgoing | None = None,
        budget_bytes: int | None = None,
    ) -> MemorySession:
        """Return a session that is not yet started; the arguments are those of ``PahoSession``.

        Raises:
            FilterError: A filter is not valid.
        """
        for topic_filter in filters:
            check_filter(topic_filter)
        return MemorySession(
            self,
            name=name,
            mqtt_client_id=mqtt_client_id,
            filters=filters,
            events=events,
            will=will,
            budget_bytes=budget_bytes,
        )

    def step(self) -> bool:
        """Carry out the oldest action; return whether there was one."""
        with self.lock:
            if not self._actions:
                return False
            self._actions.popleft()()
            return True

    def pump(self) -> int:
        """Carry out actions until none is left; return how many there were."""
        steps = 0
        while self.step():
            steps += 1
        return steps

    @contextmanager
    def background(self) -> Iterator[None]:
        """Pump on a thread while the context lasts, for programs that run on threads too."""
        is_over = False

        def run() -> None:
            with self.lock:
                while not is_over:
                    self.pump()
                    self.lock.wait()

        thread = threading.Thread(target=run, name="memory-broker", daemon=True)
        thread.start()
        try:
            yield
        finally:
            with self.lock:
                is_over = True
                self.lock.notify_all()
            thread.join()

    def cut(self, mqtt_client_id: str) -> None:
        """Part a client from the broker: both notice, the Will is published."""
        with self.lock:
            client = self._client(mqtt_client_id)
            client.is_cut = True
            session = client.session
            if session is not None and session.is_connected:
                session.on_lost("cut off")
                self._publish_will(session)

    def heal(self, mqtt_client_id: str) -> None:
        """Let a client reach the broker again; its session reconnects."""
        with self.lock:
            client = self._client(mqtt_client_id)
            client.is_cut = False
            if client.session is not None:
                self.queue(partial(self._connect, client.session))

    def restart(self, *, keeps_sessions: bool = False) -> None:
        """Kill the broker and start it again: everybody is parted, no Will is published.

        Args:
            keeps_sessions: Whether it had stored sessions and retained messages.
        """
        with self.lock:
            self._actions.clear()
            if not keeps_sessions:
                self.retained.clear()
                self._tree = FilterTree()
            for client in self._clients.values():
                client.is_due = False
                if not keeps_sessions:
                    client.mailbox, client.filters = Mailbox(), ()
                if client.session is not None:
                    if client.session.is_connected:
                        client.session.on_lost("broker restarted")
                    self.queue(partial(self._connect, client.session))

    def queue(self, action: Callable[[], None]) -> None:
        """Let a later step carry an action out; for sessions."""
        with self.lock:
            self._actions.append(action)
            self.lock.notify_all()

    def attach(self, session: MemorySession) -> None:
        """Make a session its client's one session, and let it connect; for sessions."""
        with self.lock:
            client = self._client(session.mqtt_client_id)
            former, client.session = client.session, session
            if former is not None and former.is_connected:
                former.on_lost("taken over")
                self._publish_will(former)
            self.queue(partial(self._connect, session))

    def detach(self, session: MemorySession, *, with_will: bool) -> None:
        """Let a session go for ever; its client's mailbox stays; for sessions."""
        with self.lock:
            client = self._client(session.mqtt_client_id)
            if client.session is session:
                client.session = None
            if with_will:
                self._publish_will(session)

    def route(self, message: Outgoing) -> None:
        """Bring one published message to its receivers; for sessions."""
        with self.lock:
            if self._happens(self.loss):
                self.lost += 1
                return
            rule, name = message.topic.rule, message.topic.name
            if rule.retain if message.retain is None else message.retain:
                self._retain(name, message.payload)
            for client_id in sorted(self._tree.match(name)):
                sent = Message(name, message.payload, rule.qos)
                for _ in range(2 if self._happens(self.duplicate) else 1):
                    self._post(client_id, sent)

    def acknowledge(self, session: MemorySession, packet_id: int) -> None:
        """Take a session's acknowledgement; for sessions."""
        with self.lock:
            if self._client(session.mqtt_client_id).mailbox.acknowledge(packet_id):
                self._make_due(session.mqtt_client_id)

    def _client(self, client_id: str) -> _Client:
        return self._clients.setdefault(client_id, _Client())

    def _happens(self, probability: float) -> bool:
        return probability > 0 and float(self._rng.random()) < probability

    def _publish_will(self, session: MemorySession) -> None:
        if session.will is not None:
            self.route(session.will)

    def _retain(self, name: str, payload: bytes) -> None:
        if payload:
            self.retained[name] = payload
        else:
            self.retained.pop(name, None)

    def _connect(self, session: MemorySession) -> None:
        client = self._client(session.mqtt_client_id)
        if client.session is not session or client.is_cut or session.is_connected:
            return
        client.mailbox.drop_qos_0()
        session.on_connected()
        self._subscribe(session.mqtt_client_id, client, session.filters)
        for packet_id, message in client.mailbox.unacknowledged():
            session.on_message(message, packet_id)
        self._make_due(session.mqtt_client_id)

    def _subscribe(self, client_id: str, client: _Client, filters: tuple[str, ...]) -> None:
        for topic_filter in client.filters:
            self._tree.remove(topic_filter, client_id)
        client.filters = filters
        for topic_filter in filters:
            self._tree.add(topic_filter, client_id, 1)
        for name in sorted(self.retained):
            if any(matches(topic_filter, name) for topic_filter in filters):
                self._post(client_id, Message(name, self.retained[name], 1, retain=True))

    def _post(self, client_id: str, message: Message) -> None:
        client = self._clients[client_id]
        is_here = client.session is not None and client.session.is_connected
        if is_here or message.qos > 0:
            client.mailbox.put(message)
            self._make_due(client_id)

    def _make_due(self, client_id: str) -> None:
        client = self._clients[client_id]
        if client.mailbox.queued and not client.is_due:
            client.is_due = True
            self.queue(partial(self._deliver, client_id, client))

    def _deliver(self, client_id: str, client: _Client) -> None:
        client.is_due = False
        session = client.session
        if session is None or not session.is_connected:
            return
        position = 0
        if self._happens(self.reorder):
            position = int(self._rng.integers(max(1, client.mailbox.queued)))
        taken = client.mailbox.next(position)
        if taken is not None:
            session.on_message(taken[1], taken[0])
            self._make_due(client_id)
