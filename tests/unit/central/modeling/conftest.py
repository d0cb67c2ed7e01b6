"""Forward graphs that several tests look at, each exported once a session."""

from functools import lru_cache

import pytest
import torch

from central.modeling import sources
from central.modeling.requests import ModelRequest

MLP = {"hidden": (16,)}


@lru_cache(maxsize=16)
def _built(model, params, shape, classes, seed):
    return sources.build(
        ModelRequest(model=model, params=dict(params), shape=shape, classes=classes, seed=seed)
    )


@pytest.fixture(scope="session")
def forward_of():
    """Return what builds the forward graph of a built-in model."""

    def forward_of(model="mlp", params=None, shape=(4,), classes=3, seed=1):
        given = MLP if params is None and model == "mlp" else params or {}
        return _built(model, tuple(given.items()), shape, classes, seed)

    return forward_of


@pytest.fixture(scope="session")
def forward_file(tmp_path_factory, forward_of):
    """Return what gives the file of a built-in model's forward graph."""
    folder = tmp_path_factory.mktemp("graphs")

    def forward_file(**which):
        path = folder / f"{abs(hash(repr(which)))}.onnx"
        if not path.exists():
            path.write_bytes(forward_of(**which).to_bytes())
        return path

    return forward_file


@pytest.fixture(scope="package", autouse=True)
def _one_thread():
    """Keep torch from waiting busily in threads: the models are small, processors are few."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
