"""The forward graph in the form that gradient rules expect.

Opset 18, one flat list of nodes of the standard domain, constants as initializers, no node that
could be computed once, the shape of every tensor known, and on the way of a gradient only
operators that have a rule, where the ONNX standard says how to put them together.
"""

from collections.abc import Collection

import numpy as np
import onnx
from onnx import defs, helper, inliner, numpy_helper, shape_inference, version_converter

from central.modeling.training_graph.builder import IR_VERSION, OPSET, GraphBuilder
from central.modeling.training_graph.errors import UnsupportedModelError
from central.modeling.training_graph.folding import fold_constants, fold_values
from central.modeling.training_graph.nodes import STANDARD_DOMAINS, has_attribute
from central.modeling.training_graph.probing import (
    check_agreement,
    free_batch_axis,
    note_shapes,
    run_forward,
)
from central.modeling.training_graph.reach import reached_outputs
from central.modeling.training_graph.rules import rewrite_for, rules_for

#: Functions may be made of functions, so deep at most.
_MAX_EXPANSIONS = 8

_NUMBERS = {
    "value_float": np.float32,
    "value_floats": np.float32,
    "value_int": np.int64,
    "value_ints": np.int64,
}


def prepare(forward: onnx.ModelProto, trainable: Collection[str]) -> onnx.ModelProto:
    """Return the prepared forward graph; the given one stays as it is.

    Args:
        forward: Any ONNX model of standard operators, its parameters as initializers.
        trainable: Initializers that gradients are wanted for; they keep names and shapes.

    Raises:
        UnsupportedModelError: The graph cannot be converted, does not run, or has control flow,
            operators of another domain, or free axes besides the batch.
    """
    source = inliner.inline_local_functions(forward)
    for node in source.graph.node:
        _check(node)
        _leave_training_mode(node)
    _drop_initialized_inputs(source.graph)
    free_batch_axis(source.graph)
    model = _fold(_at_opset(source), trainable)
    for _ in range(_MAX_EXPANSIONS):
        _probe(model)
        fold_constants(model, trainable)
        if _rewrite(model):
            model = _fold(model, trainable)
        elif operators := _expandable(model.graph, trainable):
            model = _fold(_expand(model, operators), trainable)
        else:
            break
    check_agreement(source, model)
    return model


def _at_opset(model: onnx.ModelProto) -> onnx.ModelProto:
    versions = [item.version for item in model.opset_import if item.domain in STANDARD_DOMAINS]
    version = versions[0] if versions else 1
    if version != OPSET:
        try:
            model = version_converter.convert_version(model, OPSET)
        except Exception as error:  # the converter raises RuntimeError, and others
            reason = f"it cannot be converted from opset {version} to {OPSET}: {error}"
            raise UnsupportedModelError(reason, f"export it at opset {OPSET}") from error
    else:
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        model = copy
    model.ClearField("opset_import")
    model.opset_import.append(helper.make_opsetid("", OPSET))
    model.ir_version = IR_VERSION
    return model


def _leave_training_mode(node: onnx.NodeProto) -> None:
    """Batch normalization in training mode runs in no inference runtime; its rule brings it."""
    if node.op_type == "BatchNormalization":
        del node.output[1:]
        kept = [item for item in node.attribute if item.name != "training_mode"]
        node.ClearField("attribute")
        node.attribute.extend(kept)


def _drop_initialized_inputs(graph: onnx.GraphProto) -> None:
    """Files before IR version 4 list each initializer among the inputs too."""
    names = {tensor.name for tensor in graph.initializer}
    inputs = [info for info in graph.input if info.name not in names]
    graph.ClearField("input")
    graph.input.extend(inputs)


def _check(node: onnx.NodeProto) -> None:
    if node.domain not in STANDARD_DOMAINS:
        reason = "only operators of the standard domain can be trained and run everywhere"
        raise UnsupportedModelError(reason).at(node)
    if any(item.HasField("g") or item.graphs for item in node.attribute):
        reason = "control flow has no gradient"
        raise UnsupportedModelError(reason, "export it without branches and loops").at(node)


def _fold(model: onnx.ModelProto, trainable: Collection[str]) -> onnx.ModelProto:
    """Store constants and fold what depends on them alone, until nothing changes."""
    _store_constants(model.graph)
    while True:
        model = shape_inference.infer_shapes(model, data_prop=True)
        if not fold_constants(model, trainable):
            return model


def _store_constants(graph: onnx.GraphProto) -> None:
    kept = []
    for node in graph.node:
        tensor = _constant(node) if node.op_type == "Constant" else None
        if tensor is None:
            kept.append(node)
        else:
            graph.initializer.append(tensor)
    graph.ClearField("node")
    graph.node.extend(kept)


def _constant(node: onnx.NodeProto) -> onnx.TensorProto | None:
    """Return the value of a Constant node, None if it is sparse or a text."""
    item = node.attribute[0]
    if item.name == "value":
        tensor = onnx.TensorProto()
        tensor.CopyFrom(item.t)
        tensor.name = node.output[0]
        return tensor
    if item.name not in _NUMBERS:
        return None
    value = np.array(helper.get_attribute_value(item), _NUMBERS[item.name])
    return numpy_helper.from_array(value, node.output[0])


def _probe(model: onnx.ModelProto) -> None:
    runs = run_forward(model)
    fold_values(model, runs)
    note_shapes(model, runs)


def _rewrite(model: onnx.ModelProto) -> bool:
    """Replace the nodes that have a rewrite, in place; tell whether there were any."""
    if not any(rewrite_for(node.op_type) for node in model.graph.node):
        return False
    builder = GraphBuilder(model.graph)
    for node in model.graph.node:
        replace = rewrite_for(node.op_type)
        if replace is None:
            builder.nodes.append(node)
            continue
        try:
            replace(builder, node)
        except UnsupportedModelError as error:
            raise error.at(node) from None
    builder.write_to(model.graph)
    return True


def _expandable(graph: onnx.GraphProto, trainable: Collection[str]) -> set[str]:
    """Return operators that a gradient must pass, have no rule and are functions of others."""
    builder = GraphBuilder(graph)
    builder.needed.update(trainable)
    found = set()
    for node in graph.node:
        reached = reached_outputs(builder, node)
        builder.needed.update(reached)
        if reached and rules_for(node.op_type) is None and _is_function(node.op_type):
            found.add(node.op_type)
    return found


def _is_function(operator: str) -> bool:
    if not defs.has(operator, OPSET, ""):
        return False
    schema = defs.get_schema(operator, OPSET, "")
    # onnx's stubs lack both
    return bool(schema.has_function or schema.has_context_dependent_function)  # type: ignore[attr-defined]


def _expand(model: onnx.ModelProto, operators: Collection[str]) -> onnx.ModelProto:
    for node in model.graph.node:
        if node.op_type in operators:
            _fill_in_defaults(node)
    model.graph.value_info.extend(  # the inliner looks for types here alone
        helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        for tensor in model.graph.initializer
    )
    names = [("", operator) for operator in operators]
    return inliner.inline_selected_functions(model, names, inline_schema_functions=True)


def _fill_in_defaults(node: onnx.NodeProto) -> None:
    """Write the default attributes into the node: the inliner would lose them."""
    schema = defs.get_schema(node.op_type, OPSET, "")
    node.attribute.extend(
        item.default_value
        for name, item in schema.attributes.items()
        if item.default_value.type and not has_attribute(node, name)
    )
