"""What this device keeps from a task's round to its next one, if central counts the round.

A memory is stored in the transaction of its update's outbox row. Which one is in force is for
central to say: the assignment tells the round that was counted last, and which update of it, since
a device that lost its store may have made two. That row stays, all others of the task go; without
it the job builds on nothing, which is right at any time.
"""

import structlog

from device_agent.core.job import JobKey
from device_agent.service.ports import Memory
from device_agent.service.records import MemoryStore
from schemas.messages import Assignment
from transport.failpoints import failpoint
from transport.objects import ObjectStore

_LOG = structlog.get_logger()
#: A device works for few tasks at a time, and is told when one ends.
_KEPT_TASKS = 8


class Memories:
    """The memories of all tasks."""

    def __init__(self, store: MemoryStore, objects: ObjectStore, device: str) -> None:
        self._store = store
        self._objects = objects
        self._device = device

    def take_up(self, assignment: Assignment) -> int:
        """Return the round that a new job of a task builds on; the others are forgotten.

        Returns:
            The round that central has told; 0 when that is 0, or when nothing is left of it.
        """
        task, told = assignment.task, assignment.reference(self._device)
        if assignment.plan.memory == "none":
            return 0
        key, mark = JobKey(task, told), assignment.mark(self._device)
        found = self._store.get(key) if told else None
        is_here = found is not None and mark in {None, found.mark} and self._is_here(found)
        if told and not is_here:
            _LOG.info("memory_missing", task=task, round=told)
        self._store.keep_only(key if is_here else JobKey(task, 0))
        failpoint("device.memory.chosen")
        return told if is_here else 0

    def of(self, task: str, reference: int) -> Memory | None:
        """Return the memory that a job builds on."""
        return self._store.get(JobKey(task, reference)) if reference else None

    def keep(self, key: JobKey, memory: Memory) -> bool:
        """Store what a round has left; False when its file is gone, and nothing was stored."""
        if not self._adopt(memory):
            return False
        self._store.save(key, memory)
        failpoint("device.memory.stored")
        return True

    def discard(self, memory: Memory) -> None:
        """Remove the file of a memory that nobody wants any more."""
        if memory.file is not None:
            memory.file.unlink(missing_ok=True)

    def forget(self, task: str) -> None:
        """Forget a task that has ended."""
        self._store.forget(task)

    def tidy_up(self) -> None:
        """Forget tasks whose end was missed: all but the newest few, whatever the clock says."""
        self._store.keep_newest(_KEPT_TASKS)

    def objects(self) -> frozenset[str]:
        """Return the SHA-256 of every memory that is an object."""
        return frozenset(self._store.objects())

    def _is_here(self, memory: Memory) -> bool:
        return memory.payload is not None or self._objects.has(memory.sha256)

    def _adopt(self, memory: Memory) -> bool:
        """Move a file into the store; one that is there already is from a turn that was undone."""
        if memory.file is not None and memory.file.exists():
            self._objects.adopt(memory.file, memory.sha256, durable=True)
            failpoint("device.memory.adopted")
        return self._is_here(memory)
