"""Training graphs run step by step."""

import numpy as np
import onnx
import onnxruntime

from updates.layout import Layout


def session(model: onnx.ModelProto):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


class Trainer:
    """Takes steps with a training graph; keeps parameters and state."""

    def __init__(self, graph, parameters=None, **constant):
        self.graph = graph
        self.session = session(graph.model)
        self.parameters = np.array(graph.first if parameters is None else parameters)
        self.state = np.zeros(graph.state_size, np.float32)
        self.constant = {key: np.array(value, np.float32) for key, value in constant.items()}
        self.wanted = {info.name for info in graph.model.graph.input}

    def step(self, x, labels=None, mask=None, **more):
        feed = {
            "parameters": self.parameters,
            "state": self.state,
            "input": np.asarray(x),
            "mask": np.ones(len(x), np.float32) if mask is None else np.float32(mask),
            **({} if labels is None else {"labels": np.asarray(labels)}),
            **self.constant,
            **{key: np.array(value, np.float32) for key, value in more.items()},
        }
        names = [info.name for info in self.graph.model.graph.output]
        found = self.session.run(names, {key: feed[key] for key in self.wanted})
        self.last = dict(zip(names, found, strict=True))
        self.parameters = self.last["new_parameters"]
        self.state = self.last.get("new_state", self.state)
        return float(self.last["loss"])

    @property
    def tensors(self):
        return self.graph.layout.unflatten(self.parameters)


def gradients(graph, *data, rate=1e4):
    """Return the gradient of each tensor, out of one long step of plain SGD."""
    trainer = Trainer(graph, learning_rate=rate)
    trainer.step(*data)
    moved = (trainer.graph.first.astype(np.float64) - trainer.parameters) / rate
    return {name: moved[span] for name, span in graph.layout.slices().items()}


def norm_error(got, expected):
    """Return the norm of the difference over the norm."""
    got, expected = (np.asarray(value, np.float64).ravel() for value in (got, expected))
    return float(np.linalg.norm(got - expected) / max(np.linalg.norm(expected), 1e-30))


def flatten(layout: Layout, module):
    """Return a module's state as one vector; what the layout does not hold is left out."""
    state = module.state_dict()
    return layout.flatten({spec.name: state[spec.name].numpy() for spec in layout.tensors})
