"""Write the golden models of JAX: ``jax_*.onnx`` and what JAX computed with them.

They are made in an environment of their own, with Python 3.12 and from this directory::

    python3.12 -m venv /tmp/jax
    /tmp/jax/bin/pip install jax==0.12.0.1 flax==0.12.12 jax2onnx==0.17.1 onnx==1.23.2
    /tmp/jax/bin/python make_jax.py

The models are plain functions of their parameters; jax2onnx writes what they close over as
initializers.
"""

from collections.abc import Callable
from functools import partial

import framework_records as records
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jax2onnx import to_onnx

Params = dict[str, jax.Array]


def mlp(params: Params, x: jax.Array) -> jax.Array:
    """Return the logits of three layers with tanh and softplus between them."""
    hidden = jnp.tanh(x @ params["w1"] + params["b1"])
    hidden = jax.nn.softplus(hidden @ params["w2"] + params["b2"])
    return hidden @ params["w3"] + params["b3"]


MLP_SHAPES = {"w1": (10, 12), "b1": (12,), "w2": (12, 8), "b2": (8,), "w3": (8, 4), "b3": (4,)}


def cnn(params: Params, x: jax.Array) -> jax.Array:
    """Return the logits of two convolutions (SAME, strided), a pooling and a dense layer."""
    hidden = jax.nn.relu(convolved(x, params["k1"], 1) + params["b1"])
    # Written with lax.reduce_window it would be a MaxPool over four axes, which no runtime takes.
    hidden = nnx.max_pool(hidden, window_shape=(2, 2), strides=(2, 2))
    hidden = jax.nn.sigmoid(convolved(hidden, params["k2"], 2) + params["b2"])
    return hidden.mean((1, 2)) @ params["w"] + params["b"]


CNN_SHAPES = {
    "k1": (3, 3, 2, 4), "b1": (4,), "k2": (3, 3, 4, 6), "b2": (6,), "w": (6, 5), "b": (5,),
}  # fmt: skip


def convolved(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Return a convolution of images ``(n, h, w, c)`` with SAME padding."""
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def loss_of(model: Callable, params: Params, x: jax.Array, y: jax.Array) -> jax.Array:
    """Return the mean cross-entropy."""
    chosen = jax.nn.log_softmax(model(params, x))[jnp.arange(len(y)), y]
    return -chosen.mean()


def make(name: str, model: Callable, shapes: dict, example: tuple[int, ...], seed: int) -> None:
    """Draw parameters, export, take three steps and write the record."""
    rng = np.random.default_rng(seed)
    first = {key: records.perturbed(shape, rng, 0.4) for key, shape in shapes.items()}
    exported = to_onnx(partial(model, first), [("batch", *example)], opset=18)
    x, y = records.batches(seed, 5, example, shapes[list(shapes)[-1]][0])
    params, losses, gradients = first, [], []
    for images, labels in zip(x, y, strict=True):
        loss, gradient = jax.value_and_grad(partial(loss_of, model))(params, images, labels)
        params = {key: params[key] - records.LEARNING_RATE * gradient[key] for key in params}
        losses.append(np.float32(loss))
        gradients.append(gradient)
    arrays = {"x": x, "y": y, "loss": np.array(losses)}
    numbers = records.Training(first, as_numpy(gradients[0]), as_numpy(params), arrays)
    records.write(name, exported, numbers)


def as_numpy(values: Params) -> dict[str, np.ndarray]:
    """Return the values outside JAX."""
    return {key: np.asarray(value) for key, value in values.items()}


if __name__ == "__main__":
    make("jax_mlp", mlp, MLP_SHAPES, (10,), seed=11)
    make("jax_cnn", cnn, CNN_SHAPES, (10, 10, 2), seed=12)
