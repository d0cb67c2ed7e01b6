"""Layouts: one order, one digest, views both ways, and limits that name what broke them."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import PayloadError
from updates.layout import MAX_TENSORS, MAX_VALUES, Layout, TensorSpec

SHAPES = {"w": (2, 3), "b": (2,), "s": ()}
LAYOUT = Layout.of(SHAPES)

shapes = st.dictionaries(
    st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=8),
    st.lists(st.integers(1, 4), max_size=3).map(tuple),
    min_size=1,
    max_size=6,
)


def arrays_of(layout, seed=0):
    rng = np.random.default_rng(seed)
    return {
        tensor.name: rng.standard_normal(tensor.shape).astype(np.float32)
        for tensor in layout.tensors
    }


def test_tensors_are_sorted_by_name_with_offsets_and_slices():
    assert [tensor.name for tensor in LAYOUT.tensors] == ["b", "s", "w"]
    assert LAYOUT.offsets == (0, 2, 3)
    assert LAYOUT.size == 9
    assert LAYOUT.slices() == {"b": slice(0, 2), "s": slice(2, 3), "w": slice(3, 9)}


def test_digest_is_the_sha256_of_the_canonical_json():
    canonical = b'[["a",[1,3]],["b",[]]]'
    assert Layout.of({"b": (), "a": (1, 3)}).digest == hashlib.sha256(canonical).hexdigest()


@given(shapes)
@settings(max_examples=50)
def test_order_of_the_mapping_changes_nothing(shapes):
    forwards = Layout.of(shapes)
    backwards = Layout.of(dict(reversed(shapes.items())))
    assert forwards == backwards
    assert forwards.digest == backwards.digest


@given(shapes, shapes)
@settings(max_examples=50)
def test_layouts_have_equal_digests_only_if_they_are_equal(one, other):
    one, other = Layout.of(one), Layout.of(other)
    assert (one.digest == other.digest) == (one == other)


@given(shapes)
@settings(max_examples=50)
def test_unflatten_undoes_flatten(shapes):
    layout = Layout.of(shapes)
    arrays = arrays_of(layout)
    back = layout.unflatten(layout.flatten(arrays))
    assert back.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(back[name], array)


def test_unflatten_gives_views_of_the_vector():
    vector = np.zeros(LAYOUT.size, dtype=np.float32)
    LAYOUT.unflatten(vector)["w"][0, 1] = 5
    assert vector[4] == 5


def test_flatten_casts_other_floats_to_float32():
    arrays = {name: np.ones(shape, dtype=np.float64) for name, shape in SHAPES.items()}
    assert LAYOUT.flatten(arrays).dtype == np.float32


def test_flatten_names_a_missing_tensor():
    arrays = arrays_of(LAYOUT)
    del arrays["s"]
    with pytest.raises(PayloadError, match=r"1 missing: 's'"):
        LAYOUT.flatten(arrays)


def test_flatten_names_an_extra_tensor():
    with pytest.raises(PayloadError, match=r"1 extra: 'other'"):
        LAYOUT.flatten(arrays_of(LAYOUT) | {"other": np.zeros(1, dtype=np.float32)})


def test_flatten_names_both_shapes_and_never_broadcasts():
    arrays = arrays_of(LAYOUT) | {"w": np.zeros((1, 3), dtype=np.float32)}
    with pytest.raises(PayloadError, match=r"'w': shape \(1, 3\), the layout has \(2, 3\)"):
        LAYOUT.flatten(arrays)


def test_flatten_refuses_what_is_not_a_number_array():
    with pytest.raises(PayloadError, match="'b': dtype complex128"):
        LAYOUT.flatten(arrays_of(LAYOUT) | {"b": np.zeros(2, dtype=np.complex128)})


@pytest.mark.parametrize(
    "vector",
    [
        np.zeros(8, dtype=np.float32),
        np.zeros((9, 1), dtype=np.float32),
        np.zeros(9, dtype=np.float64),
    ],
)
def test_a_vector_of_another_shape_or_type_is_refused(vector):
    with pytest.raises(PayloadError, match=r"the layout has float32 of shape \(9,\)"):
        LAYOUT.unflatten(vector)


@pytest.mark.parametrize("name", ["", "x" * 257, "a\nb", "\ud800", "__metadata__"])
def test_names_must_be_short_printable_and_not_reserved(name):
    with pytest.raises(PayloadError, match="tensor name"):
        TensorSpec(name, (1,))


@pytest.mark.parametrize("shape", [(0,), (-1,), (3, MAX_VALUES + 1), (1,) * 33])
def test_shapes_must_be_positive_and_bounded(shape):
    with pytest.raises(PayloadError, match="tensor 'w'"):
        TensorSpec("w", shape)


def test_a_layout_has_at_least_one_tensor():
    with pytest.raises(PayloadError, match="tensors: 0"):
        Layout.of({})


def test_a_layout_has_at_most_so_many_tensors():
    with pytest.raises(PayloadError, match="tensors: 10001"):
        Layout.of({f"t{number}": () for number in range(MAX_TENSORS + 1)})


def test_a_layout_has_at_most_so_many_values_and_counts_them_without_overflow():
    with pytest.raises(PayloadError, match=f"values: {2**60}"):
        Layout.of({"w": (2**30, 2**30)})


@pytest.mark.parametrize("names", [("b", "a"), ("a", "a")])
def test_tensors_out_of_order_or_twice_are_refused(names):
    with pytest.raises(PayloadError, match="not sorted by name"):
        Layout(tuple(TensorSpec(name, (1,)) for name in names))
