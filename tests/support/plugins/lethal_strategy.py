"""A strategy for tests whose mere creation ends the program, as a fault of a native library does."""

import os
import signal

from central.core.strategies.fedavg import FedAvg


def make(*, is_lethal: bool = False) -> FedAvg:
    if is_lethal:
        os.kill(os.getpid(), signal.SIGKILL)
    return FedAvg()
