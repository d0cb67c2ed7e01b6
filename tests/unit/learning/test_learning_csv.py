import numpy as np
import pytest

from learning.data.dataset import DataError
from learning.data.sources import load
from learning.data.windows import UNLABELLED, Recording, Windowing, cut


def recording(labels, channels=2, time_s=None):
    values = np.arange(len(labels) * channels, dtype=np.float32).reshape(-1, channels)
    return Recording(values, np.array(labels, dtype=np.int64), time_s)


def test_windows_follow_each_other_by_the_hop_with_channels_first():
    x, y = cut(recording([0] * 10), Windowing(window=4, hop=3), classes=1)
    assert x.shape == (3, 2, 4)
    assert x[:, 0, 0].tolist() == [0, 6, 12]
    assert x[0].tolist() == [[0, 2, 4, 6], [1, 3, 5, 7]]
    assert y.tolist() == [0, 0, 0]


def test_a_window_without_a_clear_majority_is_left_out():
    labels = [0] * 5 + [1] * 5
    _, y = cut(recording(labels), Windowing(window=5, hop=1, majority=0.8), classes=2)
    assert y.tolist() == [0, 0, 1, 1]


def test_unlabelled_samples_never_make_a_window():
    x, _ = cut(recording([UNLABELLED] * 9), Windowing(window=3, hop=1, majority=0.0), classes=2)
    assert len(x) == 0


def test_a_recording_shorter_than_a_window_gives_none():
    x, y = cut(recording([0] * 3), Windowing(window=4), classes=1)
    assert x.shape == (0, 2, 4)
    assert y.shape == (0,)


def test_no_window_lies_across_a_gap_or_a_step_back_in_time():
    time_s = np.array([0, 1, 2, 3, 100, 101, 102, 103, 50, 51, 52, 53], dtype=np.float64)
    x, _ = cut(recording([0] * 12, time_s=time_s), Windowing(window=4, hop=1), classes=1)
    assert x[:, 0, 0].tolist() == [0, 8, 16]


def test_resampling_is_linear_and_takes_the_label_in_force():
    time_s = np.array([0.0, 1.0, 3.0])
    values = np.array([[0.0], [10.0], [30.0]], dtype=np.float32)
    uneven = Recording(values, np.array([0, 1, 1]), time_s)
    x, y = cut(uneven, Windowing(window=2, hop=2, majority=0.5, rate_hz=2.0), classes=2)
    assert x[:, 0].tolist() == [[0, 5], [10, 15], [20, 25]]
    assert y.tolist() == [0, 1, 1]


def test_a_rate_that_would_need_too_much_memory_is_refused():
    slow = recording([0] * 4, time_s=np.arange(4) * 1e9)
    with pytest.raises(DataError, match="resampled recording"):
        cut(slow, Windowing(rate_hz=1e3), classes=1)


def write(path, rows, header="ax,ay,timestamp,label"):
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def rows(n=200, label=lambda i: "walk" if i < 100 else "sit"):
    return [f"{i * 0.5},{-i},{1000 + 10 * i},{label(i)}" for i in range(n)]


def test_a_csv_recording_becomes_windows_of_its_columns(tmp_path):
    path = write(tmp_path / "a.csv", rows())
    data = load(f"csv={path},window=20,hop=20,classes=sit+walk,standardize=no,name=imu")
    assert data.x.shape == (10, 2, 20)
    assert data.x[1, :, 0].tolist() == [10.0, -20.0]
    assert data.y.tolist() == [1] * 5 + [0] * 5
    assert data.description().key == ("imu", (2, 20), "float32", 2)


def test_channels_are_standardized_unless_told_otherwise(tmp_path):
    path = write(tmp_path / "a.csv", rows())
    data = load(f"csv={path},window=20,hop=20,classes=walk+sit")
    np.testing.assert_allclose(data.x.mean(axis=(0, 2)), 0, atol=1e-5)


def test_columns_label_and_separator_are_as_the_spec_says(tmp_path):
    text = [row.replace(",", ";") for row in rows(label=lambda _: "3")]
    path = write(tmp_path / "a.csv", text, header="ax;ay;t;activity")
    data = load(f"csv={path},window=50,columns=ay,label=activity,timestamp=t,standardize=no")
    assert data.x.shape[1:] == (1, 50)
    assert data.classes == 4
    assert set(data.y) == {3}


def test_a_time_column_is_optional(tmp_path):
    path = write(tmp_path / "a.csv", [f"{i},0" for i in range(120)], header="ax,label")
    assert len(load(f"csv={path}")) == 1
    with pytest.raises(DataError, match="no column 'timestamp'"):
        load(f"csv={path},rate=50")


def test_windows_do_not_cross_files_of_a_directory(tmp_path):
    for name in ("a.csv", "b.csv"):
        write(tmp_path / name, rows(n=30, label=lambda _: "0"))
    assert len(load(f"csv={tmp_path},window=20,hop=1")) == 2 * 11


def test_an_empty_label_is_no_label(tmp_path):
    path = write(tmp_path / "a.csv", rows(label=lambda i: "" if i < 100 else "1"))
    data = load(f"csv={path},window=50,hop=50,classes=2")
    assert data.y.tolist() == [1, 1]


def test_words_as_labels_need_one_order_for_all_devices(tmp_path):
    path = write(tmp_path / "a.csv", rows())
    with pytest.raises(DataError, match=r"classes=sit\+walk"):
        load(f"csv={path}")
    with pytest.raises(DataError, match="label 'sit' is not one of run, walk"):
        load(f"csv={path},classes=run+walk")


@pytest.mark.parametrize(
    ("content", "options", "cause"),
    [
        (["1,2,3,0"], "", "no window of 100 samples"),
        (["1,2,3,0"] * 100 + ["1,x,3,0"], "", "could not convert string 'x'"),
        (["1,2,3,0"] * 100 + ["1,nan,3,0"] * 100, "", "not finite"),
        (["1,2,3,0"] * 100 + ["1,2"], "", "row"),
        ([], "", "no row"),
        (["1,2,3,0"] * 100, ",label=class", "no column 'class'; there are ax, ay"),
        (["1,2,3,0"] * 100, ",columns=ax+az", "no column 'az'"),
        (["1,2,3,0"] * 100, ",unit=h", "unit: 'h'"),
        (["1,2,3,5"] * 100, ",classes=5", "label '5' is not one of 0, 1, 2"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_cause(tmp_path, content, options, cause):
    path = write(tmp_path / "a.csv", content)
    with pytest.raises(DataError, match=cause) as caught:
        load(f"csv={path}{options}")
    assert str(caught.value).startswith("data 'csv=")


def test_the_raw_har_recordings_become_the_published_windows(test_data):
    folder, classes = test_data("har-raw"), "SEATED+STANDING_UP+WALKING+TURNING+SITTING_DOWN"
    data = load(f"csv={folder}/s01_01_sp.csv,rate=100,classes={classes},standardize=no")
    published = np.load(test_data("har") / "s01-phone.npz")
    assert data.x.shape[1:] == published["x"].shape[1:]
    assert data.y[:19].tolist() == published["y"][:19].tolist()
    differences = np.abs(data.x[7:19] - published["x"][7:19])
    assert differences.max() < 1e-3
