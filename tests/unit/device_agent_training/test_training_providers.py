"""What onnx computes on and in: what is asked, what an onnxruntime has, what a device says.

No GPU is needed: the runtime's own list and sessions are replaced by those of other machines.
"""

import numpy as np
import onnxruntime
import pytest

from device_agent import app
from device_agent.settings import DeviceSettings
from device_agent.training import onnx_runtime
from device_agent.training.onnx_runtime import CPU, ON_CPU, Providers, find_providers, no_providers
from device_agent.training.onnx_trainer import OnnxTrainer
from firmware_profiles import load

TENSORRT, CUDA, ON_PROCESSOR = (onnx_runtime.PROVIDERS[name] for name in ("tensorrt", "cuda", CPU))
FLOAT16 = {"trt_fp16_enable": "True"}
NOT_HERE = "not in this onnxruntime"
IN_FLOAT32 = "computes in float32"


class Runtime:
    """Stands for the onnxruntime of another machine; its sessions are real ones on the CPU."""

    def __init__(self, monkeypatch, *listed, broken=(), takes_float16=True):
        self.broken, self.takes_float16 = broken, takes_float16
        self.sessions: list[list[tuple[str, dict[str, str]]]] = []
        self.real = onnxruntime.InferenceSession
        monkeypatch.setattr(
            onnxruntime, "get_available_providers", lambda: [*listed, ON_PROCESSOR]
        )
        monkeypatch.setattr(onnxruntime, "InferenceSession", self.make)

    def make(self, file, options, providers, provider_options):
        asked = list(zip(providers, provider_options, strict=True))
        self.sessions.append(asked)
        return Session(self, self.real(file, options, providers=[ON_PROCESSOR]), asked)

    def starts(self, name, options):
        return name not in self.broken and (self.takes_float16 or options != FLOAT16)


class Session:
    def __init__(self, runtime, real, asked):
        self.real = real
        self.used = [name for name, options in asked if runtime.starts(name, options)]

    def run(self, names, feed, _options):
        return self.real.run(names, feed)  # the options name memory of a GPU

    def get_providers(self):
        return self.used


def test_the_cpu_needs_no_look(monkeypatch):
    runtime = Runtime(monkeypatch)
    assert find_providers(["cpu"]) == Providers((CPU,), None, "float32")
    assert runtime.sessions == []


@pytest.mark.parametrize(
    ("listed", "asked", "names", "fallback"),
    [
        ((TENSORRT, CUDA), ["tensorrt", "cuda"], ("tensorrt", "cuda", CPU), None),
        ((CUDA,), ["cuda", "cpu"], ("cuda", CPU), None),
        ((CUDA,), ["tensorrt", "cuda"], ("cuda", CPU), f"tensorrt: {NOT_HERE}"),
        ((), ["tensorrt", "cuda"], (CPU,), f"tensorrt: {NOT_HERE}; cuda: {NOT_HERE}"),
    ],
)
def test_what_is_missing_is_named(monkeypatch, listed, asked, names, fallback):
    Runtime(monkeypatch, *listed)
    found = find_providers(asked)
    assert found == Providers(names, fallback, "float32")
    assert found.accelerator == (None if names[0] == CPU else names[0])


def test_a_provider_that_is_listed_but_does_not_start_is_left_out(monkeypatch):
    Runtime(monkeypatch, CUDA, broken=(CUDA,))
    assert find_providers(["cuda"]) == Providers((CPU,), "cuda: it does not start here")


@pytest.mark.parametrize(
    ("listed", "asked", "precision", "fallback"),
    [
        ((TENSORRT, CUDA), ["tensorrt", "cuda"], "float16", None),
        ((TENSORRT,), ["tensorrt", "cuda"], "float16", f"cuda: {NOT_HERE}"),
        # Nearly every node goes to the first one that takes it.
        (
            (TENSORRT, CUDA),
            ["cuda", "tensorrt"],
            "float32",
            f"float16 asked, {CUDA} {IN_FLOAT32}",
        ),
        ((CUDA,), ["cuda"], "float32", f"float16 asked, {CUDA} {IN_FLOAT32}"),
        (
            (CUDA,),
            ["tensorrt", "cuda"],
            "float32",
            f"tensorrt: {NOT_HERE}; float16 asked, {CUDA} {IN_FLOAT32}",
        ),
        ((), ["cpu"], "float32", f"float16 asked, {ON_PROCESSOR} {IN_FLOAT32}"),
    ],
)
def test_float16_is_what_tensorrt_alone_computes_in(
    monkeypatch, listed, asked, precision, fallback
):
    Runtime(monkeypatch, *listed)
    found = find_providers(asked, "float16")
    assert (found.precision, found.fallback) == (precision, fallback)


def test_a_tensorrt_that_does_not_start_in_float16_computes_in_float32(monkeypatch):
    Runtime(monkeypatch, TENSORRT, takes_float16=False)
    found = find_providers(["tensorrt"], "float16")
    assert (found.names, found.precision) == (("tensorrt", CPU), "float32")
    assert found.fallback == f"float16 asked, {TENSORRT} does not start with it and {IN_FLOAT32}"


def test_only_tensorrt_is_asked_for_float16_and_parameters_stay_float32(monkeypatch, make_request):
    request = make_request()
    runtime = Runtime(monkeypatch, TENSORRT, CUDA)
    for precision, options in (("float32", {}), ("float16", FLOAT16)):
        providers = Providers(("tensorrt", "cuda", CPU), precision=precision)
        result = OnnxTrainer(1, providers).train(request, lambda _: None, lambda: False)
        assert runtime.sessions[-1] == [(TENSORRT, options), (CUDA, {}), (ON_PROCESSOR, {})]
        assert result.delta.dtype == np.float32


def test_a_graph_that_the_gpu_refuses_is_trained_on_the_cpu_to_its_last_step(
    monkeypatch, make_request
):
    request, real = make_request(), onnxruntime.InferenceSession

    def on_cpu(file, options, **_):
        return real(file, options, providers=[ON_PROCESSOR])

    monkeypatch.setattr(onnxruntime, "InferenceSession", on_cpu)
    trainer = OnnxTrainer(1, Providers(("cuda", CPU)))
    assert trainer.train(request, lambda _: None, lambda: False).delta.any()


def test_a_device_without_onnxruntime_says_that_torch_computes_in_float32():
    assert no_providers(("torch",), "float32") == Providers(())
    found = no_providers(("torch",), "float16")
    assert found == Providers((), "float16 asked, torch computes in float32")
    assert found.accelerator is None


@pytest.mark.parametrize(
    ("available", "fallback"),
    [
        (("onnx", "torch"), f"float16 asked, {ON_PROCESSOR} {IN_FLOAT32}"),
        (("torch",), f"float16 asked, torch {IN_FLOAT32}"),
    ],
)
def test_an_agent_looks_for_what_its_settings_ask(available, fallback):
    settings = DeviceSettings(region="r1", id="d1", precision="float16")
    found = app._providers(settings, load("generic"), available)
    assert (found.fallback, found.precision) == (fallback, "float32")


def test_the_probe_is_a_model_that_the_runtime_takes():
    session = onnx_runtime.make_session(onnx_runtime._PROBE, 1, 1, ON_CPU)
    (y,) = session.run(None, {"x": np.array([3.0], np.float32)})
    assert y.tolist() == [3.0]


def test_a_file_is_an_onnx_file_whatever_its_first_bytes_say():
    """Field 2 of a model, its producer's name, puts the mark of the runtime's own format there."""
    file = b"\x12\x06\x00\x00ORTM" + onnx_runtime._PROBE
    assert file[4:8] == b"ORTM"
    session = onnx_runtime.make_session(file, 1, 1, ON_CPU)
    (y,) = session.run(None, {"x": np.ones(1, np.float32)})
    assert y.tolist() == [1.0]
