import subprocess
import sys
from importlib.metadata import EntryPoint

import numpy as np
import pytest
from sklearn.datasets import load_digits

from learning.data import digits, sources
from learning.data.argument import Argument
from learning.data.dataset import DataError, Dataset
from learning.data.sources import load


def test_an_unknown_source_is_refused_with_the_names_that_are_known():
    with pytest.raises(DataError, match=r"data 'nope=1': unknown source 'nope'; known are csv, d"):
        load("nope=1")


def test_digits_are_images_from_zero_to_one_of_ten_classes():
    data = load("digits")
    assert data.x.shape == (1438, 1, 8, 8)
    assert (data.x.min(), data.x.max()) == (0.0, 1.0)
    assert data.description().key == ("digits", (1, 8, 8), "float32", 10)


def test_digits_hold_out_one_in_five_of_each_class_and_share_no_example():
    train, held_out = load("digits"), load("digits", train=False)
    assert len(train) + len(held_out) == 1797
    shares = np.bincount(held_out.y) / (np.bincount(train.y) + np.bincount(held_out.y))
    np.testing.assert_allclose(shares, 0.2, atol=0.005)
    repeated = {image.tobytes() for image in train.x} & {image.tobytes() for image in held_out.x}
    assert not repeated


def test_digits_are_the_ones_of_scikit_learn():
    reference = load_digits()
    expected = {(x.astype(np.float32) / 16).tobytes() for x in reference.data}
    got = np.concatenate([load("digits").x, load("digits", train=False).x])
    assert {image.tobytes() for image in got} == expected


def test_digits_are_read_without_importing_scikit_learn_or_torch():
    code = (
        "import sys; from learning.data.sources import load; load('digits');"
        "print([name for name in ('sklearn', 'scipy', 'torch') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_absent_scikit_learn_is_told_with_what_to_install(monkeypatch):
    monkeypatch.setattr(digits, "find_spec", lambda _: None)
    with pytest.raises(DataError, match=r"data 'digits': .*pip install 'scikit-learn"):
        load("digits")


def test_digits_take_no_argument():
    with pytest.raises(DataError, match="no argument"):
        load("digits=5")


def plugged_in(argument: str, train: bool) -> Dataset:
    n = int(argument) + train
    return Dataset(np.zeros((n, 1), np.float32), np.zeros(n, np.int64), 1, "plugged")


def no_dataset(argument: str, train: bool) -> str:
    return argument


def plug_in(monkeypatch, value):
    point = EntryPoint(name="plugged", value=value, group=sources.GROUP)
    monkeypatch.setattr(sources, "entry_points", lambda group: [point])


def test_a_plug_in_is_called_with_argument_and_part(monkeypatch):
    plug_in(monkeypatch, f"{__name__}:plugged_in")
    assert "plugged" in sources.names()
    assert len(load("plugged=4")) == 5
    assert len(load("plugged=4", train=False)) == 4


def test_a_plug_in_that_fails_is_named_in_the_error(monkeypatch):
    plug_in(monkeypatch, f"{__name__}:plugged_in")
    with pytest.raises(DataError, match="data 'plugged=x': invalid literal"):
        load("plugged=x")
    with pytest.raises(DataError, match="no example"):
        load("plugged=0", train=False)
    plug_in(monkeypatch, f"{__name__}:absent")
    with pytest.raises(DataError, match="cannot be loaded"):
        load("plugged=4")
    plug_in(monkeypatch, f"{__name__}:no_dataset")
    with pytest.raises(DataError, match="not a Dataset"):
        load("plugged=4")


def test_only_trailing_pieces_like_option_equals_value_are_options():
    parsed = Argument.parse("a,b.csv,window=5,columns=x+y", ("window", "columns"))
    assert parsed == Argument("a,b.csv", {"window": "5", "columns": "x+y"})
    with pytest.raises(DataError, match=r"^widow: unknown option; known are window"):
        Argument.parse("a.csv,widow=5", ("window",))
    with pytest.raises(DataError, match="file or directory"):
        Argument.parse("", ())


def test_options_are_numbers_in_their_range():
    parsed = Argument("f", {"window": "x", "hop": "0", "majority": "nan", "standardize": "maybe"})
    with pytest.raises(DataError, match=r"^window: 'x' is not a whole number"):
        parsed.integer("window", 1, 1, 9)
    with pytest.raises(DataError, match=r"^hop: 0, it must be a whole number from 1 to 9"):
        parsed.integer("hop", 1, 1, 9)
    with pytest.raises(DataError, match=r"^majority: nan"):
        parsed.number("majority", 0.5, 0, 1)
    with pytest.raises(DataError, match=r"^standardize: 'maybe', it must be yes or no"):
        parsed.flag("standardize", default=True)
