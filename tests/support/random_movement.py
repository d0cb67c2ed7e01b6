"""How a random graph gets one node that moves, picks or repeats values."""

import numpy as np

from tests.support.random_operators import operator


@operator("CumSum")
def cumulative_sum(sketch, operator):
    if name := sketch.pick():
        axis = sketch.constant(int(sketch.rng.integers(1, sketch.values[name].ndim)))
        flags = {"exclusive": int(sketch.rng.integers(2)), "reverse": int(sketch.rng.integers(2))}
        sketch.add("CumSum", name, axis, **flags)


@operator("Reshape")
def reshape(sketch, operator):
    if name := sketch.pick(2, 3, 4):
        shape = sketch.values[name].shape[1:]
        half = [2, -1] if np.prod(shape) % 2 == 0 else [-1]
        sketch.add("Reshape", name, sketch.constant([0, *half]))


@operator("Flatten")
def flatten(sketch, operator):
    if name := sketch.pick(3, 4):
        sketch.add("Flatten", name, axis=1)


@operator("Squeeze", "Unsqueeze")
def squeeze(sketch, operator):
    if not (name := sketch.pick(2, 3)):
        return
    wide = sketch.add("Unsqueeze", name, sketch.constant([1]))
    if wide and operator == "Squeeze":
        sketch.add("Squeeze", wide, sketch.constant([1]))


@operator("Transpose")
def transpose(sketch, operator):
    if name := sketch.pick(3, 4):
        rest = sketch.rng.permutation(np.arange(1, sketch.values[name].ndim))
        sketch.add("Transpose", name, perm=[0, *rest.tolist()])


@operator("Concat")
def concat(sketch, operator):
    if name := sketch.pick():
        axis = sketch.values[name].ndim - 1
        sketch.add("Concat", name, sketch.add("Tanh", name), axis=axis)


@operator("Split")
def split(sketch, operator):
    if name := sketch.pick(2, 3, 4, where=lambda v: v.shape[1] >= 2):
        size = sketch.values[name].shape[1]
        sketch.add("Split", name, sketch.constant([1, size - 1]), outputs=2, axis=1)
        if sketch.rng.random() < 0.5 and len(sketch.unused) > 1:
            sketch.unused.pop()


@operator("Slice")
def slices(sketch, operator):
    if name := sketch.pick(where=lambda v: v.shape[-1] >= 3):
        bounds = [[1], [2**31], [-1], [int(sketch.rng.integers(1, 3))]]
        if sketch.rng.random() < 0.3:
            bounds = [[-1], [-(2**31)], [-1], [-1]]
        sketch.add("Slice", name, *(sketch.constant(bound) for bound in bounds))


@operator("Gather")
def gather(sketch, operator):
    if name := sketch.pick():
        axis = sketch.values[name].ndim - 1
        chosen = sketch.rng.integers(0, sketch.values[name].shape[axis], (2,))
        sketch.add("Gather", name, sketch.constant(chosen), axis=axis)


@operator("Pad")
def pad(sketch, operator):
    if name := sketch.pick():
        rank = sketch.values[name].ndim
        amounts = [0] * rank + [0] * rank
        amounts[rank - 1], amounts[-1] = 1, int(sketch.rng.integers(3))
        sketch.add("Pad", name, sketch.constant(amounts), sketch.constant(0.3, np.float32))


@operator("Expand")
def expand(sketch, operator):
    if (name := sketch.pick(2, 3)) and (
        wide := sketch.add("Unsqueeze", name, sketch.constant([1]))
    ):
        shape = sketch.values[wide].shape
        sketch.add("Expand", wide, sketch.constant([1, 2, *shape[2:]]))


@operator("Tile")
def tile(sketch, operator):
    if name := sketch.pick():
        repeats = [1, *sketch.rng.integers(1, 3, sketch.values[name].ndim - 1)]
        sketch.add("Tile", name, sketch.constant(repeats))


@operator("Resize")
def resize(sketch, operator):
    if name := sketch.pick(4, where=lambda v: max(v.shape[2:]) <= 8):
        scales = sketch.constant([1, 1, 2, 2], np.float32)
        settings = {"mode": "nearest", "nearest_mode": "floor"}
        sketch.add(
            "Resize", name, "", scales, coordinate_transformation_mode="asymmetric", **settings
        )


@operator("DepthToSpace", "SpaceToDepth")
def depth(sketch, operator):
    def fits(value):
        return (
            value.shape[1] % 4 == 0
            if operator == "DepthToSpace"
            else value.shape[2] % 2 == value.shape[3] % 2 == 0
        )

    if name := sketch.pick(4, where=fits):
        sketch.add(operator, name, blocksize=2)


@operator("Trilu")
def trilu(sketch, operator):
    if name := sketch.pick(3, 4):
        shift = sketch.constant(int(sketch.rng.integers(-1, 2)))
        sketch.add(operator, name, shift, upper=int(sketch.rng.integers(2)))


@operator("TopK")
def top_k(sketch, operator):
    def fits(value):
        return value.shape[-1] >= 3 and np.diff(np.sort(value), axis=-1).min() > 1e-3

    name = sketch.pick(where=fits)
    if name and sketch.add(operator, name, sketch.constant([2]), outputs=2, axis=-1):
        sketch.unused.pop()  # the positions
