"""Planted bugs of rounds with an uplink budget; see ``tests.simulation.mutants``."""

from typing import Any

from central.core import budget
from central.core import rounds as round_rules
from central.core.rounds import RoundState
from central.service import bids
from regional_gateway.service.offers import Offered
from tests.simulation.planting import Change, mutant


@mutant("what was not granted is pulled and counted all the same")
def _() -> tuple[Change, ...]:
    return ((RoundState, "may_take", lambda self, device, xfer, size_bytes: True),)


@mutant("more is granted than the budget pays for")
def _() -> tuple[Change, ...]:
    def grant(candidates: Any, budget_bits: int, max_clock: int) -> Any:
        return budget.grant(candidates, 2 * budget_bits, max_clock)

    return ((bids, "grant", grant),)


@mutant("the grants of a round change while its updates come")
def _() -> tuple[Change, ...]:
    def report(state: Any, device: str) -> Any:
        if state.grants is not None and len(state.grants) > 1:
            fewer = frozenset(sorted(state.grants, key=lambda one: one.device)[:1])
            state = round_rules.replace(state, grants=fewer)
        return real(state, device)

    real = round_rules._report
    return ((round_rules, "_report", report),)


@mutant("a gateway pulls a bid as it pulls what is only large")
def _() -> tuple[Change, ...]:
    return ((Offered, "is_bid_only", False),)
