"""What the worker's jobs do: files and numbers. Nothing here changes central's tables.

A job may be done twice (central was killed in between); it then gives the same bytes.
"""

import hashlib
import mmap
import shutil
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path

import numpy as np
from safetensors import numpy as safetensors

from central.core.strategies import registry
from central.core.strategies.base import (
    F32,
    Contribution,
    Contributions,
    State,
    Strategy,
    StrategyError,
    run,
)
from central.service.ports import (
    AggregateRound,
    EvaluateModel,
    Exporter,
    ExportModel,
    Job,
    JobEvent,
    JobFailed,
    Modeler,
    ModelEvaluated,
    ModelPrepared,
    PrepareModel,
    RoundAggregated,
)
from transport.failpoints import failpoint
from transport.objects import ObjectStore
from updates.codecs import create
from updates.layout import Layout
from updates.model_file import decode_model, model_header

#: Names the model that the files beside it hold; written when they are whole.
EXPORTED = "model.sha256"


class Jobs:
    """Does the jobs, one at a time; models are written out beside the others."""

    def __init__(  # noqa: PLR0913, PLR0917 - collaborators, named by the composition root
        self,
        open_database: Callable[[], sqlite3.Connection],
        objects: ObjectStore,
        modeler: Modeler,
        exporter: Exporter,
        strategies: Mapping[str, Callable[..., Strategy]],
        models_dir: Path,
    ) -> None:
        """Prepare.

        Args:
            open_database: Opens central's database to read it, for one job at a time.
            objects: Where models and large updates are.
            modeler: Builds and measures models.
            exporter: Writes final models out.
            strategies: A user's own strategies, by name.
            models_dir: Where final models are written for persons.
        """
        self._open_database = open_database
        self._objects = objects
        self._modeler = modeler
        self._exporter = exporter
        self._strategies = strategies
        self._models_dir = models_dir

    def work(self, job: Job) -> JobEvent | None:
        """Do one job and return what came of it."""
        match job:
            case PrepareModel():
                return self._prepare(job)
            case AggregateRound():
                return self._aggregate(job)
            case EvaluateModel():
                return self._evaluate(job)
            case ExportModel():
                self._export(job)
                return None

    def _prepare(self, job: PrepareModel) -> JobEvent:
        failpoint("central.preparation.begun")
        try:
            layout, vector = self._modeler.first_model(job.submission, job.data)
        except ValueError as error:
            return JobFailed(job, str(error))
        sha256, size = store_model(self._objects, layout, vector, f"first-{job.task}")
        failpoint("central.preparation.stored")
        return ModelPrepared(job.task, job.data, sha256, size, layout.size, layout.digest)

    def _aggregate(self, job: AggregateRound) -> JobEvent:
        task, number = job.task, job.round.state.number
        strategy = registry.create(
            task.submission.strategy, task.submission.strategy_params, self._strategies
        )
        failpoint("central.aggregation.begun")
        layout, model = read_model(self._objects.path(job.round.base_model_sha256))
        with closing(self._open_database()) as database:
            items = self._contributions(database, job, layout)
            contributions = Contributions(model, items)
            state = _load_state(job.state) if job.state else strategy.init(model)
            try:
                state, new = run(strategy, state, contributions)
            except StrategyError as error:
                return JobFailed(job, str(error))
        del contributions, model
        failpoint("central.aggregation.computed")
        sha256, _ = store_model(self._objects, layout, new, f"{task.task}-{number}")
        failpoint("central.aggregation.stored")
        return RoundAggregated(task.task, number, sha256, _dump_state(state))

    def _contributions(
        self, database: sqlite3.Connection, job: AggregateRound, layout: Layout
    ) -> tuple[Contribution, ...]:
        task, number = job.task, job.round.state.number
        codec = create(task.submission.codec, task.submission.codec_params)
        rows = {
            device: (sha256, inline, examples)
            for device, sha256, inline, examples in database.execute(
                "SELECT device, sha256, payloads.device IS NOT NULL, num_examples "
                "FROM contributions LEFT JOIN payloads USING (task, round, device) "
                "WHERE task = ? AND round = ?",
                (task.task, number),
            )
        }

        def loader(device: str) -> Callable[[], bytes]:
            sha256, inline, _ = rows[device]
            if not inline:
                return lambda: self._objects.read(sha256)
            return lambda: _payload(database, task.task, number, device)

        return tuple(
            Contribution(device, rows[device][2], layout, codec, loader(device))
            for device in job.round.contributors or ()
        )

    def _evaluate(self, job: EvaluateModel) -> JobEvent:
        task = job.task
        if task.plan is None or task.model_sha256 is None:
            return ModelEvaluated(task.task, job.round)
        layout, vector = read_model(self._objects.path(task.model_sha256))
        metrics = self._modeler.evaluate(task.submission, task.plan.data, layout, vector)
        failpoint("central.evaluation.measured")
        return ModelEvaluated(task.task, job.round, metrics)

    def _export(self, job: ExportModel) -> None:
        task = job.task
        if task.plan is None or task.model_sha256 is None:
            return
        directory = self._models_dir / task.task
        directory.mkdir(parents=True, exist_ok=True)
        source = self._objects.path(task.model_sha256)
        temporary = directory / "model.safetensors.tmp"
        shutil.copyfile(source, temporary)
        temporary.replace(directory / "model.safetensors")
        failpoint("central.export.copied")
        target = directory / "model.onnx"
        self._exporter.write(task.submission, task.plan.data, source, target)
        failpoint("central.export.written")
        (directory / EXPORTED).write_text(task.model_sha256, encoding="ascii")
        failpoint("central.export.noted")


def reader_of(database: Path) -> Callable[[], sqlite3.Connection]:
    """Return what opens a database to read what is committed; the program may go on meanwhile."""
    return lambda: sqlite3.connect(f"file:{database}?mode=ro", uri=True)


def read_model(path: Path) -> tuple[Layout, F32]:
    """Return a stored model's layout and its parameters, a view of the mapped file."""
    with path.open("rb") as file:
        return decode_model(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def store_model(objects: ObjectStore, layout: Layout, vector: F32, key: str) -> tuple[str, int]:
    """Store a model durably, without a second copy of it in memory.

    Returns:
        The file's SHA-256 and its size in bytes.
    """
    header = model_header(layout)
    values = np.ascontiguousarray(vector, dtype="<f4").view(np.uint8).data
    digest = hashlib.sha256(header)
    digest.update(values)
    sha256 = digest.hexdigest()
    path = objects.part_path(key, sha256)
    with path.open("wb") as file:
        file.write(header)
        file.write(values)
    failpoint("central.model.written")
    objects.adopt(path, sha256, durable=True)
    return sha256, len(header) + len(values)


def _payload(database: sqlite3.Connection, task: str, number: int, device: str) -> bytes:
    (payload,) = database.execute(
        "SELECT payload FROM payloads WHERE task = ? AND round = ? AND device = ?",
        (task, number, device),
    ).fetchone()
    return bytes(payload)


def _load_state(data: bytes) -> State:
    return dict(safetensors.load(data))


def _dump_state(state: State) -> bytes:
    return bytes(safetensors.save({name: np.ascontiguousarray(a) for name, a in state.items()}))
