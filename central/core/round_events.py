"""What a round is told, and what it wants done; the rules are in ``central.core.rounds``."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Grant:
    """A client whose update is pulled: the transfer that it has bid for, and the size it has told.

    A transfer's id does not hold the size, and the budget was spent on what was told.
    """

    device: str
    xfer: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class UpdateAccepted:
    """One client's update is on disk."""

    device: str


@dataclass(frozen=True, slots=True)
class ClientFailed:
    """A client rejected the job or failed at it."""

    device: str


@dataclass(frozen=True, slots=True)
class ClientLost:
    """A client went offline."""

    device: str


@dataclass(frozen=True, slots=True)
class ClientReturned:
    """A client is online again."""

    device: str


@dataclass(frozen=True, slots=True)
class ReplacementsSought:
    """The fleet was searched for clients in the place of missing ones; none may be found."""

    found: frozenset[str]


@dataclass(frozen=True, slots=True)
class BidsCollected:
    """So far these clients have bid; told after every other event of a round that is bidding."""

    bidders: frozenset[str]
    now_s: float


@dataclass(frozen=True, slots=True)
class BidsGranted:
    """The budget was spent on these, out of so many bids."""

    grants: frozenset[Grant]
    bids: int


@dataclass(frozen=True, slots=True)
class TimePassed:
    """The clock was read."""

    now_s: float


@dataclass(frozen=True, slots=True)
class ModelAggregated:
    """The strategy has given a new global model."""


@dataclass(frozen=True, slots=True)
class AggregationFailed:
    """The strategy raised, or gave what is not a model."""

    reason: str


@dataclass(frozen=True, slots=True)
class AggregationInterrupted:
    """Central ended while it aggregated; in order when it was told to."""

    was_clean: bool


@dataclass(frozen=True, slots=True)
class TaskEnded:
    """The task was cancelled while the round ran."""

    reason: str


#: What is heard of clients.
ClientEvent = UpdateAccepted | ClientFailed | ClientLost | ClientReturned | ReplacementsSought
#: Events that matter only while updates are awaited.
ReportingEvent = ClientEvent | BidsCollected | BidsGranted | TimePassed
RoundEvent = (
    ReportingEvent | ModelAggregated | AggregationFailed | AggregationInterrupted | TaskEnded
)


@dataclass(frozen=True, slots=True)
class StartAggregation:
    """Freeze these contributions, in this order, and aggregate them."""

    contributors: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SeekReplacements:
    """Find this many more clients among the devices that fit and are free."""

    count: int


@dataclass(frozen=True, slots=True)
class GrantBids:
    """Spend the budget on the bids of these clients, and say on which."""

    candidates: frozenset[str]


@dataclass(frozen=True, slots=True)
class AnswerBids:
    """The grants stand: pull what was granted, refuse the rest."""


@dataclass(frozen=True, slots=True)
class CommitRound:
    """Make the new model the task's model."""


@dataclass(frozen=True, slots=True)
class AbandonRound:
    """End the round; every contribution is discarded with this reason."""

    reason: str


@dataclass(frozen=True, slots=True)
class TellExtension:
    """The deadline was moved; say so."""

    deadline_s: float


Instruction = (
    StartAggregation
    | SeekReplacements
    | GrantBids
    | AnswerBids
    | CommitRound
    | AbandonRound
    | TellExtension
)


#: Why a round was abandoned: too few clients could still report, time was up, no bid was within
#: the budget, the strategy gave no model, or the task ended.
Cause = Literal["clients", "deadline", "budget", "aggregation", "task"]


def cause_of(event: RoundEvent) -> Cause:
    """Return why a round was abandoned, given the event that did it."""
    match event:
        case TimePassed():
            return "deadline"
        case BidsGranted():
            return "budget"
        case AggregationFailed() | AggregationInterrupted():
            return "aggregation"
        case TaskEnded():
            return "task"
        case _:
            return "clients"
