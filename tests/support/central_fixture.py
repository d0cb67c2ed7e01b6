"""Central on one SQLite file with a scripted region in front of it: no sockets, no threads."""

import json

import numpy as np

from central.adapters.catalog import InstalledCatalog
from central.adapters.jobs import Jobs, reader_of
from central.adapters.store import SCHEMA, SCHEMA_VERSION, SqliteStore
from central.adapters.stored_rounds import read_model
from central.core.strategies.fedavg import FedAvg
from central.service.desk import Desk
from central.service.orchestrator import Orchestrator
from central.service.ports import Prepared
from schemas import topics
from schemas.bids import Bid
from schemas.envelope import decode_frame
from schemas.ids import transfer_id
from schemas.messages import (
    Assignment,
    Capabilities,
    DataDescription,
    DeviceState,
    GatewayState,
    JobStatus,
    Next,
    NoJob,
    Receipt,
    UpdateManifest,
)
from schemas.tasks import TaskStatus
from schemas.topics import Address, Kind, Topic
from transport.database import next_boot, open_database, transaction
from transport.events import Connected, MessageArrived
from transport.frames import FrameWriter
from transport.objects import ObjectStore, describe
from transport.puller import Puller
from updates.codecs import create
from updates.layout import Layout

GRAPH = b"graph"
LAYOUT = Layout.of({"w": (3, 2), "b": (2,)})
DIGITS = DataDescription(name="digits", shape=(1, 8, 8), classes=10, examples=100)


class TinyModeler:
    """The port ``Modeler`` without torch: eight parameters, accuracy grows with each round."""

    layout = LAYOUT
    graph = GRAPH
    accuracies = ()

    def __init__(self):
        self.exported = []
        self.evaluated = 0

    def check(self, submission):
        if submission.model not in ("mlp", "big"):
            message = f"model: {submission.model!r} is not known; there are: big, mlp"
            raise ValueError(message)

    def prepare(self, submission, data, scratch):
        if submission.model_params.get("broken"):
            message = "model_params: broken"
            raise ValueError(message)
        first = np.zeros(self.layout.size, np.float32)
        return Prepared(self.layout, first, self.graph, "node Loop: not differentiable")

    def has_evaluation(self, data):
        return bool(self.accuracies)

    def evaluate(self, submission, data, layout, vector, forward_key=None):
        self.evaluated += 1
        return {"accuracy": self.accuracies[self.evaluated - 1]}

    def write(self, submission, data, source, path, forward_key=None):
        path.write_bytes(b"onnx")
        self.exported.append(path)


class InlineWorker:
    """The port ``Worker``: jobs wait in a list until the test does them."""

    def __init__(self, jobs):
        self.jobs = jobs
        self.waiting = []

    def submit(self, job):
        self.waiting.append(job)


class CentralRig:
    """One central; ``restart`` gives a new process over the same files."""

    def __init__(self, root, modeler=None, min_clients=2, keep_task_s=1e9):
        self.root = root
        self.modeler = modeler or TinyModeler()
        self.min_clients = min_clients
        self.keep_task_s = keep_task_s
        self.was_clean = False
        self.now_s = 1000.0
        self.published = []
        self.connection = None
        self.device_seq = 0
        self.gateway_seq = 0
        self.start()

    def start(self):
        self.connection = open_database(self.root / "central.db", SCHEMA, SCHEMA_VERSION)
        rng = np.random.default_rng(0)
        with transaction(self.connection):
            boot = next_boot(self.connection, self.now_s)
        objects = ObjectStore(self.root)
        strategies = {"broken": _broken, "mine": FedAvg}
        jobs = Jobs(
            reader_of(self.root / "central.db"),
            objects,
            self.modeler,
            self.modeler,
            strategies,
            self.root / "models",
        )
        self.worker = InlineWorker(jobs)
        self.store = SqliteStore(self.connection)
        self.objects = objects
        self.desk = Desk(
            store=self.store,
            objects=objects,
            catalog=InstalledCatalog(self.modeler, strategies),
            frames=FrameWriter("central", boot, rng, lambda: self.now_s),
            puller=Puller(objects),
            rng=rng,
            min_clients=self.min_clients,
            boot=boot,
            read_layout=lambda path: read_model(path)[0],
        )
        self.handler = Orchestrator(
            self.desk, self.worker, keep_task_s=self.keep_task_s, was_clean=self.was_clean
        )
        self.event(Connected("main"))

    def restart(self):
        self.connection.close()
        self.start()

    def event(self, event):
        with transaction(self.connection):
            outgoing = list(self.handler.handle(event, self.now_s))
        self.handler.after_commit()
        self.published += outgoing
        return outgoing

    def tick(self, seconds=0.0):
        self.now_s += seconds
        with transaction(self.connection):
            outgoing = list(self.handler.tick(self.now_s))
        self.handler.after_commit()
        self.published += outgoing
        return outgoing

    def work(self):
        """Do every job that waits, and what follows from it."""
        while self.worker.waiting:
            event = self.worker.jobs.work(self.worker.waiting.pop(0))
            if event is not None:
                self.event(event)

    def arrive(self, topic, payload, retained=False):
        name = topic if isinstance(topic, str) else topic.name
        return self.event(MessageArrived("main", name, payload, retained, lambda: None))

    # -- a person ------------------------------------------------------------------------

    def submit(self, retained=False, **fields):
        payload = json.dumps({"model": "mlp", **fields}).encode()
        return self.arrive(Topic(Kind.TASK_SUBMIT), payload, retained)

    def control(self, task, action):
        return self.arrive(
            Topic(Kind.TASK_CONTROL, task=task), json.dumps({"action": action}).encode()
        )

    def status(self, task):
        """Return the retained status of a task, as a new subscriber would get it."""
        self.tick()
        found = [
            out.payload
            for out in self.published
            if out.topic.kind is Kind.TASK_STATUS and out.topic.task == task
        ]
        return TaskStatus.model_validate_json(found[-1]) if found and found[-1] else None

    def rejections(self):
        return [
            status
            for out in self.published
            if out.topic.kind is Kind.TASK_STATUS and out.payload
            for status in [TaskStatus.model_validate_json(out.payload)]
            if status.state == "rejected"
        ]

    # -- a region ------------------------------------------------------------------------

    def gateway(self, region="eu", status="online", boot=1, silent=()):
        self.gateway_seq += 1
        writer = self._writer(f"gw/{region}", boot, self.gateway_seq)
        body = GatewayState(status=status, boot=boot, silent=silent)
        return self.arrive(Topic(Kind.STATE, Address.of_gateway(region)), writer.frame(body))

    def device(self, device, region="eu", status="online", boot=1, data=(DIGITS,), **has):
        self.device_seq += 1
        writer = self._writer(device, boot, self.device_seq)
        body = DeviceState(
            status=status,
            boot=boot,
            data=data if status == "online" else (),
            capabilities=Capabilities(**has),
        )
        topic = Topic(Kind.RELAYED, Address.of_gateway(region), device=device)
        return self.arrive(topic, writer.frame(body))

    def fleet(self, *devices, region="eu"):
        self.gateway(region)
        for device in devices:
            self.device(device, region)

    def job(self, device, assignment, state, region="eu", **more):
        self.device_seq += 1
        writer = self._writer(device, 1, self.device_seq)
        body = JobStatus(task=assignment.task, round=assignment.round, state=state, **more)
        topic = Topic(Kind.RELAYED, Address.of_gateway(region), device=device)
        return self.arrive(topic, writer.frame(body))

    def ask_next(self, region="eu", holding=(), unsettled=()):
        self.gateway_seq += 1
        writer = self._writer(f"gw/{region}", 1, self.gateway_seq)
        frame = writer.frame(Next(holding=holding, unsettled=unsettled))
        outgoing = self.arrive(Topic(Kind.NEXT, Address.of_gateway(region)), frame)
        return decode_frame(frame).header.id, outgoing

    def update_frame(self, device, assignment, value=1.0, examples=10, **changes):
        """Return (xfer, frame) of one device's update."""
        payload = changes.pop("payload", None)
        vector = np.full(self.modeler.layout.size, value, np.float32)
        if payload is None:
            codec = create(assignment.plan.codec, assignment.plan.codec_params)
            payload = codec.encode(vector, self.modeler.layout, np.random.default_rng(0))
        bids = assignment.plan.bids
        manifest, tail = describe(payload, inline=not bids)
        tail = changes.pop("tail", tail)
        clock = changes.pop("clock", 0)
        if bids:
            bid = Bid(value * value * vector.size, clock, manifest.size).encode()
            changes.setdefault("bid", bid)
        fields = {
            "task": assignment.task,
            "round": assignment.round,
            "device": device,
            "object": manifest,
            "codec": assignment.plan.codec,
            "layout_sha256": assignment.plan.layout_sha256,
            "base_model_sha256": assignment.model.sha256,
            "num_examples": examples,
            **changes,
        }
        xfer = fields.pop("xfer", None) or transfer_id(
            device, fields["task"], fields["round"], manifest.sha256
        )
        body = UpdateManifest(xfer=xfer, **fields)
        self.device_seq += 1
        writer = self._writer(changes.get("src", device), 1, self.device_seq)
        return xfer, writer.frame(body, task=fields["task"], tail=tail), payload

    def update(self, device, assignment, value=1.0, examples=10, region="eu", **changes):
        xfer, frame, _ = self.update_frame(device, assignment, value, examples, **changes)
        return self.offer(xfer, frame, region)

    def offer(self, xfer, frame, region="eu"):
        outgoing = self.arrive(Topic(Kind.MANIFEST, Address.of_gateway(region), xfer=xfer), frame)
        found = receipts(outgoing)
        return found[0] if found else None

    def _writer(self, src, boot, seq):
        writer = FrameWriter(src, boot, np.random.default_rng(seq), lambda: self.now_s)
        writer._seq = seq
        return writer

    # -- what central said ---------------------------------------------------------------

    def assignments(self, region=None):
        return assignments(self.published, region)

    def newest(self, region="eu"):
        return self.assignments(region)[-1]


def assignments(outgoing, region=None):
    return [
        decode_frame(out.payload).body(Assignment)
        for out in outgoing
        if out.topic.kind is Kind.TASK
        and (region is None or out.topic.address.region == region)
        and decode_frame(out.payload).header.type == Assignment.TYPE
    ]


def receipts(outgoing):
    return [
        decode_frame(out.payload).body(Receipt)
        for out in outgoing
        if out.topic.kind is Kind.RECEIPT
    ]


def no_jobs(outgoing):
    return [
        (decode_frame(out.payload).header.corr, decode_frame(out.payload).body(NoJob))
        for out in outgoing
        if out.topic.kind is Kind.TASK and decode_frame(out.payload).header.type == NoJob.TYPE
    ]


class _Broken:
    def init(self, model):
        return {}

    def apply(self, state, contributions):
        message = "cannot"
        raise RuntimeError(message)


def _broken():
    return _Broken()


__all__ = ["DIGITS", "LAYOUT", "CentralRig", "TinyModeler", "topics"]


def begin(rig, *devices, **task):
    """Submit a task and return the first assignment."""
    rig.fleet(*(devices or ("a", "b", "c")))
    rig.submit(task="t", codec="raw-f32", **{"rounds": 2, "cohort": len(devices) or 3, **task})
    rig.work()
    return rig.newest()
