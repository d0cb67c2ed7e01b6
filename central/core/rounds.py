"""One round as a state machine: selection is done, updates are awaited, then it ends once.

Phases after Bonawitz et al., "Towards Federated Learning at Scale: System Design", MLSys 2019,
https://arxiv.org/abs/1902.01046. Rules:

1. A round closes as soon as ``min_clients`` distinct devices have reported, and only once.
2. What arrives after that changes nothing here; the sender is told that it is late.
3. When fewer than ``min_clients`` can still report, clients are replaced; with none to spare
   the round is abandoned at once or waits for its deadline, as the task says. While it waits,
   whoever comes back may take a missing client's place.
4. At the deadline a round that may extend does so at most ``max_extensions`` times, else it is
   abandoned. The model is then unchanged.
5. A deadline that is further away than it ever was shows that the clock was set back meanwhile;
   it is counted anew from now.
6. An aggregation that was begun ``MAX_AGGREGATIONS`` times without an end is given up and the
   round abandoned: it is what ends the program.

A round with an uplink budget has two parts, and in both of them it is ``REPORTING``:

7. First clients bid; nothing is pulled. Once ``min_clients`` have bid, and every client that still
   can has bid or ``bid_share`` of the deadline has passed, the bids are granted, once for all.
   Bids of clients that have failed or are away count for nothing.
8. From then on only what was granted is awaited, and nobody is replaced. The round closes as soon
   as every granted client has reported or failed, or at its deadline with those that have
   reported; with none it is abandoned or extended as any other.
"""

from dataclasses import dataclass, replace
from enum import Enum
from typing import Literal

from typing_extensions import assert_never

from central.core.round_events import (
    AbandonRound,
    AggregationFailed,
    AggregationInterrupted,
    AnswerBids,
    BidsCollected,
    BidsGranted,
    ClientEvent,
    ClientFailed,
    ClientLost,
    ClientReturned,
    CommitRound,
    Grant,
    GrantBids,
    Instruction,
    ModelAggregated,
    ReplacementsSought,
    ReportingEvent,
    RoundEvent,
    SeekReplacements,
    StartAggregation,
    TaskEnded,
    TellExtension,
    TimePassed,
    UpdateAccepted,
)

__all__ = [
    "MAX_AGGREGATIONS",
    "AbandonRound",
    "AggregationFailed",
    "AggregationInterrupted",
    "AnswerBids",
    "BidsCollected",
    "BidsGranted",
    "ClientEvent",
    "ClientFailed",
    "ClientLost",
    "ClientReturned",
    "CommitRound",
    "Grant",
    "GrantBids",
    "Instruction",
    "ModelAggregated",
    "Outcome",
    "Phase",
    "ReplacementsSought",
    "ReportingEvent",
    "RoundEvent",
    "RoundState",
    "SeekReplacements",
    "StartAggregation",
    "TaskEnded",
    "TellExtension",
    "TimePassed",
    "UpdateAccepted",
    "transition",
]

#: What kills central each time ends here; power cuts one after another must not.
MAX_AGGREGATIONS = 5


class Phase(str, Enum):
    """Where a round is."""

    #: Assignments are out, updates are awaited.
    REPORTING = "reporting"
    #: The list of contributions is frozen; the aggregate is being computed.
    AGGREGATING = "aggregating"
    #: A new global model stands.
    COMMITTED = "committed"
    #: The round ended without a model.
    ABANDONED = "abandoned"


@dataclass(frozen=True, slots=True)
class RoundState:
    """All that decides what a round does next."""

    number: int
    min_clients: int
    cohort: frozenset[str]
    deadline_s: float
    #: Length of the first reporting time and of each extension.
    deadline_length_s: float
    on_shortfall: Literal["extend", "abandon"] = "extend"
    max_extensions: int = 2
    phase: Phase = Phase.REPORTING
    reported: frozenset[str] = frozenset()
    #: Clients that said that they cannot: they will not be asked again in this round.
    failed: frozenset[str] = frozenset()
    #: Clients that went offline; they may come back and report after all.
    lost: frozenset[str] = frozenset()
    extensions: int = 0
    #: How often the aggregation was begun; a start after an end in order is not counted again.
    aggregations: int = 0
    reason: str | None = None
    #: The uplink budget, and the share of the deadline after which late bids are not awaited.
    budget_bits: int | None = None
    bid_share: float = 0.5
    #: What was granted, out of how many bids; None: not yet, or there is no budget.
    grants: frozenset[Grant] | None = None
    bids: int = 0

    @property
    def is_bidding(self) -> bool:
        """Whether bids are awaited, and no update may be pulled."""
        reporting = self.phase is Phase.REPORTING
        return reporting and self.budget_bits is not None and self.grants is None

    @property
    def asked(self) -> frozenset[str]:
        """Clients whose updates may count: the cohort, or those that were granted."""
        if self.grants is None:
            return self.cohort
        return frozenset(grant.device for grant in self.grants)

    @property
    def bids_due_s(self) -> float:
        """When bids that are still missing are no longer awaited."""
        return self.deadline_s - (1.0 - self.bid_share) * self.deadline_length_s

    @property
    def hopeful(self) -> frozenset[str]:
        """Clients that have reported or still can."""
        return self.reported | (self.asked - self.failed - self.lost)

    @property
    def shortfall(self) -> int:
        """How many clients are missing for the round to be able to close."""
        if self.grants is not None:
            return 0
        return max(0, self.min_clients - len(self.hopeful))

    def may_take(self, device: str, xfer: str, size_bytes: int) -> bool:
        """Tell whether an update may be pulled and counted, as far as the budget goes."""
        if self.budget_bits is None:
            return True
        return self.grants is not None and Grant(device, xfer, size_bytes) in self.grants

    @property
    def has_ended(self) -> bool:
        """Whether the round is committed or abandoned."""
        return self.phase in (Phase.COMMITTED, Phase.ABANDONED)


Outcome = tuple[RoundState, tuple[Instruction, ...]]


def transition(state: RoundState, event: RoundEvent) -> Outcome:
    """Return the round after ``event`` and what is to be done about it.

    An event that comes too late or a second time changes nothing.
    """
    if state.has_ended:
        return state, ()
    match event:
        case TaskEnded(reason) | AggregationFailed(reason):
            return _abandon(state, reason)
        case ModelAggregated():
            return _commit(state)
        case AggregationInterrupted(was_clean):
            return _aggregate_again(state, was_clean=was_clean)
        case _ if state.phase is not Phase.REPORTING:
            return state, ()
        case _:
            return _while_reporting(state, event)


def _while_reporting(state: RoundState, event: ReportingEvent) -> Outcome:
    match event:
        case BidsCollected(bidders, now_s):
            return _collect(state, bidders, now_s)
        case BidsGranted(grants, bids):
            return _grant(state, grants, bids)
        case TimePassed(now_s):
            return _at(state, now_s)
        case _:
            return _with_client(state, event)


def _with_client(state: RoundState, event: ClientEvent) -> Outcome:
    match event:
        case UpdateAccepted(device):
            return _report(state, device)
        case ClientFailed(device):
            return _fail(state, device)
        case ClientLost(device):
            return _without(replace(state, lost=state.lost | _member(state, device)))
        case ClientReturned(device):
            return _without(replace(state, lost=state.lost - {device}))
        case ReplacementsSought(found):
            return _after_search(replace(state, cohort=state.cohort | found))
        case _:
            assert_never(event)


def _member(state: RoundState, device: str) -> frozenset[str]:
    return frozenset({device}) & (state.cohort - state.reported)


def _fail(state: RoundState, device: str) -> Outcome:
    state = replace(state, failed=state.failed | _member(state, device))
    return _without(state) if state.grants is None else _close_if_all_came(state)


def _report(state: RoundState, device: str) -> Outcome:
    if device not in state.asked or state.is_bidding:
        return state, ()
    state = replace(state, reported=state.reported | {device})
    if state.grants is not None:
        return _close_if_all_came(state)
    return (state, ()) if len(state.reported) < state.min_clients else _close(state)


def _close(state: RoundState) -> Outcome:
    closed = replace(state, phase=Phase.AGGREGATING, aggregations=1, reason=None)
    return closed, (StartAggregation(tuple(sorted(closed.reported))),)


def _collect(state: RoundState, bidders: frozenset[str], now_s: float) -> Outcome:
    """Have the bids granted when it is time; until they are, nothing changes."""
    candidates = bidders & state.hopeful
    is_time = state.hopeful <= bidders or now_s >= state.bids_due_s
    if not state.is_bidding or len(candidates) < state.min_clients or not is_time:
        return state, ()
    return state, (GrantBids(candidates),)


def _grant(state: RoundState, grants: frozenset[Grant], bids: int) -> Outcome:
    if not state.is_bidding:
        return state, ()
    granted = replace(state, grants=grants, bids=bids, reason=None)
    if not grants:
        reason = f"none of {bids} updates is within uplink_budget_bits: {state.budget_bits}"
        abandoned, instructions = _abandon(granted, reason)
        return abandoned, (AnswerBids(), *instructions)
    return granted, (AnswerBids(),)


def _close_if_all_came(state: RoundState) -> Outcome:
    """Close a round whose granted updates are there, but for those of clients that failed."""
    if not state.asked <= state.reported | state.failed:
        return state, ()
    if not state.reported:
        return _abandon(state, f"all {len(state.asked)} clients that were granted have failed")
    return _close(state)


def _aggregate_again(state: RoundState, *, was_clean: bool) -> Outcome:
    if state.phase is not Phase.AGGREGATING:
        return state, ()
    begun = state.aggregations if was_clean else state.aggregations + 1
    if begun > MAX_AGGREGATIONS:
        times = f"the aggregation was begun {state.aggregations} times and never ended"
        return _abandon(state, f"{times}; does it fit into the memory?")
    again = replace(state, aggregations=begun)
    return again, (StartAggregation(tuple(sorted(again.reported))),)


def _commit(state: RoundState) -> Outcome:
    if state.phase is not Phase.AGGREGATING:
        return state, ()
    return replace(state, phase=Phase.COMMITTED), (CommitRound(),)


def _abandon(state: RoundState, reason: str) -> Outcome:
    return replace(state, phase=Phase.ABANDONED, reason=reason), (AbandonRound(reason),)


def _without(state: RoundState) -> Outcome:
    if state.shortfall == 0:
        return state, ()
    return state, (SeekReplacements(state.shortfall),)


def _after_search(state: RoundState) -> Outcome:
    if state.shortfall == 0:
        return replace(state, reason=None), ()
    reason = (
        f"{len(state.hopeful)} of {len(state.cohort)} clients can still report, "
        f"{state.min_clients} are needed"
    )
    if state.on_shortfall == "abandon":
        return _abandon(state, reason)
    return replace(state, reason=reason), ()


def _at(state: RoundState, now_s: float) -> Outcome:
    if state.deadline_s - now_s > state.deadline_length_s:
        return replace(state, deadline_s=now_s + state.deadline_length_s), ()
    if now_s < state.deadline_s:
        return state, ()
    if state.grants is not None and state.reported:
        return _close(state)
    reason = f"{len(state.reported)} of {state.min_clients} clients reported by the deadline"
    if state.is_bidding:
        reason = f"fewer than {state.min_clients} clients have bid by the deadline"
    if state.on_shortfall == "abandon":
        return _abandon(state, reason)
    if state.extensions >= state.max_extensions:
        return _abandon(state, f"{reason}, after {state.extensions} extensions")
    extended = replace(
        state,
        deadline_s=now_s + state.deadline_length_s,
        extensions=state.extensions + 1,
        reason=f"{reason}; extended, {state.extensions + 1} of {state.max_extensions} times",
    )
    return extended, (TellExtension(extended.deadline_s),)
