"""A device agent as a real process, and a gateway played by the test over a real broker."""

import os
import queue
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from typing_extensions import Self

from schemas.base import WireMessage
from schemas.envelope import decode_frame
from schemas.limits import DEFAULT_CHUNK_BYTES
from schemas.messages import (
    Assignment,
    DeviceState,
    Get,
    JobStatus,
    Need,
    Next,
    NoJob,
    Receipt,
    TrainingPlan,
    UpdateManifest,
)
from schemas.tasks import Training
from schemas.topics import Address, Kind, Topic, downlink_filters, parse
from transport.events import Connected, MessageArrived, Outgoing
from transport.frames import FrameWriter
from transport.objects import describe, read_block
from transport.session import PahoSession
from updates.layout import Layout
from updates.model_file import model_header

REGION, DEVICE, TASK = "r1", "d1", "t-1"
OWN = Address(REGION, DEVICE)
WAIT_S = 30.0
WITHOUT_TORCH = "import sys; sys.modules['torch'] = None; from fedfleet.cli import main; main()"
WITH_TORCH = "from fedfleet.cli import main; main()"
_BROKER = "from transport.embedded import run; run(0, lambda port: print(port, flush=True))"


@contextmanager
def broker() -> Iterator[str]:
    """Run the embedded broker in a process of its own; yield its URL."""
    child = subprocess.Popen([sys.executable, "-c", _BROKER], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        yield f"mqtt://127.0.0.1:{int(child.stdout.readline())}"
    finally:
        child.terminate()
        child.wait(WAIT_S)
        child.stdout.close()


class DeviceProcess:
    """One life after another of one device on one state directory."""

    def __init__(self, url: str, state_dir: Path, code: str = WITH_TORCH, *more: str) -> None:
        self.log = state_dir.with_suffix(".log")
        self._command = [
            *(sys.executable, "-c", code, "device", "--region", REGION, "--id", DEVICE),
            *("--broker", url, "--mqtt-protocol", "3.1.1", "--data", "digits"),
            *("--state-dir", str(state_dir), *more),
        ]
        self.child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            self.child = subprocess.Popen(self._command, stderr=log, env=environment)

    def kill(self) -> None:
        """End it as a power cut would, and wait until it is gone."""
        assert self.child is not None
        self.child.kill()
        self.child.wait(WAIT_S)

    def stop(self) -> int:
        assert self.child is not None
        self.child.send_signal(signal.SIGTERM)
        return self.child.wait(WAIT_S)

    def memory_bytes(self, field: str) -> int:
        """Return ``VmRSS`` or ``VmHWM`` of the process."""
        for line in self._proc("status").splitlines():
            if line.startswith(field):
                return int(line.split()[1]) * 1024
        raise KeyError(field)

    def maps(self) -> str:
        return self._proc("maps")

    def _proc(self, name: str) -> str:
        assert self.child is not None
        return Path(f"/proc/{self.child.pid}/{name}").read_text()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.child is not None and self.child.poll() is None:
            self.kill()


class PlayedGateway:
    """Answers as a gateway does: questions, requests for blocks, manifests of large updates."""

    def __init__(self, url: str) -> None:
        self.events: queue.SimpleQueue[object] = queue.SimpleQueue()
        self.seen: list[tuple[Topic, bytes]] = []
        self.models: dict[str, Path] = {}
        self.chunks: dict[str, dict[int, bytes]] = {}
        rng = np.random.default_rng(3)
        self.frames = FrameWriter(f"gw/{REGION}", 1, rng, time.time)
        self.central = FrameWriter("central", 1, rng, time.time)
        self.session = PahoSession(
            url,
            name="main",
            mqtt_client_id="played-gateway",
            filters=downlink_filters(REGION),
            events=self.events,
            protocol="3.1.1",
        )

    def __enter__(self) -> Self:
        self.session.start()
        while not isinstance(self.events.get(timeout=WAIT_S), Connected):
            pass
        return self

    def __exit__(self, *_: object) -> None:
        self.session.stop()

    def publish(self, topic: Topic, payload: bytes) -> None:
        assert self.session.publish(Outgoing(topic, payload))

    def send(self, kind: Kind, body: WireMessage, *, corr: str | None = None, **levels) -> None:
        self.publish(Topic(kind, OWN, **levels), self.frames.frame(body, corr=corr))

    def wait_for(self, what: Callable[[Topic, bytes], bool]) -> tuple[Topic, bytes]:
        """Answer what arrives until a message is what is waited for; return that one."""
        until_s = time.monotonic() + WAIT_S
        while time.monotonic() < until_s:
            try:
                event = self.events.get(timeout=0.2)
            except queue.Empty:
                continue
            if not isinstance(event, MessageArrived):
                continue
            topic = parse(event.topic_name)
            event.ack()
            self.seen.append((topic, event.payload))
            self._answer(topic, event.payload)
            if what(topic, event.payload):
                return topic, event.payload
        came = [payload[:400] for topic, payload in self.seen if topic.kind is not Kind.CHUNK]
        message = f"not within {WAIT_S} s; there came {came[-8:]}"
        raise AssertionError(message)

    def wait_for_state(self, status: str) -> DeviceState:
        def fits(topic: Topic, payload: bytes) -> bool:
            return topic.kind is Kind.STATE and _body(payload, DeviceState).status == status

        return _body(self.wait_for(fits)[1], DeviceState)

    def wait_for_status(self, *states: str) -> JobStatus:
        def fits(topic: Topic, payload: bytes) -> bool:
            return topic.kind is Kind.JOB_STATUS and _body(payload, JobStatus).state in states

        return _body(self.wait_for(fits)[1], JobStatus)

    def wait_for_word(self, *states: str) -> None:
        """Wait for one of these states, or for the manifest: a quick job has no word before it."""

        def fits(topic: Topic, payload: bytes) -> bool:
            if topic.kind is Kind.MANIFEST:
                return True
            return topic.kind is Kind.JOB_STATUS and _body(payload, JobStatus).state in states

        self.wait_for(fits)

    def wait_for_manifest(self) -> tuple[UpdateManifest, bytes]:
        _, payload = self.wait_for(lambda topic, _: topic.kind is Kind.MANIFEST)
        return _body(payload, UpdateManifest), decode_frame(payload).tail

    def wait_for_update(self) -> tuple[UpdateManifest, bytes]:
        """Return one update, pulled chunk by chunk unless it came inline."""
        manifest, tail = self.wait_for_manifest()
        if manifest.object.inline:
            return manifest, tail
        got = self.chunks.setdefault(manifest.xfer, {})
        while missing := [k for k in range(manifest.object.chunks) if k not in got][:4]:
            need = Need(xfer=manifest.xfer, want=tuple(missing))
            self.send(Kind.NEED, need, xfer=manifest.xfer)
            for _ in missing:
                self.wait_for(lambda topic, _: topic.kind is Kind.CHUNK)
        return manifest, b"".join(got[k] for k in sorted(got))

    def receipt(self, manifest: UpdateManifest, status: str) -> None:
        body = Receipt(xfer=manifest.xfer, status=status, sha256=manifest.object.sha256)
        self.send(Kind.RECEIPT, body, xfer=manifest.xfer)

    def assign(self, model: Path, layout: Layout, codec: str, number: int = 1, **training) -> None:
        """Offer one round; the model is inline when it is small, else it is asked for."""
        manifest, tail = describe(model)
        if manifest.size <= 256 * 1024:
            manifest, tail = manifest.model_copy(update={"inline": True}), model.read_bytes()
        self.models[manifest.sha256] = model
        body = Assignment(
            task=TASK,
            round=number,
            region=REGION,
            cohort=(DEVICE,),
            deadline=time.time() + 600,
            plan=TrainingPlan(
                model="mlp",
                input_shape=(1, 8, 8),
                classes=10,
                parameters=layout.size,
                layout_sha256=layout.digest,
                data="digits",
                training=Training(**training),
                codec=codec,
            ),
            model=manifest,
        )
        self.publish(Topic(Kind.TASK, OWN), self.central.frame(body, tail=tail))

    def _answer(self, topic: Topic, payload: bytes) -> None:
        if topic.kind is Kind.NEXT:
            asked = decode_frame(payload)
            keep = _body(payload, Next).holding
            self.send(Kind.TASK, NoJob(keep=keep), corr=asked.header.id)
        elif topic.kind is Kind.GET:
            self._send_blocks(_body(payload, Get))
        elif topic.kind is Kind.CHUNK:
            self.chunks.setdefault(topic.xfer or "", {})[topic.k or 0] = payload

    def _send_blocks(self, get: Get) -> None:
        for k in get.want:
            topic = Topic(Kind.BLOCK, OWN, sha16=get.sha256[:16], k=k)
            self.publish(topic, read_block(self.models[get.sha256], k, DEFAULT_CHUNK_BYTES))


def write_model(path: Path, layout: Layout) -> Path:
    """Write a model file of random parameters, piece by piece."""
    rng = np.random.default_rng(1)
    with path.open("wb") as file:
        file.write(model_header(layout))
        for start in range(0, layout.size, 1 << 20):
            count = min(1 << 20, layout.size - start)
            file.write(rng.standard_normal(count, dtype=np.float32).tobytes())
    return path


def _body(payload: bytes, model: type) -> WireMessage:
    return decode_frame(payload).body(model)
