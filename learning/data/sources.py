"""Where examples come from: ``load("mnist=/data/mnist")``.

A spec is a source's name, and for most of them ``=`` and an argument that the source reads.
Other packages add sources by the entry point group ``fedfleet.data``: name -> a callable
``(argument: str, train: bool) -> Dataset``.
"""

from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points

from learning.data.csv_windows import load_csv
from learning.data.dataset import DataError, Dataset
from learning.data.digits import load_digits
from learning.data.har import load_har
from learning.data.mnist import load_mnist
from learning.data.npz import load_npz

GROUP = "fedfleet.data"

Source = Callable[[str, bool], Dataset]

_BUILT_IN: dict[str, Source] = {
    "csv": load_csv,
    "digits": load_digits,
    "har": load_har,
    "mnist": load_mnist,
    "npz": load_npz,
}


def names() -> tuple[str, ...]:
    """Return the names of all sources, built in and plugged in, sorted."""
    return tuple(sorted({*_BUILT_IN, *_plug_ins()}))


def load(spec: str, *, train: bool = True) -> Dataset:
    """Return the examples that a spec names.

    Args:
        spec: ``NAME`` or ``NAME=ARGUMENT``, as in ``digits`` or ``har=data/s01-phone.npz``.
        train: The training part, else the held-out part, where the source has one.

    Raises:
        DataError: The text names the spec and the cause.
    """
    name, _, argument = spec.partition("=")
    try:
        dataset = _source(name.strip())(argument.strip(), train)
    except (OSError, ValueError) as error:
        message = f"data {spec!r}: {error}"
        raise DataError(message) from error
    if not isinstance(dataset, Dataset):
        message = f"data {spec!r}: the source returned {type(dataset).__name__}, not a Dataset"
        raise DataError(message)
    if not len(dataset):
        message = f"data {spec!r}: there is no example in it"
        raise DataError(message)
    return dataset


def _source(name: str) -> Source:
    if name in _BUILT_IN:
        return _BUILT_IN[name]
    plug_in = _plug_ins().get(name)
    if plug_in is None:
        message = f"unknown source {name!r}; known are {', '.join(names())}"
        raise DataError(message)
    try:
        source: Source = plug_in.load()
    except (ImportError, AttributeError) as error:
        message = f"plug-in {plug_in.value!r} cannot be loaded: {error}"
        raise DataError(message) from error
    return source


def _plug_ins() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}
