"""Which act makes a program come by a failpoint as often as the matrix asks."""

from tests.support import failpoint_acts as acts
from tests.support import failpoint_meddling as meddling
from tests.support.failpoint_play import Act


def act_of(program: str, name: str) -> Act:
    """Return what makes a program come by a failpoint three times."""
    default = acts.small if program == "device" else acts.trained
    if name in EVERY_TURN:
        default = acts.long_drill if program == "device" else acts.long_trained
    return _ACTS.get((program, name)) or _ACTS.get(("", name)) or default


def _acts(program: str, act: Act, *names: str) -> dict[tuple[str, str], Act]:
    return {(program, name): act for name in names}


_ACTS: dict[tuple[str, str], Act] = {
    **_acts(
        "",
        acts.large,
        "transport.pull.begun",
        "transport.pull.finished",
        "transport.part.created",
        "transport.part.whole",
        "transport.chunk.written",
        "transport.chunks.answered",
        "transport.outbox.held",
    ),
    **_acts(
        "central",
        acts.late,
        "central.refusal.added",
        "central.refusal.counted",
    ),
    **_acts("central", acts.large, "central.upload.whole"),
    **_acts(
        "central",
        acts.budgeted,
        "central.bid.answered",
        "central.bid.heard",
        "central.bids.granted",
    ),
    **_acts("central", acts.late_large, "central.object.discarded", "transport.object.removed"),
    **_acts(
        "central",
        acts.many,
        "central.task.added",
        "central.task.ended",
        "central.task.prepared",
        "central.preparation.due",
        "central.export.copied",
        "central.export.written",
        "central.export.noted",
    ),
    **_acts(
        "central",
        acts.many_trained,
        "central.graph.stored",
        "central.preparation.begun",
        "central.preparation.stored",
        "transport.object.written",
    ),
    **_acts("central", acts.compressed, "central.delta.stored"),
    **_acts("central", acts.cancels, "central.task.cancelled"),
    **_acts("central", acts.pauses, "central.task.controlled"),
    **_acts("central", acts.abandons, "central.round.abandoned"),
    **_acts("central", acts.leftovers, "central.work.recovered"),
    **_acts(
        "central",
        meddling.kicks,
        "central.birth.due",
        "central.birth.told",
        "central.device.saved",
        "central.gateway.saved",
        "central.question.answered",
    ),
    **_acts("central", meddling.echoes, "central.receipt.repeated"),
    **_acts(
        "gateway",
        acts.large,
        "transport.object.fsynced",
        "transport.object.renamed",
        "transport.object.settled",
        "transport.object.removed",
        "gateway.custody.taken",
        "gateway.offer.noted",
        "gateway.object.removed",
        "gateway.model.fetched",
        "gateway.model.cast",
    ),
    **_acts("gateway", acts.many, "gateway.cancel.applied"),
    **_acts("gateway", acts.three, "gateway.status.saved"),
    **_acts(
        "gateway",
        meddling.kicks,
        "gateway.answer.taken",
        "gateway.birth.due",
        "gateway.device.saved",
        "transport.outbox.woken",
    ),
    **_acts("gateway", meddling.rebirths, "gateway.boot.adopted"),
    **_acts("gateway", meddling.echoes, "gateway.receipt.repeated"),
    **_acts(
        "device",
        acts.large,
        "transport.object.fsynced",
        "transport.object.settled",
        "device.model.arrived",
        "device.update.written",
        "device.update.fsynced",
        "device.update.adopted",
    ),
    **_acts("device", acts.remembering, "device.memory.chosen", "device.memory.stored"),
    **_acts(
        "device",
        acts.remembering_much,
        "device.memory.written",
        "device.memory.fsynced",
        "device.memory.adopted",
    ),
    **_acts("device", acts.stateful, "device.state.written", "device.state.stored"),
    **_acts("device", acts.compressed, "device.model.rebuilt"),
    **_acts("device", acts.cancels, "device.job.cancelled"),
    **_acts(
        "device",
        meddling.kicks,
        "device.birth.due",
        "device.jobs.dropped",
        "transport.outbox.woken",
    ),
    **_acts("device", meddling.rebirths, "device.boot.adopted"),
}
#: Where a program comes by in every turn of its loop that does something.
EVERY_TURN = frozenset(
    {
        "transport.batch.gathered",
        "transport.event.handled",
        "transport.turn.handled",
        "transport.commit.before",
        "transport.commit.after",
        "transport.turn.committed",
        "transport.publish.before",
        "transport.publish.after",
        "transport.turn.published",
        "transport.ack.before",
        "transport.ack.after",
        "transport.turn.acknowledged",
        "transport.turn.ended",
    }
)
#: Where one life of a program comes by once, however long it lasts.
ONCE_A_LIFE = frozenset(
    {
        "transport.boot.persisted",
        "central.tasks.purged",
        "gateway.rows.purged",
        "gateway.orphans.removed",
        "device.jobs.resumed",
    }
)
