"""Updates on their way in: every gate, then accepted in one transaction with its round.

A receipt is never queued: it follows from the tables (contribution, refusal), so a sender that
lost it offers again and hears the same. Gates in order: identity, known device, repeated, task
and round, cohort, plan, budget, bytes. In a round with an uplink budget a manifest is a bid: its
object is pulled once it is granted, and refused with ``E_BUDGET`` when it is not.
"""

from collections.abc import Iterator
from dataclasses import replace

from central.core import rounds as core
from central.core import tasks
from central.core.rounds import Phase
from central.core.traffic import NOTHING, Share
from central.service import memories, verdicts
from central.service.accounting import Cost, cost_of, share_of
from central.service.assignments import Assignments
from central.service.bids import Bids, HeardBid, read_bid
from central.service.desk import Desk
from central.service.metering import Accepted
from central.service.plan_checks import check_plan, check_size, codec_of
from central.service.records import ContributionRecord, Refusal, RoundRecord, TaskRecord
from central.service.registry import Registry
from central.service.rounds import Rounds
from central.service.verdicts import UpdateRefusedError
from schemas.envelope import Frame
from schemas.errors import IdentityError, WireError
from schemas.ids import transfer_id
from schemas.messages import Need, Receipt, UpdateManifest
from schemas.topics import Kind
from transport.assembly import ObjectMismatchError, check_manifest
from transport.events import Outgoing
from transport.failpoints import failpoint
from transport.puller import PullProgress, PullRefusedError
from updates.choice import AUTO
from updates.layout import Layout
from updates.pipeline import check_update

#: Refusals that follow from what may yet change: they are not remembered.
_PASSING_CODES = frozenset({"E_UNKNOWN_DEVICE", "E_UNKNOWN_TASK"})
#: Not granted: the device did nothing wrong and was not late, so it is counted as neither.
_OVER_BUDGET = "E_BUDGET"
#: A client whose move to another region is not yet known here is heard of within seconds.
_MOVED_RETRY_S = 5.0
#: Of a refusal, as a receipt may carry it.
_MAX_TEXT = 500
_FLOAT32_BYTES = 4


class Uploads:
    """Takes offers, fetches what is large, accepts or refuses."""

    def __init__(
        self,
        desk: Desk,
        registry: Registry,
        rounds: Rounds,
        assignments: Assignments,
        bids: Bids,
    ) -> None:
        self._desk = desk
        self._registry = registry
        self._rounds = rounds
        self._assignments = assignments
        self._pulling: dict[str, tuple[str, UpdateManifest, Cost]] = {}
        self._bids = bids

    def offer(self, region: str, xfer: str, frame: Frame, now_s: float) -> Iterator[Outgoing]:
        """Answer a manifest: with a receipt, or by pulling the object."""
        offer = frame.body(UpdateManifest)
        failpoint("central.upload.offered")
        try:
            known = self._check_identity(region, xfer, frame, offer)
            if known is None:
                _, record = self._gate(offer)
                if record.state.is_bidding:
                    yield from self._hear_bid(region, offer, frame, now_s)
                else:
                    yield from self._fetch(region, offer, frame, now_s)
                return
            failpoint("central.receipt.repeated")
            yield self._desk.receipt(region, known)
        except WireError as error:
            yield from self._refuse(region, offer, error, now_s)

    def answer_bids(self, now_s: float) -> Iterator[Outgoing]:
        """Pull what was granted, and refuse the rest, of rounds whose grants stand."""
        for heard in self._bids.take_due():
            offer = heard.offer
            failpoint("central.bid.answered")
            try:
                self._gate(offer)
                yield from self._fetch(heard.region, offer, heard.frame, now_s)
            except WireError as error:
                yield from self._refuse(heard.region, offer, error, now_s)

    def chunk(
        self, region: str, xfer: str, k: int, data: bytes, now_s: float
    ) -> Iterator[Outgoing]:
        """Take one chunk of a large update."""
        if xfer not in self._pulling or self._pulling[xfer][0] != region:
            return
        _, offer, cost = self._pulling[xfer]
        try:
            progress = self._desk.puller.chunk(xfer, k, data, now_s)
        except ObjectMismatchError as error:
            yield from self._refuse(region, offer, error, now_s)
        else:
            yield from self._advance(region, offer, cost, progress, now_s)

    def expire(self, now_s: float) -> None:
        """Forget pulls for which nothing comes any more; their sender offers again."""
        for xfer in self._desk.puller.expire(now_s):
            self._pulling.pop(xfer, None)

    def _check_identity(
        self, region: str, xfer: str, frame: Frame, offer: UpdateManifest
    ) -> Receipt | None:
        if frame.header.src != offer.device:
            raise IdentityError(offer.device, frame.header.src)
        expected = transfer_id(offer.device, offer.task, offer.round, offer.object.sha256)
        if not xfer == offer.xfer == expected:
            text = f"xfer: {xfer}, expected {expected}"
            raise UpdateRefusedError(text, "E_TRANSFER")
        counted = self._desk.store.contribution(offer.task, offer.round, offer.device)
        if counted is not None and counted.xfer == xfer:
            return verdicts.duplicate(offer, counted)  # whichever gateway holds another copy
        refusal = self._desk.store.refusal(xfer)
        if refusal is not None:
            return verdicts.refused(refusal, offer)
        if self._registry.region_of(offer.device) != region:
            self._check_moved(region, offer)
        return verdicts.duplicate(offer, counted) if counted is not None else None

    def _check_moved(self, region: str, offer: UpdateManifest) -> None:
        """Refuse an update that comes through another region than its device's.

        A device that moved owes it still and offers it where it is now, so no answer to one
        gateway may spoil the other's: while the round waits for this client the refusal is not
        final, and what is late is late whoever brings it.
        """
        record = self._desk.store.round(offer.task, offer.round)
        is_client = record is not None and offer.device in record.state.cohort
        is_open = record is not None and record.state.phase is Phase.REPORTING
        if is_client and not is_open:
            return
        text = f"device: {offer.device!r} is not known in region {region!r}"
        retry_after_s = _MOVED_RETRY_S if is_client else None
        raise UpdateRefusedError(text, "E_UNKNOWN_DEVICE", retry_after_s=retry_after_s)

    def _gate(self, offer: UpdateManifest) -> tuple[TaskRecord, RoundRecord]:
        task = self._desk.store.task(offer.task)
        if task is None:
            text = f"task: {offer.task!r} is not kept here; if it ever was, it ended long ago"
            raise UpdateRefusedError(text, "E_LATE", "late")
        record = self._desk.store.round(offer.task, offer.round)
        lost = None if record else tasks.lost_reason(task.progress, offer.round)
        if lost is not None:
            text = f"round: {offer.round} was lost: {lost}"
            raise UpdateRefusedError(text, "E_LATE", "late")
        if task.plan is None or record is None:
            text = f"task: there is no round {offer.round} of {offer.task!r}"
            raise UpdateRefusedError(text, "E_UNKNOWN_TASK")
        if offer.device not in record.state.cohort:
            text = f"device: {offer.device!r} is not in the cohort of round {offer.round}"
            raise UpdateRefusedError(text, "E_NOT_SELECTED")
        state = record.state
        if state.grants is not None and not state.may_take(
            offer.device, offer.xfer, offer.object.size
        ):
            text = f"round: {offer.round} granted {len(state.grants)} of {state.bids} bids"
            raise UpdateRefusedError(text, _OVER_BUDGET, "late")
        if state.phase is not Phase.REPORTING:
            text = f"round: {offer.round} is {state.phase.value}"
            raise UpdateRefusedError(text, "E_LATE", "late")
        check_plan(task, record, offer)
        check_size(codec_of(task, offer), self._desk.layout(task), offer)
        fault = memories.fault(self._desk.store, task, offer.device, offer.reference)
        if fault is not None:
            raise UpdateRefusedError(fault, "E_REFERENCE")
        return task, record

    def _hear_bid(
        self, region: str, offer: UpdateManifest, frame: Frame, now_s: float
    ) -> Iterator[Outgoing]:
        """Note a bid; it is answered when all are there, or it is time."""
        check_manifest(offer.object, frame.tail)
        self._bids.put(HeardBid(region, offer, frame, read_bid(offer)))
        failpoint("central.bid.heard")
        self._assignments.answered(offer.task, offer.round, offer.device)
        heard = core.BidsCollected(self._bids.bidders(offer.task, offer.round), now_s)
        yield from self._rounds.on_event(offer.task, offer.round, heard, now_s)

    def _fetch(
        self, region: str, offer: UpdateManifest, frame: Frame, now_s: float
    ) -> Iterator[Outgoing]:
        cost = cost_of(region, offer, frame)
        if offer.object.inline:
            if len(frame.tail) != offer.object.size:
                text = f"tail: {len(frame.tail)} bytes, object.size says {offer.object.size}"
                raise UpdateRefusedError(text, "E_SIZE")
            if frame.header.tail_sha256 != offer.object.sha256:
                text = f"object.sha256: {offer.object.sha256} is not that of the tail"
                raise UpdateRefusedError(text, "E_DIGEST")
            yield from self._accept(region, offer, cost, frame.tail, now_s)
            return

        def ask(want: tuple[int, ...], credit: int) -> Outgoing:
            need = Need(xfer=offer.xfer, want=want, credit=credit)
            return self._desk.to_gateway(region, Kind.NEED, need, xfer=offer.xfer)

        if offer.xfer in self._pulling and self._pulling[offer.xfer][0] != region:
            self._desk.puller.forget(offer.xfer)  # its questions go where the device was before
        self._pulling[offer.xfer] = (region, offer, cost)
        try:
            started = self._desk.puller.start(offer.xfer, offer.object, frame.tail, ask, now_s)
        except PullRefusedError as error:
            del self._pulling[offer.xfer]
            text = "too many transfers at the same time"
            yield self._desk.receipt(
                region, verdicts.not_now(offer, "E_BUSY", text, error.retry_after_s)
            )
            return
        yield from self._advance(region, offer, cost, started, now_s)

    def _advance(
        self, region: str, offer: UpdateManifest, cost: Cost, progress: PullProgress, now_s: float
    ) -> Iterator[Outgoing]:
        yield from progress.outgoing
        if progress.completed is None:
            return
        self._forget(offer.xfer)
        failpoint("central.upload.whole")
        try:
            known = self._desk.store.contribution(offer.task, offer.round, offer.device)
            if known is not None:
                yield self._desk.receipt(region, verdicts.duplicate(offer, known))
                return
            self._gate(offer)  # the round may have ended while the chunks came
            payload = self._desk.objects.path(progress.completed).read_bytes()
            yield from self._accept(region, offer, cost, payload, now_s)
        except WireError as error:
            yield from self._refuse(region, offer, error, now_s)
            self._desk.discarded.append(progress.completed)

    def _accept(
        self, region: str, offer: UpdateManifest, cost: Cost, payload: bytes, now_s: float
    ) -> Iterator[Outgoing]:
        task, _ = self._gate(offer)
        layout = self._desk.layout(task)
        is_picked = task.submission.codec == AUTO
        codec = codec_of(task, offer)
        check_update(payload, layout, codec)
        share, counted = share_of(cost, self._desk.store.traffic(offer.device))
        record = ContributionRecord(
            task=offer.task,
            round=offer.round,
            device=offer.device,
            region=region,
            xfer=offer.xfer,
            sha256=offer.object.sha256,
            size=offer.object.size,
            num_examples=offer.num_examples,
            accepted_s=now_s,
            payload=payload if offer.object.inline else None,
            metrics=offer.metrics,
            uplink_wire_bytes=share.uplink_bytes,
            downlink_wire_bytes=share.downlink_bytes,
            reference=offer.reference,
            codec=offer.codec if is_picked else None,
            codec_params=offer.codec_params if is_picked else {},
        )
        if not self._desk.store.add_contribution(record):
            yield self._desk.receipt(region, verdicts.final(offer, "duplicate"))
            return
        if counted is not None:
            self._desk.store.save_traffic(offer.device, counted)
        failpoint("central.contribution.added")
        self._count(task, accepted=1, uplink_bytes=offer.object.size, wire=share)
        failpoint("central.contribution.counted")
        self._desk.meter.accepted(_metered(record, codec.codec_id, layout))
        self._assignments.answered(offer.task, offer.round, offer.device)
        event = core.UpdateAccepted(offer.device)
        yield from self._rounds.on_event(offer.task, offer.round, event, now_s)
        failpoint("central.receipt.due")
        yield self._desk.receipt(region, verdicts.final(offer, "accepted"))

    def _count(
        self,
        task: TaskRecord,
        *,
        accepted: int = 0,
        late: int = 0,
        uplink_bytes: int = 0,
        wire: Share = NOTHING,
    ) -> None:
        old = task.totals
        totals = old.model_copy(
            update={
                "updates_accepted": old.updates_accepted + accepted,
                "late": old.late + late,
                "uplink_bytes": old.uplink_bytes + uplink_bytes,
                "uplink_wire_bytes": old.uplink_wire_bytes + wire.uplink_bytes,
                "downlink_wire_bytes": old.downlink_wire_bytes + wire.downlink_bytes,
            }
        )
        self._desk.store.save_task(replace(task, totals=totals))
        self._desk.touch(task.task, urgent=False)

    def _refuse(
        self, region: str, offer: UpdateManifest, error: WireError, now_s: float
    ) -> Iterator[Outgoing]:
        """Remember the no, so that it stays the same, and say it; the client has failed."""
        if isinstance(error, UpdateRefusedError) and error.retry_after_s is not None:
            yield self._desk.receipt(
                region, verdicts.not_now(offer, error.code, str(error), error.retry_after_s)
            )
            return
        self._forget(offer.xfer)
        status = error.status if isinstance(error, UpdateRefusedError) else "rejected"
        refusal = Refusal(
            offer.xfer,
            offer.task,
            offer.round,
            offer.device,
            status,
            error.code,
            str(error)[:_MAX_TEXT],
            now_s,
        )
        task = self._desk.store.task(offer.task)
        is_own = not isinstance(error, IdentityError) and error.code != "E_TRANSFER"
        is_own = is_own and error.code not in _PASSING_CODES and task is not None
        is_new = is_own and self._desk.store.add_refusal(refusal)
        if is_new and task and status == "late" and error.code != _OVER_BUDGET:
            self._count(task, late=1)
            self._count_in_round(offer)
            failpoint("central.refusal.counted")
        failpoint("central.refusal.added")
        yield self._desk.receipt(region, verdicts.refused(refusal, offer))
        if is_own and status == "rejected":
            failed = core.ClientFailed(offer.device)
            yield from self._rounds.on_event(offer.task, offer.round, failed, now_s)

    def _count_in_round(self, offer: UpdateManifest) -> None:
        record = self._desk.store.round(offer.task, offer.round)
        if record is not None and record.summary is not None:
            summary = record.summary.model_copy(update={"late": record.summary.late + 1})
            self._desk.store.save_round(replace(record, summary=summary))

    def _forget(self, xfer: str) -> None:
        self._pulling.pop(xfer, None)
        self._desk.puller.forget(xfer)


def _metered(record: ContributionRecord, codec_id: str, layout: Layout) -> Accepted:
    return Accepted(
        region=record.region,
        device=record.device,
        codec=codec_id,
        payload_bytes=record.size,
        plain_bytes=layout.size * _FLOAT32_BYTES,
        uplink_wire_bytes=record.uplink_wire_bytes,
        downlink_wire_bytes=record.downlink_wire_bytes,
    )
