"""Kills a program at one failpoint after another, in a fleet that goes on; keeps a table of it."""

import contextlib
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fedfleet.tables import table
from tests.support.brokers import ProcessBroker
from tests.support.failpoint_choices import EVERY_TURN, ONCE_A_LIFE, act_of
from tests.support.failpoint_play import DEVICES, GATEWAY, REGION, SMALL, Play, describe, is_done
from tests.support.fleet import CENTRAL, Fleet, Shape
from tests.support.fleet_books import Books, device_jobs, receipts
from tests.support.fleet_watch import Tap
from transport.failpoint_catalogue import catalogue
from transport.failpoints import VARIABLE

VICTIMS = {"central": CENTRAL, "gateway": GATEWAY, "device": DEVICES[0]}
HITS = (1, 3)
#: At edges that a program passes in every turn, the first visits all lie in its start.
DEEP = 25
KILLED = "killed"
_ARMED_S = 60.0
_EXPORTS_S = 400.0
_ONCE_S = 3.0
_COMPLETE_S = 120.0
_FIRST = {**SMALL, "task": "first", "data": "tiny", "rounds": 1, "min_clients": len(DEVICES)}
_AGAIN_S = 2.0
_EXAMPLES = 600
_FEATURES = 64
_CLASSES = 10


@dataclass(frozen=True, slots=True, order=True)
class Cell:
    """One failpoint in one of the programs that come by."""

    program: str
    name: str

    def __str__(self) -> str:
        return f"{self.program}-{self.name}"

    @property
    def hits(self) -> tuple[int, ...]:
        """The visits at which its victim is killed, one in each of its lives."""
        return (*HITS, DEEP) if self.name in EVERY_TURN else HITS

    @property
    def writes_models(self) -> bool:
        """Whether central's files for persons matter here: they cost seconds, so else not."""
        return ".export." in self.name

    @property
    def measures_models(self) -> bool:
        """Whether central must measure each round's model."""
        return ".evaluation." in self.name


@dataclass(slots=True)
class Row:
    """What came of one cell."""

    cell: Cell
    hits: dict[int, str] = field(default_factory=dict)
    seconds: float = 0.0
    fault: str = ""

    @property
    def kills(self) -> int:
        return sum(found == KILLED for found in self.hits.values())

    @property
    def cells(self) -> tuple[str, ...]:
        hits = (self.hits.get(nth, "-") for nth in (*HITS, DEEP))
        outcome = "FAILED" if self.fault else "passed"
        return (self.cell.program, self.cell.name, *hits, f"{self.seconds:.1f}", outcome)


def all_cells() -> list[Cell]:
    """Return every failpoint of every program that comes by, in the order of the programs."""
    return [
        Cell(program, place.name)
        for program in VICTIMS
        for place in catalogue()
        if program in place.programs
    ]


class Matrix:
    """One fleet, in which one cell after another is played."""

    def __init__(self, fleet: Fleet, tap: Tap) -> None:
        self.fleet = fleet
        self.rows: list[Row] = []
        self._tap = tap
        self._checked = 0
        self._plays = 0

    def play(self, cell: Cell) -> Row:
        """Kill the victim at the cell's failpoint, the first and the third time; check all.

        Raises:
            AssertionError: It was not killed where it should be, or a promise is broken.
        """
        if self.rows and self.rows[-1].fault:
            self._heal()
        row = Row(cell, fault="not finished")
        self.rows.append(row)
        self._plays += 1
        began_s = time.monotonic()
        play = Play(self.fleet, VICTIMS[cell.program], f"t{self._plays:03}")
        try:
            with self._costly_as_needed(cell):
                for nth in cell.hits:
                    row.hits[nth] = self._life(play, cell, nth)
                self._end(play)
                self._check_hits(row)
            self._check_books(play)
            row.fault = ""
        except BaseException as error:
            row.fault = str(error).splitlines()[0][:300] if str(error) else type(error).__name__
            raise
        finally:
            row.seconds = time.monotonic() - began_s
        return row

    def _life(self, play: Play, cell: Cell, nth: int) -> str:
        """Start the victim with its failpoint armed; return how that life ended."""
        act = act_of(cell.program, cell.name)(play)
        victim = self.fleet.program(play.victim)
        first = next(act, None)  # what has to be there before the victim starts
        self.fleet.kill(play.victim)
        victim.environment[VARIABLE] = f"{cell.name}:{nth}:kill"
        victim.start()
        if first is not None:
            first()
        for step in act:
            if not victim.is_running:
                break
            step()
        act.close()
        play.life += 1
        self._revive(play.victim)
        return self._wait_for_end(play, cell, nth)

    def _revive(self, victim: str) -> None:
        """Bring back what an act that ended early has frozen or killed."""
        for name, program in self.fleet.programs.items():
            program.thaw()
            if name != victim and not program.is_running:
                program.start()

    def _wait_for_end(self, play: Play, cell: Cell, nth: int) -> str:
        victim = self.fleet.program(play.victim)
        end = time.monotonic() + _armed_s(cell, nth)
        again_s = time.monotonic() + _AGAIN_S
        while victim.is_running and time.monotonic() < end:
            if all(is_done(play, task) for task in play.tasks) and not cell.writes_models:
                time.sleep(0.7)  # what follows a task's end
                break
            if time.monotonic() >= again_s:
                again_s += _AGAIN_S
                self._tell_again(play)
            time.sleep(0.02)
        if not victim.is_running:
            assert victim.returncode == -signal.SIGKILL, victim.tail
            return KILLED
        return "not reached"

    def _end(self, play: Play) -> None:
        """Start what is dead without a failpoint; wait until every task has ended."""
        for name, program in self.fleet.programs.items():
            if program.environment.pop(VARIABLE, None) and program.is_running:
                self.fleet.kill(name)
            if not program.is_running:
                program.start()
        if not play.tasks:
            play.submit(model="softmax")
        end = time.monotonic() + _COMPLETE_S
        again_s = time.monotonic() + _AGAIN_S
        while not all(is_done(play, task) for task in play.tasks):
            if time.monotonic() >= end:
                self.fleet.fail(f"not within {_COMPLETE_S:g} s: {describe(play)}")
            if time.monotonic() >= again_s:
                again_s += _AGAIN_S
                self._tell_again(play)
            time.sleep(0.02)

    def _tell_again(self, play: Play) -> None:
        """Say again what the broker may have lost with a session that was not there yet."""
        for task in play.tasks:
            newest = play.newest(task)
            if not newest:
                play.submit_again(task)
            elif newest["state"] == "paused":
                self.fleet.control(task, "resume")
            elif task in play.cancelled and newest.get("committed") and not is_done(play, task):
                self.fleet.control(task, "cancel")

    def _check_hits(self, row: Row) -> None:
        first, *later = row.cell.hits
        assert row.hits[first] == KILLED, f"{row.cell}: never reached"
        for nth in later:
            if row.hits[nth] != KILLED:
                assert row.cell.name in ONCE_A_LIFE, f"{row.cell}: not reached {nth} times"
                row.hits[nth] = "reached once"

    def _check_books(self, play: Play) -> None:
        books = Books(self.fleet.state_dir(CENTRAL), "")
        for task in play.tasks:
            wanted = "cancelled" if task in play.cancelled else "completed"
            assert play.newest(task)["state"] == wanted, play.newest(task)
            books = Books(self.fleet.state_dir(CENTRAL), task)
            if books.contributions():
                books.check()
            digests = books.recompute() if books.committed else []
            assert digests == [record.model_sha256 for record in books.committed]
            self._check_devices(books, task)
        self._tap.drain()
        since, self._checked = self._checked, len(self._tap.seen)
        accepted = [one for one in receipts(self._tap, since) if one.status == "accepted"]
        assert all(books.knows(receipt) for receipt in accepted)

    def _check_devices(self, books: Books, task: str) -> None:
        rows = books.contributions()
        known = {(row.round, row.device) for row in rows}
        for device in DEVICES:
            jobs = device_jobs(self.fleet.state_dir(device), task)
            done = {(number, device) for number, state in jobs.items() if state == "done"}
            refused = books.refused(device)
            assert done <= known | refused, (device, done - known - refused)

    @contextlib.contextmanager
    def _costly_as_needed(self, cell: Cell) -> Iterator[None]:
        """Let central write models out and measure them only where that is looked at.

        Both need torch, in every life of central: seconds, of which there are hundreds.
        """
        with contextlib.ExitStack() as stack:
            if cell.writes_models:
                stack.enter_context(self._writing_out())
            if cell.measures_models:
                stack.enter_context(self._measuring())
            yield

    @contextlib.contextmanager
    def _writing_out(self) -> Iterator[None]:
        blocker = self.fleet.state_dir(CENTRAL) / "models"
        blocker.unlink()
        try:
            yield
        finally:
            blocker.rename(blocker.with_name(f"models-{self._plays}"))
            blocker.touch()

    @contextlib.contextmanager
    def _measuring(self) -> Iterator[None]:
        command = self.fleet.program(CENTRAL).command
        command += ("--eval-data", self.fleet.shape.data)
        try:
            yield
        finally:
            del command[-2:]

    def _heal(self) -> None:
        for program in self.fleet.programs.values():
            program.thaw()
            program.environment.pop(VARIABLE, None)
            program.kill()
        for program in self.fleet.programs.values():
            program.start()
        self.fleet.wait_until_online()
        for task in self.fleet.tasks():
            if not is_done(Play(self.fleet, "", ""), task):
                self.fleet.control(task, "cancel")

    def report(self) -> str:
        """Return the table and its sum."""
        columns = ("program", "failpoint", "hit 1", "hit 3", f"hit {DEEP}", "seconds", "outcome")
        rows = sorted(self.rows, key=lambda row: row.cell)
        names = {row.cell.name for row in rows}
        failed = [row for row in rows if row.fault]
        total_s = sum(row.seconds for row in rows)
        summary = (
            f"{len(names)} failpoints in {len(rows)} cells, {sum(row.kills for row in rows)} kills, "
            f"{len(failed)} failed, {total_s:.0f} s"
        )
        faults = [f"{row.cell}: {row.fault}" for row in failed]
        return "\n".join([table(columns, [row.cells for row in rows]), summary, *faults])


@contextlib.contextmanager
def running_matrix(
    folder: Path, broker: ProcessBroker, protocol: str = "auto"
) -> Iterator[Matrix]:
    """Run a fleet on a broker, in which cells can be played."""
    data = folder / "tiny.npz"
    _write_examples(data)
    shape = Shape(
        devices=DEVICES,
        regions=(REGION,),
        data=f"npz={data},name=tiny,classes={_CLASSES}",
        environment={"FEDFLEET_LOG_LEVEL": "info"},
        protocol=protocol,
    )
    with Fleet(folder, broker, shape) as fleet:
        central = fleet.state_dir(CENTRAL)
        central.mkdir(parents=True)
        (central / "models").touch()  # a file: nothing can be written into it
        fleet.start()
        # Central builds the forward graph of a model once, which takes long beside a busy fleet.
        fleet.complete(fleet.submit(_FIRST), within_s=_COMPLETE_S)
        tap = Tap(broker.port, "fl/v1/+/+/dn/rcpt/+")
        try:
            yield Matrix(fleet, tap)
        finally:
            tap.close()


def _armed_s(cell: Cell, nth: int) -> float:
    """Return how long a life may take to come by."""
    if cell.name in ONCE_A_LIFE and nth > 1:
        return _ONCE_S
    return _EXPORTS_S if cell.writes_models else _ARMED_S


def _write_examples(path: Path) -> None:
    rng = np.random.default_rng(7)
    y = rng.integers(0, _CLASSES, _EXAMPLES)
    centres = rng.normal(size=(_CLASSES, _FEATURES))
    x = (centres[y] + rng.normal(scale=0.5, size=(_EXAMPLES, _FEATURES))).astype(np.float32)
    np.savez(path, x=x, y=y.astype(np.int64))
