"""Cut a recording of sensors into labelled windows of one length. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from learning.data.argument import check_bytes
from learning.data.dataset import F32, I64

F64 = NDArray[np.float64]

#: Label of samples that have none.
UNLABELLED = -1
_GAP_STEPS = 10.0


@dataclass(frozen=True, slots=True)
class Recording:
    """Samples in the order in which they were taken.

    Attributes:
        values: float32, shape ``(n, channels)``.
        labels: int64, shape ``(n,)``, from 0, or ``UNLABELLED``.
        time_s: Seconds, shape ``(n,)``, or None when samples carry no time.
    """

    values: F32
    labels: I64
    time_s: F64 | None = None


@dataclass(frozen=True, slots=True)
class Windowing:
    """How a recording is cut.

    Attributes:
        window: Samples a window.
        hop: Samples from one window's start to the next.
        majority: Share of a window that its label must hold, else the window is left out.
        rate_hz: Resample to this rate first, by linear interpolation; needs times.
        gap_s: Cut where the time jumps by more; None: by more than ten median steps. The
            recording is cut where time runs backwards too.
    """

    window: int = 100
    hop: int = 25
    majority: float = 0.8
    rate_hz: float | None = None
    gap_s: float | None = None


def cut(recording: Recording, windowing: Windowing, classes: int) -> tuple[F32, I64]:
    """Return the windows that lie in one piece and have one clear label.

    Args:
        recording: One uninterrupted file; it may still have gaps in time.
        windowing: Lengths and limits.
        classes: Number of labels.

    Returns:
        Windows, float32, shape ``(m, channels, window)``, and labels, int64, ``(m,)``; ``m``
        may be 0.

    Raises:
        DataError: The windows would be larger than any source may be.
    """
    channels = recording.values.shape[1]
    windows = [np.empty((0, channels, windowing.window), dtype=np.float32)]
    labels = [np.empty(0, dtype=np.int64)]
    for piece in _pieces(recording, windowing.gap_s):
        even = _resampled(piece, windowing.rate_hz)
        if len(even.labels) >= windowing.window:
            x, y = _windows(even, windowing, classes)
            windows.append(x)
            labels.append(y)
    return np.concatenate(windows), np.concatenate(labels)


def _pieces(recording: Recording, gap_s: float | None) -> Iterator[Recording]:
    time_s = recording.time_s
    if time_s is None:
        yield recording
        return
    steps = np.diff(time_s)
    if gap_s is None:
        forward = steps[steps > 0]
        gap_s = _GAP_STEPS * float(np.median(forward)) if len(forward) else 0.0
    breaks = np.flatnonzero((steps < 0) | (steps > gap_s)) + 1
    for start, stop in zip([0, *breaks], [*breaks, len(time_s)], strict=True):
        part = slice(start, stop)
        yield Recording(recording.values[part], recording.labels[part], time_s[part])


def _resampled(piece: Recording, rate_hz: float | None) -> Recording:
    if rate_hz is None or piece.time_s is None:
        return piece
    times, known = piece.time_s, piece.values
    count = int((times[-1] - times[0]) * rate_hz) + 1
    check_bytes("resampled recording", count * known.shape[1] * known.itemsize)
    grid = times[0] + np.arange(count) / rate_hz
    values = np.empty((count, known.shape[1]), dtype=np.float32)
    for channel in range(known.shape[1]):
        values[:, channel] = np.interp(grid, times, known[:, channel])
    in_force = np.searchsorted(times, grid, side="right") - 1
    return Recording(values, piece.labels[in_force], grid)


def _windows(piece: Recording, windowing: Windowing, classes: int) -> tuple[F32, I64]:
    every = slice(None, None, windowing.hop)
    views = sliding_window_view(piece.values, windowing.window, axis=0)[every]
    labels = sliding_window_view(piece.labels, windowing.window)[every]
    shares = np.stack([(labels == label).mean(axis=1) for label in range(classes)])
    best = shares.max(axis=0)
    chosen = np.flatnonzero((best > 0) & (best >= windowing.majority))
    check_bytes("windows", len(chosen) * piece.values.shape[1] * windowing.window * 4)
    return np.ascontiguousarray(views[chosen]), shares.argmax(axis=0)[chosen].astype(np.int64)
