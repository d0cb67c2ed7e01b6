"""The graph of one training step, put together from its parts.

Inputs and outputs are listed in ``docs/onnx-training.md``. The step's order is torch's: gradient
of the loss, FedProx's term, clipping, weight decay, the optimizer.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import onnx
from onnx import TensorProto, helper

from central.modeling.training_graph import names, optimizers
from central.modeling.training_graph.backward import backpropagate, emit_forward
from central.modeling.training_graph.builder import BATCH, GraphBuilder, Shape
from central.modeling.training_graph.flat import FlatVector
from central.modeling.training_graph.losses import emit_loss
from central.modeling.training_graph.parameters import find_parameters
from central.modeling.training_graph.preparation import prepare
from central.modeling.training_graph.spec import StepSpec
from central.modeling.training_graph.verification import verify_gradients
from updates.arrays import F32
from updates.layout import Layout

#: Key of the graph's metadata: whether the last batch may be filled up with masked examples.
PADDING_KEY = "fedfleet.padding"


@dataclass(frozen=True, slots=True)
class TrainingGraph:
    """One step as an ordinary ONNX graph, and what it starts from.

    Attributes:
        model: Standard operators only.
        layout: Of the vector ``parameters``: trainable tensors and running statistics.
        first: The forward graph's values in that layout, shape ``(layout.size,)``.
        state_size: Length of the vector ``state``; 0 if there is none.
    """

    model: onnx.ModelProto
    layout: Layout
    first: F32
    state_size: int


def build_training_graph(forward: onnx.ModelProto, spec: StepSpec) -> TrainingGraph:
    """Return the verified graph of one training step.

    Args:
        forward: ``input`` ``(batch, ...)`` to ``logits``, parameters as float32 initializers.
            With the loss ``model`` its output ``loss`` is minimized, and it may have the inputs
            ``labels`` and ``mask`` itself.
        spec: Loss, optimizer and what is frozen.

    Raises:
        UnsupportedModelError: The model cannot be trained this way, or a gradient is wrong.
    """
    draft = _Draft(forward, spec)
    found = verify_gradients(
        draft.gradient_model(), draft.flat, draft.first, draft.shapes, draft.classes
    )
    return draft.step(may_pad=found.may_pad)


class _Draft:
    """Forward and backward half are there; the bare gradient or the whole step can be taken."""

    def __init__(self, forward: onnx.ModelProto, spec: StepSpec) -> None:
        self.spec = spec
        named = names.with_free_names(forward, own_loss=spec.loss == "model")
        parameters = find_parameters(named, spec)
        prepared = prepare(named, parameters.travelling)
        layout = Layout.of({key: value.shape for key, value in parameters.travelling.items()})
        self.flat = FlatVector(layout, parameters.statistics.keys())
        self.first = layout.flatten(parameters.travelling)
        self.builder = GraphBuilder(prepared.graph)
        self.shapes = dict(self.builder.shapes)
        self.data = _data_inputs(self.builder, prepared.graph, spec)
        for name in parameters.travelling:
            self.builder.release(name)
        self.flat.split(self.builder, names.PARAMETERS)
        self._differentiate(prepared.graph)

    def _differentiate(self, graph: onnx.GraphProto) -> None:
        trainable = [tensor.name for tensor in self.flat.trainable]
        nodes = emit_forward(self.builder, graph, trainable)
        seeds = emit_loss(self.builder, self.spec.loss, names.LOGITS)
        found = backpropagate(self.builder, nodes, seeds, trainable)
        self.gradient = self.flat.joined(self.builder, found, names.GRADIENT)

    @property
    def classes(self) -> int | None:
        """Number of classes, None for losses without."""
        if self.spec.loss != "cross_entropy":
            return None
        return self.builder.static(names.LOGITS, [1])[0]

    def gradient_model(self) -> onnx.ModelProto:
        """Return the graph that ends in ``gradient`` and ``loss``."""
        size = self.flat.trainable_size
        outputs = [_info(names.GRADIENT, (size,)), _info(names.LOSS, ())]
        inputs = [_info(names.PARAMETERS, (self.flat.layout.size,)), *self.data]
        return self._finish("gradient", inputs, outputs)

    def step(self, *, may_pad: bool) -> TrainingGraph:
        """Return the whole step; its metadata say whether a batch may be padded."""
        builder, spec = self.builder, self.spec
        values = self.flat.without_statistics(builder, names.PARAMETERS)
        gradient = self.gradient
        if spec.has_proximal:
            reference = self.flat.without_statistics(builder, names.REFERENCE)
            gradient = optimizers.emit_proximal(builder, gradient, values, reference)
        if spec.has_clipping:
            gradient = optimizers.emit_clipping(builder, gradient)
        size = self.flat.trainable_size
        updated = optimizers.emit_update(builder, spec, gradient, values, size)
        self.flat.with_statistics(builder, updated, builder.running, names.NEW_PARAMETERS)
        model = self._finish("training_step", *self._interface(spec.state_size(size)))
        helper.set_model_props(model, {PADDING_KEY: "allowed" if may_pad else "forbidden"})
        return TrainingGraph(model, self.flat.layout, self.first, spec.state_size(size))

    def _interface(
        self, state_size: int
    ) -> tuple[list[onnx.ValueInfoProto], list[onnx.ValueInfoProto]]:
        whole = (self.flat.layout.size,)
        inputs = [_info(names.PARAMETERS, whole)]
        outputs = [_info(names.NEW_PARAMETERS, whole)]
        if state_size:
            inputs.append(_info(names.STATE, (state_size,)))
            outputs.append(_info(names.NEW_STATE, (state_size,)))
        inputs += [*self.data, _info(names.LEARNING_RATE, ())]
        if self.spec.has_proximal:
            inputs += [_info(names.PROXIMAL_MU, ()), _info(names.REFERENCE, whole)]
        if self.spec.has_clipping:
            inputs.append(_info(names.CLIP_NORM, ()))
        outputs += [_info(names.LOSS, ()), _info(names.CORRECT, (), TensorProto.INT64)]
        return inputs, outputs

    def _finish(
        self,
        name: str,
        inputs: Sequence[onnx.ValueInfoProto],
        outputs: Sequence[onnx.ValueInfoProto],
    ) -> onnx.ModelProto:
        model = self.builder.finish(name, inputs, outputs)
        onnx.checker.check_model(model, full_check=True)
        return model


def _data_inputs(
    builder: GraphBuilder, graph: onnx.GraphProto, spec: StepSpec
) -> list[onnx.ValueInfoProto]:
    """Return what comes with the data: ``input``, ``labels`` unless unused, and ``mask``."""
    own = {info.name: info for info in graph.input}
    found = [own[names.INPUT]]
    if names.LABELS in own:
        found.append(own[names.LABELS])
    elif spec.loss != "model":
        found.append(_labels(builder, spec))
    sees_mask = names.MASK in own
    found.append(own[names.MASK] if sees_mask else _info(names.MASK, (BATCH,)))
    builder.mask = names.MASK
    return found


def _labels(builder: GraphBuilder, spec: StepSpec) -> onnx.ValueInfoProto:
    if spec.loss == "cross_entropy":
        return _info(names.LABELS, (BATCH,), TensorProto.INT64)
    return _info(names.LABELS, builder.shape(names.LOGITS))


def _info(name: str, shape: Shape, dtype: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)
