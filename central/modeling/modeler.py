"""Central's models behind one port: build the first, measure each, write out the last."""

import shutil
import struct
import tempfile
import threading
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import structlog
from numpy.typing import NDArray

from central.modeling import process, sources
from central.modeling.evaluation import Evaluator
from central.modeling.forward_store import STEP, ForwardStore
from central.modeling.requests import ModelRequest, Word, is_file
from central.service.ports import Prepared
from learning.data.dataset import Dataset, concatenate
from learning.data.sources import load
from learning.models import architectures
from learning.models.architectures import ModelError
from schemas.messages import DataDescription
from schemas.tasks import TaskSubmission
from updates.layout import Layout
from updates.model_file import decode_model

F32 = NDArray[np.float32]
_log = structlog.get_logger()
_LENGTH = struct.Struct("<Q")
DataKey = tuple[str, tuple[int, ...], str, int]


class GraphModeler:
    """The port ``Modeler``; whatever is built is built by a process of its own."""

    def __init__(
        self,
        models: Mapping[str, str],
        eval_data: Sequence[str],
        cache: Path,
        timeout_s: float = process.TIMEOUT_S,
    ) -> None:
        """Load the held-out sets; sets of the same form are joined.

        Args:
            models: Models beyond the built-in ones: name -> ``package.module:factory``, or the
                path of an .onnx file. From central's own settings, never from a message.
            eval_data: Specifications of held-out data, as ``learning.data.sources`` reads them.
            cache: Folder of the forward graphs.
            timeout_s: How long building one may take.

        Raises:
            DataError: A set cannot be loaded.
        """
        self._models = dict(models)
        self._store = ForwardStore(cache)
        self._spare: ForwardStore | None = None
        self._lock = threading.Lock()
        self._timeout_s = timeout_s
        parts: dict[DataKey, list[Dataset]] = {}
        for spec in eval_data:
            dataset = load(spec, train=False)
            parts.setdefault(dataset.description().key, []).append(dataset)
        self._evaluators = {
            key: Evaluator(concatenate(datasets)) for key, datasets in parts.items()
        }

    def check(self, submission: TaskSubmission) -> None:
        """Check a task's model and its parameters by name alone."""
        name = submission.model
        architectures.check_params(name, submission.model_params, self._models)
        target = self._models.get(name)
        if target is None or not is_file(target):
            return
        if submission.model_params:
            message = f"model_params: {name} is an .onnx file, which has no settings"
            raise ModelError(message)
        if submission.requires.backend == "torch":
            message = f"requires.backend: {name} is an .onnx file, the backend torch has no code"
            raise ModelError(message)

    def prepare(
        self, submission: TaskSubmission, data: DataDescription, scratch: Path
    ) -> Prepared:
        """Return the first parameters of a task's model, from its seed, and its training graph.

        Args:
            submission: What is asked.
            data: The devices' data.
            scratch: An empty directory, removed afterwards.

        Raises:
            ModelError: The model cannot be built for this data.
            OSError: A disk is full; it may be tried again.
            PrepareProcessError: The process that builds it failed.
        """
        request, training = self._request(submission, data), submission.training
        wants_graph = not training.is_drill and submission.requires.backend != "torch"
        forward_key = sources.key_of(request)
        key = sources.step_key(forward_key, training)
        if wants_graph and (known := self._store.find(key, STEP)):
            return _unpacked(known.read_bytes(), forward_key)
        outcome = process.prepare(
            request,
            training,
            wants_graph=wants_graph,
            cache=self._writable().folder,
            scratch=scratch,
            timeout_s=self._timeout_s,
        )
        if outcome.not_kept is not None:
            _log.warning("graph_not_kept", reason=outcome.not_kept)
        model = (scratch / Word.MODEL.value).read_bytes()
        if not outcome.has_graph:
            return Prepared(*decode_model(model), None, outcome.reason, outcome.key)
        packed = _packed(model, (scratch / Word.GRAPH.value).read_bytes())
        self._keep_step(sources.step_key(outcome.key, training), packed)
        return _unpacked(packed, outcome.key)

    def _keep_step(self, key: str, packed: bytes) -> None:
        try:
            self._writable().put(key, packed, STEP)
        except OSError as error:  # it is only built again
            _log.warning("graph_not_kept", reason=str(error))

    def has_evaluation(self, data: DataDescription) -> bool:
        """Tell whether there is a held-out set for such data."""
        return data.key in self._evaluators

    def evaluate(
        self,
        submission: TaskSubmission,
        data: DataDescription,
        layout: Layout,
        vector: F32,
        forward_key: str | None = None,
    ) -> dict[str, float]:
        """Return a model's accuracy and loss on the held-out set.

        Raises:
            ModelError: Its forward graph cannot be had, or is not that of these parameters.
        """
        path = self.forward(self._request(submission, data), forward_key)
        return self._evaluators[data.key].evaluate(path, vector, layout)

    def export(  # noqa: PLR0913, PLR0917 - what there is to say
        self,
        submission: TaskSubmission,
        data: DataDescription,
        layout: Layout,
        vector: F32,
        path: Path,
        forward_key: str | None = None,
    ) -> None:
        """Write a model for inference as ONNX.

        Raises:
            ModelError: Its forward graph cannot be had, or is not that of these parameters.
        """
        from central.modeling.export import export_onnx  # noqa: PLC0415 - imports onnx
        from central.modeling.forward import ForwardGraph  # noqa: PLC0415

        forward = ForwardGraph.load(self.forward(self._request(submission, data), forward_key))
        export_onnx(forward, layout.unflatten(vector), data.shape, path)

    def forward(self, request: ModelRequest, kept: str | None = None) -> Path:
        """Return the file of a forward graph, which is built if it is not there.

        Args:
            request: Which model.
            kept: Digest of the graph that a task began with: that one is meant, whatever has
                become of the file that it was made from.

        Raises:
            ModelError: It cannot be built, or it would be another one.
            OSError: A disk is full; it may be tried again.
            PrepareProcessError: The process that builds it failed.
        """
        if kept is not None and (found := self._find(kept)):
            return found
        key = sources.key_of(request)
        if kept not in {None, key} and request.file is not None:
            message = (
                f"model: {request.file} is not what it was when the task began, and the graph "
                f"made then is not in {self._store.folder} any more; put the file back"
            )
            raise ModelError(message)
        if found := self._find(key):
            return found
        with tempfile.TemporaryDirectory() as scratch:
            store = self._writable()
            outcome = process.prepare(
                request,
                None,
                cache=store.folder,
                scratch=Path(scratch),
                timeout_s=self._timeout_s,
            )
        return store.need(outcome.key)

    def _find(self, key: str) -> Path | None:
        found = self._store.find(key)
        if found is None and self._spare is not None:
            found = self._spare.find(key)
        return found

    def _writable(self) -> ForwardStore:
        """Return where new graphs go; a folder for this life where the cache is another's."""
        if self._store.is_writable():
            return self._store
        with self._lock:
            if self._spare is None:
                folder = tempfile.mkdtemp()
                weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
                self._spare = ForwardStore(Path(folder))
                _log.warning("model_cache_not_writable", folder=str(self._store.folder))
            return self._spare

    def _request(self, submission: TaskSubmission, data: DataDescription) -> ModelRequest:
        architectures.check_params(submission.model, submission.model_params, self._models)
        return ModelRequest(
            model=submission.model,
            params=dict(submission.model_params),
            shape=data.shape,
            classes=data.classes,
            seed=submission.seed,
            target=self._models.get(submission.model),
        )


def _packed(model: bytes, graph: bytes) -> bytes:
    """Return what the store keeps of a task's beginning: model and training graph in one file."""
    return b"".join((_LENGTH.pack(len(model)), model, graph))


def _unpacked(content: bytes, forward_key: str) -> Prepared:
    start = _LENGTH.size
    (length,) = _LENGTH.unpack_from(content)
    layout, vector = decode_model(memoryview(content)[start : start + length])
    return Prepared(layout, vector, content[start + length :], forward_key=forward_key)
