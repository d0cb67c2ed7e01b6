"""What a pull is, what one step of it gives, and its refusal."""

from collections.abc import Callable
from dataclasses import dataclass

from schemas.messages import ObjectManifest
from transport.assembly import Assembly
from transport.events import Outgoing
from transport.transfer import ChunkWindow

_REFUSED_RETRY_S = 5.0

#: Makes the message that asks for these chunks; the second argument is the credit.
Ask = Callable[[tuple[int, ...], int], Outgoing]


class PullRefusedError(Exception):
    """Too many pulls are under way; the sender may offer again later.

    Attributes:
        retry_after_s: When to offer again, in seconds from now.
    """

    def __init__(self, limit: int, retry_after_s: float = _REFUSED_RETRY_S) -> None:
        super().__init__(f"pulls: {limit} are under way, no more are allowed")
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class PullProgress:
    """What one step of a pull gave.

    Attributes:
        outgoing: Messages to publish; they may belong to other pulls that waited for budget.
        completed: SHA-256 of the object when it is whole and in the store, else None. It is
            told again by every further step until ``forget``.
    """

    outgoing: tuple[Outgoing, ...] = ()
    completed: str | None = None


@dataclass(slots=True)
class Pull:
    """One pull, as the puller keeps it."""

    manifest: ObjectManifest
    assembly: Assembly
    window: ChunkWindow
    ask: Ask
    patience_s: float
    durable: bool
    #: Whether it only listens (to a multicast) as long as something arrives.
    listening: bool
    heard_s: float
    completed: bool = False

    def is_listening(self, now_s: float) -> bool:
        """Tell whether to go on listening; it ends when nothing has arrived for long enough."""
        if self.listening and now_s - self.heard_s >= self.patience_s:
            self.listening = False
        return self.listening

    @property
    def due_s(self) -> float | None:
        """When to look at it although nothing arrived; None: never."""
        if self.completed:
            return None
        return self.heard_s + self.patience_s if self.listening else self.window.due_s
