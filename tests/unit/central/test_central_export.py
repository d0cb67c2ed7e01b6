"""``fedfleet export`` knows what central's settings say: its models and its cache."""

import json

import numpy as np
import onnxruntime
import pytest

from central import app
from central.modeling.modeler import GraphModeler
from central.settings import CentralSettings
from fedfleet import exporting
from schemas.messages import DataDescription
from tests.support.central_fixture import CentralRig
from tests.support.onnx_files import write_linear
from updates.layout import Layout

DATA = DataDescription(name="blobs", shape=(4,), classes=3, examples=9)


class OwnModeler(GraphModeler):
    """Builds the model of the settings; the rig's scripted devices need its layout."""

    layout = Layout.of({"w": (4, 3)})


@pytest.fixture
def settings(tmp_path):
    """Return the settings of a central with a committed round of its own model, ``theirs``."""
    write_linear(tmp_path / "theirs.onnx")
    made = CentralSettings(
        state_dir=tmp_path / "state",
        models={"theirs": str(tmp_path / "theirs.onnx")},
        model_cache=tmp_path / "graphs",
    )
    made.state_dir.mkdir()
    rig = CentralRig(made.state_dir, OwnModeler(made.models, (), made.model_cache))
    rig.gateway()
    for device in ("a", "b"):
        rig.device(device, data=(DATA,), backends=("onnx", "torch"))
    rig.submit(task="t", model="theirs", rounds=2, codec="raw-f32")
    rig.work()
    for device in ("a", "b"):
        assert rig.update(device, rig.newest()).status == "accepted"
    rig.work()
    assert rig.status("t").committed == 1
    rig.connection.close()
    return made


def logits(path):
    (found,) = onnxruntime.InferenceSession(path).run(None, {"input": np.eye(4, dtype=np.float32)})
    return found


def test_a_model_of_the_settings_is_written(settings, tmp_path):
    target = tmp_path / "final.onnx"
    app.export(settings, "t", "onnx", target)
    np.testing.assert_allclose(logits(target), 2.0)  # ones, and the update of ones
    assert not (settings.state_dir / app.FORWARD).exists()


def test_the_file_of_settings_is_read_by_the_verb(settings, tmp_path, monkeypatch):
    monkeypatch.delenv("FEDFLEET_MODEL_CACHE", raising=False)
    config = tmp_path / "central.toml"
    cache, model = str(settings.model_cache), settings.models["theirs"]
    config.write_text(
        f"model_cache = {json.dumps(cache)}\n[models]\ntheirs = {json.dumps(model)}\n"
    )
    target = tmp_path / "final.onnx"
    exporting.export_model(settings.state_dir, "t", "onnx", target, config)
    np.testing.assert_allclose(logits(target), 2.0)
    with pytest.raises(exporting.ExportError, match="'theirs' is not known"):
        exporting.export_model(settings.state_dir, "t", "onnx", target)


def test_a_cache_that_cannot_be_written_is_no_obstacle(settings, tmp_path):
    (tmp_path / "in the way").write_text("")
    other = settings.model_copy(update={"model_cache": tmp_path / "in the way"})
    target = tmp_path / "final.onnx"
    app.export(other, "t", "onnx", target)
    np.testing.assert_allclose(logits(target), 2.0)
