"""The gateway's use cases, put together."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from regional_gateway.service.assignments import Assignments
from regional_gateway.service.custody import Custody
from regional_gateway.service.deferred import Deferred
from regional_gateway.service.devices import Devices
from regional_gateway.service.links import DOWNLINK, UPLINK, Links
from regional_gateway.service.metering import Meter, NoMeter
from regional_gateway.service.models import Models
from regional_gateway.service.offers import Offers
from regional_gateway.service.ports import GatewayStore
from regional_gateway.service.pulls import Pulls
from regional_gateway.service.relay import Relay
from regional_gateway.service.statuses import Statuses
from regional_gateway.service.uplink import Uplink
from transport.caster import Caster
from transport.frames import FrameWriter
from transport.objects import ObjectStore
from transport.outbox import Outbox
from transport.parking import ParkedSummary, nothing_parked
from transport.puller import Puller
from transport.retry import Backoff
from transport.sender import Sender


@dataclass(frozen=True, slots=True)
class Limits:
    """How much, and how long.

    Attributes:
        custody_quota_bytes: Most bytes of updates in custody or promised to pulls.
        cache_bytes: Most bytes of models, except those that assignments name.
        silent_after_s: No sign of life of a device for so long: silent.
    """

    custody_quota_bytes: int
    cache_bytes: int
    silent_after_s: float


@dataclass(frozen=True, slots=True)
class Fittings:
    """What the composition root brings.

    Attributes:
        region: The region's id.
        store: All rows but the outbox's.
        outbox: The custody rows, in the same database.
        updates: Large updates in custody.
        models: The cache of models.
        frames: Writes the gateway's frames.
        tokens: Numbers for PUBACKs, used by nobody else.
        adopt_boot: Takes the newest boot that central has seen of this gateway, persists what
            follows from it, and returns the boot to go on with.
        rng: Source of jitter.
        parked: Asked for the messages that could not be handled.
        meter: Counts for those who watch the gateway.
    """

    region: str
    store: GatewayStore
    outbox: Outbox
    updates: ObjectStore
    models: ObjectStore
    frames: FrameWriter
    tokens: Iterator[int]
    adopt_boot: Callable[[int], int]
    rng: np.random.Generator
    parked: Callable[[], ParkedSummary] = nothing_parked
    meter: Meter = field(default_factory=NoMeter)


@dataclass(frozen=True, slots=True)
class Parts:
    """The gateway's use cases and what they share; see ``build``."""

    links: Links
    store: GatewayStore
    deferred: Deferred
    relay: Relay
    devices: Devices
    statuses: Statuses
    models: Models
    assignments: Assignments
    custody: Custody
    pulls: Pulls
    sender: Sender
    uplink: Uplink
    #: Takes the newest boot that central has seen of this gateway; returns the one to go on with.
    adopt_boot: Callable[[int], int]
    #: Called after the commit of a newly adopted boot.
    on_boot: list[Callable[[], None]] = field(default_factory=list)


def build(fittings: Fittings, limits: Limits) -> Parts:
    """Put the use cases together."""
    links = Links(fittings.region, fittings.frames)
    store, rng, backoff, deferred = fittings.store, fittings.rng, Backoff(), Deferred()
    relay = Relay(links, fittings.tokens)
    devices = Devices(store, links, relay, limits.silent_after_s, fittings.parked)
    statuses = Statuses(store, relay)
    caster = Caster(DOWNLINK, tokens=fittings.tokens)
    models = Models(
        store,
        fittings.models,
        Puller(fittings.models),
        caster,
        links,
        deferred,
        limits.cache_bytes,
    )
    assignments = Assignments(store, links, devices, statuses, models, deferred, backoff, rng)
    sender = Sender(fittings.outbox, UPLINK, lambda _: links.gateway, backoff, rng)
    offers = Offers()
    custody = Custody(
        store,
        fittings.outbox,
        sender,
        fittings.updates,
        offers,
        links,
        deferred,
        limits.custody_quota_bytes,
        fittings.meter,
    )
    return Parts(
        links=links,
        store=store,
        deferred=deferred,
        relay=relay,
        devices=devices,
        statuses=statuses,
        models=models,
        assignments=assignments,
        custody=custody,
        pulls=Pulls(offers, custody, Puller(fittings.updates), sender, links, deferred),
        sender=sender,
        uplink=Uplink(links, devices, statuses, assignments, relay, backoff, rng),
        adopt_boot=fittings.adopt_boot,
    )
