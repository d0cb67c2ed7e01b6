"""What the lazy rule is measured on: losses of M workers, and their gradients.

``f(theta) = sum of f_m(theta)``, ``f_m`` the mean cross-entropy of worker m's examples plus
``l2 / 2 * ||theta||**2``, as in the code of Sun, Chen, Giannakis, Yang, NeurIPS 2019,
https://github.com/sunjunaimer/LAQ. Several methods' parameters are evaluated at once, so that the
examples are read once for all of them.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from learning.data.dataset import Dataset
from learning.data.sources import load
from updates.arrays import F32, F64
from updates.layout import Layout

WORKERS, L2, CLASSES = 10, 0.01, 10
#: Examples handled at once; they fit the cache.
_BLOCK = 1000
_HIDDEN = 200
I64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Part:
    """One worker's examples: ``x`` ``(n, features + 1)``, the last column 1, and labels."""

    x: F32
    y: I64

    @classmethod
    def of(cls, dataset: Dataset) -> "Part":
        """Return the examples as rows with a 1 at their end, for the bias."""
        rows = dataset.x.reshape(len(dataset), -1)
        ones = np.ones((len(rows), 1), dtype=np.float32)
        return cls(np.ascontiguousarray(np.hstack([rows, ones])), dataset.y)

    def blocks(self) -> "list[Part]":
        """Return the examples in blocks that fit the cache."""
        starts = range(0, len(self.y), _BLOCK)
        return [Part(self.x[at : at + _BLOCK], self.y[at : at + _BLOCK]) for at in starts]


class Problem(ABC):
    """Losses and gradients.

    Attributes:
        parts: One a worker.
        held_out: For the accuracy.
    """

    def __init__(self, parts: Sequence[Part], held_out: Part) -> None:
        self.parts, self.held_out = parts, held_out
        self._blocks = [part.blocks() for part in parts]

    @property
    @abstractmethod
    def layout(self) -> Layout:
        """Of the parameters."""

    @property
    def features(self) -> int:
        """Columns of the examples, the 1 among them."""
        return self.parts[0].x.shape[1]

    @abstractmethod
    def start(self, seed: int) -> F32:
        """Return the first parameters, as Glorot and Bengio (AISTATS 2010) draw them."""

    @abstractmethod
    def _block(self, thetas: F32, block: Part) -> tuple[F64, F32]:
        """Return sums over one block: losses ``(A,)`` and gradients ``(A, p)``, without l2."""

    @abstractmethod
    def logits(self, theta: F32, x: F32) -> F32:
        """Return ``(n, classes)``."""

    def evaluate(self, thetas: F32) -> tuple[F64, F32]:
        """Return the mean loss ``(A,)`` and the workers' gradients ``(A, M, p)``.

        Args:
            thetas: Parameters of A methods, shape ``(A, p)``.
        """
        methods, size = thetas.shape
        losses = np.zeros(methods)
        gradients = np.empty((methods, len(self.parts), size), dtype=np.float32)
        for worker, blocks in enumerate(self._blocks):
            loss, gradient = np.zeros(methods), np.zeros((methods, size), dtype=np.float32)
            for block in blocks:
                more_loss, more_gradient = self._block(thetas, block)
                loss += more_loss
                gradient += more_gradient
            examples = len(self.parts[worker].y)
            losses += loss / examples
            gradients[:, worker] = gradient / np.float32(examples) + np.float32(L2) * thetas
        squares = np.square(thetas, dtype=np.float64).sum(1)
        return losses / len(self.parts) + L2 / 2 * squares, gradients

    def accuracy(self, theta: F32) -> float:
        """Return the share of the held-out examples that ``theta`` gets right."""
        found = self.logits(theta, self.held_out.x).argmax(1)
        return float((found == self.held_out.y).mean())


class SoftmaxRegression(Problem):
    """``CLASSES`` rows of weights, the bias last in each; convex."""

    @cached_property
    def layout(self) -> Layout:
        """One tensor."""
        return Layout.of({"weight": (CLASSES, self.features)})

    def start(self, seed: int) -> F32:
        """Return Glorot's uniform weights and zero biases."""
        weight = _glorot(np.random.default_rng(seed), CLASSES, self.features)
        return weight.ravel()

    def logits(self, theta: F32, x: F32) -> F32:
        """Return ``(n, classes)``."""
        product: F32 = x @ theta.reshape(CLASSES, -1).T
        return product

    def _block(self, thetas: F32, block: Part) -> tuple[F64, F32]:
        methods = len(thetas)
        stacked = thetas.reshape(methods * CLASSES, self.features)
        logits = (stacked @ block.x.T).reshape(methods, CLASSES, -1)
        losses, error = _cross_entropy(logits, block.y)
        gradients = error.reshape(methods * CLASSES, -1) @ block.x
        return losses, gradients.reshape(methods, -1)


class Network(Problem):
    """One hidden layer of 200 rectified units, as in the paper's 784-200-10."""

    @cached_property
    def layout(self) -> Layout:
        """Two tensors, the biases in them."""
        return Layout.of({"hidden": (_HIDDEN, self.features), "output": (CLASSES, _HIDDEN + 1)})

    def start(self, seed: int) -> F32:
        """Return Glorot's uniform weights and zero biases."""
        rng = np.random.default_rng(seed)
        hidden = _glorot(rng, _HIDDEN, self.features)
        output = _glorot(rng, CLASSES, _HIDDEN + 1)
        return self.layout.flatten({"hidden": hidden, "output": output})

    def logits(self, theta: F32, x: F32) -> F32:
        """Return ``(n, classes)``."""
        tensors = self.layout.unflatten(theta)
        return (tensors["output"] @ _with_ones(tensors["hidden"] @ x.T)).T

    def _block(self, thetas: F32, block: Part) -> tuple[F64, F32]:
        losses, gradients = np.empty(len(thetas)), np.empty_like(thetas)
        for at, theta in enumerate(thetas):
            tensors = self.layout.unflatten(theta)
            made = self.layout.unflatten(gradients[at])
            active = _with_ones(tensors["hidden"] @ block.x.T)
            logits = (tensors["output"] @ active)[np.newaxis]
            loss, error = _cross_entropy(logits, block.y)
            losses[at] = loss[0]
            np.matmul(error[0], active.T, out=made["output"])
            back = (tensors["output"][:, :-1].T @ error[0]) * (active[:-1] > 0)
            np.matmul(back, block.x, out=made["hidden"])
        return losses, gradients


def _with_ones(before: F32) -> F32:
    ones = np.ones((1, before.shape[1]), dtype=np.float32)
    return np.vstack([np.maximum(before, 0), ones])


def _cross_entropy(logits: F32, labels: I64) -> tuple[F64, F32]:
    """Return the summed losses ``(A,)`` and their derivative, in the memory of ``logits``.

    Args:
        logits: ``(A, classes, n)``.
        labels: ``(n,)``.
    """
    at = np.arange(len(labels))
    logits -= logits.max(1, keepdims=True)
    right = logits[:, labels, at]
    np.exp(logits, out=logits)
    total = logits.sum(1, keepdims=True)
    losses = (np.log(total[:, 0]) - right).sum(1, dtype=np.float64)
    logits /= total
    logits[:, labels, at] -= 1
    return losses, logits


def _glorot(rng: np.random.Generator, rows: int, columns: int) -> F32:
    limit = (6 / (rows + columns - 1)) ** 0.5
    weight = rng.uniform(-limit, limit, (rows, columns)).astype(np.float32)
    weight[:, -1] = 0
    return weight


def digits(*, by_label: bool = False) -> SoftmaxRegression:
    """Return softmax regression on the digits of scikit-learn, ten workers: p = 650.

    Args:
        by_label: Each worker has its own part of the sorted labels, else all are alike.
    """
    whole = load("digits")
    order = np.random.default_rng(0).permutation(len(whole))
    if by_label:
        order = order[np.argsort(whole.y[order], kind="stable")]
    parts = [Part.of(whole.subset(part)) for part in np.array_split(order, WORKERS)]
    return SoftmaxRegression(parts, Part.of(load("digits", train=False)))


def mnist(folder: Path, kind: type[Problem], examples: int | None = None) -> Problem:
    """Return a problem on MNIST, in the files' order as in the paper's code.

    Args:
        folder: Of the IDX files.
        kind: ``SoftmaxRegression`` (p = 7850) or ``Network`` (p = 159010).
        examples: As many of the training part, or all.
    """
    whole = load(f"mnist={folder}")
    count = len(whole) if examples is None else examples
    parts = [Part.of(whole.subset(part)) for part in np.array_split(np.arange(count), WORKERS)]
    return kind(parts, Part.of(load(f"mnist={folder}", train=False)))
