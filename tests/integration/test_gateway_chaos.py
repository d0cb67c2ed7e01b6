"""Whole rounds through a broker that loses, doubles and reorders, with crashes; on seeds."""

import queue

import numpy as np
import pytest

from regional_gateway.adapters.store import SCHEMA, SCHEMA_VERSION
from regional_gateway.app import DATABASE, compose
from regional_gateway.service.gateway import Gateway
from regional_gateway.settings import GatewaySettings
from schemas.envelope import decode_frame
from schemas.limits import MIN_CHUNK_BYTES
from schemas.messages import Assignment, Get, JobStatus, Need, Next, Receipt, UpdateManifest
from schemas.topics import (
    Kind,
    Topic,
    central_filters,
    device_filters,
    downlink_filters,
    parse,
    uplink_filters,
)
from tests.unit.regional_gateway.gateway_rig import (
    GATEWAY,
    START_S,
    TASK,
    Central,
    Device,
    large,
    sha,
)
from transport.database import next_boot, open_database, transaction
from transport.events import Connected, MessageArrived, Outgoing
from transport.frames import FrameWriter
from transport.loop import ServiceLoop
from transport.memory import MemoryBroker

REGION = "eu"
MODEL = large(9 * MIN_CHUNK_BYTES - 1, seed=5)
NAMES = ("a", "b", "c", "d")
LIMIT_S = 900


def chunk(data, k):
    return data[k * MIN_CHUNK_BYTES : (k + 1) * MIN_CHUNK_BYTES]


class Actor:
    """A counterpart at the broker; everything happens in ``step``."""

    def __init__(self, broker, client_id, filters):
        self.events = queue.SimpleQueue()
        self.session = broker.session(
            name="main", mqtt_client_id=client_id, filters=filters, events=self.events
        )
        self.session.start()

    def send(self, topic, payload):
        self.session.publish(Outgoing(topic, payload))

    def step(self, now_s):
        while not self.events.empty():
            event = self.events.get()
            if isinstance(event, MessageArrived):
                self.take(parse(event.topic_name), event.payload)
                event.ack()
            elif isinstance(event, Connected):
                self.connected()
        self.idle(now_s)

    def connected(self):
        pass


class ChaosCentral(Actor):
    def __init__(self, broker):
        super().__init__(broker, "central", central_filters())
        self.words = Central()
        self.answered = set()
        self.offered = {}
        self.chunks = {}
        self.accepted = []

    def take(self, topic, payload):
        if topic.kind is Kind.CHUNK:
            self.chunks.setdefault(topic.xfer, {})[topic.k] = payload
            return
        frame = decode_frame(payload)
        if topic.kind is Kind.MANIFEST:
            self.offered[topic.xfer] = frame
            self.decide(topic.xfer)
        elif topic.kind is Kind.RELAYED and frame.header.type == JobStatus.TYPE:
            self.answered.add(topic.device)
        elif topic.kind is Kind.NEXT:
            keep = [(ref.task, ref.round) for ref in frame.body(Next).holding]
            none = self.words.none(frame.header.id, keep)
            self.send(Topic(Kind.TASK, GATEWAY), none)
        elif topic.kind is Kind.GET:
            get = frame.body(Get)
            for k in get.want:
                block = Topic(Kind.BLOCK, GATEWAY, sha16=get.sha256[:16], k=k)
                self.send(block, chunk(MODEL, k))

    def decide(self, xfer):
        frame = self.offered[xfer]
        described = frame.body(UpdateManifest).object
        have = self.chunks.get(xfer, {})
        missing = [k for k in range(described.chunks) if k not in have]
        if not described.inline and missing and xfer not in self.accepted:
            need = self.words.need(xfer, missing[:4])
            self.send(Topic(Kind.NEED, GATEWAY, xfer=xfer), need)
            return
        status = "duplicate" if xfer in self.accepted else "accepted"
        if status == "accepted":
            self.accepted.append(xfer)
        receipt = self.words.receipt(xfer, described.sha256, status)
        self.send(Topic(Kind.RECEIPT, GATEWAY, xfer=xfer), receipt)

    def idle(self, now_s):
        if set(NAMES) - self.answered and int(now_s) % 5 == 0:
            self.send(Topic(Kind.TASK, GATEWAY), self.words.assignment(NAMES, model=MODEL))
        for xfer in self.offered:
            if xfer not in self.accepted:
                self.decide(xfer)


class ChaosDevice(Actor):
    def __init__(self, broker, name, update, *, inline):
        super().__init__(broker, f"dev-{name}", device_filters(REGION, name))
        self.words = Device(name)
        self.update, self.inline = update, inline
        self.blocks = {}
        self.has_job = False
        self.finals = []

    @property
    def is_done(self):
        return bool(self.finals) and len(self.blocks) == 9

    def connected(self):
        self.send(Topic(Kind.STATE, self.words.address), self.words.state())

    def take(self, topic, payload):
        if topic.kind is Kind.BLOCK:
            self.blocks[topic.k] = payload
            return
        frame = decode_frame(payload)
        if topic.kind is Kind.TASK and frame.header.type == Assignment.TYPE:
            self.has_job = True
            status = self.words.status("accepted")
            self.send(Topic(Kind.JOB_STATUS, self.words.address, task=TASK), status)
        elif topic.kind is Kind.NEED:
            for k in frame.body(Need).want:
                place = Topic(Kind.CHUNK, self.words.address, xfer=topic.xfer, k=k)
                self.send(place, chunk(self.update, k))
        elif topic.kind is Kind.RECEIPT:
            receipt = frame.body(Receipt)
            if receipt.is_final:
                self.finals.append(receipt.status)

    def idle(self, now_s):
        second = int(now_s)
        if second % 10 == 0:
            self.send(Topic(Kind.HEARTBEAT, self.words.address), self.words.heartbeat())
            self.send(Topic(Kind.NEXT, self.words.address), self.words.next())
        missing = [k for k in range(9) if k not in self.blocks]
        if self.has_job and missing and second % 5 == 0:
            get = self.words.get(sha(MODEL), missing[:4])
            self.send(Topic(Kind.GET, self.words.address), get)
        if self.has_job and not self.finals and second % 3 == 0:
            place = Topic(Kind.MANIFEST, self.words.address, xfer=self.words.xfer(self.update))
            self.send(place, self.words.manifest(self.update, inline=self.inline))


class ChaosGateway:
    """A gateway over two sessions at one broker, which may crash at any step."""

    def __init__(self, broker, root):
        self.broker = broker
        self.settings = GatewaySettings(region=REGION, state_dir=root)
        self.now_s = START_S
        self.start()

    def start(self):
        path = self.settings.state_dir / DATABASE
        self.connection = open_database(path, SCHEMA, SCHEMA_VERSION)
        rng = np.random.default_rng(int(self.now_s))
        with transaction(self.connection):
            boot = next_boot(self.connection, self.now_s)
        frames = FrameWriter(f"gw/{REGION}", boot, rng, lambda: self.now_s)
        parts = compose(self.settings, self.connection, frames, rng)
        self.events = queue.SimpleQueue()
        ends = (("uplink", uplink_filters(REGION)), ("downlink", downlink_filters(REGION)))
        self.sessions = {
            name: self.broker.session(
                name=name, mqtt_client_id=f"gw-{name}", filters=filters, events=self.events
            )
            for name, filters in ends
        }
        for session in self.sessions.values():
            session.start()
        self.loop = ServiceLoop(
            self.connection, self.events, self.sessions, Gateway(parts), lambda: self.now_s
        )

    def step(self, now_s):
        self.now_s = now_s
        self.events.put(None)
        self.loop.turn()

    def crash(self):
        for session in self.sessions.values():
            session.crash()
        self.connection.close()
        self.start()


@pytest.mark.parametrize("seed", range(6))
def test_every_update_is_accepted_once_and_every_device_hears_of_it(tmp_path, seed):
    rng = np.random.default_rng(seed)
    broker = MemoryBroker(rng, loss=0.1, duplicate=0.1, reorder=0.1)
    gateway = ChaosGateway(broker, tmp_path)
    central = ChaosCentral(broker)
    shared = large(3 * MIN_CHUNK_BYTES, seed=8)
    updates = {"a": b"small", "b": b"small", "c": shared, "d": shared}
    devices = [
        ChaosDevice(broker, name, update, inline=len(update) < MIN_CHUNK_BYTES)
        for name, update in updates.items()
    ]
    now_s = START_S
    while not all(device.is_done for device in devices):
        now_s += 0.25
        assert now_s < START_S + LIMIT_S, f"seed {seed}: not done after {LIMIT_S} s"
        broker.pump()
        for actor in (gateway, central, *devices):
            actor.step(now_s)
        trouble = rng.random()
        if trouble < 0.01:
            gateway.crash()
        elif trouble < 0.015:
            broker.restart(keeps_sessions=bool(rng.integers(2)))
    xfers = {device.words.xfer(device.update) for device in devices}
    assert sorted(central.accepted) == sorted(xfers)
    for device in devices:
        assert b"".join(device.blocks[k] for k in range(9)) == MODEL
    gateway.connection.close()
