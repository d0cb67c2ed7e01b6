import gzip
import struct
import zipfile

import numpy as np
import pytest

from learning.data import argument
from learning.data.dataset import DataError
from learning.data.mnist import read_idx
from learning.data.sources import load


def idx(array):
    return (
        bytes((0, 0, 8, array.ndim))
        + struct.pack(f">{array.ndim}I", *array.shape)
        + array.tobytes()
    )


@pytest.fixture
def mnist_folder(tmp_path):
    rng = np.random.default_rng(0)
    for part, n in (("train", 20), ("t10k", 5)):
        images = rng.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        images[0, 0, :2] = 0, 255
        labels = (np.arange(n) % 10).astype(np.uint8)
        (tmp_path / f"{part}-images-idx3-ubyte").write_bytes(idx(images))
        with gzip.open(tmp_path / f"{part}-labels-idx1-ubyte.gz", "wb") as stream:
            stream.write(idx(labels))
    return tmp_path


def test_mnist_is_read_plain_or_compressed_and_scaled_to_one(mnist_folder):
    data = load(f"mnist={mnist_folder}")
    assert data.x.shape == (20, 1, 28, 28)
    assert (data.x.min(), data.x.max()) == (0.0, 1.0)
    assert data.y[:11].tolist() == [*range(10), 0]
    assert len(load(f"mnist={mnist_folder}", train=False)) == 5


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0\0\x08\x01\0\0",
        b"\0\0\x0d\x01\0\0\0\1\0",
        b"\0\0\x08\x02\0\0\0\1\0\0\0\1\0",
        b"\0\0\x08\x01\0\0\0\3ab",
        b"\0\0\x08\x01\0\0\0\3abcd",
        b"\0\0\x08\x01\xff\xff\xff\xffab",
    ],
)
def test_a_damaged_idx_file_is_refused(tmp_path, content):
    path = tmp_path / "labels"
    path.write_bytes(content)
    with pytest.raises(DataError, match="labels: "):
        read_idx(path, dimensions=1)
    packed = tmp_path / "labels.gz"
    packed.write_bytes(gzip.compress(content))
    with pytest.raises(DataError, match=r"labels\.gz: "):
        read_idx(packed, dimensions=1)


def test_a_truncated_gzip_is_refused(tmp_path):
    path = tmp_path / "labels.gz"
    path.write_bytes(gzip.compress(idx(np.arange(200, dtype=np.uint8)))[:-30])
    with pytest.raises(DataError, match="damaged"):
        read_idx(path, dimensions=1)


def test_an_idx_header_that_announces_too_much_is_refused_before_it_is_allocated(tmp_path):
    path = tmp_path / "images"
    path.write_bytes(bytes((0, 0, 8, 3)) + struct.pack(">3I", 2**31, 2**31, 2**31))
    with pytest.raises(DataError, match="at most"):
        read_idx(path, dimensions=3)


def test_images_and_labels_of_different_number_are_refused(mnist_folder):
    (mnist_folder / "train-images-idx3-ubyte").write_bytes(idx(np.zeros((3, 28, 28), np.uint8)))
    with pytest.raises(DataError, match="3 train images, but 20 labels"):
        load(f"mnist={mnist_folder}")


def test_an_absent_mnist_file_is_named(tmp_path):
    with pytest.raises(DataError, match="neither train-images-idx3-ubyte nor"):
        load(f"mnist={tmp_path}")


def test_the_mnist_database_has_its_sizes(test_data):
    data = load(f"mnist={test_data('mnist')}", train=False)
    assert data.x.shape == (10_000, 1, 28, 28)
    assert np.bincount(data.y).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def save(path, n=4, **change):
    rng = np.random.default_rng(n)
    x = (rng.standard_normal((n, 6, 100)) * 5 + 9).astype(np.float32)
    np.savez(path, **{"x": x, "y": np.arange(n) % 3, **change})
    return path


def test_npz_is_read_as_it_is_with_the_options_of_its_spec(tmp_path):
    path = save(tmp_path / "a.npz")
    data = load(f"npz={path},name=walk,classes=5")
    assert data.description().key == ("walk", (6, 100), "float32", 5)
    assert data.x.mean() > 5
    assert load(f"npz={path}").classes == 3
    assert abs(load(f"npz={path},standardize=yes").x.mean()) < 1e-4


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"x": np.zeros((4, 2))}, "float32"),
        ({"y": np.zeros(4)}, "labels must be integers"),
        ({"y": np.zeros(3, np.int64)}, "y: "),
        ({"y": np.array([{}, {}, {}, {}], dtype=object)}, "y: "),
    ],
)
def test_npz_arrays_of_another_kind_are_refused(tmp_path, change, cause):
    path = save(tmp_path / "a.npz", **change)
    with pytest.raises(DataError, match=cause):
        load(f"npz={path}")


def test_npz_without_labels_or_damaged_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros((2, 2), np.float32))
    with pytest.raises(DataError, match="no array 'y'"):
        load(f"npz={tmp_path / 'a.npz'}")
    (tmp_path / "b.npz").write_bytes(b"PK nonsense")
    with pytest.raises(DataError, match=r"b\.npz"):
        load(f"npz={tmp_path / 'b.npz'}")


def test_an_npy_header_that_does_not_match_its_bytes_is_refused_before_it_is_allocated(tmp_path):
    path = tmp_path / "a.npz"
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 4)}"
    header += b" " * (118 - len(header) - 1) + b"\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header)
    with pytest.raises(DataError, match="does not match its 128 bytes"):
        load(f"npz={path}")


def test_a_file_above_the_limit_is_refused(tmp_path, monkeypatch):
    path = save(tmp_path / "a.npz")
    monkeypatch.setattr(argument, "MAX_SOURCE_BYTES", 100)
    with pytest.raises(DataError, match="at most 100 are read"):
        load(f"npz={path}")


def test_each_har_file_is_standardized_by_its_own_statistics(tmp_path):
    save(tmp_path / "s01.npz", n=4)
    save(tmp_path / "s02.npz", n=8)
    alone, both = load(f"har={tmp_path}/s02.npz"), load(f"har={tmp_path}")
    assert both.description().key == ("har", (6, 100), "float32", 5)
    assert len(both) == 12
    np.testing.assert_array_equal(both.x[4:], alone.x)
    np.testing.assert_allclose(alone.x.std(axis=(0, 2)), 1, rtol=1e-3)


def test_har_takes_a_pattern_and_refuses_what_is_no_window(tmp_path):
    save(tmp_path / "s01.npz")
    save(tmp_path / "s02.npz")
    assert len(load(f"har={tmp_path}/s0[1]*.npz")) == 4
    with pytest.raises(DataError, match="no such file"):
        load(f"har={tmp_path}/s03*.npz")
    save(tmp_path / "flat.npz", x=np.zeros((4, 6), np.float32))
    with pytest.raises(DataError, match="windows are"):
        load(f"har={tmp_path}/flat.npz")


def test_a_real_device_of_the_har_data_set_is_read(test_data):
    data = load(f"har={test_data('har')}/s01-phone.npz")
    assert data.x.shape == (157, 6, 100)
    assert np.bincount(data.y).tolist() == [9, 16, 85, 26, 21]
