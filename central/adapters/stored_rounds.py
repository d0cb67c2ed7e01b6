"""A round's aggregate as a function of what is stored, for central and for its audit."""

import hashlib
import json
import mmap
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from safetensors import numpy as safetensors

from central.core import downlink
from central.core.budget import selection_scale
from central.core.lazy_sum import may_skip, run_lazily
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
from central.service.records import RoundRecord, TaskRecord
from schemas.messages import LazyTerms
from schemas.tasks import TaskSubmission
from transport.database import DatabaseCorruptError, is_damage, is_storage_failure
from updates.choice import AUTO
from updates.codecs import create
from updates.codecs.base import Codec
from updates.errors import NonFiniteError
from updates.kernels import Kernels
from updates.layout import Layout
from updates.model_file import decode_model, model_header

_Result = TypeVar("_Result")

#: Values of all updates of a round from which on compiled loops gain more than the second or two
#: that they take to compile, once in the life of a process.
_WORTH_COMPILING = 1 << 26


@dataclass(frozen=True, slots=True, eq=False)
class Aggregate:
    """What a round gives.

    Attributes:
        layout: Of the model.
        model: The new global model, as devices will hold it, shape ``(layout.size,)``.
        state: What the strategy and the downlink keep for the next round.
        delta: What leads devices to the model from the round's base; None: it is sent whole.
        lazy: What a lazy task's next round is told; None: nothing.
    """

    layout: Layout
    model: F32
    state: bytes
    delta: bytes | None = None
    lazy: LazyTerms | None = None


@dataclass(frozen=True, slots=True)
class StoredRounds:
    """Reads rounds of one database.

    Attributes:
        database: Central's, for reading.
        object_path: Where the object with a digest is: a model or a large update.
        strategies: A user's own strategies, by name.
        kernels: Gives compiled loops for large sums; None: numpy, with the same bits.
    """

    database: sqlite3.Connection
    object_path: Callable[[str], Path]
    strategies: Mapping[str, Callable[..., Strategy]]
    kernels: Callable[[], Kernels | None] | None = None

    def aggregate(
        self, task: TaskRecord, record: RoundRecord, stored: bytes | None, committed: int
    ) -> Aggregate:
        """Aggregate the frozen contributions of a round.

        Args:
            task: The round's task.
            record: The round.
            stored: The strategy's state before this round; None before the first one.
            committed: Rounds of the task committed before this one; its last is sent whole.

        Raises:
            StrategyError: The strategy raised, or gave what is no model; or the vectors of a lazy
                task's devices are too much.
            OSError: A model or an update is not where it should be.
            PayloadError: One is not what its digest says.
        """
        submission = task.submission
        strategy = registry.create(
            submission.strategy, submission.strategy_params, self.strategies
        )
        layout, model = read_model(self.object_path(record.base_model_sha256))
        items = self._contributions(task, record, layout)
        scale = selection_scale(len(items), task.min_clients, submission.scale_exponent)
        contributions = Contributions(model, items, scale, self._kernels(len(items), model.size))
        state, residual = _without_residual(_load_state(stored) if stored else {})
        state = state if stored else strategy.init(model)
        state, new, told = _step(strategy, state, contributions, submission)
        move = downlink.Move(model, new, residual)
        sent = _send(task, record, layout, move, is_last=committed + 1 >= submission.rounds)
        kept = {} if sent.residual is None else {downlink.RESIDUAL: sent.residual}
        return Aggregate(layout, sent.model, _dump_state({**state, **kept}), sent.payload, told)

    def _kernels(self, clients: int, values: int) -> Kernels | None:
        if self.kernels is None or clients * values < _WORTH_COMPILING:
            return None
        return self.kernels()

    def payload(self, task: str, number: int, device: str, sha256: str) -> bytes:
        """Return the bytes of one contribution: from its row, else from its file.

        Raises:
            FileNotFoundError: They are in neither.
            DatabaseCorruptError: They are not those that were accepted.
        """
        found = self.database.execute(
            "SELECT payload FROM payloads WHERE task = ? AND round = ? AND device = ?",
            (task, number, device),
        ).fetchone()
        if found is None:
            return self.object_path(sha256).read_bytes()
        if hashlib.sha256(found[0]).hexdigest() != sha256:
            (_, _, file) = self.database.execute("PRAGMA database_list").fetchone()
            detail = f"the stored update {sha256} is not the one that was accepted"
            raise DatabaseCorruptError(Path(file), detail)
        return bytes(found[0])

    def _codec(self, task: TaskRecord, picked: str | None, params: str | None) -> Codec:
        """Return what one contribution is decoded with: its device's choice, or the task's."""
        if picked is None:
            return create(task.submission.codec, task.submission.codec_params)
        return create(picked, json.loads(params or "{}"))

    def _contributions(
        self, task: TaskRecord, record: RoundRecord, layout: Layout
    ) -> tuple[Contribution, ...]:
        number = record.state.number
        query = (
            "SELECT device, sha256, num_examples, reference, codec, codec_params "
            "FROM contributions "
            "WHERE task = ? AND round = ?"
        )
        rows = {row[0]: row[1:] for row in self.database.execute(query, (task.task, number))}

        def loader(device: str) -> Callable[[], bytes]:
            return lambda: self.payload(task.task, number, device, rows[device][0])

        return tuple(
            Contribution(
                device,
                rows[device][1],
                layout,
                self._codec(task, *rows[device][3:]),
                loader(device),
                reference=rows[device][2],
            )
            for device in record.contributors or ()
        )


def _lazy_codec(submission: TaskSubmission) -> Codec | None:
    """Return a task's codec if both ends hold what it is told against."""
    if submission.codec == AUTO:
        return None
    codec = create(submission.codec, submission.codec_params)
    return codec if codec.needs_reference else None


def _step(
    strategy: Strategy, state: State, contributions: Contributions, submission: TaskSubmission
) -> tuple[State, F32, LazyTerms | None]:
    """Return the next state and model, and what a lazy task's next round is told."""
    lazy = _lazy_codec(submission)
    if lazy is None:
        state, new = _run(lambda: run(strategy, state, contributions))
        return state, new, None
    weighted = registry.weighs_examples(submission.strategy)
    state, new, terms = _run(lambda: run_lazily(strategy, state, contributions, weighted=weighted))
    told = LazyTerms(
        threshold=terms.threshold,
        examples=terms.examples,
        clients=None if weighted else terms.clients,
    )
    return state, new, told if may_skip(lazy) else None


def _run(work: Callable[[], _Result]) -> _Result:
    """Run a strategy; a full disk or a damaged database below it is not the strategy's fault."""
    try:
        return work()
    except StrategyError as error:
        failure = error
    cause = failure.__cause__
    if cause is not None and (is_damage(cause) or is_storage_failure(cause)):
        raise cause  # outside of the handler: two errors must not name each other as their cause
    raise failure


def _without_residual(state: State) -> tuple[State, F32 | None]:
    """Return the strategy's own state, and what the downlink keeps in it."""
    residual = state.get(downlink.RESIDUAL)
    own = {name: a for name, a in state.items() if not name.startswith(downlink.PREFIX)}
    return own, None if residual is None else residual.astype(np.float32, copy=False)


def _send(
    task: TaskRecord, record: RoundRecord, layout: Layout, move: downlink.Move, *, is_last: bool
) -> downlink.Sent:
    """Code a round's model for the way down; the task's last one is the server's own."""
    asked = task.submission.downlink
    try:
        if asked is None or is_last:
            return downlink.whole(move)
        rng = downlink.rng_of(task.task, record.state.number)
        return downlink.compress(move, create(asked.codec, asked.codec_params), layout, rng)
    except NonFiniteError as error:
        raise StrategyError(str(error)) from error


def read_model(path: Path) -> tuple[Layout, F32]:
    """Return a stored model's layout and its parameters, a view of the mapped file."""
    with path.open("rb") as file:
        return decode_model(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def model_parts(layout: Layout, vector: F32) -> tuple[bytes, memoryview, str]:
    """Return a model file's header, its values without a copy of them, and its SHA-256."""
    header = model_header(layout)
    values = np.ascontiguousarray(vector, dtype="<f4").view(np.uint8).data
    digest = hashlib.sha256(header)
    digest.update(values)
    return header, values, digest.hexdigest()


def _load_state(data: bytes) -> State:
    return dict(safetensors.load(data))


def _dump_state(state: State) -> bytes:
    return bytes(safetensors.save({name: np.ascontiguousarray(a) for name, a in state.items()}))
