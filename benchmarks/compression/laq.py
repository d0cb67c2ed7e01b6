"""LAQ beside GD, QGD and LAG, and FLQ's modes: ``python -m benchmarks.compression.laq``.

Without ``--mnist`` the digits of scikit-learn alone, which take a minute or two.
"""

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import click

from benchmarks.compression import flq
from benchmarks.compression.descent import Cost, Trace, cost, least_loss, run
from benchmarks.compression.methods import Method, methods
from benchmarks.compression.problems import Network, Problem, SoftmaxRegression, digits, mnist
from benchmarks.training.fedavg import mnist_folder
from benchmarks.training.pages import markdown_table, put_section
from fedfleet.tables import table

PAGE = Path("docs", "compression.md")
RESIDUAL, FLQ_RESIDUAL, FLQ_MOST = 1e-6, 1e-4, 2000
_FIRST, _LAST = ("method", "iterations", "uploads", "bits"), ("payload bits", "accuracy")
_TOLD_EVERY_S = 10.0
Makers = Mapping[str, Callable[..., Method]]


class Progress:
    """Says how far a run is, and ends it when every method has reached its goal."""

    def __init__(self, name: str, goal: float | None) -> None:
        self._name, self._goal = name, goal
        self._said_s = time.monotonic()

    def __call__(self, number: int, traces: Mapping[str, Trace]) -> bool:
        """Return whether to go on."""
        losses = {name: trace.losses[-1] for name, trace in traces.items()}
        if time.monotonic() - self._said_s > _TOLD_EVERY_S:
            self._said_s = time.monotonic()
            told = ", ".join(f"{name} {loss:.6f}" for name, loss in losses.items())
            print(f"{self._name}, iteration {number}: {told}", file=sys.stderr, flush=True)
        return self._goal is None or max(losses.values()) > self._goal


def to_residual(
    name: str, problem: Problem, makers: Makers, residual: float, most: int
) -> dict[str, Cost]:
    """Return what each method needs until its loss is so close to the least one."""
    goal = least_loss(problem) + residual
    traces = run(problem, makers, most, Progress(name, goal))
    return {method: cost(problem, trace, goal) for method, trace in traces.items()}


def after(name: str, problem: Problem, makers: Makers, iterations: int) -> dict[str, Cost]:
    """Return what each method needs for so many iterations; a loss is not aimed at."""
    traces = run(problem, makers, iterations + 1, Progress(name, None))
    return {method: cost(problem, trace, None) for method, trace in traces.items()}


def columns(costs: Mapping[str, Cost]) -> tuple[str, ...]:
    """Return the heads of a table."""
    return (*_FIRST, "fewer than GD" if "GD" in costs else "of LAQ's bits", *_LAST)


def rows(costs: Mapping[str, Cost]) -> Sequence[tuple[str, ...]]:
    """Return the rows of a table; the factor is that of the bits of values."""
    return [
        (
            method,
            f"{one.iterations}" if one.reached is not False else f"{one.iterations}, not reached",
            f"{one.uploads}",
            f"{one.value_bits:.2e}",
            _factor(costs, one),
            f"{one.payload_bits:.2e}",
            f"{one.accuracy:.4f}",
        )
        for method, one in costs.items()
    ]


def _factor(costs: Mapping[str, Cost], one: Cost) -> str:
    if "GD" in costs:
        return f"{costs['GD'].value_bits / one.value_bits:.1f}x"
    (laq,) = (cost for method, cost in costs.items() if method.startswith("LAQ"))
    return f"{one.value_bits / laq.value_bits:.1f}x"


def experiments(
    folder: Path | None, most: int, net: tuple[int, int]
) -> dict[str, Callable[[], dict[str, Cost]]]:
    """Return what can be measured, by the name of its section on the page."""
    found = {
        "laq-digits": lambda: to_residual("digits", digits(), methods(4), RESIDUAL, most),
        "laq-digits-by-label": lambda: to_residual(
            "digits by label", digits(by_label=True), methods(4), RESIDUAL, most
        ),
        "flq-digits": lambda: to_residual(
            "FLQ", digits(), flq.modes(), FLQ_RESIDUAL, min(most, FLQ_MOST)
        ),
    }
    if folder is not None:
        examples, iterations = net
        found["laq-mnist"] = lambda: to_residual(
            "MNIST", mnist(folder, SoftmaxRegression), methods(4), RESIDUAL, most
        )
        found["laq-mnist-net"] = lambda: after(
            "784-200-10", mnist(folder, Network, examples), methods(8), iterations
        )
    return found


@click.command()
@click.option("--mnist", "folder", type=click.Path(path_type=Path), help="Folder of IDX files.")
@click.option("--only", multiple=True, help="A section's name, such as laq-digits.")
@click.option("--most", type=click.IntRange(1), default=6000, show_default=True,
              help="Iterations to a residual.")  # fmt: skip
@click.option("--net-examples", type=click.IntRange(10), default=1000, show_default=True)
@click.option("--net-iterations", type=click.IntRange(1), default=800, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object last.")
@click.option("--docs", is_flag=True, help=f"Write the tables into {PAGE}.")
def main(  # noqa: PLR0913, PLR0917
    folder: Path | None,
    only: tuple[str, ...],
    most: int,
    net_examples: int,
    net_iterations: int,
    as_json: bool,  # noqa: FBT001
    docs: bool,  # noqa: FBT001
) -> None:
    """Count uploads and bits until a residual is reached."""
    known = experiments(
        None if folder is None else mnist_folder(folder), most, (net_examples, net_iterations)
    )
    unknown = sorted(set(only) - set(known))
    if unknown:
        message = f"--only {unknown[0]}: known are {', '.join(known)} (MNIST's need --mnist)"
        raise click.UsageError(message)
    told = {}
    for name in only or known:
        began = time.monotonic()
        costs = known[name]()
        took = f"{time.monotonic() - began:.0f} s"
        print(f"{name}, {took}\n{table(columns(costs), rows(costs))}\n", flush=True)
        told[name] = {method: asdict(one) for method, one in costs.items()}
        if docs:
            put_section(PAGE, name, markdown_table(columns(costs), rows(costs)))
    if as_json:
        print(json.dumps(told))


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.compression.laq")
