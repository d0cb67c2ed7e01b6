"""What additions of updates share: memory for a block, and compiled loops if there are any."""

from functools import cached_property

import numpy as np

from updates.arrays import BLOCK_VALUES, F32, F64
from updates.kernels import Kernels


class Workspace:
    """Scratch for one addition at a time; one for all payloads of a sum keeps it in the cache."""

    def __init__(self, kernels: Kernels | None = None) -> None:
        self.kernels = kernels

    @cached_property
    def values(self) -> F32:
        """Room for the values of a block."""
        return np.empty(BLOCK_VALUES, dtype=np.float32)

    @cached_property
    def products(self) -> F64:
        """Room for their products with a weight."""
        return np.empty(BLOCK_VALUES)
