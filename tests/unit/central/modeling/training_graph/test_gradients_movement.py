"""Each rule of an operator that moves, takes, puts or reduces values."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from tests.support.gradient_check import Case, check, gradients_in_float32, values

INT = np.int64
END = np.iinfo(INT).max


def move(name, text, function, shape=(2, 3), **constants):
    """Weigh every value, so that one in the wrong place is seen."""
    return Case(
        name,
        f"t = Mul(input, w) {text}",
        shape=shape,
        parameters={"w": values(*shape)},
        constants={key: np.asarray(value) for key, value in constants.items()},
        torch=function and (lambda x, w: function(x * w)),
    )


def ints(*numbers):
    return np.array(numbers, INT)


SHAPES = [
    move("Reshape", "y = Reshape(t, to)", lambda t: t.reshape(-1, 3, 2), to=ints(-1, 3, 2)),
    move("Reshape across the batch", "y = Reshape(t, to)", lambda t: t.reshape(-1), to=ints(-1)),
    move("Reshape with a zero", "y = Reshape(t, to)", lambda t: t.flatten(1), to=ints(0, 6)),
    move("Flatten", "y = Flatten <axis = 2> (t)", lambda t: t.reshape(-1, 3)),
    move("Squeeze", "y = Squeeze(t, a)", lambda t: t.squeeze(1), (1, 3), a=ints(1)),
    move("Unsqueeze", "y = Unsqueeze(t, a)", lambda t: t[:, None, :, None], (3,), a=ints(1, -1)),
    move("Transpose", "y = Transpose <perm = [2, 0, 1]> (t)", lambda t: t.permute(2, 0, 1)),
    move("Transpose of all", "y = Transpose(t)", lambda t: t.permute(2, 1, 0)),
    move("Trilu", "y = Trilu(t)", torch.triu, (3, 3)),
    move("Trilu lower", "y = Trilu <upper = 0> (t, k)", lambda t: t.tril(1), (3, 3), k=INT(1)),
    move(
        "ReverseSequence",
        "n = Shape <end = 1> (t) l = Expand(two, n) y = ReverseSequence <batch_axis = 0, time_axis = 1> (t, l)",
        lambda t: torch.cat([t[:, :2].flip(1), t[:, 2:]], 1),
        (3, 2),
        two=ints(2),
    ),
    move("Tile", "y = Tile(t, r)", lambda t: t.repeat(1, 3, 2), r=ints(1, 3, 2)),
    move("Tile the batch", "y = Tile(t, r)", lambda t: t.repeat(2, 1, 1), r=ints(2, 1, 1)),
    move("Tile once", "y = Tile(t, r)", lambda t: t * 1, r=ints(1, 1, 1)),
    move(
        "SpaceToDepth",
        "y = SpaceToDepth <blocksize = 2> (t)",
        None,
        (2, 4, 2),
    ),
    move(
        "DepthToSpace",
        "y = DepthToSpace <blocksize = 2> (t)",
        None,
        (8, 2, 1),
    ),
    move(
        "DepthToSpace CRD",
        'y = DepthToSpace <blocksize = 2, mode = "CRD"> (t)',
        lambda t: functional.pixel_shuffle(t, 2),
        (8, 2, 1),
    ),
    move(
        "Concat",
        "u = Tanh(t) y = Concat <axis = -1> (t, u, t)",
        lambda t: torch.cat([t, t.tanh(), t], -1),
    ),
    Case(
        "Concat with a constant",
        "r = Mul(w, s) c = Concat <axis = 1> (r, one) y = Mul(input, c)",
        shape=(3,),
        parameters={"w": values(1, 2), "s": values(1)},
        constants={"one": np.ones((1, 1), np.float32)},
        torch=lambda x, w, s: x * torch.cat([w * s, torch.ones(1, 1)], 1),
    ),
    move(
        "Concat along the batch",
        "u = Tanh(t) y = Concat <axis = 0> (t, u, t)",
        lambda t: torch.cat([t, t.tanh(), t]),
    ),
    move(
        "Split",
        "a, b = Split <axis = 2> (t, sizes) y = Concat <axis = 2> (b, a)",
        lambda t: torch.cat([t[:, :, 1:], t[:, :, :1]], 2),
        sizes=ints(1, 2),
    ),
    move(
        "Split of which a part is unused",
        "a, b, c = Split <axis = 2, num_outputs = 3> (t) y = Mul(b, c)",
        lambda t: t[:, :, 1:2] * t[:, :, 2:],
    ),
    move(
        "a list that is split",
        "l = SplitToSequence <axis = 2> (t, size) a = SequenceAt(l, i) b = SequenceAt(l, j)"
        " y = Mul(a, b)",
        lambda t: t[:, :, :2] * t[:, :, 2:],
        shape=(2, 4),
        size=INT(2),
        i=INT(0),
        j=INT(-1),
    ),
    move(
        "a list of single rows",
        "l = SplitToSequence <axis = 1, keepdims = 0> (t) a = SequenceAt(l, i) y = Mul(a, a)",
        lambda t: t[:, 1] * t[:, 1],
        i=INT(1),
    ),
    move(
        "a list of uneven parts",
        "l = SplitToSequence <axis = 2> (t, sizes) y = SequenceAt(l, i)",
        lambda t: t[:, :, 1:],
        i=INT(1),
        sizes=ints(1, 2),
    ),
]


def cut(name, function, starts, ends, axes, steps=None, shape=(2, 4)):  # noqa: PLR0913, PLR0917
    constants = {"s": ints(*starts), "e": ints(*ends), "a": ints(*axes)}
    text = "y = Slice(t, s, e, a)"
    if steps:
        constants["p"] = ints(*steps)
        text = "y = Slice(t, s, e, a, p)"
    return move(f"Slice {name}", text, function, shape, **constants)


def pad(mode, pads, function, shape=(3, 4), **more):
    text = f'y = Pad <mode = "{mode}"> (t, pads{", , axes" if more else ""})'
    return move(f"Pad {mode} {pads}", text, function, shape, pads=ints(*pads), **more)


def resize(name, attributes, function, *, scales=None, sizes=None, shape=(1, 3, 2)):  # noqa: PLR0913
    source = "scales" if scales is not None else ", sizes"
    constant = (
        {"scales": np.array(scales, np.float32)} if scales is not None else {"sizes": ints(*sizes)}
    )
    return move(
        f"Resize {name}", f"y = Resize <{attributes}> (t, , {source})", function, shape, **constant
    )


WINDOWS = [
    cut("inside", lambda t: t[:, :, 1:3], [1], [3], [2]),
    cut("from the end", lambda t: t[:, :, -3:-1], [-3], [-1], [-1]),
    cut("two axes", lambda t: t[:, 1:, 1:], [1, 1], [END, END], [1, 2]),
    cut("of the whole batch", lambda t: t[:, :, 1:], [0, 1], [END, END], [0, 2]),
    cut("beyond the end", lambda t: t[:, :, 2:99], [2], [99], [2]),
    cut("of steps", lambda t: t[:, :, ::2], [0], [END], [2], [2]),
    cut("of steps in the middle", lambda t: t[:, 1::3], [1], [END], [1], [3], (6, 2)),
    cut("backwards", lambda t: t.flip(2), [-1], [-END], [2], [-1]),
    cut("backwards by two", lambda t: t.flip(1)[:, ::2], [END], [-END], [1], [-2], (5, 2)),
    cut(
        "backwards on four axes",
        lambda t: t.flip(1),
        [-1],
        [-END],
        [1],
        [-1],
        (3, 2, 2),
    ),
    pad("constant", [0, 1, 2, 0, 0, 1], lambda t: functional.pad(t, (2, 1, 1, 0))),
    pad("constant", [1, 2], lambda t: functional.pad(t, (1, 2)), axes=ints(-1)),
    pad("constant", [0, 0, 0, 0, 0, 0], lambda t: t * 1),
    pad("reflect", [0, 0, 2, 0, 0, 3], lambda t: functional.pad(t, (2, 3), mode="reflect")),
    pad(
        "reflect",
        [0, 0, 1, 2, 0, 0, 1, 1],
        lambda t: functional.pad(t, (2, 1, 1, 1), mode="reflect"),
        (1, 3, 3),
    ),
    pad("edge", [0, 0, 2, 0, 0, 1], lambda t: functional.pad(t, (2, 1), mode="replicate")),
    resize(
        "nearest by two",
        'mode = "nearest", coordinate_transformation_mode = "asymmetric", nearest_mode = "floor"',
        lambda t: functional.interpolate(t, scale_factor=2),
        scales=[1, 1, 2, 2],
    ),
    resize(
        "nearest to sizes",
        'axes = [2, 3], mode = "nearest", coordinate_transformation_mode = "asymmetric",'
        ' nearest_mode = "floor"',
        lambda t: functional.interpolate(t, size=(4, 3)),
        sizes=[4, 3],
    ),
    resize(
        "linear",
        'mode = "linear", coordinate_transformation_mode = "pytorch_half_pixel"',
        lambda t: functional.interpolate(t, scale_factor=2, mode="bilinear"),
        scales=[1, 1, 2, 2],
    ),
    resize(
        "linear with corners aligned",
        'mode = "linear", coordinate_transformation_mode = "align_corners"',
        lambda t: functional.interpolate(t, scale_factor=2, mode="bilinear", align_corners=True),
        scales=[1, 1, 2, 2],
    ),
    resize(
        "linear, smaller",
        'mode = "linear", coordinate_transformation_mode = "half_pixel"',
        lambda t: functional.interpolate(t, scale_factor=0.5, mode="bilinear"),
        scales=[1, 1, 0.5, 0.5],
        shape=(1, 4, 4),
    ),
]

GATHERS = [
    move("Gather one", "y = Gather <axis = 1> (t, i)", lambda t: t[:, 1], i=INT(1)),
    move("Gather the last", "y = Gather <axis = 2> (t, i)", lambda t: t[:, :, -1], i=INT(-1)),
    move(
        "Gather several, some twice",
        "y = Gather <axis = 2> (t, i)",
        lambda t: t[:, :, torch.tensor([0, 2, 2, -1])],
        i=ints(0, 2, 2, -1),
    ),
    move(
        "Gather a matrix of positions",
        "y = Gather <axis = 1> (t, i)",
        lambda t: t[:, torch.tensor([[0, 1], [1, 1]])],
        i=np.array([[0, 1], [1, 1]], np.int32),
    ),
    Case(
        "an embedding of computed positions",
        "k = ArgMax <axis = 2, keepdims = 0> (input) e = Gather(w, k)"
        " s = Gather <axis = 1> (v, k) m = ReduceMean <keepdims = 0> (input)"
        " z = Mul(e, m) u = ReduceSum <keepdims = 0> (s) y = Mul(z, u)",
        shape=(2, 4),
        parameters={"w": values(4, 3), "v": values(2, 4)},
        torch=lambda x, w, v: w[x.argmax(2)] * x.mean() * v[:, x.argmax(2)].sum(),
    ),
    Case(
        "an embedding of positions counted from the end",
        "k = ArgMax <axis = 2, keepdims = 0> (input) n = Sub(k, four) e = Gather(w, n)"
        " m = ReduceMean <keepdims = 0> (input) y = Mul(e, m)",
        shape=(2, 4),
        parameters={"w": values(4, 3)},
        constants={"four": INT(4)},
        torch=lambda x, w: w[x.argmax(2)] * x.mean(),
    ),
    Case(
        "GatherElements",
        "k = ArgMax <axis = 1, keepdims = 1> (input) y = GatherElements <axis = 1> (input, k)",
        shape=(4,),
        torch=lambda x: x.gather(1, x.argmax(1, keepdim=True)),
    ),
    Case(
        "GatherElements of the same place twice",
        "a = GatherElements <axis = 0> (w, i) y = Mul(a, input)",
        shape=(3,),
        parameters={"w": values(4, 3)},
        constants={"i": np.array([[0, 0, 3]])},
        torch=lambda x, w: w.gather(0, torch.tensor([[0, 0, 3]])) * x,
    ),
    Case(
        "GatherND",
        "a = GatherND(w, i) y = Mul(a, input)",
        shape=(3,),
        parameters={"w": values(4, 2)},
        constants={"i": np.array([[0, 1], [3, 0], [0, 1]])},
        torch=lambda x, w: w[torch.tensor([0, 3, 0]), torch.tensor([1, 0, 1])] * x,
    ),
    Case(
        "TopK",
        "v, i = TopK <axis = 1> (input, k) y = Mul(v, w)",
        shape=(5,),
        parameters={"w": values(2)},
        constants={"k": ints(2)},
        torch=lambda x, w: x.topk(2, 1).values * w,
    ),
    *(
        Case(
            f"ScatterElements {reduction}",
            f'a = ScatterElements <axis = 1, reduction = "{reduction}"> (w, i, u)'
            " y = Mul(a, input)",
            shape=(4,),
            parameters={"w": values(1, 4), "u": values(1, 2)},
            constants={"i": np.array([[2, 0]])},
        )
        for reduction in ("none", "add")
    ),
    *(
        Case(
            f"ScatterND {reduction}",
            f'a = ScatterND <reduction = "{reduction}"> (w, i, u) y = Mul(a, input)',
            shape=(4, 2),
            parameters={"w": values(4, 2), "u": values(2, 2)},
            constants={"i": np.array([[2], [0]])},
        )
        for reduction in ("none", "add")
    ),
]


def reduce(operator, function, axes, keep=1, *, shape=(2, 3), low=-2.0):  # noqa: PLR0913
    given = "" if axes is None else ", axes"
    return Case(
        f"{operator} over {axes} keepdims {keep}",
        f"t = Mul(input, w) r = {operator} <keepdims = {keep}> (t{given}) y = Mul(r, c)",
        shape=shape,
        parameters={"w": values(*shape, low=0.5)},
        constants={"c": np.float32(2)} | ({} if axes is None else {"axes": ints(*axes)}),
        torch=function and (lambda x, w: function(x * w) * 2),
        low=low,
    )


REDUCTIONS = [
    reduce("ReduceSum", lambda t: t.sum(2, keepdim=True), [2]),
    reduce("ReduceSum", lambda t: t.sum((1, 2)), [-1, 1], 0),
    reduce("ReduceSum", lambda t: t.sum(0), [0], 0),
    reduce("ReduceSum", lambda t: t.sum(), None, 0),
    reduce("ReduceMean", lambda t: t.mean((1, 2), keepdim=True), [1, 2]),
    reduce("ReduceMean", lambda t: t.mean(1), [1], 0),
    reduce("ReduceMean", lambda t: t.mean((0, 2)), [0, 2], 0),
    reduce("ReduceMean", lambda t: t.mean(), None, 0),
    reduce("ReduceMax", lambda t: t.amax((1, 2)), [1, 2], 0),
    reduce("ReduceMax", lambda t: t.amax(2, keepdim=True), [2]),
    reduce("ReduceMin", lambda t: t.amin(1), [1], 0),
    reduce("ReduceL1", lambda t: t.abs().sum(2), [2], 0),
    reduce("ReduceL2", lambda t: t.norm(dim=1), [1], 0),
    reduce("ReduceSumSquare", lambda t: (t * t).sum((1, 2)), [1, 2], 0),
    reduce("ReduceLogSum", lambda t: t.sum(2).log(), [2], 0, low=0.5),
    reduce("ReduceLogSumExp", lambda t: t.logsumexp((1, 2)), [1, 2], 0),
    reduce("ReduceProd", lambda t: t.prod(2), [2], 0),
    reduce("ReduceProd", lambda t: t.prod(1, keepdim=True), [1], shape=(3, 2)),
    move("CumSum", "y = CumSum(t, a)", lambda t: t.cumsum(2), a=np.int32(2)),
    move("CumSum from the end", "y = CumSum <reverse = 1, exclusive = 1> (t, a)", None, a=INT(1)),
]


@pytest.mark.parametrize("case", SHAPES, ids=lambda case: case.name)
def test_a_change_of_shape_has_the_gradient_of_differences_and_of_torch(case):
    check(case)


@pytest.mark.parametrize("case", WINDOWS, ids=lambda case: case.name)
def test_a_window_has_the_gradient_of_differences_and_of_torch(case):
    check(case)


@pytest.mark.parametrize("case", GATHERS, ids=lambda case: case.name)
def test_taking_and_putting_have_the_gradient_of_differences_and_of_torch(case):
    check(case)


@pytest.mark.parametrize("case", REDUCTIONS, ids=lambda case: case.name)
def test_a_reduction_has_the_gradient_of_differences_and_of_torch(case):
    check(case)


def test_equal_values_share_the_gradient_of_a_maximum_as_in_torch():
    case = Case("tie", "y = ReduceMax <keepdims = 0> (input, axes)", constants={"axes": ints(1)})
    batch = np.array([[1, 1, 0], [2, 2, 2]], np.float32)
    x = torch.from_numpy(batch.copy()).requires_grad_()
    x.amax(1).sum().backward()
    got = gradients_in_float32(case, batch)["input"]
    np.testing.assert_allclose(got, x.grad.numpy())


@pytest.mark.parametrize(
    ("operator", "function"),
    [
        ("ReduceProd", lambda x: x.prod(1)),
        ("ReduceL2", lambda x: x.norm(dim=1)),
    ],
)
def test_a_zero_among_the_values_has_the_gradient_of_torch(operator, function):
    case = Case(
        "zero", f"y = {operator} <keepdims = 0> (input, axes)", constants={"axes": ints(1)}
    )
    batch = np.array([[3, 0, 2], [0, 0, 0], [0, 4, 0]], np.float32)
    x = torch.from_numpy(batch.copy()).requires_grad_()
    function(x).sum().backward()
    got = gradients_in_float32(case, batch)["input"]
    np.testing.assert_allclose(got, x.grad.numpy(), atol=1e-6)


def test_pads_below_zero_cut_and_their_gradient_puts_zeros_there():
    pads = {"pads": ints(0, -1, 1, 0, 0, -2)}
    case = Case("cut", "t = Mul(input, w) y = Pad(t, pads)", (2, 4), {"w": values(2, 4)}, pads)
    batch = case.input(3)
    x = torch.from_numpy(batch).requires_grad_()
    functional.pad(x * torch.from_numpy(case.parameters["w"]), (1, -2, -1, 0)).sum().backward()
    got = gradients_in_float32(case, batch)["input"]
    np.testing.assert_allclose(got, x.grad.numpy(), rtol=1e-6)
