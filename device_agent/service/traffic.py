"""What this device's session has cost since its boot began, without the time it had no work.

Heartbeats of idle days belong to no round. They are left out by the heartbeat's own measure: what
went over the wire between two heartbeats without a job in between. The count never goes down.
"""

from collections.abc import Callable

from transport.traffic import Traffic


class WorkTraffic:
    """Counts bytes for jobs; every method belongs to the agent's loop."""

    def __init__(self, read: Callable[[], Traffic] | None = None) -> None:
        """Begin a boot.

        Args:
            read: Returns the session's counts; None: this session counts nothing.
        """
        self._read = read
        self._idle = Traffic()
        self._quiet_since: Traffic | None = None

    def told(self) -> tuple[int, int] | None:
        """Return bytes sent and received, as a manifest tells them; None: nothing is counted."""
        if self._read is None:
            return None
        worked = self._read().since(self._idle)
        return worked.sent_bytes, worked.received_bytes

    def new_boot(self) -> None:
        """Count from zero: who remembers this device's counts does so by its boot."""
        if self._read is not None:
            self._idle = self._read()
        self._quiet_since = None

    def busy(self) -> None:
        """Note that there is work: what comes until the next quiet heartbeat belongs to it."""
        self._quiet_since = None

    def heartbeat(self, *, is_idle: bool) -> None:
        """Leave out what came since the last heartbeat, if there was no work at either.

        Args:
            is_idle: Whether no job is under way.
        """
        if self._read is None:
            return
        now = self._read()
        if is_idle and self._quiet_since is not None:
            quiet = now.since(self._quiet_since)
            self._idle = Traffic(
                self._idle.sent_bytes + quiet.sent_bytes,
                self._idle.received_bytes + quiet.received_bytes,
            )
        self._quiet_since = now if is_idle else None
