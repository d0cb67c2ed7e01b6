"""Which filters a connection still has to ask for, and when."""

from collections.abc import Sequence

FIRST_RETRY_S = 5.0
LAST_RETRY_S = 60.0


class Subscribing:
    """Follows one connection from its first SUBSCRIBE until every filter is granted.

    Attributes:
        due_s: When to ask next; None: nothing is to be asked now.
    """

    def __init__(self, filters: Sequence[str]) -> None:
        self.due_s: float | None = None
        self._wanted = list(filters)
        self._asked_mid: int | None = None
        self._retry_s = FIRST_RETRY_S

    @property
    def is_complete(self) -> bool:
        """Whether every filter was granted."""
        return not self._wanted

    def begin(self, now_s: float) -> None:
        """Ask for everything; the connection was accepted."""
        self.due_s = now_s

    def wanted(self, now_s: float) -> list[str]:
        """Return the filters to ask for now, if any."""
        return self._wanted if self.due_s is not None and now_s >= self.due_s else []

    def asked(self, mid: int | None) -> None:
        """Record under which packet id they were asked for."""
        self.due_s, self._asked_mid = None, mid

    def answered(self, mid: int, failures: Sequence[str | None], now_s: float) -> list[str] | None:
        """Take a SUBACK; the filters it refuses are asked for again, ever more rarely.

        Args:
            mid: Its packet id.
            failures: For each filter asked for, why it was refused, or None.
            now_s: Now, on the monotonic clock.

        Returns:
            ``filter: reason`` of each that was refused, or None when the answer is to nothing
            that was asked last.
        """
        if mid != self._asked_mid:
            return None
        self._asked_mid = None
        refused = [
            (topic_filter, reason)
            for topic_filter, reason in zip(self._wanted, failures, strict=False)
            if reason is not None
        ]
        self._wanted = [topic_filter for topic_filter, _ in refused]
        if refused:
            self.due_s = now_s + self._retry_s
            self._retry_s = min(2 * self._retry_s, LAST_RETRY_S)
        return [f"{topic_filter}: {reason}" for topic_filter, reason in refused]
