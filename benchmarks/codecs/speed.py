"""Speed of every codec beside a copy and sums of float32, in the same run and in turns.

Times are CPU seconds of this thread, so that what else the machine does counts less; the best of
the repeats is taken. Memory that the system must fetch and clear anew counts as it does in use.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from benchmarks.codecs.variants import Variant
from fedfleet.tables import table
from updates import kernels
from updates.accumulation import Encoded, add_all
from updates.layout import Layout

_VALUE_BYTES = 4
_MANY = 8
_COLUMNS = (
    "values", "codec", "encode MB/s", "decode+add MB/s", "8 together", "compiled", "8 compiled",
    "memcpy MB/s", "add MB/s", "add64 MB/s", "encode/memcpy", "decode+add/memcpy",
    "decode+add/add", "decode+add/add64",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Figures:
    """Bytes of float32 a second, each the best of the repeats.

    Attributes:
        codec: Title of the variant.
        values: Length of the vector.
        encode: From a vector to a payload, header and checksum included.
        accumulate: From a payload into a float64 sum, all checks included.
        together: The same of eight payloads in one sum, all of their values counted.
        compiled: ``accumulate`` with compiled loops; None without numba.
        together_compiled: ``together`` with them.
        memcpy: Copying the vector.
        add: Adding it to another float32 vector.
        add64: Adding it to a float64 vector, as sums of updates are kept.
    """

    codec: str
    values: int
    encode: float
    accumulate: float
    together: float
    compiled: float | None
    together_compiled: float | None
    memcpy: float
    add: float
    add64: float

    def row(self) -> tuple[str, ...]:
        """Return the row of the table."""
        sums = (self.accumulate, self.together, self.compiled, self.together_compiled)
        rates = (self.encode, *sums, self.memcpy, self.add, self.add64)
        ratios = (
            self.encode / self.memcpy,
            self.accumulate / self.memcpy,
            self.accumulate / self.add,
            self.accumulate / self.add64,
        )
        return (
            f"{self.values}",
            self.codec,
            *("-" if rate is None else f"{rate / 1e6:.0f}" for rate in rates),
            *(f"{ratio:.2f}" for ratio in ratios),
        )


def measured(variant: Variant, count: int, repeats: int) -> Figures:
    """Return the figures of one variant on a Gaussian vector."""
    layout, codec = Layout.of({"w": (count,)}), variant.make()
    rng = np.random.default_rng(0)
    vector = rng.standard_normal(count, dtype=np.float32)
    other, total = np.zeros_like(vector), np.zeros(count)
    payload = codec.encode(vector, layout, rng)
    # Copies, as those of eight clients: one payload would stay in the cache.
    many = [Encoded(codec, bytes(bytearray(payload)), 1.5) for _ in range(_MANY)]
    loops = kernels.load()
    calls: dict[str, Callable[[], object]] = {
        "memcpy": lambda: np.copyto(other, vector),
        "add": lambda: np.add(other, vector, out=other),
        "add64": lambda: np.add(total, vector, out=total),
        "encode": lambda: codec.encode(vector, layout, rng),
        "accumulate": lambda: codec.add_into(total, payload, layout, 1.5),
        "together": lambda: add_all(total, many, layout),
    }
    if loops is not None:
        calls["compiled"] = lambda: codec.add_into(total, payload, layout, 1.5, loops)
        calls["together_compiled"] = lambda: add_all(total, many, layout, loops)
    taken = _best(calls, repeats)
    rates: dict[str, float | None] = {"compiled": None, "together_compiled": None}
    for name, seconds in taken.items():
        rates[name] = _VALUE_BYTES * count * (_MANY if "together" in name else 1) / seconds
    return Figures(codec=variant.title, values=count, **rates)  # type: ignore[arg-type]


def report(figures: Sequence[Figures]) -> str:
    """Return the table."""
    return table(_COLUMNS, [one.row() for one in figures])


def as_objects(figures: Sequence[Figures]) -> list[dict[str, object]]:
    """Return the figures as JSON objects."""
    return [asdict(one) for one in figures]


def _best(calls: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Return the shortest time of each call; they take turns."""
    best = dict.fromkeys(calls, float("inf"))
    for _ in range(repeats + 1):
        for name, call in calls.items():
            began = time.thread_time()
            call()
            best[name] = min(best[name], time.thread_time() - began)
    return best
