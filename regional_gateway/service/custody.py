"""Updates on their way up: taken into custody, passed on, and ended by central's receipt."""

from dataclasses import dataclass, replace

from regional_gateway.core import custody
from regional_gateway.core.custody import Act, Offer, Refuse, Space, Standing
from regional_gateway.service.deferred import Deferred
from regional_gateway.service.due import earliest
from regional_gateway.service.links import Links
from regional_gateway.service.metering import Meter
from regional_gateway.service.offers import Offered, Offers
from regional_gateway.service.ports import FinalReceipt, ReceiptStore
from schemas.envelope import Frame
from schemas.messages import Receipt, UpdateManifest
from schemas.topics import Kind
from transport.events import Outgoing
from transport.failpoints import failpoint
from transport.objects import ObjectStore
from transport.outbox import Outbox, OutboxEntry
from transport.sender import Sender

#: A device repeats its offer after a second. Central is mostly quicker than this, and its word
#: makes the gateway's own superfluous: a message and a commit of the device less.
HELD_AFTER_S = 0.25


@dataclass(frozen=True, slots=True)
class Load:
    """What custody holds.

    Attributes:
        updates: How many.
        oldest_s: How long the oldest of them is here, seconds; 0: there is none.
        held_bytes: Their size.
        promised_bytes: Size of what is being pulled.
        quota_bytes: Most that both may be together.
    """

    updates: int
    oldest_s: float
    held_bytes: int
    promised_bytes: int
    quota_bytes: int


class Custody:
    """What the gateway holds for devices until central's last word on it."""

    def __init__(  # noqa: PLR0913, PLR0917 - collaborators, named by the composition root
        self,
        store: ReceiptStore,
        outbox: Outbox,
        sender: Sender,
        objects: ObjectStore,
        offers: Offers,
        links: Links,
        deferred: Deferred,
        quota_bytes: int,
        meter: Meter,
    ) -> None:
        """Begin with what is stored.

        Args:
            store: Final receipts.
            outbox: The custody rows; each has the device's frame untouched.
            sender: Passes them on to central.
            objects: Large objects in custody.
            offers: Large objects that are offered and not in custody.
            links: Makes messages.
            deferred: What waits for the commit.
            quota_bytes: Most bytes in custody or promised to pulls.
            meter: Counts what comes and goes.
        """
        self._store = store
        self._outbox = outbox
        self._sender = sender
        self._objects = objects
        self._offers = offers
        self._links = links
        self._deferred = deferred
        self._quota_bytes = quota_bytes
        self._meter = meter
        self._promises: dict[str, tuple[UpdateManifest, float]] = {}

    def on_manifest(self, device: str, xfer: str, frame: Frame, now_s: float) -> list[Outgoing]:
        """Take, offer upward or refuse one update; every manifest is answered in the end.

        Raises:
            MessageError: The body does not fit; there is no object to give a receipt for.
        """
        manifest = frame.body(UpdateManifest)
        tail_sha256 = frame.header.tail_sha256
        offer = Offer(manifest, device, xfer, frame.header.src, len(frame.tail), tail_sha256)
        found = custody.judge(offer, self._standing(manifest, xfer), self._space())
        if isinstance(found, Refuse):
            return [self._refuse(device, xfer, manifest, found)]
        if found is Act.OFFER:
            self._offers.put(Offered(device, manifest, frame, now_s, now_s))
            failpoint("gateway.offer.noted")
            return [self._links.up_transfer(Kind.MANIFEST, xfer, frame.encode())]
        if found is Act.REPEAT_FINAL:
            return self._repeat_final(xfer)
        if found is Act.TAKE:
            self._take(_entry(manifest, frame, now_s))
            failpoint("gateway.custody.added")
            self._promises[xfer] = (manifest, now_s + HELD_AFTER_S)
            return []
        return [self.held(manifest)]

    def due(self, now_s: float) -> list[Outgoing]:
        """Return the gateway's word on updates that central has not ended in the meantime."""
        due = [xfer for xfer, (_, due_s) in self._promises.items() if due_s <= now_s]
        found = [self._promises.pop(xfer)[0] for xfer in due]
        return [self.held(manifest) for manifest in found if self._store.holds(manifest.xfer)]

    def next_due_s(self) -> float:
        """Return when ``due`` may have something to say; infinity: not before an event."""
        return earliest(*(due_s for _, due_s in self._promises.values()))

    def has_room(self, offered: Offered) -> bool:
        """Tell whether the object of a bid that was granted has room in custody."""
        space = self._space()
        return space.used_bytes + offered.manifest.object.size <= space.quota_bytes

    def take_large(self, offered: Offered, now_s: float) -> list[Outgoing]:
        """Write the row of an object that is whole and durable; tell its device."""
        manifest = offered.manifest
        entry = replace(
            _entry(manifest, offered.frame, now_s),
            path=self._objects.path(manifest.object.sha256),
            chunk_bytes=manifest.object.chunk_bytes,
        )
        self._take(entry)
        failpoint("gateway.custody.taken")
        return [self.held(manifest)]

    def held(self, manifest: UpdateManifest) -> Outgoing:
        """Return the gateway's word that it has an update on disk."""
        receipt = Receipt(xfer=manifest.xfer, status="held", sha256=manifest.object.sha256)
        return self._receipt(manifest.device, manifest, receipt)

    def refused(self, offered: Offered, refusal: Refuse) -> Outgoing:
        """Return the gateway's word that it does not take an update that was offered."""
        return self._refuse(offered.device, offered.manifest.xfer, offered.manifest, refusal)

    def on_receipt(
        self, xfer: str, receipt: Receipt, frame: Frame, now_s: float
    ) -> list[Outgoing]:
        """Apply central's receipt; a final one is remembered and passed on as it came."""
        if receipt.xfer != xfer:
            return []
        effect = self._sender.on_receipt(receipt, now_s)
        if effect.final:
            self._promises.pop(xfer, None)
        if effect.final and effect.entry is not None:
            self._meter.released(max(0.0, now_s - effect.entry.created_s))
            if effect.entry.path is not None:
                self._deferred.add(lambda: self.remove_unheld(receipt.sha256))
            return self._end(effect.entry.device, receipt, frame, now_s)
        offered = self._offers.get(xfer)
        if offered is None or self._store.holds(xfer):
            return []
        if not custody.ends(receipt, xfer, offered.manifest.object.sha256):
            return []
        return self._end(offered.device, receipt, frame, now_s)

    def load(self, now_s: float) -> Load:
        """Return what is held now."""
        oldest_s = self._outbox.oldest_s()
        return Load(
            updates=self._outbox.count(),
            oldest_s=0.0 if oldest_s is None else max(0.0, now_s - oldest_s),
            held_bytes=self._outbox.total_bytes(),
            promised_bytes=self._offers.promised_bytes(),
            quota_bytes=self._quota_bytes,
        )

    def remove_unheld(self, sha256: str) -> None:
        """Remove an object's file unless a row or an offer names it."""
        if not self._offers.names(sha256) and not self._store.objects_in_custody({sha256}):
            self._objects.remove(sha256)
            failpoint("gateway.object.removed")

    def remove_orphans(self) -> None:
        """Remove every file that neither a row nor an offer names: a crash may leave some."""
        for sha256 in self._objects.sizes():
            self.remove_unheld(sha256)
        failpoint("gateway.orphans.removed")

    def _end(self, device: str, receipt: Receipt, frame: Frame, now_s: float) -> list[Outgoing]:
        raw = frame.encode()
        self._store.save_receipt(FinalReceipt(receipt.xfer, device, raw), now_s)
        failpoint("gateway.receipt.saved")
        self._meter.receipted("central", receipt)
        return [self._links.down_transfer(device, Kind.RECEIPT, receipt.xfer, raw)]

    def _take(self, entry: OutboxEntry) -> None:
        if self._outbox.add(entry):
            self._meter.taken(entry.device, entry.size)

    def _standing(self, manifest: UpdateManifest, xfer: str) -> Standing:
        if self._store.final_receipt(xfer) is not None:
            return Standing.FINAL
        if self._store.holds(xfer) and not self._lacks_file(manifest):
            return Standing.HELD
        return Standing.UNKNOWN if self._offers.get(xfer) is None else Standing.PULLING

    def _lacks_file(self, manifest: UpdateManifest) -> bool:
        """Tell whether a row's file is gone or torn: its device has the object, and gives it."""
        return not manifest.object.inline and not self._objects.intact(manifest.object.sha256)

    def _space(self) -> Space:
        used = self._outbox.total_bytes() + self._offers.promised_bytes()
        return Space(used, self._quota_bytes)

    def _repeat_final(self, xfer: str) -> list[Outgoing]:
        known = self._store.final_receipt(xfer)
        if known is None:
            return []
        failpoint("gateway.receipt.repeated")
        return [self._links.down_transfer(known.device, Kind.RECEIPT, xfer, known.frame)]

    def _refuse(
        self, device: str, xfer: str, manifest: UpdateManifest, refusal: Refuse
    ) -> Outgoing:
        receipt = Receipt(
            xfer=xfer,
            status="rejected",
            sha256=manifest.object.sha256,
            code=refusal.code,
            detail=refusal.detail,
            retry_after_s=refusal.retry_after_s,
        )
        return self._receipt(device, manifest, receipt)

    def _receipt(self, device: str, manifest: UpdateManifest, receipt: Receipt) -> Outgoing:
        self._meter.receipted("gateway", receipt)
        frame = self._links.frames.frame(
            receipt, task=manifest.task, round_number=manifest.round, aud=device
        )
        return self._links.down_transfer(device, Kind.RECEIPT, receipt.xfer, frame)


def _entry(manifest: UpdateManifest, frame: Frame, now_s: float) -> OutboxEntry:
    return OutboxEntry(
        xfer=manifest.xfer,
        task=manifest.task,
        round_number=manifest.round,
        device=manifest.device,
        frame=frame.encode(),
        sha256=manifest.object.sha256,
        size=manifest.object.size,
        created_s=now_s,
        next_try_s=now_s,
    )
