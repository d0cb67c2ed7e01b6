"""What a committed model must be, computed apart from the product: float64, in device order."""

import hashlib
from collections.abc import Sequence

import numpy as np

from updates.layout import Layout
from updates.model_file import encode_model


class Oracle:
    """The models of one task, grown from what the devices really trained."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        first = np.zeros(layout.size, np.float32)
        self._models = {self._digest(first): first}

    def copy(self) -> "Oracle":
        twin = Oracle(self._layout)
        twin._models = dict(self._models)
        return twin

    def is_first(self, sha256: str) -> bool:
        return sha256 == next(iter(self._models))

    def commit(self, base: str, updates: Sequence[tuple[int, np.ndarray]]) -> str:
        """Return the digest of the weighted mean on top of ``base``.

        Args:
            base: Digest of a model that was committed before.
            updates: Number of examples and delta of each contributor, in device order.
        """
        model = self._models[base]
        total = np.zeros(model.shape, np.float64)
        for examples, delta in updates:
            total = total + float(examples) * delta.astype(np.float64)
        weight = 1.0 / float(sum(examples for examples, _ in updates))
        new = (model.astype(np.float64) + weight * total).astype(np.float32)
        digest = self._digest(new)
        self._models[digest] = new
        return digest

    def _digest(self, vector: np.ndarray) -> str:
        return hashlib.sha256(encode_model(self._layout, vector)).hexdigest()
