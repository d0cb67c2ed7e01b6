"""Which updates a round's uplink budget pays for.

A knapsack: gains are to be had, bits are to be paid. Who has waited ``max_clock`` bids comes
first, oldest first, so that nobody is left out for ever; the rest of the budget goes by gain per
bit, or to the single update of most gain where that is worth more. That rest then has at least
half of the most that it could have (Dantzig, "Discrete-Variable Extremum Problems", Operations
Research 5(2), 1957; Martello and Toth, "Knapsack Problems", Wiley 1990, section 2.4).
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Candidate:
    """One device's bid as central weighs it.

    Attributes:
        device: Its id; one bid a device.
        gain: Weighted gain, finite, 0 or more.
        cost_bits: What its update takes from the budget, above 0.
        clock: Its bids in a row that were not granted.
    """

    device: str
    gain: float
    cost_bits: int
    clock: int


def grant(bids: Iterable[Candidate], budget_bits: int, max_clock: int) -> tuple[str, ...]:
    """Return the devices whose updates are to be pulled, sorted.

    Args:
        bids: One a device, in any order: the outcome does not depend on it.
        budget_bits: Most that all granted updates may cost together.
        max_clock: From this clock on a bid is forced: it goes before all that are not.
    """
    ordered = sorted(bids, key=lambda bid: bid.device)
    forced = [bid for bid in ordered if bid.clock >= max_clock]
    others = [bid for bid in ordered if bid.clock < max_clock]
    first = _that_fit(sorted(forced, key=lambda bid: -bid.clock), budget_bits)
    rest_bits = budget_bits - sum(bid.cost_bits for bid in first)
    return tuple(sorted(bid.device for bid in (*first, *_best(others, rest_bits))))


def _best(bids: list[Candidate], budget_bits: int) -> list[Candidate]:
    """Return the better of the greedy choice and the one bid of most gain."""
    fitting = [bid for bid in bids if bid.cost_bits <= budget_bits]
    by_ratio = sorted(fitting, key=lambda bid: -bid.gain / bid.cost_bits)
    greedy = _that_fit(by_ratio, budget_bits)
    single = max(fitting, key=lambda bid: bid.gain, default=None)
    if single is None or single.gain <= math.fsum(bid.gain for bid in greedy):
        return greedy
    return [single]


def _that_fit(bids: Iterable[Candidate], budget_bits: int) -> list[Candidate]:
    """Take one after another, and leave out what no longer fits."""
    taken = []
    for bid in bids:
        if bid.cost_bits <= budget_bits:
            taken.append(bid)
            budget_bits -= bid.cost_bits
    return taken


def selection_scale(selected: int, expected: int, exponent: float) -> float:
    """Return the factor of the server's step for the number of clients that were selected.

    ``clip((selected / expected) ** exponent, 1/4, 4)``: exponent 0 leaves the step as it is, 1
    makes it grow with the number (the sum of updates rather than their mean), 1/2 goes with
    adaptive optimizers.

    Args:
        selected: Clients in the aggregate, at least 1.
        expected: How many there should be, at least 1.
        exponent: 0 to 1.
    """
    return min(4.0, max(0.25, math.pow(selected / expected, exponent)))
