"""What a committed model must be, computed apart from the product: float64, in device order."""

import hashlib
from collections.abc import Sequence

import numpy as np

from updates.codecs.base import Codec
from updates.layout import Layout
from updates.model_file import encode_model


class Oracle:
    """The models of one task, grown from what the devices really trained."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        #: What devices that hold a model lack of central's own, by the model's digest.
        self._lacking: dict[str, np.ndarray] = {}
        first = np.zeros(layout.size, np.float32)
        self._models = {self._digest(first): first}

    def copy(self) -> "Oracle":
        twin = Oracle(self._layout)
        twin._models = dict(self._models)
        twin._lacking = dict(self._lacking)
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
        return self._keep(new)

    def send(
        self, base: str, updates: Sequence[tuple[int, np.ndarray]], codec: Codec, *, is_last: bool
    ) -> str:
        """Return the digest of what devices hold after a round with a compressed downlink.

        Args:
            base: Digest of the model that they held before.
            updates: As in ``commit``.
            codec: What the difference is coded with; its own rounding is believed, nothing else.
            is_last: Whether it is the task's last round, which is sent whole.
        """
        held = self._models[base].astype(np.float64)
        own = self._models[self.commit(base, updates)].astype(np.float64)
        own = own + self._lacking.get(base, 0.0)
        if is_last:
            return self._keep(own.astype(np.float32))
        wanted = (own - held).astype(np.float32)
        coded = codec.encode(wanted, self._layout, np.random.default_rng(0))
        new = self._models[base] + codec.decode(coded, self._layout)
        digest = self._keep(new)
        self._lacking[digest] = (own - new.astype(np.float64)).astype(np.float32)
        return digest

    def _keep(self, model: np.ndarray) -> str:
        digest = self._digest(model)
        self._models[digest] = model
        return digest

    def _digest(self, vector: np.ndarray) -> str:
        return hashlib.sha256(encode_model(self._layout, vector)).hexdigest()
