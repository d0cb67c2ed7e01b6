"""What the worker's jobs do: files and numbers. Nothing here changes central's tables.

A job may be done twice (central was killed in between); it then gives the same bytes.
"""

import secrets
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

import structlog

from central.adapters.stored_rounds import StoredRounds, model_parts, read_model
from central.core.strategies.base import F32, Strategy, StrategyError
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
    Prepared,
    PrepareModel,
    RoundAggregated,
)
from schemas.limits import MAX_GRAPH_BYTES
from schemas.tasks import TaskSubmission
from transport.failpoints import failpoint
from transport.objects import ObjectStore
from updates.kernels import Kernels
from updates.layout import Layout

_log = structlog.get_logger()
#: Names the model that the files beside it hold; written when they are whole.
EXPORTED = "model.sha256"


class Jobs:
    """Does the jobs; models are built and written out beside the others, on other threads."""

    def __init__(  # noqa: PLR0913, PLR0917 - collaborators, named by the composition root
        self,
        open_database: Callable[[], sqlite3.Connection],
        objects: ObjectStore,
        modeler: Modeler,
        exporter: Exporter,
        strategies: Mapping[str, Callable[..., Strategy]],
        models_dir: Path,
        kernels: Callable[[], Kernels | None] | None = None,
    ) -> None:
        """Prepare.

        Args:
            open_database: Opens central's database to read it, for one job at a time.
            objects: Where models and large updates are.
            modeler: Builds and measures models.
            exporter: Writes final models out.
            strategies: A user's own strategies, by name.
            models_dir: Where final models are written for persons.
            kernels: Gives compiled loops for large sums; None: numpy, with the same bits.
        """
        self._open_database = open_database
        self._objects = objects
        self._modeler = modeler
        self._exporter = exporter
        self._strategies = strategies
        self._models_dir = models_dir
        self._kernels = kernels
        # Two processes may work on the same job for a moment, until one of them is fenced.
        self._life = secrets.token_hex(4)
        self._scratches = objects.root / "scratch"
        shutil.rmtree(self._scratches, ignore_errors=True)  # what a killed life left there

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
            with self._scratch() as scratch:
                prepared = self._modeler.prepare(job.submission, job.data, scratch)
        except ValueError as error:
            return JobFailed(job, str(error))
        if fault := _graph_fault(job.submission, prepared):
            return JobFailed(job, f"training graph: {fault}")
        graph, graph_bytes = self._store_graph(prepared.graph)
        layout, key = prepared.layout, f"first-{job.task}-{self._life}"
        sha256, size = store_model(self._objects, layout, prepared.vector, key)
        failpoint("central.preparation.stored")
        return ModelPrepared(
            task=job.task,
            data=job.data,
            sha256=sha256,
            size=size,
            parameters=layout.size,
            layout_sha256=layout.digest,
            graph_sha256=graph,
            graph_bytes=graph_bytes,
            forward_key=prepared.forward_key,
        )

    def _store_graph(self, graph: bytes | None) -> tuple[str | None, int]:
        if graph is None:
            return None, 0
        sha256 = self._objects.put(graph, durable=True)
        failpoint("central.graph.stored")
        return sha256, len(graph)

    @contextmanager
    def _scratch(self) -> Iterator[Path]:
        """Make an empty directory for one job, and remove that one alone."""
        own = self._scratches / f"{self._life}-{secrets.token_hex(4)}"
        own.mkdir(parents=True)
        try:
            yield own
        finally:
            shutil.rmtree(own, ignore_errors=True)

    def _aggregate(self, job: AggregateRound) -> JobEvent:
        task, number = job.task, job.round.state.number
        failpoint("central.aggregation.begun")
        with closing(self._open_database()) as database:
            rounds = StoredRounds(database, self._objects.check, self._strategies, self._kernels)
            try:
                done = rounds.aggregate(task, job.round, job.state, task.progress.committed)
            except StrategyError as error:
                return JobFailed(job, str(error))
        failpoint("central.aggregation.computed")
        delta = self._store_delta(done.delta)
        key = f"{task.task}-{number}-{self._life}"
        sha256, _ = store_model(self._objects, done.layout, done.model, key)
        failpoint("central.aggregation.stored")
        return RoundAggregated(task.task, number, sha256, done.state, done.lazy, *delta)

    def _store_delta(self, delta: bytes | None) -> tuple[str | None, int]:
        if delta is None:
            return None, 0
        sha256 = self._objects.put(delta, durable=True)
        failpoint("central.delta.stored")
        return sha256, len(delta)

    def _evaluate(self, job: EvaluateModel) -> JobEvent:
        task = job.task
        if task.plan is None or task.model_sha256 is None:
            return ModelEvaluated(task.task, job.round)
        layout, vector = read_model(self._objects.check(task.model_sha256))
        key = task.plan.forward_key
        try:
            metrics = self._modeler.evaluate(task.submission, task.plan.data, layout, vector, key)
        except ValueError as error:
            _log.warning("evaluation_left_out", task=task.task, reason=str(error))
            return ModelEvaluated(task.task, job.round, problem=str(error))
        failpoint("central.evaluation.measured")
        return ModelEvaluated(task.task, job.round, metrics)

    def _export(self, job: ExportModel) -> None:
        task = job.task
        if task.plan is None or task.model_sha256 is None:
            return
        directory = self._models_dir / task.task
        directory.mkdir(parents=True, exist_ok=True)
        source = self._objects.check(task.model_sha256)
        temporary = directory / "model.safetensors.tmp"
        shutil.copyfile(source, temporary)
        temporary.replace(directory / "model.safetensors")
        failpoint("central.export.copied")
        target = directory / "model.onnx"
        key = task.plan.forward_key
        self._exporter.write(task.submission, task.plan.data, source, target, key)
        failpoint("central.export.written")
        (directory / EXPORTED).write_text(task.model_sha256, encoding="ascii")
        failpoint("central.export.noted")


def reader_of(database: Path) -> Callable[[], sqlite3.Connection]:
    """Return what opens a database to read what is committed; the program may go on meanwhile."""
    return lambda: sqlite3.connect(f"file:{database}?mode=ro", uri=True)


def _graph_fault(submission: TaskSubmission, prepared: Prepared) -> str | None:
    size = 0 if prepared.graph is None else len(prepared.graph)
    if size > MAX_GRAPH_BYTES:
        return f"{size} bytes, at most {MAX_GRAPH_BYTES} are allowed"
    is_needed = submission.requires.backend != "torch" and not submission.training.is_drill
    return prepared.reason or "none was built" if not size and is_needed else None


def store_model(objects: ObjectStore, layout: Layout, vector: F32, key: str) -> tuple[str, int]:
    """Store a model durably, without a second copy of it in memory.

    Returns:
        The file's SHA-256 and its size in bytes.
    """
    header, values, sha256 = model_parts(layout, vector)
    path = objects.part_path(key, sha256)
    try:
        with path.open("wb") as file:
            file.write(header)
            file.write(values)
        failpoint("central.model.written")
        objects.adopt(path, sha256, durable=True)
    except OSError:
        path.unlink(missing_ok=True)  # what is half a model must not fill the disk
        raise
    return sha256, len(header) + len(values)
