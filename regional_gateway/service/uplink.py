"""The gateway's standing with central: it announces its region, asks for its work, and obeys."""

import numpy as np
from pydantic import ValidationError

from regional_gateway.service.assignments import Assignments
from regional_gateway.service.devices import Devices
from regional_gateway.service.due import NEVER_S
from regional_gateway.service.links import Links
from regional_gateway.service.relay import Relay
from regional_gateway.service.statuses import Statuses
from schemas.base import explain
from schemas.envelope import Frame, decode_frame
from schemas.errors import MessageError
from schemas.messages import Next, NoJob
from schemas.tasks import CentralState
from schemas.topics import Kind
from transport.events import Outgoing
from transport.failpoints import failpoint
from transport.retry import Backoff

#: Without any sign of trouble the gateway asks, and tells all it knows, so often.
ASK_EVERY_S = 300.0


class Uplink:
    """What is said to central on the gateway's own behalf.

    Attributes:
        is_up: Whether the way to central's broker stands.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - collaborators, named by the composition root
        self,
        links: Links,
        devices: Devices,
        statuses: Statuses,
        assignments: Assignments,
        relay: Relay,
        backoff: Backoff,
        rng: np.random.Generator,
    ) -> None:
        """Begin without a connection.

        Args:
            links: Makes messages.
            devices: The region's state.
            statuses: What devices say of their jobs.
            assignments: The region's current work.
            relay: Devices' frames on their way to central.
            backoff: Delays between repeated questions.
            rng: Source of their jitter.
        """
        self.is_up = False
        self._links = links
        self._devices = devices
        self._statuses = statuses
        self._assignments = assignments
        self._relay = relay
        self._backoff = backoff
        self._rng = rng
        self._central = (-1, 0)  # boot and connection
        self._question: tuple[str, bytes, Next] | None = None
        self._tries = 0
        self._ask_s = NEVER_S

    def on_connected(self, now_s: float) -> list[Outgoing]:
        """Announce the region on a new connection."""
        self.is_up = True
        self._relay.restart()
        return self.announce(now_s)

    def on_disconnected(self) -> None:
        """Note that the way to central is gone; what waits stays."""
        self.is_up = False

    def is_news_of_central(self, payload: bytes, *, retained: bool) -> bool:
        """Read central's state; tell whether central is on a new connection, or in a new life.

        What was told before may be lost then, with its session at the broker. A retained state
        came with a connection of ours, on which the region was announced anyway.

        Raises:
            MessageError: It is not a state of central.
        """
        try:
            state = CentralState.model_validate_json(payload)
        except ValidationError as error:
            raise MessageError(explain(error)) from error
        told = (state.boot, state.connection)
        if state.status != "online" or told <= self._central:
            return False
        self._central = told
        return not retained

    def announce(self, now_s: float) -> list[Outgoing]:
        """Return the region's birth and its question; all devices' states follow."""
        self._devices.relay_all()
        failpoint("gateway.birth.due")
        return [*self._devices.birth(now_s), *self._ask(now_s)]

    def on_no_job(self, frame: Frame, now_s: float) -> None:
        """Take the answer to the gateway's question; an answer to an older one is ignored."""
        body = frame.body(NoJob)
        if self._question is None or frame.header.corr != self._question[0]:
            return
        self._assignments.on_no_job(body, self._question[2])
        self._tries = 0
        self._ask_s = now_s + ASK_EVERY_S
        self._question = None

    def due(self, now_s: float) -> list[Outgoing]:
        """Return the question when it is due, and the frames to relay."""
        if not self.is_up:
            return []
        outgoing = self._devices.tick(now_s)
        if now_s >= self._ask_s:
            outgoing += self._repeat(now_s) if self._question else self._heal(now_s)
        return outgoing + self._relay.due(now_s)

    def next_due_s(self) -> float:
        """Return when ``due`` may have something to say; infinity: not before an event."""
        return min(self._ask_s, self._relay.next_due_s()) if self.is_up else NEVER_S

    def _heal(self, now_s: float) -> list[Outgoing]:
        """Tell everything again: whatever was lost on the way is then known."""
        self._devices.relay_all()
        self._statuses.relay_again(self._assignments.keys())
        return [*self._devices.birth(now_s), *self._ask(now_s)]

    def _ask(self, now_s: float) -> list[Outgoing]:
        assignments = self._assignments
        asked = Next(holding=assignments.holding(), unsettled=assignments.unsettled())
        frame = self._links.frames.frame(asked)
        self._question = (decode_frame(frame).header.id, frame, asked)
        self._tries = 0
        return self._repeat(now_s)

    def _repeat(self, now_s: float) -> list[Outgoing]:
        if self._question is None:
            return []
        self._ask_s = now_s + self._backoff.delay_s(self._tries, self._rng)
        self._tries += 1
        return [self._links.up(Kind.NEXT, self._question[1])]
