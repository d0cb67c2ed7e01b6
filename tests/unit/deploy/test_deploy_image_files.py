"""What the images are built from: requirements without torch, examples as files."""

import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest

from learning.data.sources import load

DOCKER = Path(__file__).resolve().parents[3] / "deploy" / "docker"
ROOT = DOCKER.parents[1]


def script(name):
    spec = spec_from_file_location(name, DOCKER / f"{name}.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def names(extras):
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    return {line.partition(">")[0] for line in script("requirements").requirements(text, extras)}


def test_a_device_needs_onnxruntime_and_neither_torch_nor_onnx():
    assert "onnxruntime" in names(["device"])
    assert not {"torch", "onnx", "onnxscript", "fedfleet"} & names(["device"])


def test_torch_is_left_to_the_build_argument():
    assert "torch" not in " ".join(names(["central", "torch"]))
    assert {"onnx", "prometheus-client"} <= names(["central"])


def test_an_extra_that_is_not_there_is_an_error():
    with pytest.raises(KeyError, match="devices"):
        names(["devices"])


def test_the_command_line_prints_one_requirement_a_line():
    done = subprocess.run(
        [sys.executable, DOCKER / "requirements.py", "gateway"],
        cwd=ROOT, capture_output=True, text=True, check=True, timeout=30,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    assert lines == sorted(lines)
    assert any(line.startswith("prometheus-client") for line in lines)


def test_the_written_digits_are_those_that_scikit_learn_carries(tmp_path):
    script("write_digits").write(tmp_path)
    for name, is_training in (("train", True), ("held-out", False)):
        written = load(f"npz={tmp_path}/{name}.npz,name=digits,classes=10")
        known = load("digits", train=is_training)
        assert written.description() == known.description()
        np.testing.assert_array_equal(written.x, known.x)
        np.testing.assert_array_equal(written.y, known.y)


def test_every_package_of_the_distribution_goes_into_the_build():
    kept = {
        line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"
    }
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"benchmarks"}
    assert packages | {"pyproject.toml", "README.md", "LICENSE"} <= kept
