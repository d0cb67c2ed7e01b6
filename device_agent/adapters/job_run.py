"""One job from the global model's file to an encoded update.

Memory: the model is mapped, not read; the update is the one array of its size that is made here;
it is encoded once, and a large result is written piece by piece.
"""

import hashlib
import math
import mmap
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from device_agent.adapters.job_encoding import Encoded, Encoder
from device_agent.adapters.model_rebuild import rebuild
from device_agent.adapters.optimizer_states import OptimizerStates
from device_agent.adapters.scratch_files import write_durably
from device_agent.core.job import Refusal
from device_agent.core.seeding import round_seed
from device_agent.service.ports import (
    EncodedUpdate,
    Memory,
    Trainer,
    TrainingRequest,
    TrainingResult,
    Work,
)
from learning.data.dataset import Dataset
from schemas.errors import PayloadError
from schemas.ids import contribution_mark, transfer_id
from schemas.limits import DEFAULT_CHUNK_BYTES, MAX_INLINE_BYTES
from schemas.messages import TrainingPlan
from transport.failpoints import failpoint
from transport.objects import ObjectStore, describe
from updates.arrays import check_finite
from updates.choice import (
    ASSUMED_BYTES_S,
    AUTO,
    Candidate,
    Choice,
    Circumstances,
    accuracy_of,
    choose,
)
from updates.codecs.registry import create
from updates.errors import CodecParameterError
from updates.layout import Layout
from updates.model_file import decode_model
from updates.pipeline import l2_norm

F32 = NDArray[np.float32]

#: Keeps the encoder's random numbers apart from the trainer's, which begin with the same seed.
_ENCODING = 1


class JobError(Exception):
    """A job cannot be done.

    Attributes:
        cause: Code and reason, as they are reported.
    """

    def __init__(self, cause: Refusal) -> None:
        super().__init__(f"{cause.code}: {cause.reason}")
        self.cause = cause


@dataclass(frozen=True, slots=True)
class JobRun:
    """All that is the same for every job of this device.

    Attributes:
        device: The device's id; it is part of each job's seed.
        data: Its data sources by name.
        objects: Where global models lie.
        trainer_for: Returns the trainer of one job, by its plan and the name of its backend.
        scratch: Where a large update or memory lies until the loop takes it over; on the file
            system of ``objects``.
        states: Keeps optimizers' states for tasks that ask for it.
        clock: Seconds of work, never jumping.
        max_update_bytes: The longest update that the owner allows; None: any.
        chunk_bytes: Of an update's chunks.
        assumed_bytes_s: What the link carries as long as it was not measured.
    """

    device: str
    data: Mapping[str, Dataset]
    objects: ObjectStore
    trainer_for: Callable[[TrainingPlan, str], Trainer]
    scratch: Path
    states: OptimizerStates
    clock: Callable[[], float] = time.monotonic
    max_update_bytes: int | None = None
    chunk_bytes: int = DEFAULT_CHUNK_BYTES
    assumed_bytes_s: float = ASSUMED_BYTES_S

    def run(
        self, work: Work, progress: Callable[[float], None], should_stop: Callable[[], bool]
    ) -> EncodedUpdate:
        """Train and encode; the same work always gives the same bytes.

        With codec ``auto`` the same codec gives the same bytes; which one is taken depends on how
        long the training took.

        Args:
            work: The job.
            progress: Called with the share done.
            should_stop: Asked after every step.

        Raises:
            JobError: The job cannot be done.
            RebuildError: The model is not here, and what should lead to it does not.
            TrainingError: The trainer gave up, or was told to stop.
        """
        began_s = self.clock()
        seed = round_seed(work.key.task, work.key.round, self.device, work.plan.training.seed)
        failpoint("device.training.begun")
        self._find_model(work, should_stop)
        layout, result = self._train(work, seed, progress, should_stop)
        failpoint("device.training.done")
        choice = self._choice(work, layout, self.clock() - began_s)
        if choice is not None:
            work = _with_codec(work, choice.candidate)
        encoded = self._encode(work, layout, result, seed)
        payload = self._checked(encoded.payload)
        failpoint("device.update.encoded")
        manifest, digests = describe(payload, self.chunk_bytes)
        inline = manifest.size <= MAX_INLINE_BYTES and not work.plan.bids
        file = None if inline else _write(payload, self.scratch)
        return EncodedUpdate(
            manifest=manifest.model_copy(update={"inline": inline}),
            tail=payload if inline else digests,
            file=file,
            num_examples=result.num_examples,
            metrics=_finite(result.metrics),
            train_s=round(self.clock() - began_s, 3),
            reference=encoded.reference,
            memory=self._marked(work, encoded, manifest.sha256),
            choice=None if choice is None else choice.candidate,
            choice_reason=None if choice is None else choice.reason,
            gain=_gain(work.plan, layout, payload) if work.plan.bids else None,
        )

    def _marked(self, work: Work, encoded: Encoded, sha256: str) -> Memory | None:
        """Return what is held, with the mark of the update that leaves it."""
        if encoded.memory is None:
            return None
        xfer = transfer_id(self.device, work.key.task, work.key.round, sha256)
        return replace(encoded.memory, mark=contribution_mark(xfer, encoded.reference))

    def _choice(self, work: Work, layout: Layout, train_s: float) -> Choice | None:
        """Return the codec for a task that leaves it to its devices; None: it names one."""
        if work.plan.codec != AUTO:
            return None
        limit = self.max_update_bytes
        seen = Circumstances(layout.size, train_s, work.rate_bytes_s, limit, self.assumed_bytes_s)
        try:
            return choose(accuracy_of(work.plan.codec_params), seen)
        except CodecParameterError as error:
            raise JobError(Refusal("codec", str(error))) from error

    def _checked(self, payload: bytes) -> bytes:
        if self.max_update_bytes is not None and len(payload) > self.max_update_bytes:
            reason = (
                f"max_update_bytes: the update has {len(payload)} bytes, "
                f"at most {self.max_update_bytes} are allowed"
            )
            raise JobError(Refusal("policy", reason))
        return payload

    def _encode(self, work: Work, layout: Layout, result: TrainingResult, seed: int) -> Encoded:
        rng = np.random.default_rng((seed, _ENCODING))
        encoder = Encoder(self.objects, self.scratch)
        try:
            return encoder.encode(work, layout, result.delta, result.num_examples, rng)
        except CodecParameterError as error:
            raise JobError(Refusal("codec", str(error))) from error
        except PayloadError as error:
            raise JobError(Refusal("training", str(error))) from error
        except OSError as error:
            reason = f"the task's memory cannot be written: {error}"
            raise JobError(Refusal("storage", reason)) from error

    def _find_model(self, work: Work, should_stop: Callable[[], bool]) -> None:
        """Make the model of an older one where deltas lead to it and it is not here."""
        if work.base_sha256 is None or self.objects.has(work.model_sha256):
            return
        try:
            rebuild(self.objects, work, self.scratch, should_stop)
        except OSError as error:
            raise JobError(Refusal("storage", f"the model cannot be written: {error}")) from error

    def _train(
        self,
        work: Work,
        seed: int,
        progress: Callable[[float], None],
        should_stop: Callable[[], bool],
    ) -> tuple[Layout, TrainingResult]:
        layout, parameters = _model(self.objects.path(work.model_sha256), work.plan)
        data = self.data.get(work.plan.data)
        if data is None:
            raise JobError(Refusal("data", f"data: no source {work.plan.data!r} on this device"))
        graph = None if work.graph_sha256 is None else self.objects.path(work.graph_sha256)
        kind = f"{work.backend}|{work.plan.training.optimizer}|{layout.digest}"
        keeps = work.plan.training.keep_state
        state = self.states.load(work.key, kind) if keeps else None
        request = TrainingRequest(work.plan, layout, parameters, data, seed, graph, state)
        trainer = self.trainer_for(work.plan, work.backend)
        result = trainer.train(request, progress, should_stop)
        if keeps and result.state is not None:
            self._keep(work, kind, result.state)
        return layout, result

    def _keep(self, work: Work, kind: str, state: F32) -> None:
        try:
            self.states.save(work.key, kind, state)
        except OSError as error:
            reason = f"the optimizer's state cannot be written: {error}"
            raise JobError(Refusal("storage", reason)) from error


def _model(path: Path, plan: TrainingPlan) -> tuple[Layout, F32]:
    try:
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        layout, parameters = decode_model(mapped)
        check_finite(parameters, "model")
    except (OSError, PayloadError) as error:
        raise JobError(Refusal("model", str(error))) from error
    if layout.digest != plan.layout_sha256 or layout.size != plan.parameters:
        reason = (
            f"layout_sha256: the model has {layout.digest} and {layout.size} parameters, "
            f"the plan says {plan.layout_sha256} and {plan.parameters}"
        )
        raise JobError(Refusal("model", reason))
    return layout, parameters


def _with_codec(work: Work, one: Candidate) -> Work:
    named = {"codec": one.codec_id, "codec_params": dict(one.params)}
    return replace(work, plan=work.plan.model_copy(update=named))


def _gain(plan: TrainingPlan, layout: Layout, payload: bytes) -> float:
    """Return the squared norm of what central would decode."""
    decoded = create(plan.codec, plan.codec_params).decode(payload, layout)
    return l2_norm(decoded) ** 2


def _write(payload: bytes, scratch: Path) -> Path:
    """Write a payload in pieces, wait for the disk, and return its file."""
    path = scratch / f"{hashlib.sha256(payload).hexdigest()}.update.tmp"
    try:
        write_durably(path, memoryview(payload), lambda: failpoint("device.update.written"))
        failpoint("device.update.fsynced")
    except OSError as error:
        path.unlink(missing_ok=True)
        raise JobError(Refusal("storage", f"the update cannot be written: {error}")) from error
    return path


def _finite(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the finite ones with six significant digits: each digit more is a byte sent."""
    return {name: float(f"{value:.6g}") for name, value in metrics.items() if math.isfinite(value)}
