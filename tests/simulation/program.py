"""One program in a simulated world: its disk, its lives, and its turns.

A life ends at any effect; what was committed is what the next one finds.
"""

import os
import queue
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tests.simulation.clockwork import SimulatedCrashError
from tests.simulation.disk import (
    Files,
    SimulatedConnection,
    copy_of,
    full_disk,
    give_back,
    new_database,
)
from tests.simulation.network import SimulatedBroker, SimulatedSession
from tests.simulation.wire import spoken
from transport.database import is_storage_failure, next_boot, transaction
from transport.events import MessageArrived, Outgoing, SessionEvent
from transport.fence import Fence
from transport.loop import ServiceLoop

if TYPE_CHECKING:
    from tests.simulation.world import World

#: When the simulated world begins, unix seconds: 2001, so that no real file looks old in it.
EPOCH_S = 1.0e9
_LONGEST_IDLE_S = 15.0


class SimulatedQueue:
    """A queue that never waits: time passes in the clockwork, not here."""

    def __init__(self) -> None:
        self.items: deque[object] = deque()

    def put(self, item: object) -> None:
        self.items.append(item)

    def get(self, timeout: float | None = None) -> object:
        if not self.items:
            raise queue.Empty
        return self.items.popleft()

    get_nowait = get


@dataclass(frozen=True, slots=True)
class Backup:
    """What a program had on its disk at one moment."""

    connection: SimulatedConnection
    objects: frozenset[Path]
    at_s: float


class Program(ABC):
    """One program: its disk, its lives, and its part in the world."""

    #: How much later than due a turn comes at most, when nothing has arrived: when all is well, and
    #: while it is not. It changes nothing that is promised.
    lateness_s = (40.0, 6.0)

    def __init__(self, world: "World", name: str, schema_sql: str, version: int) -> None:
        self.world = world
        self.name = name
        self.folder = world.folder / name.replace("/", "-")
        self.files = Files()
        self._kind = type(self).__name__
        self.connection: SimulatedConnection = new_database(self._kind, schema_sql, version)
        self._is_restored = False
        self.fence: Any = None
        self.is_running = False
        #: Whether it speaks with fields that the others do not know.
        self.is_newer = world.work.chance(world.swarm.newer)
        self.life = 0
        self.clock_offset_s = 0.0
        self.queue = SimulatedQueue()
        self.sessions: dict[str, SimulatedSession] = {}
        self.loop: Any = None
        self.handler: Any = None
        self.frames: Any = None
        self.crash_in: int | None = None
        self._turn = 0
        self._turn_at_s = float("inf")

    # -- lives -------------------------------------------------------------------------------

    def clock(self) -> float:
        return EPOCH_S + self.world.work.now_s + self.clock_offset_s

    def start(self) -> None:
        """Begin a life on what is committed."""
        if self.is_running:
            return
        self.life += 1
        self.is_running = True
        self.queue = SimulatedQueue()
        self.world.note(self, f"starts, life {self.life}")
        self.run(self._build)
        if self.is_running:
            self.world.ledger.began(self, self.frames.boot)
            for session in self.sessions.values():
                session.start()
            self.wake(0.01)

    def run(self, action: Callable[[], object]) -> None:
        """Do something in this program's name; it may be killed there."""
        world = self.world
        world.current, former = self, world.current
        self.connection.watch(self.effect if world.may_crash(self) else None)
        try:
            action()
        except SimulatedCrashError as crash:
            self.end(f"killed at {crash}")
        except Exception as error:
            if not is_storage_failure(error):
                raise
            self.end(f"ends: {error}")
        finally:
            self.connection.watch(None)
            world.current = former

    def effect(self, label: str) -> None:
        """Come to a point at which the program may be killed."""
        if self.crash_in is not None:
            self.crash_in -= 1
            if self.crash_in <= 0:
                self.crash_in = None
                raise SimulatedCrashError(label)
        world = self.world
        if not world.is_healed and world.work.chance(world.swarm.crash):
            raise SimulatedCrashError(label)

    def end(self, why: str, *, with_will: bool = True) -> None:
        """End this life without a word; what was not committed is gone."""
        if not self.is_running:
            return
        self.is_running = False
        self.world.note(self, why)
        self.world.faults += 1
        self.connection.lose_uncommitted()
        for session in self.sessions.values():
            session.leave(with_will=with_will)
        if self.world.work.chance(self.world.swarm.power_cut):
            self.files.cut_power(self._folders(), self.world.work.rng)
        self.world.ended(self)

    def leave(self) -> None:
        """Stop in order, as on SIGTERM."""
        if not self.is_running:
            return
        self.world.note(self, "stops")
        self.run(self.loop._guard.leave)
        if not self.is_running:
            return
        self.is_running = False
        for name, session in self.sessions.items():
            session.stop(self._farewell(name))
        self.world.ended(self)

    def back_up(self) -> Backup:
        """Copy what is committed, and note which objects there are."""
        objects = frozenset(
            path for folder in self._folders() if folder.is_dir() for path in folder.iterdir()
        )
        return Backup(copy_of(self.connection), objects, EPOCH_S + self.world.work.now_s)

    def restore(self, backup: Backup) -> None:
        """Begin from a backup: the disk was lost."""
        self.end("loses its disk and is restored from a backup")
        for folder in self._folders():
            for path in folder.iterdir() if folder.is_dir() else ():
                if path not in backup.objects:
                    path.unlink()
        self._exchange(copy_of(backup.connection), backup)

    def _exchange(self, restored: SimulatedConnection, backup: Backup) -> None:
        self.connection = restored
        self._is_restored = True

    def close(self) -> None:
        """Give the disk back at the end of the world."""
        if not self._is_restored:
            give_back(self._kind, self.connection)

    # -- turns -------------------------------------------------------------------------------

    def receive(self, event: SessionEvent) -> None:
        if self.world.work.trace.is_kept and isinstance(event, MessageArrived):
            self.world.note(self, f"<- {event.topic_name}")
        self.queue.put(event)
        self.wake(self.world.work.between(0.01, 0.8))

    def wake(self, in_s: float) -> None:
        """Have a turn by then."""
        at_s = self.world.work.now_s + in_s
        if at_s < self._turn_at_s:
            self._turn += 1
            self._turn_at_s = at_s
            self.world.work.after(in_s, partial(self._take_turn, self._turn, self.life))

    def _take_turn(self, number: int, life: int) -> None:
        if number == self._turn:
            self._turn_at_s = float("inf")
        if number != self._turn or life != self.life or not self.is_running:
            return
        self.run(self.loop.turn)
        self.world.looked(self)
        if self.is_running:
            self.wake(self._idle_s())

    def _idle_s(self) -> float:
        if self.queue.items:
            return 0.001
        now_s = self.clock()
        due_s = self.handler.next_due_s(now_s)
        idle_s = _LONGEST_IDLE_S if due_s is None else min(due_s - now_s, _LONGEST_IDLE_S)
        if self.loop._backlog._kept:
            idle_s = min(idle_s, 1.0)
        return max(0.0, idle_s) + self.world.work.between(
            0.01, self.lateness_s[not self.world.is_healed]
        )

    def published(self, message: Outgoing) -> None:
        if self.world.work.trace.is_kept:
            self.world.note(self, f"-> {message.topic.name}")
        self.world.ledger.published(self, message)

    def fsync(self, path: Path) -> None:
        if self.connection.is_full:
            raise full_disk()
        self.effect("fsync")
        self.files.fsync(path)

    # -- what each program is ------------------------------------------------------------------

    @abstractmethod
    def _build(self) -> None:
        """Put the program together on what is committed."""

    @abstractmethod
    def _farewell(self, session: str) -> Outgoing | None:
        """Return the last word on a session, if it has one."""

    def _folders(self) -> tuple[Path, ...]:
        return ()

    def _boot(self) -> int:
        self.fence = Fence.claim(self.connection)
        with transaction(self.connection):
            return next_boot(self.connection, self.clock())

    def _rng(self) -> np.random.Generator:
        return np.random.default_rng(self.world.work.rng.getrandbits(63))

    def _session(
        self, broker: SimulatedBroker, name: str, client_id: str, filters: tuple[str, ...]
    ) -> SimulatedSession:
        session = SimulatedSession(broker, self, name, client_id, filters)
        session.spoken = partial(spoken, is_newer=self.is_newer)
        return session

    def _serve(self, handler: Any, sessions: dict[str, SimulatedSession]) -> None:
        self.handler, self.sessions = handler, sessions
        self.loop = ServiceLoop(
            self.connection,
            self.queue,  # type: ignore[arg-type]
            sessions,
            handler,
            self.clock,
            pause=lambda _: None,
            fence=self.fence,
        )
        self.loop._log_failure = self.world.handler_failed
        # When a turn comes, and so a tick, is planned in the clockwork.
        self.loop._wait_s = _no_wait
        self.loop._tick_due_s = _now


def _no_wait(now_s: float) -> float:
    return 0.0


def _now(now_s: float) -> float:
    return now_s


def empty(folder: Path) -> None:
    """Remove what an earlier world left in a folder; the folders themselves stay."""
    for place, _, names in os.walk(folder):
        for name in names:
            os.unlink(os.path.join(place, name))  # noqa: PTH108, PTH118 - at each of many worlds
