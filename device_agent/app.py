"""The agent's composition root: names the adapters, starts the parts, runs the loop."""

import os
import platform
import queue
import secrets
import signal
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version

import numpy as np
import structlog

import firmware_profiles
from device_agent.adapters.ballast import Ballast
from device_agent.adapters.data_sources import Sample, load_data
from device_agent.adapters.identity import own_id
from device_agent.adapters.job_run import JobRun
from device_agent.adapters.link_state import LinkState
from device_agent.adapters.machine import LocalMachine
from device_agent.adapters.memory_store import SqliteMemoryStore
from device_agent.adapters.optimizer_states import OptimizerStates
from device_agent.adapters.pauses import Pauses
from device_agent.adapters.policy_file import PolicyError, load_policy
from device_agent.adapters.profile_choice import choose_profile
from device_agent.adapters.store import DATABASE, SqliteBoots, SqliteJobStore, open_store
from device_agent.adapters.upload_times import SqliteUploadTimes
from device_agent.adapters.worker import TrainingWorker
from device_agent.core.limits import threads, with_profile
from device_agent.core.policy import LocalPolicy
from device_agent.service.agent import LOST, Agent, Parts
from device_agent.service.births import Births, Profile
from device_agent.service.downloads import Downloads
from device_agent.service.jobs import Jobs
from device_agent.service.memories import Memories
from device_agent.service.needs import Needs
from device_agent.service.ports import Machine, Worker
from device_agent.service.questions import Questions
from device_agent.service.room import Room
from device_agent.service.statuses import Statuses
from device_agent.service.surroundings import Surroundings
from device_agent.service.traffic import WorkTraffic
from device_agent.service.uploads import Uploads
from device_agent.service.wire import Wire
from device_agent.settings import DeviceSettings
from device_agent.training import backends
from device_agent.training.onnx_runtime import Providers, find_providers, no_providers
from learning.data.dataset import DataError, Dataset
from learning.models.architectures import names as model_names
from schemas.profiles import FirmwareProfile
from schemas.topics import Address, device_filters
from transport.database import (
    DatabaseCorruptError,
    DatabaseUnusableError,
    DatabaseVersionError,
    explained,
    next_boot,
    transaction,
)
from transport.events import Outgoing
from transport.failpoint_catalogue import arm_program
from transport.fence import Fence, FencedError
from transport.frames import FrameWriter
from transport.liveness import Liveness
from transport.loop import ServiceLoop, SessionDeadError, steady_clock
from transport.objects import ObjectStore
from transport.outbox import Outbox
from transport.parking import Parking
from transport.puller import Puller
from transport.retry import Backoff
from transport.sender import Sender
from transport.session import PahoSession
from transport.state_lock import StateLock, StateLockedError
from transport.traffic import Traffic
from updates.choice import ASSUMED_BYTES_S

#: What keeps a device from running, told to a person in one line.
StartError = (
    DataError,
    DatabaseCorruptError,
    DatabaseUnusableError,
    DatabaseVersionError,
    FencedError,
    PolicyError,
    SessionDeadError,
    StateLockedError,
)

_SESSION = "main"
#: Of an id that the device draws: 48 bits, so that a million devices hardly ever meet.
_DRAWN_BYTES = 6
#: Folder of optimizers' states in the state directory.
STATES = "optimizer"

_LOG = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Device:
    """What is settled before anything is connected.

    Attributes:
        settings: As given.
        data: Its examples by the name of their source.
        policy: What its owner and its profile allow.
        connection: Its database.
        objects: Its large objects.
        machine: Its hardware.
        worker: Its training thread.
        profile: Its firmware profile.
        why_not_now: Tells why no update may be sent on the link as it is; None: it may.
    """

    settings: DeviceSettings
    data: dict[str, Dataset]
    policy: LocalPolicy
    connection: sqlite3.Connection
    objects: ObjectStore
    machine: Machine
    worker: Worker
    profile: FirmwareProfile = field(
        default_factory=partial(firmware_profiles.load, firmware_profiles.GENERIC)
    )
    why_not_now: Callable[[], str | None] = lambda: None


def run(settings: DeviceSettings) -> int:
    """Run one device until SIGTERM or SIGINT; return the exit code.

    Raises:
        FailpointError: The environment arms a failpoint that is not there.
        DataError: A data source cannot be loaded, or there is none.
        PolicyError: The policy file cannot be read or does not fit.
        IdentityError: The file with the id that it drew holds none.
        ProfileError: There is no such profile, or its file does not fit.
        StateLockedError: Another process runs on this state directory.
        FencedError: Another process has taken the database over.
        DatabaseCorruptError: The database is damaged.
        DatabaseUnusableError: The database cannot be used, for want of space say.
        SessionDeadError: The MQTT session ended by itself.
    """
    arm_program("device", os.environ)
    chosen = choose_profile(settings.profile)
    _LOG.info("profile_chosen", profile=chosen.profile.family, reason=chosen.reason)
    policy = with_profile(load_policy(settings.policy), chosen.profile)
    with StateLock(settings.state_dir), explained(settings.state_dir / DATABASE):
        device = own_id(settings.id, settings.state_dir, lambda: secrets.token_hex(_DRAWN_BYTES))
        sample = Sample(device, settings.sample) if settings.sample else None
        data = load_data(
            settings.data, settings.shard, settings.alpha, settings.split_seed, sample
        )
        settings = settings.model_copy(update={"id": device})
        ballast = Ballast(settings.mem_ballast_mb)
        try:
            return _run(settings, chosen.profile, policy, data)
        finally:
            ballast.close()


def _run(
    settings: DeviceSettings,
    profile: FirmwareProfile,
    policy: LocalPolicy,
    data: dict[str, Dataset],
) -> int:
    liveness = Liveness.of_process(settings.state_dir)
    objects = ObjectStore(settings.state_dir)
    events: queue.SimpleQueue[object] = queue.SimpleQueue()
    available = _backends(settings, profile)
    providers = _providers(settings, profile, available)
    machine = LocalMachine(available, providers, limits=policy.limits)
    pauses = Pauses(policy.limits, machine.vitals)
    ceiling = policy.limits.temperature_ceiling_celsius
    if ceiling is not None and machine.vitals().temperature_c is None:
        _LOG.info("temperature_unknown", reason="no sensor: the ceiling cannot be kept")
    asked = settings.threads if "threads" in settings.model_fields_set else None
    trainers = backends.Trainers(
        available, settings.models, threads(asked, profile, policy.limits), providers
    )
    parts = settings.state_dir / "parts"
    states = OptimizerStates(settings.state_dir / STATES, settings.optimizer_state_bytes)
    job_run = JobRun(
        settings.id,
        data,
        objects,
        trainers.of,
        parts,
        states,
        pauses.working_s,
        max_update_bytes=policy.max_update_bytes,
        chunk_bytes=profile.chunk_bytes,
        assumed_bytes_s=profile.link.rate_bytes_s or ASSUMED_BYTES_S,
    )
    worker = TrainingWorker(job_run, events, pauses=pauses)
    link = LinkState(settings.metered, is_allowed=policy.metered_uploads)
    with closing(open_store(settings.state_dir / DATABASE)) as connection:
        device = Device(
            settings,
            data,
            policy,
            connection,
            objects,
            machine,
            worker,
            profile,
            link.why_not_now,
        )
        try:
            _serve(device, events, liveness)
        finally:
            worker.close()
    return 0


def _backends(settings: DeviceSettings, profile: FirmwareProfile) -> tuple[str, ...]:
    """Return the backends that are installed, best first: the owner's word, else the profile's."""
    installed = backends.installed(settings.backend)
    if "backend" in settings.model_fields_set:
        return installed
    # A profile that names none of them knows less than who installed them.
    return tuple(one for one in profile.backends if one in installed) or installed


def _providers(
    settings: DeviceSettings, profile: FirmwareProfile, available: tuple[str, ...]
) -> Providers:
    given = settings.model_fields_set
    asked = settings.providers if "providers" in given else profile.providers
    precision = settings.precision if "precision" in given else profile.precision
    if backends.ONNX in available:
        found = find_providers(asked, precision)
    else:
        found = no_providers(available, precision)
    if found.fallback is not None:
        _LOG.warning("provider_fallback", asked=asked, precision=precision, reason=found.fallback)
    return found


def compose(  # noqa: PLR0913 - collaborators, and what a life began with
    device: Device,
    clock: Callable[[], float],
    rng: np.random.Generator,
    set_will: Callable[[Outgoing], None],
    *,
    was_clean: bool = False,
    read_traffic: Callable[[], Traffic] | None = None,
) -> Agent:
    """Return the agent of a device, in a new life; what it was doing is begun again.

    Args:
        device: Who it is and what it has.
        clock: Unix seconds.
        rng: Source of ids and jitter.
        set_will: Called with the session's Will, now and whenever it changes.
        was_clean: Whether its life before this one ended in order.
        read_traffic: Bytes of the session so far; None: they are not counted.
    """
    settings, store = device.settings, SqliteJobStore(device.connection)
    with transaction(device.connection):
        boot = next_boot(device.connection, clock())
    address = Address(settings.region, settings.id)
    wire = Wire(address, FrameWriter(settings.id, boot, rng, clock))
    parked = Parking(device.connection).summary
    births = Births(
        wire, _profile(device), device.machine, rng, settings.heartbeat_s, parked=parked
    )
    downloads = Downloads(wire, device.objects, Puller(device.objects))
    outbox = Outbox(device.connection)
    sender = Sender(outbox, _SESSION, lambda _: address, Backoff(), rng)
    traffic = WorkTraffic(read_traffic)
    times = SqliteUploadTimes(device.connection)
    uploads = Uploads(wire, device.objects, outbox, sender, traffic, times, device.why_not_now)
    statuses, surroundings = Statuses(wire), _surroundings(device)
    needs = Needs(store, downloads, surroundings)
    agent = Agent(
        Parts(
            wire=wire,
            births=births,
            questions=Questions(wire, store, Backoff(), rng),
            statuses=statuses,
            jobs=Jobs(
                statuses,
                store,
                downloads,
                uploads,
                Room(store, uploads, settings.outbox_quota_bytes),
                surroundings,
                Memories(SqliteMemoryStore(device.connection), device.objects, settings.id),
                needs,
            ),
            needs=needs,
            downloads=downloads,
            uploads=uploads,
            surroundings=surroundings,
            traffic=traffic,
            store=store,
            objects=device.objects,
            worker=device.worker,
            boots=SqliteBoots(device.connection),
            set_will=set_will,
            graph_bytes=settings.graph_cache_bytes,
        )
    )
    set_will(births.death(LOST))
    with transaction(device.connection):
        agent.resume(clock(), was_clean=was_clean)
    agent.after_commit()
    return agent


def _serve(device: Device, events: "queue.SimpleQueue[object]", liveness: Liveness) -> None:
    clock = steady_clock()
    session = _session(device.settings, events)
    fence = Fence.claim(device.connection)
    agent = compose(
        device,
        clock,
        np.random.default_rng(secrets.randbits(64)),
        lambda will: setattr(session, "will", will),
        was_clean=fence.was_clean,
        read_traffic=lambda: session.traffic,
    )
    sessions = {_SESSION: session}
    loop = ServiceLoop(
        device.connection, events, sessions, agent, clock, fence=fence, liveness=liveness
    )
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: loop.stop())
    _LOG.info("device_started", device=device.settings.id, region=device.settings.region)
    session.start()
    try:
        loop.run()
    except FencedError:
        session.stop()  # without a farewell: another process speaks in this name now
        raise
    finally:
        session.stop(agent.farewell())
    _LOG.info("device_stopped", device=device.settings.id)


def _session(settings: DeviceSettings, events: "queue.SimpleQueue[object]") -> PahoSession:
    return PahoSession(
        settings.broker,
        name=_SESSION,
        mqtt_client_id=f"fedfleet-dev-{settings.id}",
        filters=device_filters(settings.region, settings.id),
        events=events,
        protocol=settings.mqtt_protocol,
        keepalive_s=settings.keepalive_s,
        password=settings.password,
        ca_file=settings.ca_file,
        cert_file=settings.cert_file,
        key_file=settings.key_file,
    )


def _profile(device: Device) -> Profile:
    return Profile(
        name=device.profile.family,
        capabilities=device.machine.capabilities(),
        data=tuple(dataset.description() for dataset in device.data.values()),
        versions={"fedfleet": version("fedfleet"), "python": platform.python_version()},
    )


def _surroundings(device: Device) -> Surroundings:
    return Surroundings(
        policy=device.policy,
        data=tuple(dataset.description() for dataset in device.data.values()),
        models=frozenset(model_names(device.settings.models)),
        machine=device.machine,
        worker=device.worker,
        local_minutes=_local_minutes,
    )


def _local_minutes(now_s: float) -> int:
    local = time.localtime(now_s)
    return local.tm_hour * 60 + local.tm_min
