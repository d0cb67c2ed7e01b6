"""Which version of MQTT to speak next, and how long to wait before trying again.

MQTT 3.1.1 is the contract; version 5 is used where the broker has it. Some brokers never answer
a version 5 CONNECT, so the lack of an answer counts as a refusal of the version.
"""

from typing import Literal

Protocol = Literal["3.1.1", "5", "auto"]
Version = Literal["3.1.1", "5"]


class Dialect:
    """Remembers which version the broker has accepted.

    With ``"auto"``, version 5 is tried first and 3.1.1 after it; the accepted one is kept until
    it is refused in its turn.
    """

    def __init__(self, protocol: Protocol) -> None:
        self._is_fixed = protocol != "auto"
        self._is_settled = False
        self.version: Version = "3.1.1" if protocol == "3.1.1" else "5"

    def accepted(self) -> None:
        """Keep the version: the broker has accepted a connection with it."""
        self._is_settled = True

    def refused(self) -> bool:
        """Take the other version if that is allowed: this one was refused or not answered.

        An accepted version is tried once more before it is given up.

        Returns:
            Whether the other version is worth a try at once.
        """
        if self._is_fixed:
            return False
        if self._is_settled:
            self._is_settled = False
            return False
        self.version = "3.1.1" if self.version == "5" else "5"
        return self.version == "3.1.1"


def reconnect_delay_s(
    failures: int, jitter: float, *, shortest_s: float = 0.2, longest_s: float = 5.0
) -> float:
    """Return the wait before the next connection.

    Args:
        failures: Connections that did not last, in a row, counted from 0.
        jitter: Uniform in [0, 1); spreads a fleet that lost its broker at the same moment.
        shortest_s: Wait after the first failure, at most.
        longest_s: Wait after many failures, at most.

    Returns:
        Between half and the whole of ``shortest_s * 2 ** failures``, capped at ``longest_s``.
    """
    whole = min(longest_s, shortest_s * 2.0 ** min(failures, 32))
    return whole * (0.5 + 0.5 * jitter)
