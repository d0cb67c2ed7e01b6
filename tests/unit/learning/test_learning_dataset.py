import numpy as np
import pytest

from learning.data.dataset import DataError, Dataset, concatenate


def make(n=6, shape=(2, 3), classes=3, name="toy"):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, *shape)).astype(np.float32)
    return Dataset(x, np.arange(n, dtype=np.int64) % classes, classes, name)


def test_a_description_tells_shape_classes_and_count_but_no_value():
    description = make().description()
    assert description.key == ("toy", (2, 3), "float32", 3)
    assert description.examples == len(make()) == 6


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"x": np.zeros((6, 2, 3))}, "x"),
        ({"x": np.zeros(6, np.float32)}, "x"),
        ({"x": np.full((6, 1), np.nan, np.float32)}, "x"),
        ({"x": np.full((6, 1), -np.inf, np.float32)}, "x"),
        ({"y": np.zeros(5, np.int64)}, "y"),
        ({"y": np.zeros(6, np.int32)}, "y"),
        ({"y": np.full(6, 3)}, "y"),
        ({"y": np.full(6, -1)}, "y"),
        ({"classes": 0}, "classes"),
        ({"name": "Toy"}, "name"),
        ({"name": "a/b"}, "name"),
    ],
)
def test_what_is_not_a_dataset_is_refused_by_the_name_of_the_field(change, field):
    good = make()
    values = {"x": good.x, "y": good.y, "classes": good.classes, "name": good.name}
    with pytest.raises(DataError, match=f"^{field}: "):
        Dataset(**{**values, **change})


def test_a_subset_keeps_the_order_of_its_indices():
    whole = make()
    part = whole.subset(np.array([4, 1]))
    np.testing.assert_array_equal(part.y, whole.y[[4, 1]])
    np.testing.assert_array_equal(part.x, whole.x[[4, 1]])


def test_standardized_channels_have_mean_zero_and_deviation_one():
    whole = make(n=50, shape=(3, 7))
    skewed = Dataset(whole.x * 40 + 1000, whole.y, whole.classes, whole.name)
    scaled = skewed.standardized()
    np.testing.assert_allclose(scaled.x.mean(axis=(0, 2)), 0, atol=1e-3)
    np.testing.assert_allclose(scaled.x.std(axis=(0, 2)), 1, atol=1e-3)


def test_a_channel_that_never_changes_becomes_zero():
    constant = Dataset(np.full((4, 2, 5), 9.81, np.float32), np.zeros(4, np.int64), 1, "toy")
    np.testing.assert_allclose(constant.standardized().x, 0, atol=1e-5)


def test_parts_of_one_problem_are_joined_and_unlike_parts_are_refused():
    assert len(concatenate([make(), make(n=2)])) == 8
    with pytest.raises(DataError, match="differ"):
        concatenate([make(), make(shape=(2, 4))])
    with pytest.raises(DataError, match="no dataset"):
        concatenate([])
