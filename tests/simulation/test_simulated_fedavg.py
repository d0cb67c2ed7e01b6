"""FedAvg in one process, without a network: do the models learn on devices that differ?"""

import numpy as np
import pytest
import torch

from device_agent.service.ports import TrainingRequest
from device_agent.training.torch_trainer import TorchTrainer
from learning.data.dataset import concatenate
from learning.data.sources import load
from learning.data.splits import shard
from learning.models import parameters, registry
from schemas.messages import TrainingPlan
from schemas.tasks import Training
from updates.layout import Layout


def federated_accuracy(model, devices, held_out, rounds, training):
    """Train on all devices for some rounds; return the accuracy after each."""
    shape, classes = held_out.x.shape[1:], held_out.classes
    module = registry.build(model, {}, shape, classes, seed=1)
    layout = Layout.of(parameters.shapes_of(module))
    vector = layout.flatten(parameters.read(module))
    plan = TrainingPlan(
        model=model,
        input_shape=shape,
        classes=classes,
        parameters=layout.size,
        layout_sha256=layout.digest,
        data=held_out.name,
        training=training,
        codec="int8",
    )
    trainer, accuracies = TorchTrainer(), []
    for number in range(rounds):
        total, examples = np.zeros(layout.size), 0
        for index, device in enumerate(devices):
            request = TrainingRequest(plan, layout, vector, device, 1000 * number + index)
            result = trainer.train(request, lambda _: None, lambda: False)
            total += int8(result.delta).astype(np.float64) * result.num_examples
            examples += result.num_examples
        vector = (vector + total / examples).astype(np.float32)
        parameters.write(module, layout.unflatten(vector))
        accuracies.append(accuracy(module, held_out))
    return accuracies


def accuracy(module, held_out):
    with torch.inference_mode():
        logits = module.eval()(torch.from_numpy(held_out.x))
    return float((logits.argmax(dim=1).numpy() == held_out.y).mean())


def int8(delta):
    scale = np.float32(np.abs(delta).max() / 127)
    return np.rint(delta / scale) * scale


def test_mlp_learns_the_digits_of_eight_unlike_devices():
    devices = [shard(load("digits"), index, 8, alpha=0.5, seed=1) for index in range(1, 9)]
    training = Training(epochs=2, batch_size=16, learning_rate=0.1)
    accuracies = federated_accuracy("mlp", devices, load("digits", train=False), 8, training)
    assert accuracies[-1] >= 0.93, accuracies


@pytest.mark.long
def test_lenet5_learns_mnist_of_eight_unlike_devices(test_data):
    spec = f"mnist={test_data('mnist')}"
    whole = load(spec)
    devices = [shard(whole, index, 8, alpha=0.5, seed=1) for index in range(1, 9)]
    training = Training(steps=100, learning_rate=0.05)
    accuracies = federated_accuracy("lenet5", devices, load(spec, train=False), 6, training)
    assert accuracies[-1] >= 0.97, accuracies


@pytest.mark.long
def test_cnn1d_learns_the_activities_of_people_that_it_never_saw(test_data):
    folder = test_data("har")
    people = sorted({path.name[:3] for path in folder.glob("s*.npz")})
    worn = [(person, "phone") for person in people[:6]]
    worn += [(person, "watch") for person in people[6:12]]
    devices = [load(f"har={folder}/{person}-{kind}.npz") for person, kind in worn]
    held_out = concatenate([load(f"har={folder}/{person}-*.npz") for person in people[12:]])
    training = Training(epochs=2, batch_size=16, learning_rate=0.02)
    accuracies = federated_accuracy("cnn1d", devices, held_out, 7, training)
    assert accuracies[-1] >= 0.78, accuracies
