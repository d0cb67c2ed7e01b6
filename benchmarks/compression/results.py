"""Finished runs in a file of JSON lines, and what is read off them."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean

#: The last evaluations whose mean is the final accuracy.
LAST = 5


@dataclass(frozen=True, slots=True)
class Run:
    """One finished run.

    Attributes:
        key: Of its conditions and seed.
        title: Of its conditions.
        seed: Of data, parameters and batches.
        rounds: After which the model was evaluated.
        accuracy: Then, in percent of the held-out examples.
        up_bytes: All payloads until then.
        down_bytes: The same of the way down, counted once for every device.
        took_s: Seconds.
        diverged: Why training ended before the last round, or nothing.
    """

    key: str
    title: str
    seed: int
    rounds: Sequence[int]
    accuracy: Sequence[float]
    up_bytes: Sequence[int]
    down_bytes: Sequence[int]
    took_s: float
    diverged: str = ""

    @property
    def final(self) -> float:
        """Mean accuracy of the last evaluations, in percent."""
        return mean(self.accuracy[-LAST:])

    def cut(self, rounds: int) -> "Run":
        """Return the same run, ended after so many rounds."""
        count = sum(number <= rounds for number in self.rounds)
        names = ("rounds", "accuracy", "up_bytes", "down_bytes")
        return replace(self, **{name: getattr(self, name)[:count] for name in names})

    def reached(self, target: float) -> int | None:
        """Return the index of the first evaluation at ``target`` or above, or None."""
        return next((at for at, got in enumerate(self.accuracy) if got >= target), None)

    def fewer_bytes(self, baseline: "Run", target: float, *, both_ways: bool) -> float | None:
        """Return by what factor fewer bytes than the baseline's led to ``target``, or None."""
        here, there = self.reached(target), baseline.reached(target)
        if here is None or there is None:
            return None
        spent, spent_there = self.up_bytes[here], baseline.up_bytes[there]
        if both_ways:
            spent, spent_there = (
                spent + self.down_bytes[here],
                spent_there + baseline.down_bytes[there],
            )
        return spent_there / spent


class Results:
    """The runs of one file; a run that is there is not repeated."""

    def __init__(self, file: Path) -> None:
        self._file = file
        lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
        self._runs = {run.key: run for run in (Run(**json.loads(line)) for line in lines)}

    def get(self, key: str, rounds: int) -> Run | None:
        """Return a finished run of so many rounds, or None."""
        run = self._runs.get(key)
        if run is None or (run.rounds[-1] < rounds and not run.diverged):
            return None
        return run.cut(rounds)

    def add(self, run: Run) -> None:
        """Keep a finished run."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with self._file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(asdict(run)) + "\n")
        self._runs[run.key] = run
