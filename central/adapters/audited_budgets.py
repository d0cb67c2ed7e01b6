"""Whether every round kept to its uplink budget, from central's tables."""

from collections.abc import Iterable, Sequence

from central.core.rounds import RoundState
from central.service.records import ContributionRecord, RoundRecord


def budget_findings(
    rounds: Iterable[RoundRecord], rows: Sequence[ContributionRecord]
) -> list[str]:
    """Return what is wrong: more bits than the budget, or an update that was not granted.

    Args:
        rounds: The rounds of a task.
        rows: Its accepted updates.
    """
    return [
        finding
        for record in rounds
        if record.state.budget_bits is not None
        for finding in _findings(record.state, record.state.budget_bits, rows)
    ]


def _findings(
    state: RoundState, budget_bits: int, rows: Sequence[ContributionRecord]
) -> list[str]:
    number = state.number
    own = [row for row in rows if row.round == number]
    bits = sum(8 * row.size for row in own)
    over = f"round {number}: {bits} bits of updates accepted, the budget is {budget_bits}"
    ungranted = [
        f"round {number}, {row.device}: accepted without a grant"
        for row in own
        if not state.may_take(row.device, row.xfer, row.size)
    ]
    return [over, *ungranted] if bits > budget_bits else ungranted
