"""Small jobs for the trainers."""

import numpy as np
import pytest

from central.modeling.factory import ModelFactory
from device_agent.service.ports import TrainingRequest
from learning.data.dataset import Dataset
from schemas.messages import TrainingPlan
from schemas.tasks import Training


def blobs(n=60, shape=(4,), classes=3, seed=0):
    rng = np.random.default_rng(seed)
    y = np.arange(n, dtype=np.int64) % classes
    centers = np.random.default_rng(7).standard_normal((classes, *shape)) * 2
    x = (centers[y] + rng.standard_normal((n, *shape))).astype(np.float32)
    return Dataset(x, y, classes, "blobs")


@pytest.fixture
def make_request():
    """Return a function that makes a request; keywords go to ``Training``."""

    def make(model="mlp", params=None, data=None, round_seed=1, requires=None, **training):
        data = data or blobs()
        params = params if params is not None else {"hidden": (8,)}
        shape = data.x.shape[1:]
        layout, vector = ModelFactory().describe(model, params, shape, data.classes, seed=5)
        vector.flags.writeable = False
        plan = TrainingPlan(
            model=model,
            model_params=params,
            input_shape=shape,
            classes=data.classes,
            parameters=layout.size,
            layout_sha256=layout.digest,
            data=data.name,
            training=Training(**training),
            codec="int8",
            **({"requires": requires} if requires else {}),
        )
        return TrainingRequest(plan, layout, vector, data, round_seed)

    return make
