"""The graph that a task began with is the one that is measured and written, whatever comes after."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from central.adapters.export_process import ExportProcess, ExportProcessError
from central.modeling.forward_store import FORWARD, ForwardStore
from central.modeling.modeler import GraphModeler
from learning.models.architectures import ModelError
from schemas.tasks import TaskSubmission
from updates.model_file import encode_model

SUBMISSION = TaskSubmission(model="theirs", training={"frozen": ("base",)})
X = np.random.default_rng(5).standard_normal((6, 4)).astype(np.float32)


def write_file(path, scale):
    """Write a model with a frozen base; another scale is another base of the same shape."""
    base = np.linspace(-scale, scale, 32, dtype=np.float32).reshape(4, 8)
    head = np.linspace(-1, 1, 24, dtype=np.float32).reshape(8, 3)
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "base"], ["h"]),
            helper.make_node("Tanh", ["h"], ["t"]),
            helper.make_node("MatMul", ["t", "head"], ["y"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(base, "base"), numpy_helper.from_array(head, "head")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 8
    onnx.save_model(model, path)


class Begun:
    """A task that began with one file, which was replaced or removed since."""

    def __init__(self, root, change):
        self.file, self.cache = root / "theirs.onnx", root / "cache"
        write_file(self.file, 1.0)
        np.savez(root / "held.npz", x=X, y=np.array([0, 1, 2, 0, 1, 2]))
        self.models = {"theirs": str(self.file)}
        self.modeler = GraphModeler(self.models, (f"npz={root / 'held.npz'}",), self.cache)
        (one,) = self.modeler._evaluators.values()
        self.data = one.dataset.description()
        (root / "scratch").mkdir()
        self.begun = self.modeler.prepare(SUBMISSION, self.data, root / "scratch")
        self.before = self.evaluate(None)
        self.target = root / "final.onnx"
        if change == "removed":
            self.file.unlink()
        else:
            write_file(self.file, 9.0)

    def evaluate(self, key):
        layout, vector = self.begun.layout, self.begun.vector
        return self.modeler.evaluate(SUBMISSION, self.data, layout, vector, key)

    def export(self, key):
        layout, vector = self.begun.layout, self.begun.vector
        self.modeler.export(SUBMISSION, self.data, layout, vector, self.target, key)
        (logits,) = onnxruntime.InferenceSession(self.target).run(None, {"input": X})
        return logits

    def lose_the_graph(self):
        for path in self.cache.glob(f"*{FORWARD}"):
            path.unlink()


@pytest.mark.parametrize("change", ["replaced", "removed"])
def test_the_graph_of_the_beginning_is_used_when_the_file_has_changed(tmp_path, change):
    task = Begun(tmp_path, change)
    assert ForwardStore(task.cache).find(task.begun.forward_key) is not None
    assert task.evaluate(task.begun.forward_key) == task.before
    expected = np.tanh(X @ np.linspace(-1, 1, 32, dtype=np.float32).reshape(4, 8))
    expected = expected @ np.linspace(-1, 1, 24, dtype=np.float32).reshape(8, 3)
    np.testing.assert_allclose(task.export(task.begun.forward_key), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("change", ["replaced", "removed"])
def test_without_that_graph_and_its_file_nothing_else_is_measured_or_written(tmp_path, change):
    task = Begun(tmp_path, change)
    task.lose_the_graph()
    cause = "not what it was when the task began" if change == "replaced" else "cannot be read"
    with pytest.raises(ModelError, match=cause):
        task.evaluate(task.begun.forward_key)
    source = tmp_path / "model"
    source.write_bytes(encode_model(task.begun.layout, task.begun.vector))
    with pytest.raises(ExportProcessError, match=cause):
        ExportProcess(task.models, task.cache).write(
            SUBMISSION, task.data, source, task.target, task.begun.forward_key
        )
    assert not task.target.exists()


def test_a_lost_graph_is_made_again_from_the_same_file(tmp_path):
    task = Begun(tmp_path, "replaced")
    task.lose_the_graph()
    write_file(task.file, 1.0)
    assert task.evaluate(task.begun.forward_key) == task.before


def test_a_cache_that_cannot_be_written_is_replaced_for_this_life(tmp_path, monkeypatch):
    monkeypatch.setattr(ForwardStore, "is_writable", lambda store: store.folder.name != "cache")
    task = Begun(tmp_path, "removed")
    assert not task.cache.exists()
    assert task.evaluate(task.begun.forward_key) == task.before
