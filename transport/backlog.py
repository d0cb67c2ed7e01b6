"""The loop's events: what the queue brings, and what has to be handled once more."""

import queue
from dataclasses import dataclass

_MAX_BATCH = 256
_MAX_TRIES = 3
_RETRY_S = 1.0
_WAKE_UP = object()


@dataclass(slots=True)
class Item:
    """One event, and how often handling it has failed."""

    event: object
    failures: int = 0
    not_before_s: float = 0.0

    @property
    def is_last_try(self) -> bool:
        """Whether this event is not tried again should it fail now."""
        return self.failures + 1 >= _MAX_TRIES


class Backlog:
    """Gathers batches of events; one thread gathers, any thread or signal handler may wake."""

    def __init__(self, events: "queue.SimpleQueue[object]") -> None:
        self._events = events
        self._kept: list[Item] = []

    def wake(self) -> None:
        """Make a waiting ``gather`` return."""
        self._events.put(_WAKE_UP)

    def gather(self, now_s: float, wait_s: float) -> list[Item]:
        """Return what has arrived or is to be handled again.

        Args:
            now_s: Now, seconds.
            wait_s: Wait so long for an event when there is nothing yet.
        """
        batch = [item for item in self._kept if item.not_before_s <= now_s]
        self._kept = [item for item in self._kept if item.not_before_s > now_s]
        wait_s = min(wait_s, self._next_s() - now_s)
        try:
            event = self._events.get(timeout=0.0 if batch else wait_s)
            while True:
                if event is not _WAKE_UP:
                    batch.append(Item(event))
                if len(batch) >= _MAX_BATCH:
                    break
                event = self._events.get_nowait()
        except queue.Empty:
            pass
        return batch

    def keep(self, batch: list[Item]) -> None:
        """Take a batch back, as if it had never been gathered."""
        self._kept = batch + self._kept

    def try_again(self, item: Item, now_s: float) -> None:
        """Keep an event that failed for another try in 1 s."""
        item.failures += 1
        item.not_before_s = now_s + _RETRY_S
        self._kept.append(item)

    def _next_s(self) -> float:
        return min((item.not_before_s for item in self._kept), default=float("inf"))
