"""Every gradient that is built is held against finite differences of the loss it belongs to.

A random direction of +-1 in one tensor at a time: the loss must change along it as the gradient
says. onnxruntime computes both, in double precision if it has the kernels, so that the check
needs nothing but the graph itself. Masks of dropout are those of one run, kept.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from central.modeling.training_graph import names
from central.modeling.training_graph.builder import Shape
from central.modeling.training_graph.errors import UnsupportedModelError
from central.modeling.training_graph.flat import FlatVector
from central.modeling.training_graph.precision import (
    RUN_ERRORS,
    double_session,
    quiet_session,
    with_kept_masks,
)
from central.modeling.training_graph.sampling import Feed, sample
from updates.arrays import F32, F64

_BATCH = 4
_NOISE = 0.05
_SMALLEST_SCALE = 1e-2
#: A tensor's gradient counts as at least so much of the whole one: one that is zero in exact
#: arithmetic, as that of a bias in front of a normalization, is nothing but rounding.
_LEAST_SHARE = 1e-4
#: Largest difference of two gradients that are meant to be equal, relative to their norm.
_SAME = 1e-6
#: Tried for whole numbers in turn, until no table is read beyond its end.
_BOUNDS = (256, 64, 16, 4, 2, 1)


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How a finite difference is taken, and how close it must come.

    Attributes:
        steps: Lengths to try, relative to the tensor's root mean square; the longest is the last.
            The short ones are for deep nets, which cross the corner of a ReLU within a long one.
        relative: Largest error, as a fraction of the gradient's norm.
        directions: How many random ones must agree in each tensor.
        tries: How many are tried at most: a difference across a jump of the loss says nothing.
        is_central: Whether the loss is taken on both sides, or on one, against the loss here.
        noise: Rounding error of a loss of 1; what it may do to the longest step is forgiven, so
            that a gradient which is zero in exact arithmetic is none to worry about.
    """

    steps: tuple[float, ...]
    relative: float
    directions: int
    tries: int
    is_central: bool
    noise: float


DOUBLE = Tolerance(
    (1e-6, 1e-7, 1e-8, 1e-5, 1e-4), 1e-3, directions=1, tries=3, is_central=False, noise=1e-14
)
#: Where some operators compute in float32.
MIXED = Tolerance(
    (1e-3, 1e-4, 3e-3, 1e-5, 1e-6, 1e-2, 3e-2),
    2e-2,
    directions=2,
    tries=6,
    is_central=True,
    noise=1e-7,
)


@dataclass(frozen=True, slots=True)
class Verification:
    """What was found right.

    Attributes:
        tensors: How many tensors were looked at.
        is_double: Whether the loss was computed in double precision.
        worst: Largest error of a difference, as a fraction of the gradient's norm.
        may_pad: Whether a masked example had no effect on loss and gradient.
    """

    tensors: int
    is_double: bool
    worst: float
    may_pad: bool


def verify_gradients(
    model: onnx.ModelProto,
    flat: FlatVector,
    first: F32,
    shapes: Mapping[str, Shape],
    classes: int | None = None,
) -> Verification:
    """Check the gradient of every trainable tensor.

    Args:
        model: From ``parameters`` and the data to ``gradient`` and ``loss``.
        flat: Where the tensors lie.
        first: Parameters near which is checked.
        shapes: Of the forward half's tensors.
        classes: Labels are below it; None where they are no classes.

    Raises:
        UnsupportedModelError: A gradient is wrong or not finite, or the graph cannot be run.
    """
    rng = np.random.default_rng(0)
    feed = _usable_feed(model, _moved(first, flat, rng), rng, classes)
    probe = _Probe.of(model, feed, shapes)
    gradient = probe.gradient()
    least = _LEAST_SHARE * float(np.linalg.norm(gradient))
    places = flat.trainable_slices()
    worst = 0.0
    for name, span in flat.slices().items():
        error = probe.agreement(span, gradient[places[name]], least, rng)
        if not error <= probe.tolerance.relative:
            raise _wrong(name, error)
        worst = max(worst, error)
    may_pad = probe.ignores_masked(gradient)
    return Verification(len(places), probe.tolerance is DOUBLE, worst, may_pad)


@dataclass(frozen=True, slots=True)
class _Probe:
    session: onnxruntime.InferenceSession
    feed: Feed
    tolerance: Tolerance
    loss: float

    @classmethod
    def of(cls, model: onnx.ModelProto, feed: Feed, shapes: Mapping[str, Shape]) -> "_Probe":
        session, is_double = double_session(with_kept_masks(model, feed), shapes)
        doubled = {
            name: value.astype(np.float64) if value.dtype == np.float32 else value
            for name, value in feed.items()
        }
        (loss,) = session.run([names.LOSS], doubled)
        return cls(session, doubled, DOUBLE if is_double else MIXED, float(loss))

    def gradient(self, **other: NDArray[Any]) -> F64:
        (gradient,) = self.session.run([names.GRADIENT], {**self.feed, **other})
        return np.asarray(gradient, np.float64)

    def ignores_masked(self, gradient: F64) -> bool:
        """Tell whether the gradient stays if the masked example, the last one, is another one."""
        other = {}
        for name in self.feed.keys() & {names.INPUT, names.LABELS}:
            other[name] = self.feed[name].copy()
            other[name][-1] = self.feed[name][0]
        difference = np.linalg.norm(self.gradient(**other) - gradient)
        return bool(difference <= _SAME * np.linalg.norm(gradient))

    def agreement(
        self, span: slice, gradient: F64, least: float, rng: np.random.Generator
    ) -> float:
        """Return the error up to which enough directions agree."""
        errors: list[float] = []
        for _ in range(self.tolerance.tries):
            errors.append(self.error(span, gradient, least, rng))
            errors.sort()
            needed = errors[: self.tolerance.directions]
            if len(needed) == self.tolerance.directions and needed[-1] <= self.tolerance.relative:
                break
        return needed[-1]

    def error(self, span: slice, gradient: F64, least: float, rng: np.random.Generator) -> float:
        """Return the smallest error of all step lengths, as a fraction of the norm."""
        point = self.feed[names.PARAMETERS]
        direction = np.zeros_like(point)
        direction[span] = rng.choice([-1.0, 1.0], gradient.size)
        expected = float(direction[span] @ gradient)
        norm = max(float(np.linalg.norm(gradient)), least)
        scale = max(float(np.sqrt(np.mean(point[span] ** 2))), _SMALLEST_SCALE)
        best = np.inf
        for step in self.tolerance.steps:
            difference = abs(self._slope(point, direction, step * scale) - expected)
            best = min(best, difference / norm if norm else np.inf)
            if best <= self.tolerance.relative:
                return best
        # ``difference`` is that of the longest step.
        return best if difference > self.tolerance.noise / (step * scale) else 0.0

    def _slope(self, point: F64, direction: F64, length: float) -> float:
        after = self._loss(point + length * direction)
        if not self.tolerance.is_central:
            return (after - self.loss) / length
        return (after - self._loss(point - length * direction)) / (2 * length)

    def _loss(self, parameters: F64) -> float:
        options = onnxruntime.RunOptions()
        options.only_execute_path_to_fetches = True
        feed = {**self.feed, names.PARAMETERS: parameters}
        return float(self.session.run([names.LOSS], feed, options)[0])


def _usable_feed(
    model: onnx.ModelProto, point: F32, rng: np.random.Generator, classes: int | None
) -> Feed:
    session = quiet_session(model)
    labels = {} if classes is None else {names.LABELS: classes}
    problem: Exception | None = None
    for bound in _BOUNDS:
        below = {names.INPUT: bound, names.LABELS: bound, **labels}
        feed = {**sample(model, rng, _BATCH, below), names.PARAMETERS: point}
        try:
            loss, gradient = session.run([names.LOSS, names.GRADIENT], feed)
        except RUN_ERRORS as error:
            problem = error
            continue
        if np.isfinite(loss) and np.isfinite(gradient).all():
            return feed
        reason = "its loss or gradient is not finite on random data"
        raise UnsupportedModelError(reason, "check its initial values")
    reason = f"its training graph does not run: {problem}"
    raise UnsupportedModelError(reason)


def _moved(first: F32, flat: FlatVector, rng: np.random.Generator) -> F32:
    """Leave points where a gradient is zero by symmetry, such as a last layer of zeros."""
    point: F32 = first.copy()
    for span in flat.slices().values():
        values = point[span]
        scale = max(float(np.sqrt(np.mean(values**2))), 1.0 if not values.any() else 0.0)
        point[span] += (_NOISE * scale * rng.standard_normal(values.size)).astype(np.float32)
    return point


def _wrong(name: str, error: float) -> UnsupportedModelError:
    reason = (
        f"the gradient of {name!r} disagrees with finite differences of the loss by {error:.2g} "
        "of its norm"
    )
    return UnsupportedModelError(reason)
