"""Windows of sensors out of CSV files: one sample a row, one channel a column.

The first row names the columns. One column is the label, one may be the time; the others are
channels unless ``columns`` names them. Comma, semicolon and tab separate.
"""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from learning.data.argument import Argument
from learning.data.dataset import F32, I64, DataError, Dataset
from learning.data.windows import F64, UNLABELLED, Recording, Windowing, cut

ScalarT = TypeVar("ScalarT", bound=np.generic)

_OPTIONS = (
    *("window", "hop", "majority", "rate", "gap", "columns", "label", "classes"),
    *("timestamp", "unit", "standardize", "name"),
)
_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
_MAX_CLASSES = 1 << 16
_MAX_WINDOW = 1 << 20


@dataclass(frozen=True, slots=True)
class _Table:
    """One file's columns."""

    values: F32
    labels: NDArray[np.str_]
    time_s: F64 | None


def load_csv(argument: str, train: bool) -> Dataset:  # noqa: ARG001, FBT001
    """Return the windows of one recording, or of several: ``x`` ``(n, channels, window)``.

    Args:
        argument: ``FILE_OR_DIRECTORY`` and options: ``window=100`` and ``hop=25`` samples,
            ``majority=0.8`` of a window, ``rate=HZ`` to resample, ``gap=SECONDS`` that cuts,
            ``columns=A+B``, ``label=label``, ``classes=A+B`` (required for labels that are
            words, in the order shared by all devices) or their number, ``timestamp=timestamp``
            (optional column) in ``unit=ms`` (s, us, ns), ``standardize=yes`` (each channel by
            this device's own statistics), ``name=csv``. Rows with an empty label are unlabelled.
        train: No difference: a recording has no part of its own that is held out.

    Raises:
        DataError: A column, a number or a label is not as described, or no window is left.
    """
    parsed = Argument.parse(argument, _OPTIONS)
    windowing = _windowing(parsed)
    tables = [_read(path, parsed) for path in parsed.files(".csv")]
    codes = _codes(tables, parsed.options.get("classes"))
    recordings = [
        Recording(table.values, _encode(table.labels, codes), table.time_s) for table in tables
    ]
    cuts = [cut(recording, windowing, len(codes)) for recording in recordings]
    x = np.concatenate([windows for windows, _ in cuts])
    if not len(x):
        message = f"no window of {windowing.window} samples has one label for {windowing.majority}"
        raise DataError(message)
    labels = np.concatenate([labels for _, labels in cuts])
    dataset = Dataset(x, labels, len(codes), parsed.options.get("name", "csv"))
    return dataset.standardized() if parsed.flag("standardize", default=True) else dataset


def _windowing(parsed: Argument) -> Windowing:
    return Windowing(
        window=parsed.integer("window", 100, 1, _MAX_WINDOW),
        hop=parsed.integer("hop", 25, 1, _MAX_WINDOW),
        majority=parsed.number("majority", 0.8, 0.0, 1.0),
        rate_hz=parsed.number("rate", 0.0, 1e-6, 1e9) or None,
        gap_s=parsed.number("gap", 0.0, 1e-9, 1e9) or None,
    )


def _read(path: Path, parsed: Argument) -> _Table:
    columns, delimiter = _header(path)
    label = _column(columns, parsed.options.get("label", "label"))
    time = _time_column(columns, parsed)
    chosen = parsed.options.get("columns")
    if chosen:
        channels = [_column(columns, name) for name in chosen.split("+")]
    else:
        channels = [index for index in range(len(columns)) if index not in {label, time}]
    try:
        values = _load(path, delimiter, channels, np.float32)
        words = _load(path, delimiter, [label], np.str_)[:, 0]
        time_s = None
        if time is not None:
            time_s = _load(path, delimiter, [time], np.float64)[:, 0] * _unit(parsed)
    except ValueError as error:
        message = f"{path}: {error}"
        raise DataError(message) from error
    return _Table(values, np.char.strip(words), time_s)


def _load(path: Path, delimiter: str, columns: list[int], kind: type[ScalarT]) -> NDArray[ScalarT]:
    return np.loadtxt(
        path,
        dtype=kind,
        delimiter=delimiter,
        skiprows=1,
        usecols=columns,
        ndmin=2,
        comments=None,
        quotechar='"',
        encoding="utf-8-sig",
    )


def _header(path: Path) -> tuple[list[str], str]:
    with path.open(encoding="utf-8-sig", newline="") as lines:
        header, first = lines.readline(), lines.readline()
    if not first.strip():
        message = f"{path}: there is no row below the first, which names the columns"
        raise DataError(message)
    delimiter = max(",;\t", key=header.count)
    (columns,) = csv.reader([header], delimiter=delimiter)
    return [column.strip() for column in columns], delimiter


def _column(columns: list[str], name: str) -> int:
    if name not in columns:
        message = f"no column {name!r}; there are {', '.join(columns)}"
        raise DataError(message)
    return columns.index(name)


def _time_column(columns: list[str], parsed: Argument) -> int | None:
    name = parsed.options.get("timestamp", "timestamp")
    needed = {"timestamp", "rate", "gap"} & set(parsed.options)
    if name not in columns and not needed:
        return None
    return _column(columns, name)


def _unit(parsed: Argument) -> float:
    unit = parsed.options.get("unit", "ms")
    if unit not in _SECONDS:
        message = f"unit: {unit!r}, it must be one of {', '.join(_SECONDS)}"
        raise DataError(message)
    return _SECONDS[unit]


def _codes(tables: list[_Table], classes: str | None) -> dict[str, int]:
    found = sorted({str(word) for table in tables for word in np.unique(table.labels)} - {""})
    if classes is not None and not classes.isdigit():
        known = {word: code for code, word in enumerate(classes.split("+"))}
    elif all(word.isdigit() for word in found):
        largest = max((int(word) for word in found), default=0)
        count = int(classes) if classes else min(largest + 1, _MAX_CLASSES)
        known = {str(code): code for code in range(min(count, _MAX_CLASSES))}
    else:
        message = f"labels are words; name them in one order: classes={'+'.join(found)}"
        raise DataError(message)
    unknown = [word for word in found if word not in known]
    if unknown:
        message = f"label {unknown[0]!r} is not one of {', '.join(list(known)[:20])}"
        raise DataError(message)
    return known


def _encode(words: NDArray[np.str_], codes: dict[str, int]) -> I64:
    unique, inverse = np.unique(words, return_inverse=True)
    table = np.array([codes.get(str(word), UNLABELLED) for word in unique], dtype=np.int64)
    return table[inverse]
