"""A whole fleet in one process, on one seed: bad luck first, then everything heals and must end."""

import json
import logging
import sqlite3
import tempfile
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from device_agent.core.backend import ONNX, TORCH
from schemas.tasks import FINAL_STATES
from schemas.topics import Kind, Topic
from tests.simulation.clockwork import Clockwork
from tests.simulation.disk import Reader, watch_fsync
from tests.simulation.ledger import Ledger
from tests.simulation.network import Letter, SimulatedBroker
from tests.simulation.observed import Memory, ViolationError
from tests.simulation.person import Person
from tests.simulation.program import Backup, Program, empty
from tests.simulation.programs import CentralProgram, DeviceProgram, GatewayProgram
from tests.simulation.swarm import YEAR_S, Swarm, swarm_of
from tests.simulation.tiny import LARGE, SMALL
from transport import failpoints

#: After healing, all tasks must end within this, simulated seconds.
PATIENCE_S = 5000.0
_GUST_S = 1.0
_LOOK_S = 4.0


class World:
    """One simulated fleet.

    Attributes:
        backend: What every device trains with; onnx needs a graph.
        is_healed: Whether nothing goes wrong any more.
        faults: How many kills, cuts and the like there were.
    """

    def __init__(
        self,
        seed: int,
        swarm: Swarm | None = None,
        folder: Path | None = None,
        *,
        keep_trace: bool = False,
    ) -> None:
        self.seed = seed
        self.swarm = swarm or swarm_of(seed)
        self.work = Clockwork(seed, keep_trace=keep_trace)
        self._temporary = tempfile.TemporaryDirectory() if folder is None else None
        self.folder = folder or Path(self._temporary.name)  # type: ignore[union-attr]
        self.layout = LARGE if self.swarm.large else SMALL
        self.backend = ONNX if self.swarm.graphs else TORCH
        self.is_healed = False
        self.healed_s = float("inf")
        self.faults = 0
        self.current: Program | None = None
        self.ledger = Ledger(self)
        self._brokers: dict[str | None, SimulatedBroker] = {}
        self._backups: dict[str, tuple[Backup, Memory | None]] = {}
        self._failure: BaseException | None = None
        empty(self.folder)
        watch_fsync(self._on_fsync)
        self.central = CentralProgram(self)
        regions = [f"r{index + 1}" for index in range(self.swarm.regions)]
        self.gateways = {region: GatewayProgram(self, region) for region in regions}
        self.devices = [
            DeviceProgram(self, f"d{index + 1}", regions[index % len(regions)])
            for index in range(self.swarm.devices)
        ]
        self.person = Person(self)

    # -- running -------------------------------------------------------------------------------

    @property
    def programs(self) -> list[Program]:
        return [self.central, *self.gateways.values(), *self.devices]

    def close(self) -> None:
        watch_fsync(None)
        failpoints.arm(None)
        for program in self.programs:
            program.close()
        if self._temporary is not None:
            self._temporary.cleanup()

    def run(self) -> None:
        """Live through the seed's bad luck, then heal, and expect that everything ends well.

        Raises:
            ViolationError: A promise was broken.
        """
        self.begin()
        self.run_for(self.swarm.faulty_s)
        self.heal()
        self.settle()

    def begin(self) -> None:
        for program in self.programs:
            self.work.after(self.work.between(0.0, 3.0), partial(self.start, program))
        self.person.begin()
        self.work.after(_GUST_S, self._gust)

    def run_for(self, seconds: float) -> None:
        until_s = self.work.now_s + seconds
        while self.work.now_s < until_s and self.work.step():
            self._raise_failure()

    def heal(self) -> None:
        """Let everything go well from now on."""
        self.note(None, "the world heals")
        self.is_healed = True
        self.healed_s = self.work.now_s
        for broker in self._brokers.values():
            broker.heal()
        for program in self.programs:
            program.connection.is_full = False
            program.crash_in = None
            if not program.is_running:
                self.work.after(self.work.between(0.1, 2.0), partial(self.start, program))
        self.person.heal()

    def settle(self) -> None:
        """Run until all has ended; fail when it does not."""
        until_s = self.work.now_s + PATIENCE_S
        look_s = self.work.now_s + _LOOK_S
        while self.work.now_s < until_s:
            if not self.work.step():
                break
            self._raise_failure()
            if self.work.now_s >= look_s:
                look_s = self.work.now_s + _LOOK_S
                if not self.unsettled():
                    return
        rule = "liveness"
        raise ViolationError(rule, f"after {PATIENCE_S:g} s: {self.unsettled()}")

    def unsettled(self) -> str | None:
        """Return what has not come to its end yet."""
        for task, progress in self.central.connection.execute("SELECT task, progress FROM tasks"):
            state = json.loads(progress)["state"]
            if state not in FINAL_STATES:
                return f"{task} is {state}: {progress}"
        if missing := self.person.unheard():
            return f"{missing} have not come to their end"
        for program in (*self.devices, *self.gateways.values()):
            rows = program.connection.execute("SELECT xfer, device FROM outbox").fetchall()
            if rows:
                return f"{program.name} still owes {rows}"
        return self._unrecorded() or self._absent()

    def _unrecorded(self) -> str | None:
        central = self.central.connection
        known = {xfer for (xfer,) in central.execute("SELECT xfer FROM refusals")}
        known |= {xfer for (xfer,) in central.execute("SELECT xfer FROM contributions")}
        ledger = self.ledger
        for xfer, job in ledger.produced.items():
            told, _ = ledger.memory.receipted.get(xfer, (None, None))
            is_told = told in ("late", "rejected") or ledger.is_of_counted(xfer)
            if xfer not in known and xfer not in ledger.forgiven and not is_told:
                return f"{xfer[:6]} {job} is recorded nowhere"
        return None

    def _absent(self) -> str | None:
        rows = self.central.connection.execute("SELECT device, is_online FROM devices")
        online = {device for device, is_online in rows if is_online}
        absent = {device.name for device in self.devices} - online
        if absent:
            return f"central holds {sorted(absent)} for gone"
        rows = self.central.connection.execute("SELECT region, is_online FROM gateways")
        online = {region for region, is_online in rows if is_online}
        absent = self.gateways.keys() - online
        return f"central holds gateways {sorted(absent)} for gone" if absent else None

    # -- what programs ask of their world --------------------------------------------------------

    def broker_of(self, region: str | None) -> SimulatedBroker:
        """Return the broker of a region, or central's; often they are one."""
        place = region if self.swarm.unlike_brokers else None
        if place not in self._brokers:
            name = f"broker {place or 'central'}"
            self._brokers[place] = SimulatedBroker(self.work, self.swarm, name)
        return self._brokers[place]

    def reader_of(
        self, program: Program
    ) -> Callable[[], AbstractContextManager[sqlite3.Connection]]:
        """Return how a worker opens its program's database to read what is committed."""
        return lambda: Reader(program.connection)  # type: ignore[return-value]

    def may_crash(self, program: Program) -> bool:
        """Tell whether the effects of a program are worth counting: it may be killed at one."""
        may = program.crash_in is not None or (not self.is_healed and self.swarm.crash > 0)
        failpoints.arm(self._on_failpoint if may else None)
        return may

    def looked(self, program: Program) -> None:
        self._guarded(partial(self.ledger.looked, program))

    def ended(self, program: Program) -> None:
        """Take note of the end of a life; the next one begins after a while."""
        self.looked(program)
        away_s = self.work.between(0.2, 20.0)
        self.work.after(away_s, partial(self.start, program))

    def start(self, program: Program) -> None:
        if program.is_running:
            return
        if self.work.chance(0.0 if self.is_healed else self.swarm.clock_jump):
            program.clock_offset_s = self.work.between(-10.0, 10.0) * YEAR_S
        program.start()
        self.looked(program)

    def handler_failed(self, event_name: str, error: Exception, now_s: float, **ids: str) -> None:
        """Take the place of the loop's log: a handler must not raise."""
        text = "".join(traceback.format_exception(error)[-3:])
        self._failure = ViolationError("fault", f"{event_name} {ids}: {text}")

    def note(self, program: Program | None, text: str) -> None:
        self.work.note(program.name if program else "-", text)

    # -- bad luck --------------------------------------------------------------------------------

    def _gust(self) -> None:
        """Bring what goes wrong in one second."""
        if self.is_healed:
            return
        self.work.after(_GUST_S, self._gust)
        swarm = self.swarm
        for probability, happen in (
            (swarm.cut, self._cut),
            (swarm.dumb, self._go_dumb),
            (swarm.broker_kill, self._kill_broker),
            (swarm.full_disk, lambda: self._fill_disk(self.work.rng.choice(self.programs))),
            (swarm.leave, lambda: self._leave(self.work.rng.choice(self.devices))),
            (swarm.restore, self._back_up_or_restore),
            (swarm.meddle, self.person.meddle),
        ):
            if self.work.chance(probability):
                happen()

    def _cut(self) -> None:
        session = self._any_session()
        if session is not None:
            self.faults += 1
            session._broker.cut(session, self.work.between(0.5, 60.0))

    def _kill_broker(self) -> None:
        if self._brokers:
            broker = self.work.rng.choice(list(self._brokers.values()))
            self.faults += 1
            self.note(None, f"{broker.name} is killed")
            forgets = self.work.chance(self.swarm.broker_forgets)
            broker.kill(self.work.between(0.5, 30.0), forgets=forgets)

    def _any_session(self) -> Any:
        sessions = [s for program in self.programs for s in program.sessions.values()]
        return self.work.rng.choice(sessions) if sessions else None

    def _go_dumb(self) -> None:
        session = self._any_session()
        if session is None:
            return
        self.faults += 1
        until_s = self.work.now_s + self.work.between(1.0, 60.0)
        if self.work.chance(0.5):
            session.dumb_up_s = until_s
        else:
            session.dumb_down_s = until_s
        self.note(session.host, f"{session.name} goes dumb on one way")

    def _fill_disk(self, program: Program) -> None:
        self.faults += 1
        self.note(program, "its disk is full")
        program.connection.is_full = True

        def free() -> None:
            program.connection.is_full = False

        self.work.after(self.work.between(1.0, 30.0), free)

    def _leave(self, device: Program) -> None:
        if self.work.chance(0.5):
            device.leave()
        else:
            device.end("leaves without a word")

    def _back_up_or_restore(self) -> None:
        """Take a backup of central or a gateway, or lose the disk and begin from the last one."""
        program = self.work.rng.choice([self.central, *self.gateways.values()])
        if program.name not in self._backups or self.work.chance(0.3):
            memory = self.ledger.memory.copy() if program is self.central else None
            self._backups[program.name] = (program.back_up(), memory)
            self.note(program, "is backed up")
        else:
            backup, memory = self._backups[program.name]
            program.restore(backup)
            self.ledger.restored(program, memory)

    def _on_fsync(self, path: Path) -> None:
        if self.current is not None:  # else a program's disk outside of its lives
            self.current.fsync(path)

    def _on_failpoint(self, name: str) -> None:
        if self.current is not None:
            self.current.effect(name)

    # -- violations ------------------------------------------------------------------------------

    def _guarded(self, check: Callable[[], None]) -> None:
        try:
            check()
        except ViolationError as violation:
            self._failure = self._failure or violation

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure


def status_of(broker: SimulatedBroker, task: str) -> dict[str, Any] | None:
    """Return a task's retained status."""
    payload = broker.retained.get(Topic(Kind.TASK_STATUS, task=task).name)
    return json.loads(payload) if payload else None


def silence_logs() -> None:
    """Let programs log nothing: a seed is told by its trace."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL),
        cache_logger_on_first_use=False,
    )


__all__ = ["Letter", "World", "silence_logs", "status_of"]
