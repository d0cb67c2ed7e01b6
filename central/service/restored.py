"""A central that was restored from a backup: what it cannot know the end of is given up."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timezone

from central.core import tasks
from central.service.desk import Desk
from central.service.openings import Openings
from central.service.rounds import Rounds
from transport.events import Outgoing


class Restored:
    """Deals with the mark that a restore has left; see rule 6 of ``central.core.tasks``."""

    def __init__(self, desk: Desk, rounds: Rounds, openings: Openings) -> None:
        self._desk = desk
        self._rounds = rounds
        self._openings = openings
        self._is_over = False

    def take_up(self, now_s: float) -> Iterator[Outgoing]:
        """Deal with a restore before anything else; without one nothing happens.

        It may be called again: what was written may have been undone with its transaction.
        """
        mark = None if self._is_over else self._desk.store.open_restore()
        if mark is None:
            return
        moment = datetime.fromtimestamp(mark.backup_s, timezone.utc)
        reason = f"central was restored from a backup of {moment:%Y-%m-%d %H:%M:%S} UTC"
        for task in self._desk.store.live_tasks():
            self._rounds.give_up(task, reason, now_s)
            progress = tasks.restore(task.progress, reason, mark.epoch, now_s)
            yield from self._openings.end_if_final(replace(task, progress=progress), now_s)
        self._desk.store.close_restores()

    def committed(self) -> None:
        """Stop looking once no restore is left to deal with."""
        if not self._is_over:
            self._is_over = self._desk.store.open_restore() is None
