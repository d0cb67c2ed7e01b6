import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
import torch

from central.modeling.evaluation import Evaluator
from central.modeling.running import ForwardSession
from learning.data.dataset import Dataset
from learning.models import parameters, registry
from learning.models.registry import ModelError
from updates.layout import Layout

MLP = {"hidden": (16,)}


def blobs(n=700):
    rng = np.random.default_rng(0)
    y = np.arange(n, dtype=np.int64) % 3
    x = rng.standard_normal((n, 4)).astype(np.float32)
    return Dataset(x, y, 3, "blobs")


def described(module):
    values = parameters.read(module)
    layout = Layout.of({name: array.shape for name, array in values.items()})
    return layout, layout.flatten(values)


def test_accuracy_and_loss_are_those_of_torch_on_the_whole_dataset(forward_file):
    data = blobs()
    module = registry.build("mlp", MLP, (4,), 3, seed=8).eval()  # not the seed of the graph
    layout, vector = described(module)
    with torch.inference_mode():
        logits = module(torch.from_numpy(data.x))
    loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(data.y))
    got = Evaluator(data).evaluate(forward_file(), vector, layout)
    assert got["accuracy"] == pytest.approx(float((logits.argmax(1).numpy() == data.y).mean()))
    assert got["loss"] == pytest.approx(float(loss), rel=1e-5)


def test_a_model_that_knows_the_answer_is_right_everywhere(forward_file):
    y = np.arange(50, dtype=np.int64) % 3
    data = Dataset(np.eye(3, dtype=np.float32)[y], y, 3, "onehot")
    forward = forward_file(model="softmax", shape=(3,))
    layout = Layout.of({"1.bias": (3,), "1.weight": (3, 3)})
    known = {"1.weight": 50 * np.eye(3, dtype=np.float32), "1.bias": np.zeros(3, np.float32)}
    got = Evaluator(data).evaluate(forward, layout.flatten(known), layout)
    assert got["accuracy"] == 1.0
    assert got["loss"] < 1e-6
    guess = np.random.default_rng(2).standard_normal(layout.size).astype(np.float32)
    assert Evaluator(data).evaluate(forward, guess, layout)["accuracy"] < 1.0


def test_what_does_not_travel_has_its_value_from_the_graph(forward_file, forward_of):
    values = forward_of().values()
    whole = Layout.of({name: array.shape for name, array in values.items()})
    head = Layout.of({name: values[name].shape for name in ("3.bias", "3.weight")})
    evaluator = Evaluator(blobs())
    expected = evaluator.evaluate(forward_file(), whole.flatten(values), whole)
    part = head.flatten({name: values[name] for name in ("3.bias", "3.weight")})
    assert evaluator.evaluate(forward_file(), part, head) == expected
    assert evaluator.evaluate(forward_file(), part * 2, head) != expected


def test_the_session_is_made_once_for_many_rounds(forward_file, forward_of, monkeypatch):
    made = []
    session = onnxruntime.InferenceSession
    monkeypatch.setattr(
        onnxruntime, "InferenceSession", lambda *a, **k: made.append(a[0]) or session(*a, **k)
    )
    for params in (MLP, {"hidden": (8,)}):
        forward_file(params=params)
    made.clear()
    evaluator = Evaluator(blobs())
    for params in (MLP, MLP, {"hidden": (8,)}, {"hidden": (8,)}):
        values = forward_of(params=params).values()
        layout = Layout.of({name: array.shape for name, array in values.items()})
        path = forward_file(params=params)
        evaluator.evaluate(path, layout.flatten(values), layout)
        evaluator.evaluate(path, layout.flatten(values), layout)
    assert len(made) == 2


def test_parameters_of_another_model_are_refused(forward_file):
    layout, vector = described(registry.build("mlp", {"hidden": (9,)}, (4,), 3, seed=1))
    with pytest.raises(ModelError, match=r"parameters: 1.bias has shape \(16,\) in the model"):
        Evaluator(blobs()).evaluate(forward_file(), vector, layout)
    other = Layout.of({"gone": (2,)})
    with pytest.raises(ModelError, match="parameters: gone has shape None in the model"):
        Evaluator(blobs()).evaluate(forward_file(), np.zeros(2, np.float32), other)


def test_an_empty_dataset_cannot_evaluate():
    with pytest.raises(ValueError, match="blobs has no example"):
        Evaluator(blobs(0))


def test_a_large_graph_is_evaluated_in_small_batches(forward_file, forward_of, monkeypatch):
    values = forward_of().values()
    layout = Layout.of({name: array.shape for name, array in values.items()})
    sizes = []
    run = ForwardSession.run
    monkeypatch.setattr(
        ForwardSession, "run", lambda s, x, *rest: sizes.append(len(x)) or run(s, x, *rest)
    )
    monkeypatch.setattr("central.modeling.evaluation._VALUE_BYTES", 64 * 100)  # 16 floats each
    evaluator = Evaluator(blobs())
    small = evaluator.evaluate(forward_file(), layout.flatten(values), layout)
    assert sizes == [100] * 7
    monkeypatch.undo()
    assert evaluator.evaluate(forward_file(), layout.flatten(values), layout) == pytest.approx(
        small
    )


def test_neither_torch_nor_onnx_is_imported_to_check_and_evaluate(forward_file, tmp_path):
    code = (
        "import sys\n"
        "sys.modules['torch'] = sys.modules['onnx'] = None\n"
        "import numpy as np\n"
        "from pathlib import Path\n"
        "from central.modeling.modeler import GraphModeler\n"
        "from central.modeling.evaluation import Evaluator\n"
        "from learning.data.dataset import Dataset\n"
        "from schemas.tasks import TaskSubmission\n"
        "from updates.layout import Layout\n"
        "GraphModeler({}, (), Path('.')).check(TaskSubmission(model='mlp'))\n"
        "data = Dataset(np.ones((2, 4), np.float32), np.zeros(2, np.int64), 3, 'two')\n"
        "layout = Layout.of({'3.bias': (3,)})\n"
        "bias = np.array([99, 0, 0], np.float32)\n"
        "print(Evaluator(data).evaluate(Path(sys.argv[1]), bias, layout)['accuracy'])\n"
    )
    command = [sys.executable, "-c", code, str(forward_file())]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1.0"
