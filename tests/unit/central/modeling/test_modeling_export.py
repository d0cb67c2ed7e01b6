import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from central.modeling import export
from central.modeling.export import ExportError, export_for, export_onnx, inference_model
from learning.models import parameters, registry
from learning.models.registry import ModelError


@pytest.mark.parametrize(
    ("name", "shape"),
    [("lenet5", (1, 28, 28)), ("cnn1d", (6, 100)), ("mlp", (1, 8, 8)), ("resnet8", (3, 16, 16))],
)
def test_an_exported_model_computes_what_torch_does_for_any_batch(
    tmp_path, forward_of, name, shape
):
    module = registry.build(name, {}, shape, 5, seed=9).eval()  # not the seed of the graph
    forward = forward_of(model=name, params={}, shape=shape, classes=5)
    path = export_onnx(forward, parameters.read(module), shape, tmp_path / f"{name}.onnx")
    session = onnxruntime.InferenceSession(path)
    x = np.random.default_rng(1).standard_normal((7, *shape)).astype(np.float32)
    with torch.inference_mode():
        expected = module(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(session.run(None, {"input": x})[0], expected, atol=1e-4)
    written = onnx.load(path)
    assert (written.ir_version, written.opset_import[0].version) == (8, 18)
    assert [item.name for item in tmp_path.iterdir()] == [path.name]


def test_an_exported_model_tells_nothing_of_the_code_it_came_from(tmp_path, forward_of):
    forward = forward_of()
    path = export_onnx(forward, {}, (4,), tmp_path / "model.onnx")
    assert b".py" not in path.read_bytes()
    assert b"torch" not in path.read_bytes()


def test_an_export_that_computes_something_else_leaves_no_file(tmp_path, forward_of, monkeypatch):
    def spoiled(forward):
        model = inference_model(forward)
        model.graph.initializer[0].raw_data = bytes(len(model.graph.initializer[0].raw_data))
        return model

    monkeypatch.setattr(export, "inference_model", spoiled)
    with pytest.raises(ExportError, match="outputs differ"):
        export_onnx(forward_of(model="softmax", params={}), {}, (4,), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_parameters_of_another_model_are_not_exported(tmp_path, forward_of):
    with pytest.raises(ModelError, match=r"1.bias has shape \(16,\) in the model, \(9,\) here"):
        export_onnx(forward_of(), {"1.bias": np.zeros(9, np.float32)}, (4,), tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_a_model_is_made_older_for_an_older_runtime(forward_of):
    model = inference_model(forward_of())
    assert export_for(model, "1.23.2") is model
    older = export_for(model, "1.10.0")
    assert older.opset_import[0].version == 15
    x = np.ones((2, 4), np.float32)
    first, second = (
        onnxruntime.InferenceSession(each.SerializeToString()).run(None, {"input": x})[0]
        for each in (model, older)
    )
    np.testing.assert_array_equal(first, second)
    with pytest.raises(ExportError, match=r"onnxruntime 0.4 is not known, 1.8 is the oldest"):
        export_for(model, "0.4")
