"""The rule *budget*: grants never change, and a round takes what it granted and can pay."""

import json
import sqlite3
from collections.abc import Callable
from typing import Any

Grants = frozenset[tuple[str, str]]


def check_budgets(
    connection: sqlite3.Connection,
    known: dict[tuple[str, int], Grants],
    fail: Callable[[str, str], None],
) -> None:
    """Look at every round with a budget; ``known`` are the grants that were seen before."""
    for task, number, text in connection.execute("SELECT task, round, state FROM rounds"):
        state = json.loads(text)
        if state["budget_bits"] is not None:
            _check(connection, known, fail, (task, number), state)


def _check(
    connection: sqlite3.Connection,
    known: dict[tuple[str, int], Grants],
    fail: Callable[[str, str], None],
    key: tuple[str, int],
    state: dict[str, Any],
) -> None:
    rows = connection.execute(
        "SELECT device, xfer, size FROM contributions WHERE task = ? AND round = ?", key
    ).fetchall()
    taken = frozenset((device, xfer) for device, xfer, _ in rows)
    given = state["grants"]
    if given is None:
        if key in known or taken:
            fail("budget", f"{key} has no grants, it took {sorted(taken)}")
        return
    grants = frozenset((one["device"], one["xfer"]) for one in given)
    if known.setdefault(key, grants) != grants:
        fail("budget", f"{key} granted {sorted(known[key])}, now {sorted(grants)}")
    if not taken <= grants:
        fail("budget", f"{key} took {sorted(taken - grants)} without a grant")
    bits = sum(8 * size for *_, size in rows)
    if bits > state["budget_bits"]:
        fail("budget", f"{key} took {bits} bits, its budget is {state['budget_bits']}")
