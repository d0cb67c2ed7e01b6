"""Ways to call a training graph: ``python -m benchmarks.training.calls``.

The same ten steps as ten calls, as ten calls with buffers that stay bound, and as one call of an
ONNX Scan around the step, in turns in one process.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

from benchmarks.training.graphs import write_graph
from benchmarks.training.models import TIMED
from benchmarks.training.onnx_steps import first_feed, open_session
from benchmarks.training.pages import markdown_table, put_section
from device_agent.training.onnx_runtime import ON_CPU, make_session
from fedfleet.tables import table

STEPS = 10
_PAGE = Path("docs", "onnx-training.md")
_SCANNED = ("input", "labels", "mask")
_MADE = ("loss", "correct")
_COLUMNS = ("model", "one by one ms", "bound ms", "ratio", "one Scan ms", "ratio")

Play = Callable[[], np.ndarray]


def several_steps(step: onnx.ModelProto) -> onnx.ModelProto:
    """Return a graph that takes one step for each entry of the first axis of its batches.

    Args:
        step: A training graph without an optimizer's state.
    """
    body = onnx.GraphProto()
    body.CopyFrom(step.graph)
    values = {value.name: value for value in (*step.graph.input, *step.graph.output)}
    _replace(body.input, [values[name] for name in ("parameters", *_SCANNED)])
    _replace(body.output, [values[name] for name in ("new_parameters", *_MADE)])
    given = ["first_parameters", *(f"all_{name}" for name in _SCANNED)]
    made = ["last_parameters", *(f"all_{name}" for name in _MADE)]
    node = helper.make_node("Scan", given, made, body=body, num_scan_inputs=len(_SCANNED))
    renamed = [_renamed(values["parameters"], given[0])]
    renamed += [_stacked(values[name]) for name in _SCANNED]
    results = [_renamed(values["new_parameters"], made[0])]
    results += [_stacked(values[name]) for name in _MADE]
    graph = helper.make_graph([node], "steps", [*renamed, values["learning_rate"]], results)
    return helper.make_model(graph, opset_imports=step.opset_import, ir_version=step.ir_version)


def _replace(field: object, values: list[onnx.ValueInfoProto]) -> None:
    kept = [helper.make_tensor_value_info("", TensorProto.FLOAT, None) for _ in values]
    for copy, value in zip(kept, values, strict=True):
        copy.CopyFrom(value)
    del field[:]
    field.extend(kept)


def _renamed(value: onnx.ValueInfoProto, name: str) -> onnx.ValueInfoProto:
    copy = onnx.ValueInfoProto()
    copy.CopyFrom(value)
    copy.name = name
    return copy


def _stacked(value: onnx.ValueInfoProto) -> onnx.ValueInfoProto:
    kind = value.type.tensor_type
    shape = [one.dim_param or one.dim_value for one in kind.shape.dim]
    return helper.make_tensor_value_info(f"all_{value.name}", kind.elem_type, ["steps", *shape])


def one_by_one(session: onnxruntime.InferenceSession, feed: dict[str, np.ndarray]) -> Play:
    """Return a function that calls the graph once a step."""
    names = ["new_parameters", *_MADE]

    def play() -> np.ndarray:
        now = dict(feed)
        for _ in range(STEPS):
            now["parameters"] = session.run(names, now)[0]
        return now["parameters"]

    return play


def bound(session: onnxruntime.InferenceSession, feed: dict[str, np.ndarray]) -> Play:
    """Return a function that calls it with two parameter buffers that change places."""
    values = {name: onnxruntime.OrtValue.ortvalue_from_numpy(one) for name, one in feed.items()}
    size = feed["parameters"].shape
    buffers = [
        onnxruntime.OrtValue.ortvalue_from_shape_and_type(size, np.float32) for _ in range(2)
    ]
    bindings = [_binding(session, values, *buffers), _binding(session, values, *buffers[::-1])]

    def play() -> np.ndarray:
        buffers[0].update_inplace(feed["parameters"])
        for number in range(STEPS):
            session.run_with_iobinding(bindings[number % 2])
            float(bindings[number % 2].get_outputs()[1].numpy())
        return buffers[STEPS % 2].numpy()

    return play


def _binding(
    session: onnxruntime.InferenceSession,
    values: dict[str, onnxruntime.OrtValue],
    before: onnxruntime.OrtValue,
    after: onnxruntime.OrtValue,
) -> onnxruntime.IOBinding:
    binding = session.io_binding()
    for name, value in {**values, "parameters": before}.items():
        binding.bind_ortvalue_input(name, value)
    binding.bind_ortvalue_output("new_parameters", after)
    for name in _MADE:
        binding.bind_output(name, "cpu")
    return binding


def scanned(session: onnxruntime.InferenceSession, feed: dict[str, np.ndarray]) -> Play:
    """Return a function that takes all steps in one call."""
    stacked = {f"all_{name}": np.stack([feed[name]] * STEPS) for name in _SCANNED}
    stacked["first_parameters"] = feed["parameters"]
    stacked["learning_rate"] = feed["learning_rate"]
    return lambda: session.run(["last_parameters", "all_loss", "all_correct"], stacked)[0]


def compared(plays: dict[str, Play], budget_s: float) -> dict[str, float]:
    """Return the median milliseconds of a step of each way, taken in turns.

    Raises:
        ValueError: Two ways come to different parameters.
    """
    results = {way: play() for way, play in plays.items()}
    first = next(iter(results.values()))
    for way, result in results.items():
        if not np.array_equal(first, result):
            message = f"{way}: other parameters, by {np.abs(first - result).max():.1e}"
            raise ValueError(message)
    taken: dict[str, list[float]] = {way: [] for way in plays}
    ends = time.perf_counter() + budget_s
    while time.perf_counter() < ends:
        for way, play in plays.items():
            began = time.perf_counter()
            play()
            taken[way].append(time.perf_counter() - began)
    return {way: 1000 * float(np.median(times)) / STEPS for way, times in taken.items()}


def row(name: str, out: Path, batch: int, budget_s: float) -> tuple[str, ...]:
    """Return one row of the table."""
    graph = write_graph(out, name, TIMED[name], batch)
    scan = several_steps(onnx.load(graph.path)).SerializeToString()
    feed, session = first_feed(graph.path), open_session(graph.path, threads=1)
    # Not by open_session: a device refuses a graph within a node, as Scan has one.
    in_scan = make_session(scan, graph.nodes, 1, ON_CPU)
    plays = {
        "single": one_by_one(session, feed),
        "bound": bound(session, feed),
        "scan": scanned(in_scan, feed),
    }
    found = compared(plays, budget_s)
    ratios = {way: f"{found[way] / found['single']:.2f}" for way in found}
    cells = {way: f"{value:.3f}" for way, value in found.items()}
    title = TIMED[name].title
    return (
        title, cells["single"], cells["bound"], ratios["bound"], cells["scan"], ratios["scan"],
    )  # fmt: skip


@click.command()
@click.option("--model", "chosen", multiple=True, type=click.Choice(list(TIMED)))
@click.option("--batch", type=click.IntRange(1), default=32, show_default=True)
@click.option("--seconds", type=float, default=5.0, show_default=True, help="A model.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("build", "bench-train"))
@click.option("--docs", is_flag=True, help=f"Write the table into {_PAGE}.")
def main(chosen: tuple[str, ...], batch: int, seconds: float, out: Path, docs: bool) -> None:  # noqa: FBT001
    """Compare single calls, bound buffers and one Scan over ten steps."""
    out.mkdir(parents=True, exist_ok=True)
    rows = []
    for name in chosen or ("mlp", "lenet5", "transformer", "cnn-bn"):
        rows.append(row(name, out, batch, seconds))
        print(" ".join(rows[-1]), file=sys.stderr, flush=True)
    print(table(_COLUMNS, rows))
    if docs:
        put_section(_PAGE, "calls", markdown_table(_COLUMNS, rows))


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.training.calls")
