"""Write the golden models of Keras: ``keras_*.onnx`` and what TensorFlow computed with them.

They are made in an environment of their own, with Python 3.11 and from this directory::

    python3.11 -m venv /tmp/keras
    /tmp/keras/bin/pip install tensorflow-cpu==2.21.0 keras==3.15.1 tf2onnx==1.17.0 onnx==1.17.0
    /tmp/keras/bin/python make_keras.py

tf2onnx folds a batch normalization into the convolution before it and a zero bias away, so there
is none of the first, and every variable is moved off its initial value before the export.
"""

import os

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import framework_records as records
import numpy as np
import tensorflow as tf
import tf2onnx

keras, layers = tf.keras, tf.keras.layers


def cnn() -> keras.Model:
    """Return convolutions with SAME padding and strides, one depthwise, and both poolings."""
    return keras.Sequential(
        [
            layers.Input((11, 10, 2)),
            layers.Conv2D(4, 5, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(6, 3, strides=2, padding="same"),
            layers.ReLU(),
            layers.DepthwiseConv2D(3, padding="same"),
            layers.AveragePooling2D(3, strides=2, padding="same"),
            layers.Flatten(),
            layers.Dense(8, activation="tanh"),
            layers.Dense(5),
        ]
    )


def dense() -> keras.Model:
    """Return a net of dense layers with four activations."""
    return keras.Sequential(
        [
            layers.Input((10,)),
            layers.Dense(12, activation="elu"),
            layers.Dense(9, activation="sigmoid"),
            layers.Dense(8, activation="softplus"),
            layers.Dense(6, activation="leaky_relu"),
            layers.Dense(4),
        ]
    )


def attention() -> keras.Model:
    """Return an attention block with its residual, its normalization and a swish layer."""
    sequence = layers.Input((6, 8))
    normal = layers.LayerNormalization()(sequence)
    mixed = layers.Add()([sequence, layers.MultiHeadAttention(2, 3)(normal, normal)])
    hidden = layers.Dense(12, activation="swish")(layers.LayerNormalization()(mixed))
    return keras.Model(sequence, layers.Dense(4)(layers.GlobalAveragePooling1D()(hidden)))


def make(name: str, model: keras.Model, seed: int) -> None:
    """Perturb, export, take three steps and write the record."""
    rng = np.random.default_rng(seed)
    variables = model.trainable_variables
    for variable in variables:
        variable.assign(variable + records.perturbed(variable.shape, rng, 0.1))
    first = {variable.path: variable.numpy() for variable in variables}
    shape, classes = model.input_shape[1:], model.output_shape[-1]
    signature = [tf.TensorSpec((None, *shape), tf.float32, name="input")]
    forward = tf.function(lambda x: model(x, training=False), input_signature=signature)
    exported, _ = tf2onnx.convert.from_function(forward, input_signature=signature)
    x, y = records.batches(seed, 5, shape, classes)
    taken = [step(model, *batch) for batch in zip(x, y, strict=True)]
    after = {variable.path: variable.numpy() for variable in variables}
    loss = np.array([value for value, _ in taken], np.float32)
    arrays = {"x": x, "y": y, "loss": loss}
    records.write(name, exported, records.Training(first, taken[0][1], after, arrays))


def step(model: keras.Model, x: np.ndarray, y: np.ndarray) -> tuple[float, dict[str, np.ndarray]]:
    """Take one step of SGD; return the loss and the gradients before it."""
    with tf.GradientTape() as tape:
        logits = model(x, training=True)
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits))
    gradients = tape.gradient(loss, model.trainable_variables)
    for variable, gradient in zip(model.trainable_variables, gradients, strict=True):
        variable.assign_sub(records.LEARNING_RATE * gradient)
    paths = [variable.path for variable in model.trainable_variables]
    return float(loss), {path: one.numpy() for path, one in zip(paths, gradients, strict=True)}


if __name__ == "__main__":
    keras.utils.set_random_seed(1)
    for number, (name, build) in enumerate(
        {"keras_cnn": cnn, "keras_dense": dense, "keras_attention": attention}.items()
    ):
        make(name, build(), seed=number)
