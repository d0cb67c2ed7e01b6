"""The outbox's quota: what is dropped to keep within it, and jobs for which there is no room."""

import structlog

from device_agent.core import quota
from device_agent.core.job import JobKey, Refusal
from device_agent.core.quota import Owed
from device_agent.service.records import JobStore
from device_agent.service.uploads import Uploads

_LOG = structlog.get_logger()


class Room:
    """Keeps the outbox within its quota."""

    def __init__(self, store: JobStore, uploads: Uploads, quota_bytes: int) -> None:
        self._store = store
        self._uploads = uploads
        self._quota_bytes = quota_bytes

    def refusal(self, key: JobKey, parameters: int) -> Refusal | None:
        """Return why there is no room for the update of one more job, or None."""
        owed = self._store.owed()
        newest = {**self._newest(owed), key.task: key.round}
        return quota.refusal(owed, newest, parameters, self._quota_bytes)

    def make(self) -> list[tuple[JobKey, str]]:
        """Drop what is too much; return the jobs whose updates went, and why."""
        owed = self._store.owed()
        reason = f"not receipted, and the outbox may hold {self._quota_bytes} bytes"
        dropped = quota.too_much(owed, self._newest(owed), self._quota_bytes)
        for one in dropped:
            _LOG.warning(
                "update_dropped",
                task=one.key.task,
                round=one.key.round,
                bytes=one.size_bytes,
                outbox_bytes=sum(each.size_bytes for each in owed),
                quota_bytes=self._quota_bytes,
            )
            self._uploads.drop(one)
        return [(one.key, reason) for one in dropped]

    def _newest(self, owed: list[Owed]) -> dict[str, int]:
        tasks = {one.key.task for one in owed}
        return {task: self._store.newest_round(task) or 0 for task in tasks}
