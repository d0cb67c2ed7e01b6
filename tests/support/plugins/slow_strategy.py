"""A strategy for tests: FedAvg that takes its time for as long as a file is there."""

import os
import time
from pathlib import Path

from central.core.strategies.base import F32, Contributions, State
from central.core.strategies.fedavg import FedAvg

HELD = "FEDFLEET_TEST_HELD"
_LONGEST_S = 60.0


class SlowFedAvg(FedAvg):
    def apply(self, state: State, contributions: Contributions) -> tuple[State, F32]:
        held = Path(os.environ[HELD])
        until_s = time.monotonic() + _LONGEST_S
        while held.exists() and time.monotonic() < until_s:
            (held.parent / "aggregating").touch()
            time.sleep(0.05)
        return super().apply(state, contributions)


def make() -> SlowFedAvg:
    return SlowFedAvg()
