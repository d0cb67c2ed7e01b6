"""Small jobs for the trainers, with the graphs that central would build for them."""

import functools
import hashlib
import warnings

import numpy as np

from central.modeling.requests import ModelRequest
from central.modeling.sources import build
from central.modeling.trainable import step_spec
from central.modeling.training_graph import build_training_graph
from device_agent.service.ports import TrainingRequest
from learning.data.dataset import Dataset
from learning.graph_file import encode_graph
from schemas.messages import TrainingPlan
from schemas.tasks import Training


def blobs(n=60, shape=(4,), classes=3, seed=0):
    rng = np.random.default_rng(seed)
    y = np.arange(n, dtype=np.int64) % classes
    centers = np.random.default_rng(7).standard_normal((classes, *shape)) * 2
    x = (centers[y] + rng.standard_normal((n, *shape))).astype(np.float32)
    return Dataset(x, y, classes, "blobs")


@functools.cache
def forward(model, params, shape, classes, target):
    """Return a forward graph; exporting takes seconds."""
    with warnings.catch_warnings():
        # torch warns of dropout, which is exported as it is in training.
        warnings.simplefilter("ignore", UserWarning)
        return _built(model, params, shape, classes, target)


def _built(model, params, shape, classes, target):
    return build(
        ModelRequest(
            model=model,
            params=dict(params),
            shape=shape,
            classes=classes,
            seed=5,
            target=target,
        )
    )


def make_job(  # noqa: PLR0913 - each names one part of a job
    folder,
    model="mlp",
    params=None,
    *,
    data=None,
    round_seed=1,
    requires=None,
    target=None,
    **training,
):
    """Return a request with its graph in ``folder``; keywords go to ``Training``."""
    data = data or blobs()
    params = params if params is not None else {"hidden": (8,)}
    shape, asked = data.x.shape[1:], Training(**training)
    source = forward(model, tuple(params.items()), shape, data.classes, target)
    made = build_training_graph(source.model, step_spec(asked, source.fixed))
    layout, vector = made.layout, made.first
    vector.flags.writeable = False
    plan = TrainingPlan(
        model=model,
        model_params=params,
        input_shape=shape,
        classes=data.classes,
        parameters=layout.size,
        layout_sha256=layout.digest,
        data=data.name,
        training=asked,
        codec="int8",
        **({"requires": requires} if requires else {}),
    )
    stored = encode_graph(made.model.SerializeToString(deterministic=True))
    graph = folder / hashlib.sha256(stored).hexdigest()
    graph.write_bytes(stored)
    return TrainingRequest(plan, layout, vector, data, round_seed, graph)
