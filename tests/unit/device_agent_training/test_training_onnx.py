"""What is the onnx trainer's own: its checks, padding, dropout, memory, and no torch at all."""

import dataclasses
import json
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from device_agent.service.ports import TrainingError
from device_agent.training import onnx_runtime
from device_agent.training.onnx_runtime import CPU, ON_CPU, Providers
from device_agent.training.onnx_step import OnnxStep
from device_agent.training.onnx_trainer import OnnxTrainer
from learning.graph_file import decode_graph, encode_graph
from schemas.limits import MIB
from tests.support.training_jobs import blobs

WITHOUT_TORCH = """
import json, sys, time
began = time.process_time()
for name in ("torch", "onnx"):
    sys.modules[name] = None  # importing it now fails
import pickle, psutil
from device_agent.training.backends import Trainers
with open(sys.argv[1], "rb") as file:
    request = pickle.load(file)
took = []
trainer = Trainers(("onnx",)).of(request.plan, "onnx")
result = trainer.train(request, lambda s: took.append(time.process_time() - began), lambda: False)
print(json.dumps({"first_s": took[0], "rss": psutil.Process().memory_info().rss,
    "changed": bool(result.delta.any()), "loss": result.metrics["loss"]}))
"""


def train(request, trainer=None, should_stop=lambda: False):
    return (trainer or OnnxTrainer()).train(request, lambda _: None, should_stop)


def edited(request, change):
    """Return the request with another graph."""
    model = onnx.load_from_string(decode_graph(request.graph.read_bytes(), 64 * MIB))
    change(model)
    path = request.graph.with_name("f" * 64)
    path.write_bytes(encode_graph(model.SerializeToString()))
    return dataclasses.replace(request, graph=path)


def renamed(kind, old, new):
    def change(model):
        for info in getattr(model.graph, kind):
            if info.name == old:
                info.name = new
        for node in model.graph.node:
            for names in (node.input, node.output):
                for index, name in enumerate(names):
                    names[index] = new if name == old else name

    return change


def test_a_job_without_a_graph_is_refused(make_request):
    with pytest.raises(TrainingError, match="graph: the job came without one"):
        train(dataclasses.replace(make_request(), graph=None))


def test_a_file_that_is_no_packed_graph_is_refused(make_request, tmp_path):
    request = make_request()
    for content, text in (
        (b"garbage", "not a zlib stream"),
        (encode_graph(b"garbage"), "graph: "),
        (zlib.compress(bytes(64 * MIB), 9), "which is the limit"),
    ):
        path = tmp_path / text.replace(" ", "-")
        path.write_bytes(content)
        with pytest.raises(TrainingError, match=text):
            train(dataclasses.replace(request, graph=path))


def test_a_graph_for_another_plan_is_refused_and_the_difference_is_named(make_request):
    plain, clipped = make_request(), make_request(gradient_clip_norm=1.0)
    proximal = make_request(proximal_mu=0.1)
    for request, graph, text in (
        (clipped, plain.graph, "inputs: 'clip_norm' is missing"),
        (plain, clipped.graph, "'clip_norm', which the plan does not ask for"),
        (proximal, plain.graph, "inputs: 'proximal_mu' is missing"),
        (plain, make_request(params={"hidden": (9,)}).graph, r"'parameters' .*shape \(75,\)"),
        (plain, make_request(loss="mse").graph, "'labels' has element type 1"),
    ):
        with pytest.raises(TrainingError, match=text):
            train(dataclasses.replace(request, graph=graph))


def test_a_graph_with_an_input_or_without_an_output_that_is_known_is_refused(make_request):
    request = make_request()
    with pytest.raises(TrainingError, match="input 'extra' is not known here"):
        train(edited(request, renamed("input", "mask", "extra")))
    with pytest.raises(TrainingError, match="outputs: 'correct' is missing"):
        train(edited(request, renamed("output", "correct", "right")))


def test_an_operator_of_another_domain_is_refused_before_a_session_is_made(
    make_request, monkeypatch
):
    def add_custom(model):
        model.graph.node.add(op_type="Gelu", input=["input"], output=["z"], domain="com.microsoft")

    monkeypatch.setattr(onnx_runtime, "make_session", lambda *_: pytest.fail("it was made"))
    with pytest.raises(TrainingError, match=r"'Gelu' of domain 'com\.microsoft'"):
        train(edited(make_request(), add_custom))


def test_what_the_runtime_refuses_fails_by_the_models_name(make_request):
    def break_node(model):
        model.graph.node[0].op_type = "NoSuchOperator"

    with pytest.raises(TrainingError, match=r"model mlp: .*NoSuchOperator"):
        train(edited(make_request(), break_node))


def test_a_session_is_kept_for_the_next_round_and_made_anew_for_another_plan(make_request):
    trainer, request = OnnxTrainer(), make_request()
    train(request, trainer)
    kept = trainer._kept
    train(dataclasses.replace(request, round_seed=2), trainer)
    assert trainer._kept is kept
    train(make_request(learning_rate=0.01), trainer)
    assert trainer._kept is not kept


def with_fixed_batch(size):
    def change(model):
        for info in model.graph.input:
            for dimension in info.type.tensor_type.shape.dim:
                if dimension.dim_param:
                    dimension.Clear()
                    dimension.dim_value = size

    return change


def test_a_padded_last_batch_trains_as_one_that_is_short(make_request):
    """60 examples in batches of 16: the last one has 12."""
    request = make_request(batch_size=16, epochs=2)
    padded = edited(request, with_fixed_batch(16))
    short, filled = train(request), train(padded)
    np.testing.assert_allclose(filled.delta, short.delta, atol=1e-6)
    assert filled.metrics["loss"] == pytest.approx(short.metrics["loss"], abs=1e-6)
    assert filled.metrics["accuracy"] == short.metrics["accuracy"]


def test_a_fixed_batch_of_another_size_or_that_may_not_be_padded_is_refused(make_request):
    request = make_request(batch_size=16)
    with pytest.raises(TrainingError, match="its batch is 8, the task's batch_size is 16"):
        train(edited(request, with_fixed_batch(8)))

    def forbid(model):
        with_fixed_batch(16)(model)
        onnx.helper.set_model_props(model, {"fedfleet.padding": "forbidden"})

    with pytest.raises(TrainingError, match="its batch is 16"):
        train(edited(request, forbid))


def test_only_other_providers_than_the_cpu_get_batches_of_one_size(make_request):
    request = make_request()
    step = OnnxStep.load(request.graph, request.plan, 1, ON_CPU)
    assert step.padded_to(16) == 1
    on_gpu = Providers(("cuda", CPU))
    assert dataclasses.replace(step, providers=on_gpu).padded_to(16) == 16
    forbidden = dict(step.graph.metadata) | {"fedfleet.padding": "forbidden"}
    graph = dataclasses.replace(step.graph, metadata=forbidden)
    assert dataclasses.replace(step, providers=on_gpu, graph=graph).padded_to(16) == 1


def dropout_model(input_shape, classes):
    return torch.nn.Sequential(torch.nn.Dropout(0.5), torch.nn.Linear(input_shape[0], classes))


def test_dropout_repeats_bit_for_bit_and_differs_by_round(make_request):
    own = {"model": "own", "params": {}, "target": f"{__name__}:dropout_model"}
    request = make_request(**own, batch_size=60, epochs=3)
    other = dataclasses.replace(request, round_seed=2)
    trainer = OnnxTrainer()
    first, changed, again = (train(one, trainer).delta for one in (request, other, request))
    assert first.tobytes() == again.tobytes() == train(request).delta.tobytes()
    # Full batches: without dropout the rounds would differ by the order of a sum alone.
    assert np.abs(first - changed).max() > 1e-3


def test_sessions_have_few_threads_and_no_memory_pattern():
    options = onnx_runtime._options(10, 3)
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (3, 1)
    assert not options.enable_mem_pattern
    assert options.enable_mem_reuse
    assert not onnx_runtime._options(10_000, 1).enable_mem_reuse


def test_where_importing_torch_fails_lenet_trains_within_its_memory_and_time(
    make_request, tmp_path
):
    """Below 120 MB; 1.5 s of the processor's time, which other processes do not stretch."""
    import pickle  # noqa: PLC0415

    request = make_request("lenet5", {}, data=blobs(640, (1, 28, 28), 10))
    file = tmp_path / "request.pickle"
    file.write_bytes(pickle.dumps(request))
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, str(file)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[3],
        env={"OMP_NUM_THREADS": "1", "PATH": ""},
    )
    found = json.loads(done.stdout)
    assert found["changed"]
    assert found["rss"] < 120 * MIB
    assert found["first_s"] < 1.5
