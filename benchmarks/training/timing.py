"""Times one step many times in this process. Imports only what a device has."""

import json
import time
from collections.abc import Callable

import numpy as np

from fedfleet.peak import peak_bytes

_WARM_UP = 3
_AT_LEAST = 5


def timed(step: Callable[[], object], budget_s: float) -> list[float]:
    """Return the seconds of each step, taken one after another until the budget is spent."""
    for _ in range(_WARM_UP):
        step()
    taken: list[float] = []
    while sum(taken) < budget_s or len(taken) < _AT_LEAST:
        began = time.perf_counter()
        step()
        taken.append(time.perf_counter() - began)
    return taken


def report(taken: list[float], **others: float) -> None:
    """Print one JSON object for the program that started this one."""
    figures = {
        "median_s": float(np.median(taken)),
        "p10_s": float(np.percentile(taken, 10)),
        "steps": len(taken),
        "peak_bytes": peak_bytes(),
        **others,
    }
    print(json.dumps(figures))
