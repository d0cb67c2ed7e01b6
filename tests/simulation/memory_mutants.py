"""Planted bugs in what devices keep from round to round; added to the others when imported."""

from typing import Any

from central.adapters.store import SqliteStore as CentralStore
from central.core import lazy_sum
from device_agent.adapters.memory_store import SqliteMemoryStore
from device_agent.service.memories import Memories
from schemas.ids import contribution_mark
from tests.simulation.planting import Change, mutant


@mutant("a device builds on its newest memory, whether its round counted or not")
def _() -> tuple[Change, ...]:
    def of(self: Any, task: str, reference: int) -> Any:
        query = "SELECT max(round) FROM memories WHERE task = ?"
        (newest,) = self._store._connection.execute(query, (task,)).fetchone()
        return real(self, task, newest or 0)

    def keep_only(self: Any, key: Any) -> None:
        return

    real = Memories.of
    return ((Memories, "of", of), (SqliteMemoryStore, "keep_only", keep_only))


@mutant("central tells each device its last accepted round, also one that was abandoned")
def _() -> tuple[Change, ...]:
    def references(self: CentralStore, task: str, devices: Any, reach: int) -> Any:
        query = (
            "SELECT device, max(round), xfer, reference FROM contributions "
            "WHERE task = ? GROUP BY device"
        )
        rows = self._db.execute(query, (task,)).fetchall()
        return {one: (last, contribution_mark(xfer, on)) for one, last, xfer, on in rows}

    return ((CentralStore, "references", references),)


@mutant("in a lazy task central sums only those who have reported")
def _() -> tuple[Change, ...]:
    def everyone(held: Any, contributions: Any) -> Any:
        present = {one.device for one in contributions}
        return real({name: one for name, one in held.items() if name in present}, contributions)

    real = lazy_sum._everyone
    return ((lazy_sum, "_everyone", everyone),)


@mutant("a memory is written when its update has been stored, not in the same transaction")
def _() -> tuple[Change, ...]:
    def keep(self: Any, key: Any, memory: Any, now_s: float) -> bool:
        self.__dict__.setdefault("late", []).append((key, memory, now_s))
        return True

    def objects(self: Any) -> frozenset[str]:
        for late in self.__dict__.pop("late", []):
            real(self, *late)
        return found(self)

    real, found = Memories.keep, Memories.objects
    return ((Memories, "keep", keep), (Memories, "objects", objects))
