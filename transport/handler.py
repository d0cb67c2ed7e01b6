"""What the loop asks of a program."""

from collections.abc import Iterable
from typing import Protocol

from transport.events import Outgoing


class Handler(Protocol):
    """What a program does with its events.

    ``handle`` and ``tick`` run inside the loop's transaction, on its thread; they write through
    the loop's connection and return what to publish. What they wrote may still be undone: when
    they raise, or when the commit fails, in which case the same event is handled again. So an
    event must have the same effect when it is handled twice, and work that cannot be undone
    begins in ``after_commit``.
    """

    def handle(self, event: object, now_s: float) -> Iterable[Outgoing]:
        """Handle one event: a ``SessionEvent``, or whatever a worker has put on the queue.

        Raises:
            WireError: The event breaks the contract; its writes are undone, it is acknowledged.
        """

    def tick(self, now_s: float) -> Iterable[Outgoing]:
        """Do what is due; called when ``next_due_s`` has come, and at least every second."""

    def next_due_s(self, now_s: float) -> float | None:
        """Return when ``tick`` is needed next, on the loop's clock; None: nothing is planned."""

    def after_commit(self) -> None:
        """Begin background work that must not begin before the commit."""

    def give_up(self, event: object, why: str, now_s: float) -> Iterable[Outgoing]:
        """End what an event was for, which ``handle`` could not handle three times.

        It is called in the transaction that parks the event; what it writes is undone when it
        raises, and the event is parked all the same.
        """
