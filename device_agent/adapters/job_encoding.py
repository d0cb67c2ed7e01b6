"""An update's bytes, and what is to be held for the next round if they are counted.

A memory is read and written here, on the training thread; the loop stores it with the update.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from device_agent.adapters.scratch_files import write_durably
from device_agent.service.ports import F32, Memory, Work
from schemas.limits import MAX_INLINE_BYTES
from transport.failpoints import failpoint
from transport.objects import ObjectStore
from updates import feedback, lazy
from updates.codecs.base import Codec
from updates.codecs.registry import create
from updates.layout import Layout
from updates.pipeline import clip_to_norm, encode_update


@dataclass(frozen=True, slots=True)
class Encoded:
    """One encoded update.

    Attributes:
        payload: Its bytes.
        reference: The round whose memory it builds on; 0: on none.
        memory: What to hold for the next round; None: nothing.
    """

    payload: bytes
    reference: int = 0
    memory: Memory | None = None


@dataclass(frozen=True, slots=True)
class Encoder:
    """Encodes the updates of this device's jobs.

    Attributes:
        objects: Where large memories lie.
        scratch: Where a large memory lies until the loop takes it over.
    """

    objects: ObjectStore
    scratch: Path

    def encode(
        self,
        work: Work,
        layout: Layout,
        update: F32,
        num_examples: int,
        rng: np.random.Generator,
    ) -> Encoded:
        """Encode an update as its task asks; the same arguments always give the same bytes.

        Args:
            work: The job.
            layout: Names and shapes behind the update.
            update: What training gave, shape ``(layout.size,)``.
            num_examples: On how many examples it was trained.
            rng: Source of the codec's noise.

        Raises:
            CodecParameterError: There is no such codec, or not with these parameters.
            PayloadError: The update cannot be encoded.
            OSError: A memory cannot be written.
        """
        plan = work.plan
        codec = create(plan.codec, plan.codec_params)
        if plan.memory == "none":
            return Encoded(encode_update(update, layout, codec, rng, plan.privacy.clip_norm))
        held = self._read(work, layout)
        if plan.memory == "feedback":
            return self._with_feedback(work, layout, update, held, codec, rng)
        return self._lazily(work, layout, update, held, codec, num_examples, rng)

    def _with_feedback(  # noqa: PLR0913, PLR0917 - the update, and all that is done to it
        self,
        work: Work,
        layout: Layout,
        update: F32,
        held: F32 | None,
        codec: Codec,
        rng: np.random.Generator,
    ) -> Encoded:
        left_out = np.zeros(layout.size, dtype=np.float32) if held is None else held
        clip_norm = work.plan.privacy.clip_norm
        step = feedback.take_step(update, left_out, codec, layout, rng, clip_norm=clip_norm)
        memory = self._write(step.left_out)
        return Encoded(step.payload, 0 if held is None else work.reference, memory)

    def _lazily(  # noqa: PLR0913, PLR0917 - the update, and all that is done to it
        self,
        work: Work,
        layout: Layout,
        update: F32,
        held: F32 | None,
        codec: Codec,
        num_examples: int,
        rng: np.random.Generator,
    ) -> Encoded:
        if work.plan.privacy.clip_norm is not None:
            update = clip_to_norm(update, work.plan.privacy.clip_norm)
        terms, before = None, lazy.LazyMemory.first(layout.size)
        if held is not None and work.memory is not None:
            before = lazy.LazyMemory(held, work.memory.error, work.memory.clock)
            if work.lazy is not None:
                weight = work.lazy.weight(num_examples)
                terms = lazy.SkipTerms(work.lazy.threshold, weight)
        step = lazy.take_step(update, before, codec, layout, rng, terms=terms)
        memory = self._write(step.memory.reference, step.memory.error, step.memory.clock)
        return Encoded(step.payload, 0 if held is None else work.reference, memory)

    def _read(self, work: Work, layout: Layout) -> F32 | None:
        """Return the vector that the job builds on; None: there is none, or it is damaged."""
        held = work.memory
        if held is None:
            return None
        data = held.payload
        if data is None:
            try:
                data = self.objects.read(held.sha256)
            except OSError:
                return None
        is_whole = hashlib.sha256(data).hexdigest() == held.sha256
        if not is_whole or len(data) != 4 * layout.size:
            return None
        return np.frombuffer(data, dtype="<f4").astype(np.float32, copy=False)

    def _write(self, vector: F32, error: float = 0.0, clock: int = 0) -> Memory:
        """Return a memory; a large one is in a file, forced to the disk."""
        values = np.ascontiguousarray(vector, dtype="<f4").view(np.uint8).data
        sha256 = hashlib.sha256(values).hexdigest()
        if len(values) <= MAX_INLINE_BYTES:
            return Memory(sha256, bytes(values), None, error, clock)
        return Memory(sha256, None, self._to_file(values, sha256), error, clock)

    def _to_file(self, values: memoryview, sha256: str) -> Path:
        path = self.scratch / f"{sha256}.memory.tmp"
        write_durably(path, values, lambda: failpoint("device.memory.written"))
        failpoint("device.memory.fsynced")
        return path
