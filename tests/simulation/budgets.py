"""The rule *budget*: grants never change, a round takes what it granted and can pay, and no
device is asked for what it has bid before central has asked.
"""

import json
import sqlite3
from collections.abc import Callable
from typing import Any

from schemas.envelope import decode_frame
from schemas.messages import UpdateManifest
from schemas.topics import Kind
from transport.events import Outgoing

Grants = frozenset[tuple[str, str]]


class Asked:
    """Sees to it that nobody pulls a bid before central has asked for it."""

    def __init__(self) -> None:
        self._early: list[str] = []
        self._bids: set[str] = set()
        self._asked: set[str] = set()

    def see(self, message: Outgoing) -> None:
        """See a message before it leaves its program."""
        topic = message.topic
        if topic.xfer is None or topic.address is None:
            return
        if topic.kind is Kind.MANIFEST and not topic.address.is_gateway:
            if decode_frame(message.payload).body(UpdateManifest).bid is not None:
                self._bids.add(topic.xfer)
        elif topic.kind is Kind.NEED and topic.address.is_gateway:
            self._asked.add(topic.xfer)
        elif topic.kind is Kind.NEED and topic.xfer in self._bids - self._asked:
            self._early.append(topic.xfer)

    def check(self, fail: Callable[[str, str], None]) -> None:
        """Tell what was pulled too early."""
        if self._early:
            fail("budget", f"{self._early[0][:6]} is pulled before central has asked for it")


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
