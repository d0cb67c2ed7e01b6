"""A device trains with onnxruntime and NumPy alone, in little memory."""

import re
import sys
from importlib.metadata import requires
from pathlib import Path

import pytest

from benchmarks.training.device_jobs import write_job
from benchmarks.training.footprint import MAX_RESIDENT_BYTES, UNWANTED, train
from schemas.tasks import Training


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """What a process told in which importing torch or onnx fails."""
    folder = tmp_path_factory.mktemp("job")
    job = write_job(folder, "lenet5", Training(steps=60, learning_rate=0.01))
    return train(Path(sys.executable), job.arguments)


def test_lenet5_learns_where_torch_and_onnx_cannot_be_imported(told):
    assert told["loaded"] == []
    assert told["steps"] == 60
    assert told["moved"] > 0.1
    assert told["metrics"]["loss"] < 2.0, "chance is 2.30"


def test_training_lenet5_stays_below_120_megabytes(told):
    assert told["peak_bytes"] < MAX_RESIDENT_BYTES


def test_the_device_extra_asks_for_neither_torch_nor_onnx():
    asked = set()
    for line in requires("fedfleet"):
        requirement, _, marker = line.partition(";")
        if "extra ==" not in marker or re.search(r"extra == ['\"]device['\"]", marker):
            asked.add(re.match(r"[\w.-]+", requirement)[0].lower())
    assert "onnxruntime" in asked
    assert not asked & UNWANTED
