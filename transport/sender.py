"""Offers the outbox's updates, answers what the receiver asks for, and believes only receipts."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from schemas.limits import DEFAULT_CREDITS, MIB
from schemas.messages import Need, Receipt
from schemas.topics import Address, Kind, Topic
from transport.events import Outgoing
from transport.failpoints import failpoint
from transport.objects import read_block
from transport.outbox import Outbox, OutboxEntry
from transport.retry import Backoff

#: A held update is offered again after this long, should the gateway have lost it.
HELD_REPEAT_S = 60.0
#: After a need the manifest is not repeated for this long.
_PULLED_S = 10.0
_RETRY_JITTER = 0.1
_BATCH = 32
#: Chunks read into memory for one need, however many it asks for.
_MAX_ANSWERED = 8


@dataclass(frozen=True, slots=True)
class _Offer:
    until_s: float
    cost_bytes: int


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
        self._under_way: dict[str, _Offer] = {}
        self._is_full = False

    def due(self, now_s: float) -> list[Outgoing]:
        """Return the manifests to publish now; call it again after a receipt."""
        self._free_overdue(now_s)
        outgoing = []
        for entry in self._outbox.due(now_s, _BATCH, tuple(self._under_way)):
            if not self._fits(entry):
                self._is_full = True
                break
            outgoing.append(self._offer(entry, now_s))
        else:
            self._is_full = False
        return outgoing

    def on_need(self, need: Need, now_s: float) -> list[Outgoing]:
        """Return the chunks asked for, at most 8; unknown transfers and numbers are ignored.

        Raises:
            FileNotFoundError: The object's file is gone.
        """
        entry = self._outbox.get(need.xfer)
        if entry is None or entry.path is None:
            return []
        chunks = -(-entry.size // entry.chunk_bytes)
        wanted = [k for k in need.want if k < chunks][: min(need.credit, _MAX_ANSWERED)]
        self._under_way[entry.xfer] = _Offer(now_s + _PULLED_S, _cost(entry))
        failpoint("transport.chunks.answered")
        return self._chunks(entry, entry.path, wanted)

    def on_receipt(self, receipt: Receipt, now_s: float) -> ReceiptEffect:
        """Apply one receipt; one that names another object is ignored."""
        if receipt.is_final:
            removed = self._outbox.remove(receipt.xfer, receipt.sha256)
            if removed is not None:
                self._free(receipt.xfer)
            return ReceiptEffect(removed, final=removed is not None)
        entry = self._outbox.get(receipt.xfer)
        if entry is None or entry.sha256 != receipt.sha256:
            return ReceiptEffect(None, final=False)
        self._free(receipt.xfer)
        self._put_off(receipt, entry, now_s)
        return ReceiptEffect(self._outbox.get(receipt.xfer), final=False)

    def wake(self, now_s: float) -> None:
        """Offer everything that no gateway holds at once: the counterpart is back."""
        self._outbox.wake(now_s, now_s + HELD_REPEAT_S)
        self._under_way.clear()
        self._is_full = False

    def next_due_s(self) -> float | None:
        """Return when ``due`` may have something to say; None: not before a receipt or a row."""
        frees_s = min((offer.until_s for offer in self._under_way.values()), default=None)
        if self._is_full:
            return frees_s
        next_s = self._outbox.next_due_s(tuple(self._under_way))
        return min((s for s in (frees_s, next_s) if s is not None), default=None)

    def _offer(self, entry: OutboxEntry, now_s: float) -> Outgoing:
        next_try_s = now_s + self._backoff.delay_s(entry.tries, self._rng)
        self._outbox.attempted(entry.xfer, next_try_s)
        self._under_way[entry.xfer] = _Offer(next_try_s, _cost(entry))
        topic = Topic(Kind.MANIFEST, self._topic_of(entry), xfer=entry.xfer)
        return Outgoing(topic, entry.frame, self._session_name)

    def _chunks(self, entry: OutboxEntry, path: Path, wanted: list[int]) -> list[Outgoing]:
        address = self._topic_of(entry)
        return [
            Outgoing(
                Topic(Kind.CHUNK, address, xfer=entry.xfer, k=k),
                read_block(path, k, entry.chunk_bytes),
                self._session_name,
            )
            for k in wanted
        ]

    def _put_off(self, receipt: Receipt, entry: OutboxEntry, now_s: float) -> None:
        asked_s = receipt.retry_after_s or 0.0
        if receipt.status == "held":
            self._outbox.hold(entry.xfer, now_s + max(asked_s, HELD_REPEAT_S))
            return
        asked_s *= 1.0 + _RETRY_JITTER * float(self._rng.random())
        wait_s = max(asked_s, self._backoff.delay_s(entry.tries, self._rng))
        self._outbox.postpone(entry.xfer, now_s + wait_s)

    def _free(self, xfer: str) -> None:
        self._under_way.pop(xfer, None)
        self._is_full = False

    def _fits(self, entry: OutboxEntry) -> bool:
        used = sum(offer.cost_bytes for offer in self._under_way.values())
        return not self._under_way or used + _cost(entry) <= self._budget_bytes

    def _free_overdue(self, now_s: float) -> None:
        """Free what was offered without an answer; its row is due again by now."""
        self._under_way = {
            xfer: offer for xfer, offer in self._under_way.items() if offer.until_s > now_s
        }


def _cost(entry: OutboxEntry) -> int:
    window = 0 if entry.path is None else min(entry.size, DEFAULT_CREDITS * entry.chunk_bytes)
    return len(entry.frame) + window
