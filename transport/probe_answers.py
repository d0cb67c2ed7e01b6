"""What a broker answered to the probe of ``fedfleet doctor``."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Answer:
    """What a broker said to CONNECT.

    Attributes:
        problem: Why there is no connection, or None.
        is_version_refused: Whether the other version of MQTT is worth a try.
        session_present: Whether the broker still had the session.
        packet_bytes: Its Maximum Packet Size, where it told one (MQTT 5).
    """

    problem: str | None = None
    is_version_refused: bool = False
    session_present: bool = False
    packet_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Echo:
    """What became of one message that the probe published.

    Attributes:
        came_back: Whether the broker delivered it to the probe.
        acknowledged: Whether a PUBACK without an error came, which proves nothing.
        refusal: The reason code of the refusal, or why the connection ended, or None.
    """

    came_back: bool = False
    acknowledged: bool = False
    refusal: str | None = None

    @property
    def is_open(self) -> bool:
        """Whether there was no time to know."""
        return not self.came_back and not self.acknowledged and self.refusal is None


@dataclass(frozen=True, slots=True)
class Heard:
    """A message of somebody else."""

    topic_name: str
    payload: bytes
    retained: bool
