"""What a model is made of, whether it can be trained, and what that takes: for a person."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx

from central.modeling import trial
from central.modeling.forward import ForwardGraph
from central.modeling.requests import ModelRequest, Report
from central.modeling.training_graph import TrainingGraph
from central.modeling.training_graph.rules import rules_for, stops

_RESET_PEAK = "5"
_STEPS = 2


def report_on(
    forward: ForwardGraph, graph: TrainingGraph | None, request: ModelRequest, batch: int
) -> Report:
    """Return the report; a step is run on a batch of ``batch`` examples if there is a graph."""
    values = forward.values()
    travelling = {tensor.name for tensor in graph.layout.tensors} if graph else set(values)
    trained = travelling - _statistics(forward)
    counts = Counter(node.op_type for node in forward.model.graph.node)
    lacking = () if graph else tuple(sorted(filter(_lacks_rule, counts)))
    return Report(
        input=request.shape,
        output=trial.dimensions(forward.model.graph.output[0]),
        parameters={name: tuple(array.shape) for name, array in sorted(values.items())},
        trained=tuple(sorted(trained)),
        frozen=tuple(sorted(values.keys() - travelling)),
        operators=dict(counts.most_common()),
        without_rule=lacking,
        graph_bytes=graph.model.ByteSize() if graph else 0,
        state_values=graph.state_size if graph else 0,
        batch_bytes=_measured(graph, batch) if graph else None,
    )


def _statistics(forward: ForwardGraph) -> set[str]:
    nodes = [node for node in forward.model.graph.node if node.op_type == "BatchNormalization"]
    return {name for node in nodes for name in node.input[3:5]}


def _lacks_rule(operator: str) -> bool:
    """Tell whether nothing is known of an operator: no rule, no gradient at all, no function."""
    schema = onnx.defs.get_schema(operator)
    is_written_out = schema.has_function or schema.has_context_dependent_function  # type: ignore[attr-defined]
    return not (rules_for(operator) or stops(operator) or is_written_out)


def _measured(graph: TrainingGraph, batch: int) -> int | None:
    """Return by how many bytes this process grew at most while it took some steps."""
    import onnxruntime  # noqa: PLC0415

    content = graph.model.SerializeToString()
    before = _memory("VmRSS")
    try:
        Path("/proc/self/clear_refs").write_text(_RESET_PEAK, encoding="ascii")
    except OSError:
        return None  # not on this kind of system
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.enable_mem_pattern = False
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    feeds = {entry.name: _filled(entry, batch) for entry in session.get_inputs()}
    feeds["parameters"] = graph.first
    for _ in range(_STEPS):
        session.run(None, feeds)
    return max(0, _memory("VmHWM") - before)


def _filled(
    entry: "onnx.ValueInfoProto", batch: int
) -> "np.ndarray[tuple[int, ...], np.dtype[np.generic]]":
    shape = [size if isinstance(size, int) else batch for size in entry.shape]
    if entry.type == "tensor(int64)":
        return np.zeros(shape, np.int64)
    return np.ones(shape, np.float32)


def _memory(field: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    return 0
