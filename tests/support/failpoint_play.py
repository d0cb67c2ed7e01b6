"""One cell of the matrix while it is played: its tasks, its victim, and how to wait for them."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.support.fleet import Fleet, is_final

REGION = "north"
GATEWAY = f"gateway-{REGION}"
DEVICES = ("d1", "d2", "d3")
ROUNDS = 6
DRILL = {"epochs": 0}
SMALL = {"model": "softmax"}
_STEP_S = 10.0

Step = Callable[[], None]


@dataclass
class Play:
    """One cell on one fleet.

    Attributes:
        fleet: The running fleet.
        victim: The program that is killed.
        tasks: Every task that was submitted for this cell; each must complete.
        cancelled: Those that must end as cancelled instead.
        life: How many lives of the victim were armed.
    """

    fleet: Fleet
    victim: str
    name: str
    tasks: dict[str, dict[str, Any]] = field(default_factory=dict)
    cancelled: set[str] = field(default_factory=set)
    life: int = 0

    def submit(self, **task: object) -> str:
        """Submit a task of this cell; it gets an id of its own."""
        name = f"{self.name}-{len(self.tasks) + 1}"
        common = {"task": name, "data": "tiny", "rounds": ROUNDS, "min_clients": len(DEVICES)}
        self.tasks[name] = {**common, "training": DRILL, **task}
        self.fleet.submit(self.tasks[name])
        return name

    def submit_again(self, task: str) -> None:
        """Submit the same task once more, as a person does who sees nothing of it."""
        self.fleet.submit(self.tasks[task])

    def until(self, condition: Callable[[], bool], within_s: float = _STEP_S) -> None:
        """Wait for a condition, for the victim's end, or for some time; it says which by no word."""
        end = time.monotonic() + within_s
        victim = self.fleet.program(self.victim)
        while time.monotonic() < end and victim.is_running and not condition():
            time.sleep(0.02)

    def newest(self, task: str) -> Mapping[str, Any]:
        statuses = self.fleet.statuses(task)
        return statuses[-1] if statuses else {}

    def committed(self, task: str, count: int) -> Callable[[], bool]:
        return lambda: self.newest(task).get("committed", 0) >= count


Act = Callable[[Play], Iterator[Step]]


def one_task(**task: object) -> Act:
    """Return an act: one task, over all lives of the victim."""

    def act(play: Play) -> Iterator[Step]:
        if not play.tasks:
            yield lambda: play.submit(**task)

    return act


def is_done(play: Play, task: str) -> bool:
    newest = play.newest(task)
    return bool(newest) and is_final(newest)


def describe(play: Play) -> str:
    return json.dumps({name: play.newest(name) for name in play.tasks}, indent=1)[:3000]
