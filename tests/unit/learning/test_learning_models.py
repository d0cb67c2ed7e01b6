import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from learning.models import parameters
from learning.models.registry import ModelError, build, check_params, names

CASES = [
    ("softmax", {}, (1, 8, 8), 10, 650),
    ("mlp", {}, (1, 8, 8), 10, 15_010),
    ("mlp", {"hidden": (32, 16)}, (20,), 3, 1_251),
    ("mlp", {"hidden": ()}, (20,), 3, 63),
    ("lenet5", {}, (1, 28, 28), 10, 61_706),
    ("lenet5", {}, (1, 8, 9), 10, 61_706),
    ("cnn1d", {}, (6, 100), 5, 32_485),
    ("cnn1d", {"width": 3}, (1, 4), 2, 344),
    ("resnet8", {}, (3, 32, 32), 10, 78_042),
    ("resnet8", {"width": 2}, (1, 4, 5), 3, 1_321),
]


@pytest.mark.parametrize(("name", "params", "shape", "classes", "size"), CASES)
def test_a_built_in_model_has_its_size_and_gives_logits(name, params, shape, classes, size):
    module = build(name, params, shape, classes, seed=0)
    assert sum(array.size for array in parameters.read(module).values()) == size
    logits = module(torch.zeros(3, *shape))
    assert logits.shape == (3, classes)
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("name", names())
def test_the_same_seed_gives_the_same_bits_and_leaves_torchs_generator_alone(name):
    shape = (6, 100) if name == "cnn1d" else (1, 28, 28)
    before = torch.random.get_rng_state()
    first, again, other = (
        {
            key: value.tobytes()
            for key, value in parameters.read(build(name, {}, shape, 5, s)).items()
        }
        for s in (3, 3, 4)
    )
    assert first == again
    assert first != other
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_small_image_lies_in_the_middle_of_lenets_field():
    field = build("lenet5", {}, (1, 8, 8), 10).field(torch.ones(1, 1, 8, 8))
    assert field.shape == (1, 1, 32, 32)
    assert field[0, 0, 12:20, 12:20].sum() == field.sum() == 64


@pytest.mark.parametrize(("name", "params", "shape", "classes", "size"), CASES)
def test_initial_signals_neither_vanish_nor_explode(name, params, shape, classes, size):
    batch = torch.randn(64, *shape, generator=torch.Generator().manual_seed(0))
    deviation = build(name, params, shape, classes, seed=2)(batch).std()
    assert 0.05 < deviation < 5


def test_no_model_normalizes_with_the_statistics_of_a_batch():
    for name, params, shape, classes, _ in CASES:
        module = build(name, params, shape, classes, seed=1).train()
        batch = torch.randn(4, *shape, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(module(batch)[:1], module(batch[:1]))


@pytest.mark.parametrize(
    ("name", "params", "shape", "cause"),
    [
        (
            "lenet6",
            {},
            (1, 28, 28),
            "'lenet6' is not known; known are cnn1d, lenet5, mlp, resnet8, soft",
        ),
        ("lenet5", {}, (1, 29, 28), r"lenet5 cannot take .*\(1, 29, 28\): it takes \(1, h, w\)"),
        ("lenet5", {}, (3, 28, 28), "cannot take"),
        ("lenet5", {}, (784,), "cannot take"),
        ("cnn1d", {}, (6, 3), "at least 4 samples"),
        ("cnn1d", {}, (1, 28, 28), "cannot take"),
        ("softmax", {"hidden": (3,)}, (4,), "model_params.hidden: softmax has no such setting"),
        ("mlp", {"hidden": 200}, (4,), "model_params.hidden: 200, it must be a list"),
        ("mlp", {"hidden": (0,)}, (4,), "whole number from 1 to 65536"),
        ("mlp", {"hidden": (8,) * 17}, (4,), "at most 16"),
        ("cnn1d", {"width": True}, (6, 100), "model_params.width: True"),
        ("cnn1d", {"width": 0.5}, (6, 100), "model_params.width: 0.5"),
        ("resnet8", {}, (3, 3, 32), r"it takes \(c, h, w\) from 4 pixels a side"),
        ("resnet8", {"depth": 3}, (3, 32, 32), "resnet8 has no such setting; it has: width"),
    ],
)
def test_what_cannot_be_built_is_refused_with_the_reason(name, params, shape, cause):
    with pytest.raises(ModelError, match=cause):
        build(name, params, shape, 10)


def test_a_model_too_large_is_refused_before_it_is_allocated():
    with pytest.raises(ModelError, match=r"would have .* parameters, at most 100000000"):
        build("mlp", {"hidden": (65_536, 65_536, 65_536)}, (1 << 20,), 1 << 20)
    with pytest.raises(ModelError, match="would have 650 parameters, at most 649"):
        build("softmax", {}, (64,), 10, max_parameters=649)


def own_model(input_shape, classes, *, width=2):
    return nn.Sequential(
        nn.Linear(input_shape[0], width), nn.BatchNorm1d(width), nn.Linear(width, classes)
    )


def no_model(input_shape, classes):
    return "model"


OWN = {"own": f"{__name__}:own_model", "none": f"{__name__}:no_model", "gone": "absent_package:x"}


def test_a_model_of_the_allow_list_is_built_with_its_settings():
    module = build("own", {"width": 7}, (4,), 3, allow_list=OWN)
    assert parameters.shapes_of(module)["0.weight"] == (7, 4)
    assert "own" in names(OWN)


def test_integer_buffers_are_no_parameters():
    shapes = parameters.shapes_of(build("own", {}, (4,), 3, allow_list=OWN))
    assert "1.running_mean" in shapes
    assert "1.num_batches_tracked" not in shapes


@pytest.mark.parametrize(
    ("name", "params", "allowed", "cause"),
    [
        ("own", {"depth": 3}, OWN, "own cannot be built: .*depth"),
        ("none", {}, OWN, "none is str, its factory must return a Module"),
        ("gone", {}, OWN, "cannot be imported"),
        ("mlp", {}, {"mlp": f"{__name__}:own_model"}, "'mlp' is built in"),
        ("own", {}, {}, "'own' is not known"),
    ],
)
def test_a_broken_entry_of_the_allow_list_is_told(name, params, allowed, cause):
    with pytest.raises(ModelError, match=cause):
        build(name, params, (4,), 3, allow_list=allowed)


def test_a_name_from_the_network_is_never_imported():
    for name in ("os:system", "learning.models.mlp:mlp", "../x", ""):
        with pytest.raises(ModelError, match="is not known"):
            build(name, {}, (4,), 3, allow_list=OWN)


def test_written_parameters_are_read_back_bit_for_bit():
    source, target = (build("cnn1d", {}, (6, 100), 5, seed) for seed in (1, 2))
    parameters.write(target, parameters.read(source))
    for name, array in parameters.read(target).items():
        np.testing.assert_array_equal(array, parameters.read(source)[name])


@pytest.mark.parametrize(
    "change", [{"1.bias": np.zeros(4, np.float32)}, {"2.bias": np.zeros(3, np.float32)}]
)
def test_parameters_of_another_model_are_refused_and_nothing_is_written(change):
    module = build("softmax", {}, (2,), 3, seed=0)
    before = {name: array.copy() for name, array in parameters.read(module).items()}
    given = {name: array + 1 for name, array in before.items()}
    with pytest.raises(ModelError, match=f"parameters: {next(iter(change))} has shape"):
        parameters.write(module, {**given, **change})
    np.testing.assert_equal(parameters.read(module), before)


def test_parameters_of_another_type_are_refused():
    with pytest.raises(ModelError, match=r"weight is torch\.float64"):
        parameters.read(nn.Linear(2, 2).double())


def test_settings_are_checked_without_importing_torch():
    check_params("mlp", {"hidden": (10,)})
    code = (
        "import sys; from learning.models.registry import check_params, names; names();"
        "check_params('mlp', {'hidden': (10,)}); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
