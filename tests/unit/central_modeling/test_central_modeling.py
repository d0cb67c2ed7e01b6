import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from central.modeling.evaluation import Evaluator
from central.modeling.export import ExportError, export_onnx
from central.modeling.factory import ModelFactory
from learning.data.dataset import Dataset
from learning.models import registry
from learning.models.registry import ModelError
from schemas.errors import PayloadError

MLP = {"hidden": (16,)}


def blobs(n=700):
    rng = np.random.default_rng(0)
    y = np.arange(n, dtype=np.int64) % 3
    x = rng.standard_normal((n, 4)).astype(np.float32)
    return Dataset(x, y, 3, "blobs")


def test_a_model_is_described_by_layout_and_initial_parameters():
    layout, vector = ModelFactory().describe("lenet5", {}, (1, 28, 28), 10, seed=1)
    assert layout.size == vector.size == 61_706
    assert vector.dtype == np.float32
    assert layout.unflatten(vector)["classifier.5.bias"].shape == (10,)


def test_the_seed_decides_the_initial_parameters():
    first, again, other = (
        ModelFactory().describe("mlp", MLP, (4,), 3, seed)[1].tobytes() for seed in (1, 1, 2)
    )
    assert first == again != other


def test_what_a_person_asked_wrongly_is_told_without_importing_torch():
    with pytest.raises(ModelError, match="'vgg' is not known"):
        ModelFactory().check("vgg", {})
    with pytest.raises(ModelError, match=r"model_params\.depth"):
        ModelFactory().check("mlp", {"depth": 2})
    code = (
        "import sys; from central.modeling.factory import ModelFactory;"
        "import central.modeling.evaluation, central.modeling.export;"
        "ModelFactory().check('mlp', {}); print('torch' in sys.modules, 'onnx' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False False"


def test_a_model_above_the_limit_is_refused():
    with pytest.raises(ModelError, match="at most 100 are allowed"):
        ModelFactory(max_parameters=100).describe("mlp", MLP, (4,), 3, seed=0)


def test_accuracy_and_loss_are_those_of_the_whole_dataset():
    data, factory = blobs(), ModelFactory()
    layout, vector = factory.describe("mlp", MLP, (4,), 3, seed=1)
    with torch.inference_mode():
        logits = factory.restore("mlp", MLP, (4,), 3, vector)(torch.from_numpy(data.x))
    loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(data.y))
    got = Evaluator(data).evaluate("mlp", MLP, vector, layout)
    assert got["accuracy"] == pytest.approx(float((logits.argmax(1).numpy() == data.y).mean()))
    assert got["loss"] == pytest.approx(float(loss), rel=1e-5)


def test_a_model_that_knows_the_answer_is_right_everywhere():
    y = np.arange(50, dtype=np.int64) % 3
    data = Dataset(np.eye(3, dtype=np.float32)[y], y, 3, "onehot")
    layout, vector = ModelFactory().describe("softmax", {}, (3,), 3, seed=0)
    known = {"1.weight": 50 * np.eye(3, dtype=np.float32), "1.bias": np.zeros(3, np.float32)}
    got = Evaluator(data).evaluate("softmax", {}, layout.flatten(known), layout)
    assert got["accuracy"] == 1.0
    assert got["loss"] < 1e-6
    assert Evaluator(data).evaluate("softmax", {}, vector, layout)["accuracy"] < 1.0


def test_the_module_is_built_once_for_many_rounds(monkeypatch):
    built = []
    build = registry.build
    monkeypatch.setattr(registry, "build", lambda *a, **k: built.append(a[:2]) or build(*a, **k))
    evaluator = Evaluator(blobs())
    for params in (MLP, MLP, {"hidden": (8,)}, {"hidden": (8,)}):
        layout, vector = ModelFactory().describe("mlp", params, (4,), 3, seed=1)
        built.clear()
        first = evaluator.evaluate("mlp", params, vector, layout)
        assert len(built) <= 1
        built.clear()
        assert evaluator.evaluate("mlp", params, vector, layout) == first
        assert not built


def test_parameters_of_another_model_are_refused():
    layout, vector = ModelFactory().describe("mlp", MLP, (4,), 3, seed=1)
    with pytest.raises(ModelError, match="parameters"):
        Evaluator(blobs()).evaluate("mlp", {"hidden": (9,)}, vector, layout)
    with pytest.raises(PayloadError, match="vector"):
        ModelFactory().restore("mlp", {"hidden": (9,)}, (4,), 3, vector)


def test_an_empty_dataset_cannot_evaluate():
    with pytest.raises(ValueError, match="blobs has no example"):
        Evaluator(blobs(0))


@pytest.mark.parametrize(
    ("name", "shape"), [("lenet5", (1, 28, 28)), ("cnn1d", (6, 100)), ("mlp", (1, 8, 8))]
)
def test_an_exported_model_computes_the_same_for_any_batch(tmp_path, name, shape):
    factory = ModelFactory()
    _, vector = factory.describe(name, {}, shape, 5, seed=1)
    module = factory.restore(name, {}, shape, 5, vector)
    path = export_onnx(module, shape, tmp_path / f"{name}.onnx")
    session = onnxruntime.InferenceSession(path)
    x = np.random.default_rng(1).standard_normal((7, *shape)).astype(np.float32)
    with torch.inference_mode():
        expected = module(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(session.run(None, {"input": x})[0], expected, atol=1e-4)
    assert {node.version for node in onnx.load(path).opset_import if not node.domain} == {18}
    assert [item.name for item in tmp_path.iterdir()] == [path.name]


class Unstable(torch.nn.Module):
    """Computes something else every time, so no export of it can be right."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return x.flatten(1) * self.calls


def test_an_export_that_computes_something_else_leaves_no_file(tmp_path):
    with pytest.raises(ExportError, match="outputs differ"):
        export_onnx(Unstable(), (3,), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())
