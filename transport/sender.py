"""Offers the outbox's updates, answers what the receiver asks for, and believes only receipts."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from schemas.limits import MIB
from schemas.messages import Need, Receipt
from schemas.topics import Address
from transport.events import Outgoing
from transport.outbox import Outbox, OutboxEntry
from transport.retry import Backoff


@dataclass(frozen=True, slots=True)
class ReceiptEffect:
    """What a receipt did.

    Attributes:
        entry: The row it was for; None when it matches none (repeated, or another object's).
        final: Whether the row was removed; the caller may then remove the object's file,
            after the commit.
    """

    entry: OutboxEntry | None
    final: bool


class Sender:
    """Sends one outbox through one session.

    Offers not yet receipted count against a budget of bytes, so that a long outbox does not
    flood the session; a receipt, or the time of the next try, frees what an offer took.
    """

    def __init__(  # noqa: PLR0913 - collaborators, named by the composition root
        self,
        outbox: Outbox,
        session_name: str,
        topic_of: Callable[[OutboxEntry], Address],
        backoff: Backoff,
        rng: np.random.Generator,
        *,
        budget_bytes: int = 4 * MIB,
    ) -> None:
        """Begin with nothing under way.

        Args:
            outbox: Where the updates lie.
            session_name: The session that carries them.
            topic_of: In whose subtree an entry's manifest and chunks are published.
            backoff: Delays between repeated offers.
            rng: Source of their jitter.
            budget_bytes: Bytes offered and not yet receipted; one offer is always allowed.
        """
        self._outbox = outbox
        self._session_name = session_name
        self._topic_of = topic_of
        self._backoff = backoff
        self._rng = rng
        self._budget_bytes = budget_bytes

    def due(self, now_s: float) -> list[Outgoing]:
        """Return the manifests to publish now; call it again after a receipt."""
        raise NotImplementedError

    def on_need(self, need: Need, now_s: float) -> list[Outgoing]:
        """Return the chunks asked for; unknown transfers and numbers are ignored."""
        raise NotImplementedError

    def on_receipt(self, receipt: Receipt, now_s: float) -> ReceiptEffect:
        """Apply one receipt; one that names another object is ignored."""
        raise NotImplementedError

    def wake(self, now_s: float) -> None:
        """Offer everything that no gateway holds at once: the counterpart is back."""
        raise NotImplementedError

    def next_due_s(self) -> float | None:
        """Return when ``due`` may have something to say; None: not before a receipt or a row."""
        raise NotImplementedError
