"""A job that trains nothing: it exercises the fleet, and its update is zero."""

from collections.abc import Callable

import numpy as np

from device_agent.service.ports import TrainingRequest, TrainingResult, TrainingStoppedError


class DrillTrainer:
    """Answers a drill (``epochs: 0``) at once; needs no framework and no data."""

    backend = "drill"

    def train(
        self,
        request: TrainingRequest,
        progress: Callable[[float], None],
        should_stop: Callable[[], bool],
    ) -> TrainingResult:
        """Return an update of zeros that weighs as much as the device's examples.

        Raises:
            TrainingStoppedError: ``should_stop`` said so.
        """
        if should_stop():
            message = "stopped before the drill"
            raise TrainingStoppedError(message)
        progress(1.0)
        # np.zeros is backed by untouched pages: a drill of a large model costs no memory here.
        delta = np.zeros(request.layout.size, dtype=np.float32)
        return TrainingResult(delta, num_examples=max(1, len(request.data)))
