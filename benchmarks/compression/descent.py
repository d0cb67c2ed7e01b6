"""Runs several methods of one problem side by side, and reads off what a residual costs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from benchmarks.compression.methods import Method
from benchmarks.compression.problems import Problem
from updates.arrays import F32, F64

ALPHA = 0.02


@dataclass(slots=True)
class Trace:
    """One method's run.

    Attributes:
        method: With its counters.
        theta: Parameters, shape ``(p,)``.
        losses: Mean loss before each iteration.
        uploads: Until then; ``payload_bytes`` likewise.
    """

    method: Method
    theta: F32
    losses: list[float]
    uploads: list[int]
    payload_bytes: list[int]

    def step(self, loss: float, gradients: F32) -> None:
        """Note the loss, and take one step of gradient descent."""
        self.losses.append(loss)
        self.uploads.append(self.method.uploads)
        self.payload_bytes.append(self.method.payload_bytes)
        self.theta = self.theta - np.float32(ALPHA) * self.method.aggregate(gradients)


@dataclass(frozen=True, slots=True)
class Cost:
    """What a method needed.

    Attributes:
        iterations: Until the residual was reached, or all.
        uploads: By all workers.
        value_bits: Bits of a value times values times uploads, as the paper counts.
        payload_bits: Of what a codec's payloads hold, header and skips too.
        accuracy: On the held-out examples, at the end of the run.
        reached: Whether the residual was; None: there was none.
    """

    iterations: int
    uploads: int
    value_bits: int
    payload_bits: int
    accuracy: float
    reached: bool | None


def least_loss(problem: Problem, seed: int = 1) -> float:
    """Return the smallest mean loss, f* / M, of a convex problem (L-BFGS)."""

    def mean(theta: F64) -> tuple[float, F64]:
        losses, gradients = problem.evaluate(theta.astype(np.float32)[np.newaxis])
        return float(losses[0]), gradients[0].mean(0, dtype=np.float64)

    options = {"maxiter": 2000, "ftol": 0.0, "gtol": 1e-7, "maxcor": 30}
    found = minimize(mean, problem.start(seed), jac=True, method="L-BFGS-B", options=options)
    return float(found.fun)


def run(
    problem: Problem,
    makers: Mapping[str, Callable[..., Method]],
    iterations: int,
    told: Callable[[int, Mapping[str, Trace]], bool],
    seed: int = 1,
) -> dict[str, Trace]:
    """Run the methods side by side from the same start.

    Args:
        problem: Gives losses and gradients.
        makers: Method's name -> how it is made for a layout.
        iterations: At most so many.
        told: Called after each; False ends the run.
        seed: Of the first parameters.
    """
    first = problem.start(seed)
    traces = {
        name: Trace(make(problem.layout), first.copy(), [], [], [])
        for name, make in makers.items()
    }
    for number in range(iterations):
        thetas = np.stack([trace.theta for trace in traces.values()])
        losses, gradients = problem.evaluate(thetas)
        for at, trace in enumerate(traces.values()):
            trace.step(float(losses[at]), gradients[at])
        if not told(number, traces):
            break
    return traces


def cost(problem: Problem, trace: Trace, goal: float | None) -> Cost:
    """Return what the first iterate with a loss of at most ``goal`` cost, or the whole run."""
    found = [] if goal is None else np.flatnonzero(np.array(trace.losses) <= goal).tolist()
    at = found[0] if found else len(trace.losses) - 1
    method = trace.method
    values = method.bits * method.layout.size * trace.uploads[at]
    return Cost(
        iterations=at,
        uploads=trace.uploads[at],
        value_bits=values,
        payload_bits=8 * trace.payload_bytes[at],
        accuracy=problem.accuracy(trace.theta),
        reached=None if goal is None else bool(found),
    )
