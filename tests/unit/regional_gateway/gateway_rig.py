"""A gateway over fake sessions, with a clock that only the test moves, and scripted counterparts."""

import hashlib
import queue
import sqlite3
from pathlib import Path

import numpy as np

from regional_gateway.adapters.store import SCHEMA, SCHEMA_VERSION
from regional_gateway.app import DATABASE, compose
from regional_gateway.service.gateway import Gateway
from regional_gateway.settings import GatewaySettings
from schemas.envelope import decode_frame
from schemas.ids import transfer_id
from schemas.limits import MIB, MIN_CHUNK_BYTES
from schemas.messages import (
    Assignment,
    ControlNote,
    DeviceState,
    Get,
    Heartbeat,
    JobRef,
    JobStatus,
    Need,
    Next,
    NoJob,
    Receipt,
    TrainingPlan,
    UpdateManifest,
)
from schemas.tasks import CentralState
from schemas.topics import Address, Kind, Topic
from transport.database import next_boot, open_database, transaction
from transport.events import Connected, Disconnected, MessageArrived, Published
from transport.frames import FrameWriter
from transport.loop import ServiceLoop
from transport.objects import describe

REGION = "eu"
GATEWAY = Address.of_gateway(REGION)
EVERYONE = Address.of_everyone(REGION)
TASK = "t-1"
ZERO = "0" * 64
START_S = 1_800_000_000.0


def sha(data):
    return hashlib.sha256(data).hexdigest()


def large(size=3 * MIN_CHUNK_BYTES + 17, seed=0):
    return np.random.default_rng(seed).bytes(size)


class FakeSession:
    def __init__(self, name, events):
        self.name = name
        self.events = events
        self.is_connected = False
        self.is_alive = True
        self.acknowledges = True
        self.sent = []

    def publish(self, message):
        if not self.is_connected:
            return False
        assert len(message.payload) <= MIB
        _ = message.topic.name
        self.sent.append(message)
        if message.token is not None and self.acknowledges:
            self.events.put(Published(self.name, message.token))
        return True


class Writer:
    """Writes frames of one counterpart."""

    def __init__(self, src, boot=10, seed=1):
        self.frames = FrameWriter(src, boot, np.random.default_rng(seed), lambda: START_S)

    @property
    def boot(self):
        return self.frames.boot


class Central(Writer):
    def __init__(self):
        super().__init__("central", seed=99)

    def assignment(self, cohort, number=0, task=TASK, model=b"model", deadline=None, **more):
        manifest, tail = describe(model, MIN_CHUNK_BYTES, inline=True)
        if (graph := more.pop("graph", None)) is not None:
            more["graph"], digests = describe(graph, MIN_CHUNK_BYTES)
            tail += digests
        plan = TrainingPlan(
            model="m",
            input_shape=(2,),
            classes=2,
            parameters=1,
            layout_sha256=ZERO,
            data="d",
            codec="int8",
        )
        body = Assignment(
            task=task,
            round=number,
            region=more.pop("region", REGION),
            cohort=tuple(cohort),
            deadline=START_S + 600 if deadline is None else deadline,
            plan=plan,
            model=manifest,
            **more,
        )
        return self.frames.frame(body, task=task, round_number=number, tail=tail)

    def receipt(self, xfer, sha256, status="accepted", **more):
        return self.frames.frame(Receipt(xfer=xfer, status=status, sha256=sha256, **more))

    def none(self, corr, keep=(), settled=()):
        refs = tuple(JobRef(task=t, round=r) for t, r in keep)
        return self.frames.frame(NoJob(keep=refs, settled=settled), corr=corr)

    def need(self, xfer, want, credit=4):
        return self.frames.frame(Need(xfer=xfer, want=tuple(want), credit=credit))

    def note(self, action, **more):
        return self.frames.frame(ControlNote(action=action, **more))

    def state(self, status="online", boot=5, connection=1):
        state = CentralState(status=status, boot=boot, ts=0.0, connection=connection)
        return state.model_dump_json().encode()


class Device(Writer):
    def __init__(self, name, boot=10):
        super().__init__(name, boot, seed=sum(name.encode()))
        self.name = name
        self.address = Address(REGION, name)

    def state(self, status="online", boot=None, **more):
        return self.frames.frame(DeviceState(status=status, boot=boot or self.boot, **more))

    def heartbeat(self):
        return self.frames.frame(Heartbeat(load=0.1, memory_free_bytes=1))

    def next(self, holding=(), unsettled=()):
        held, wanted = (
            tuple(JobRef(task=t, round=r) for t, r in keys) for keys in (holding, unsettled)
        )
        return self.frames.frame(Next(holding=held, unsettled=wanted))

    def status(self, state="accepted", number=0, task=TASK, **more):
        return self.frames.frame(JobStatus(task=task, round=number, state=state, **more))

    def xfer(self, data, number=0, task=TASK):
        return transfer_id(self.name, task, number, sha(data))

    def manifest(self, data, number=0, *, inline=True, src=None, tail=None, **more):
        task = more.pop("task", TASK)
        described, found = describe(data, MIN_CHUNK_BYTES, inline=inline)
        fields = {
            "xfer": self.xfer(data, number, task),
            "task": task,
            "round": number,
            "device": self.name,
            "object": described,
            "codec": "int8",
            "layout_sha256": ZERO,
            "base_model_sha256": ZERO,
            "num_examples": 3,
        } | more
        writer = self.frames if src is None else Writer(src).frames
        body = UpdateManifest(**fields)
        tail = found if tail is None else tail
        return writer.frame(body, task=task, round_number=number, tail=tail)

    def get(self, sha256, want):
        return self.frames.frame(Get(sha256=sha256, want=tuple(want)))


class Rig:
    """One gateway; ``restart`` is a crash and a new process over the same files."""

    def __init__(self, root: Path, **settings):
        self.settings = GatewaySettings(
            region=REGION, state_dir=root, **({"silent_after_s": 100.0} | settings)
        )
        self.now_s = START_S
        self.central = Central()
        self.acked = 0
        self.connection = None
        self.meter = None
        self._start()

    def _start(self):
        self.events = queue.SimpleQueue()
        self.up = FakeSession("uplink", self.events)
        self.down = FakeSession("downlink", self.events)
        self.connection = open_database(self.settings.state_dir / DATABASE, SCHEMA, SCHEMA_VERSION)
        rng = np.random.default_rng(0)
        with transaction(self.connection):
            boot = next_boot(self.connection, self.now_s)
        self.frames = FrameWriter(f"gw/{REGION}", boot, rng, lambda: self.now_s)
        self.parts = compose(self.settings, self.connection, self.frames, rng, self.meter)
        self.gateway = Gateway(self.parts)
        sessions = {"uplink": self.up, "downlink": self.down}
        self.loop = ServiceLoop(
            self.connection,
            self.events,
            sessions,
            self.gateway,
            lambda: self.now_s,
            pause=lambda _: None,
        )

    def begin_with(self, meter):
        """Begin a new life that counts with ``meter``."""
        self.connection.close()
        self.meter = meter
        self._start()

    def close(self):
        self.connection.close()

    def restart(self, *, connect=True):
        self.connection.close()
        self._start()
        if connect:
            self.connect()
        return self

    def connect(self, *names):
        for session in (self.up, self.down):
            if not names or session.name in names:
                session.is_connected = True
                self.events.put(Connected(session.name))
        self.settle()
        return self

    def disconnect(self, name):
        session = self.up if name == "uplink" else self.down
        session.is_connected = False
        self.events.put(Disconnected(name, "test"))
        self.turn()

    def turn(self):
        self.events.put(None)  # so that the loop never waits
        self.loop.turn()

    def settle(self):
        for _ in range(200):
            self.turn()
            if self.events.empty():
                return
        message = "does not settle"
        raise AssertionError(message)

    def fail_next_commit(self):
        """Let the disk be full at the end of the next turn: all that it wrote is undone."""
        tick, due = self.gateway.tick, self.gateway.next_due_s

        def fail(_now_s):
            self.gateway.tick, self.gateway.next_due_s = tick, due
            message = "database or disk is full"
            raise sqlite3.OperationalError(message)

        self.gateway.tick, self.gateway.next_due_s = fail, lambda _: 0.0

    def pass_time(self, seconds, step_s=1.0):
        end_s = self.now_s + seconds
        while self.now_s < end_s:
            self.now_s = min(end_s, self.now_s + step_s)
            self.settle()

    def arrive(self, session, topic, payload, *, retained=False):
        name = topic if isinstance(topic, str) else topic.name
        self.events.put(MessageArrived(session, name, payload, retained, self._ack))

    def _ack(self):
        self.acked += 1

    def from_central(self, kind, payload, **levels):
        self.arrive("uplink", Topic(kind, GATEWAY, **levels), payload)
        self.settle()

    def from_device(self, device, kind, payload, **levels):
        self.arrive("downlink", Topic(kind, device.address, **levels), payload)
        self.settle()

    def born(self, *names):
        devices = [Device(name) for name in names]
        for device in devices:
            self.from_device(device, Kind.STATE, device.state())
        return devices

    def confirm(self, keep=(), settled=()):
        """Let central answer the gateway's newest question."""
        asked = [m for m in self.up.sent if m.topic.kind is Kind.NEXT][-1]
        corr = decode_frame(asked.payload).header.id
        self.from_central(Kind.TASK, self.central.none(corr, keep, settled))

    def offer(self, sender, data, number=0, **more):
        payload = sender.manifest(data, number, **more)
        self.from_device(sender, Kind.MANIFEST, payload, xfer=sender.xfer(data, number))
        return payload

    def receipt(self, device, data, number=0, status="accepted", **more):
        xfer = device.xfer(data, number)
        payload = self.central.receipt(xfer, sha(data), status, **more)
        self.from_central(Kind.RECEIPT, payload, xfer=xfer)
        return payload

    def give_chunks(self, device, data, xfer=None):
        """Answer every Need on the downlink until there is none."""
        xfer = xfer or device.xfer(data)
        topic = Topic(Kind.NEED, device.address, xfer=xfer)
        while needs := take_topic(self.down, topic):
            for message in needs:
                for k in body(message, Need).want:
                    chunk = data[k * MIN_CHUNK_BYTES : (k + 1) * MIN_CHUNK_BYTES]
                    where = Topic(Kind.CHUNK, device.address, xfer=xfer, k=k)
                    self.arrive("downlink", where, chunk)
            self.settle()

    def give_blocks(self, data):
        """Answer every Get on the uplink until there is none; return how many blocks went out."""
        given = 0
        while gets := take(self.up, Kind.GET):
            for message in gets:
                for k in body(message, Get).want:
                    block = data[k * MIN_CHUNK_BYTES : (k + 1) * MIN_CHUNK_BYTES]
                    topic = Topic(Kind.BLOCK, GATEWAY, sha16=sha(data)[:16], k=k)
                    self.arrive("uplink", topic, block)
                    given += 1
            self.settle()
        return given

    def rows(self):
        query = "SELECT xfer, sha256 FROM outbox ORDER BY xfer"
        return self.connection.execute(query).fetchall()

    def custody_files(self):
        return sorted(p.name for p in (self.settings.state_dir / "custody" / "objects").iterdir())


def take(session, kind):
    """Remove and return the messages of one kind."""
    found = [m for m in session.sent if m.topic.kind is kind]
    session.sent[:] = [m for m in session.sent if m.topic.kind is not kind]
    return found


def take_topic(session, topic):
    """Remove and return the messages on one topic."""
    found = [m for m in session.sent if m.topic == topic]
    session.sent[:] = [m for m in session.sent if m.topic != topic]
    return found


def body(message, model):
    return decode_frame(message.payload).body(model)


def receipts(rig, device):
    """Return what the device was told of its transfers since the last call."""
    found = [m for m in take(rig.down, Kind.RECEIPT) if m.topic.address == device.address]
    return [body(m, Receipt) for m in found]
