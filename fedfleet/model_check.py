"""Whether and how a model can be trained, and what its updates would weigh."""

import math
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fedfleet.errors import FleetError
from fedfleet.tables import size, table
from schemas.tasks import Training
from updates import codecs
from updates.layout import Layout

if TYPE_CHECKING:
    from central.modeling.requests import ModelRequest, Outcome, Report

#: A guess at what training gives: normal values, as those of one round of a small learning rate.
_DELTA_SCALE = 1e-3
_SHOWN_OPERATORS = 30


class ModelCheckError(FleetError):
    """The model was refused, or could not be looked at."""


def check_model(request: "ModelRequest", training: Training, batch: int) -> dict[str, object]:
    """Return what was found, ready for JSON.

    Args:
        request: Which model; a file's own shapes are looked up in it.
        training: How it would be trained.
        batch: Examples in the step whose memory is measured.

    Raises:
        ModelCheckError: The model was refused.
    """
    from central.modeling import process  # noqa: PLC0415 - only where a model is looked at

    with tempfile.TemporaryDirectory() as folder:
        cache, scratch = Path(folder, "cache"), Path(folder, "scratch")
        scratch.mkdir()
        try:
            outcome = process.prepare(
                request, training, cache=cache, scratch=scratch, report_batch=batch
            )
        except (process.PrepareProcessError, ValueError, OSError) as error:
            raise ModelCheckError(str(error)) from error
        graph = scratch / "graph.zlib"
        stored = graph.stat().st_size if outcome.has_graph else 0
    return _found(outcome, stored, batch)


def _found(outcome: "Outcome", stored_bytes: int, batch: int) -> dict[str, object]:
    report = outcome.report
    if report is None:
        message = "the model was not reported on"
        raise ModelCheckError(message)
    travelling = {
        name: shape for name, shape in report.parameters.items() if name not in report.frozen
    }
    return {
        "trainable": outcome.has_graph,
        "reason": outcome.reason,
        "input": list(report.input),
        "output": list(report.output),
        "parameters": _count(report, tuple(report.parameters)),
        "trained": _count(report, report.trained),
        "frozen": _count(report, report.frozen),
        "tensors": {
            name: {"shape": list(shape), "trained": name in report.trained}
            for name, shape in report.parameters.items()
        },
        "operators": report.operators,
        "without_rule": list(report.without_rule),
        "graph_bytes": report.graph_bytes,
        "graph_bytes_sent": stored_bytes,
        "optimizer_values": report.state_values,
        "batch": batch,
        "batch_bytes": report.batch_bytes,
        "update_bytes": update_sizes(Layout.of(travelling)) if travelling else {},
    }


def update_sizes(layout: Layout) -> dict[str, int]:
    """Return codec -> bytes of one update with the codec's usual settings, encoded for real."""
    rng = np.random.default_rng(0)
    delta = rng.standard_normal(layout.size, dtype=np.float32) * np.float32(_DELTA_SCALE)
    return {name: len(codecs.create(name).encode(delta, layout, rng)) for name in codecs.names()}


def as_text(name: str, found: dict[str, object]) -> str:
    """Return the findings for a person."""
    verdict = "can be trained" if found["trainable"] else f"cannot be trained: {found['reason']}"
    memory = found["batch_bytes"]
    lines = [
        f"{name} {verdict}",
        f"input {found['input']}, output {found['output']}",
        f"parameters {found['parameters']}: {found['trained']} trained, {found['frozen']} frozen",
    ]
    if found["trainable"]:
        lines.append(
            f"training graph {_size(found['graph_bytes'])}, {_size(found['graph_bytes_sent'])} as "
            f"sent; optimizer {found['optimizer_values']} values"
        )
    if isinstance(memory, int):
        lines.append(f"a step with a batch of {found['batch']}: {size(memory)} of memory")
    lines += ["", _operators(found), "", _updates(found)]
    return "\n".join(lines)


def _operators(found: dict[str, object]) -> str:
    counts, lacking = found["operators"], found["without_rule"]
    assert isinstance(counts, dict)  # noqa: S101 - made above
    assert isinstance(lacking, list)  # noqa: S101
    rows = [
        (operator, str(count), "none" if operator in lacking else "")
        for operator, count in list(counts.items())[:_SHOWN_OPERATORS]
    ]
    return table(("operator", "nodes", "rule"), rows)


def _updates(found: dict[str, object]) -> str:
    sizes = found["update_bytes"]
    assert isinstance(sizes, dict)  # noqa: S101 - made above
    return table(("codec", "update"), [(name, size(count)) for name, count in sizes.items()])


def _count(report: "Report", names: tuple[str, ...]) -> int:
    return sum(math.prod(report.parameters[name]) for name in names)


def _size(value: object) -> str:
    return size(value) if isinstance(value, int) else "-"
