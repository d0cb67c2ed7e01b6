"""Updates on their way up: stored with the job's state, forgotten only after a final receipt."""

from collections.abc import Callable

import structlog

from device_agent.core.link import Upload, rate_bytes_s
from device_agent.core.quota import Owed
from device_agent.service.ports import EncodedUpdate
from device_agent.service.records import JobRecord, UploadTimes
from device_agent.service.traffic import WorkTraffic
from device_agent.service.wire import Wire
from schemas.bids import Bid
from schemas.ids import transfer_id
from schemas.messages import Need, Receipt, UpdateManifest
from transport.events import Outgoing
from transport.failpoints import failpoint
from transport.objects import ObjectStore
from transport.outbox import Outbox, OutboxEntry
from transport.sender import Sender

#: Receipts of an update that arrived whole.
_ARRIVED = frozenset({"held", "accepted", "duplicate", "late"})
_LEAST_S = 0.001
#: After so long a link that forbids to send is looked at again.
LOOK_AGAIN_S = 30.0

_LOG = structlog.get_logger()


class Uploads:
    """The outbox and its sender."""

    def __init__(  # noqa: PLR0913, PLR0917 - collaborators, named by the composition root
        self,
        wire: Wire,
        objects: ObjectStore,
        outbox: Outbox,
        sender: Sender,
        traffic: WorkTraffic,
        times: UploadTimes,
        why_not_now: Callable[[], str | None] = lambda: None,
    ) -> None:
        """Begin with what the outbox holds.

        Args:
            wire: Makes the frames.
            objects: Where large updates lie.
            outbox: The rows of those without a final receipt.
            sender: Sends them.
            traffic: Counts bytes.
            times: What the last uploads took.
            why_not_now: Tells why nothing may be sent on the link as it is; None: it may.
        """
        self._wire = wire
        self._objects = objects
        self._outbox = outbox
        self._sender = sender
        self._traffic = traffic
        self._times = times
        self._why_not_now = why_not_now
        self._held: str | None = None
        self._look_again_s = 0.0
        self._free_since_s = 0.0

    def add(
        self, record: JobRecord, update: EncodedUpdate, clock: int, now_s: float
    ) -> str | None:
        """Store an update's outbox row and its file.

        Args:
            record: The job.
            update: What it gave.
            clock: Updates of the task in a row that were not granted; part of a bid.
            now_s: Now, unix seconds.

        Returns:
            Its transfer id; None when its file is gone, and nothing was stored.
        """
        manifest, key = update.manifest, record.key
        if not self._adopt(update):
            return None
        device = self._wire.address.node
        xfer = transfer_id(device, key.task, key.round, manifest.sha256)
        entry = OutboxEntry(
            xfer=xfer,
            task=key.task,
            round_number=key.round,
            device=device,
            frame=self._frame(xfer, record, update, clock),
            sha256=manifest.sha256,
            size=manifest.size,
            created_s=now_s,
            path=None if manifest.inline else self._objects.path(manifest.sha256),
            chunk_bytes=0 if manifest.inline else manifest.chunk_bytes,
            next_try_s=now_s,
        )
        self._outbox.add(entry)
        failpoint("device.outbox.added")
        return xfer

    def drop(self, owed: Owed) -> None:
        """Remove an update without a receipt; its file goes after the commit."""
        self._outbox.remove(owed.xfer, owed.sha256)

    def discard(self, update: EncodedUpdate) -> None:
        """Remove the file of an update that nobody wants any more."""
        if update.file is not None:
            update.file.unlink(missing_ok=True)

    def due(self, now_s: float) -> list[Outgoing]:
        """Return the manifests to publish now."""
        return [] if self._is_held(now_s) else self._sender.due(now_s)

    def why_held(self) -> str | None:
        """Return why nothing may be sent now; None: it may."""
        return self._why_not_now()

    def wake(self, now_s: float) -> list[Outgoing]:
        """Offer at once what no gateway holds."""
        self._sender.wake(now_s)
        return self.due(now_s)

    def next_due_s(self) -> float | None:
        """Return when ``due`` may have something to say."""
        due_s = self._sender.next_due_s()
        return due_s if due_s is None or self._held is None else max(due_s, self._look_again_s)

    def on_need(self, need: Need, now_s: float) -> list[Outgoing]:
        """Return the chunks that the receiver asks for; it asks again for what it does not get."""
        if self._is_held(now_s):
            return []
        try:
            return self._sender.on_need(need, now_s)
        except FileNotFoundError:
            _LOG.warning("update_file_missing", xfer=need.xfer)
            return []

    def rate_bytes_s(self) -> float | None:
        """Return what the link carried at least, of late; None: it is not known."""
        return rate_bytes_s(self._times.recent())

    def on_receipt(self, receipt: Receipt, now_s: float) -> OutboxEntry | None:
        """Apply a receipt; return the row that it removed, if it was final."""
        self._measure(receipt, now_s)
        effect = self._sender.on_receipt(receipt, now_s)
        failpoint("device.receipt.applied")
        if effect.entry is None or not effect.final:
            return None
        if receipt.is_over_budget:
            _LOG.info("update_not_granted", xfer=receipt.xfer, detail=receipt.detail)
        if receipt.status == "rejected":
            _LOG.warning(
                "update_rejected", xfer=receipt.xfer, code=receipt.code, detail=receipt.detail
            )
        return effect.entry

    def _measure(self, receipt: Receipt, now_s: float) -> None:
        """Note how long an upload took, at the first word that says that all of it arrived."""
        if receipt.status not in _ARRIVED:
            return
        entry = self._outbox.get(receipt.xfer)
        if entry is None or entry.held or entry.sha256 != receipt.sha256:
            return
        size = len(entry.frame) + (0 if entry.path is None else entry.size)
        began_s = max(entry.created_s, self._free_since_s)
        self._times.add(Upload(size, max(_LEAST_S, now_s - began_s)))

    def _is_held(self, now_s: float) -> bool:
        """Tell whether the link forbids to send; what waits is looked at again a while later."""
        held = self._why_not_now()
        if held is not None:
            self._look_again_s = now_s + LOOK_AGAIN_S
        elif self._held is not None:
            # What was waited for another link tells nothing of this one.
            self._free_since_s = now_s
        if held != self._held:
            _LOG.info("uploads_held" if held else "uploads_go_on", reason=held)
        self._held = held
        return held is not None

    def _adopt(self, update: EncodedUpdate) -> bool:
        """Move a file into the store; one that is there already is from a turn that was undone."""
        if update.file is None:
            return True
        if update.file.exists():
            self._objects.adopt(update.file, update.manifest.sha256, durable=True)
            failpoint("device.update.adopted")
        return self._objects.has(update.manifest.sha256)

    def _frame(self, xfer: str, record: JobRecord, update: EncodedUpdate, clock: int) -> bytes:
        key, choice = record.key, update.choice
        body = UpdateManifest(
            xfer=xfer,
            task=key.task,
            round=key.round,
            device=self._wire.address.node,
            object=update.manifest,
            codec=record.plan.codec if choice is None else choice.codec_id,
            codec_params={} if choice is None else dict(choice.params),
            base_model_sha256=record.model.sha256,
            num_examples=update.num_examples,
            metrics=update.metrics,
            train_s=update.train_s,
            wire_bytes=self._traffic.told(),
            reference=update.reference,
            bid=_bid(update, clock),
        )
        return self._wire.frames.frame(
            body, task=key.task, round_number=key.round, tail=update.tail
        )


def _bid(update: EncodedUpdate, clock: int) -> str | None:
    if update.gain is None:
        return None
    return Bid(update.gain, clock, update.manifest.size).encode()
