"""What the checkers have seen of a world so far, and how they say that a promise was broken."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tests.simulation.budgets import Grants
from tests.simulation.oracle import Oracle
from tests.simulation.recollection import Kept


class ViolationError(AssertionError):
    """A promise was broken.

    Attributes:
        rule: Which one.
    """

    def __init__(self, rule: str, text: str) -> None:
        super().__init__(f"{rule}: {text}")
        self.rule = rule


class Ended(NamedTuple):
    """What an ended round says of itself."""

    base: str
    names: list[str]
    model: str | None


@dataclass
class Memory:
    """What central's tables showed so far; a restore from a backup takes it back as well."""

    contributions: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    rounds: dict[tuple[str, int], str] = field(default_factory=dict)
    ended: dict[tuple[str, int], tuple[Any, ...]] = field(default_factory=dict)
    heads: dict[str, str] = field(default_factory=dict)
    oracles: dict[str, Oracle] = field(default_factory=dict)
    #: Final receipts that central has published: status and code by transfer.
    receipted: dict[str, tuple[str, str | None]] = field(default_factory=dict)
    #: What each device holds of a task, by its last counted round.
    kept: dict[str, dict[str, Kept]] = field(default_factory=dict)
    grants: dict[tuple[str, int], Grants] = field(default_factory=dict)

    def copy(self) -> "Memory":
        return Memory(
            dict(self.contributions),
            dict(self.rounds),
            dict(self.ended),
            dict(self.heads),
            {task: oracle.copy() for task, oracle in self.oracles.items()},
            dict(self.receipted),
            {task: dict(kept) for task, kept in self.kept.items()},
            dict(self.grants),
        )
