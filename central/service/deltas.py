"""The deltas of an assignment: what leads devices from older models to a round's model."""

from central.core.downlink import chain_to
from central.service.manifests import Manifests
from central.service.ports import Store
from central.service.records import RoundRecord, TaskRecord
from schemas.limits import MAX_DELTA_TAIL_BYTES, MAX_DELTAS, MAX_INLINE_DELTA_BYTES
from schemas.messages import ModelDelta
from transport.objects import ObjectDamagedError


class Deltas:
    """Reads chains of deltas off the rounds that gave them."""

    def __init__(self, store: Store, manifests: Manifests) -> None:
        self._store = store
        self._manifests = manifests

    def of(self, task: TaskRecord, record: RoundRecord) -> tuple[tuple[ModelDelta, ...], bytes]:
        """Return the deltas that lead to a round's base, the oldest first, and their tail.

        As many as there are without a gap, as are whole on disk, and as fit the tail.
        """
        if task.submission.downlink is None:
            return (), b""
        found: list[tuple[ModelDelta, bytes]] = []
        room = MAX_DELTA_TAIL_BYTES
        for step in self._steps(record):
            one = self._delta(step, is_newest=not found)
            if one is None or len(one[1]) > room:
                break
            room -= len(one[1])
            found.append(one)
        found.reverse()
        return tuple(delta for delta, _ in found), b"".join(part for _, part in found)

    def _steps(self, record: RoundRecord) -> list[RoundRecord]:
        rounds = self._store.newest_deltas(record.task, record.state.number, MAX_DELTAS)
        pairs = [(one.base_model_sha256, one.model_sha256 or "") for one in rounds]
        return [rounds[index] for index in chain_to(record.base_model_sha256, pairs)]

    def _delta(self, step: RoundRecord, *, is_newest: bool) -> tuple[ModelDelta, bytes] | None:
        """Return one step; None when its file is damaged: who needs it pulls the model instead."""
        if step.delta_sha256 is None or step.model_sha256 is None:
            return None
        inline = is_newest and step.delta_bytes <= MAX_INLINE_DELTA_BYTES
        try:
            manifest, part = self._manifests.of(step.delta_sha256, inline=inline)
        except ObjectDamagedError:
            return None
        delta = ModelDelta(base=step.base_model_sha256, result=step.model_sha256, object=manifest)
        return delta, part
