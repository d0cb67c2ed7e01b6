"""A gateway as a real process, and central and devices played by the test over real brokers."""

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path

from schemas.envelope import decode_frame
from schemas.messages import Get, Need, UpdateManifest
from schemas.topics import (
    Address,
    Kind,
    Topic,
    central_filters,
    device_filters,
    parse,
)
from tests.unit.regional_gateway.gateway_rig import Central, Device
from transport.events import Connected, MessageArrived, Outgoing
from transport.session import PahoSession

REGION = "eu"
GATEWAY = Address.of_gateway(REGION)
WAIT_S = 30.0
_CODE = "from fedfleet.cli import main; main()"


class GatewayProcess:
    """One life after another of one gateway on one state directory."""

    def __init__(self, broker: str, uplink: str, state_dir: Path, *more: str) -> None:
        self.log = state_dir.with_suffix(".log")
        self._command = [
            *(sys.executable, "-c", _CODE, "gateway", "--region", REGION),
            *("--broker", broker, "--uplink", uplink, "--mqtt-protocol", "3.1.1"),
            *("--state-dir", str(state_dir), *more),
        ]
        self.child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            self.child = subprocess.Popen(self._command, stderr=log, env=environment)

    def kill(self) -> None:
        """End it as a power cut would, and wait until it is gone."""
        self.child.kill()
        self.child.wait(WAIT_S)

    def stop(self) -> int:
        self.child.send_signal(signal.SIGTERM)
        return self.child.wait(WAIT_S)

    def memory_bytes(self, field: str) -> int:
        """Return ``VmRSS`` or ``VmHWM`` of the process."""
        for line in Path(f"/proc/{self.child.pid}/status").read_text().splitlines():
            if line.startswith(field):
                return int(line.split()[1]) * 1024
        raise KeyError(field)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.child is not None and self.child.poll() is None:
            self.kill()


class Peer:
    """One counterpart on its own session; a thread answers, the test waits."""

    def __init__(self, url, client_id, filters) -> None:
        self.events: queue.SimpleQueue[object] = queue.SimpleQueue()
        self.seen: list[tuple[Topic, bytes]] = []
        self._changed = threading.Condition()
        self._unsent: deque[Outgoing] = deque()
        self._is_over = False
        self.session = PahoSession(
            url,
            name="main",
            mqtt_client_id=client_id,
            filters=filters,
            events=self.events,
            protocol="3.1.1",
        )
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self.session.start()
        while not isinstance(self.events.get(timeout=WAIT_S), Connected):
            pass
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over = True
        self.events.put(None)
        self._thread.join(WAIT_S)
        self.session.stop()

    def publish(self, topic: Topic, payload: bytes) -> None:
        until_s = time.monotonic() + WAIT_S
        while not self.session.publish(Outgoing(topic, payload)):
            assert time.monotonic() < until_s
            time.sleep(0.01)

    def wait_for(self, kind: Kind, count: int = 1, **levels) -> list[bytes]:
        """Return the payloads of one kind once there are ``count``."""

        def found() -> list[bytes]:
            return [
                payload
                for topic, payload in self.seen
                if topic.kind is kind
                and all(getattr(topic, name) == value for name, value in levels.items())
            ]

        with self._changed:
            done = self._changed.wait_for(lambda: len(found()) >= count, WAIT_S)
            assert done, f"{len(found())} of {count} {kind} within {WAIT_S} s"
            return found()

    def answer(self, topic: Topic, payload: bytes) -> None:
        """Answer one message; on the thread."""

    def keeps(self, topic: Topic) -> bool:
        """Tell whether ``seen`` remembers messages of this topic."""
        return topic.kind not in {Kind.CHUNK, Kind.BLOCK}

    def _run(self) -> None:
        while not self._is_over:
            with contextlib.suppress(queue.Empty):
                self._take(self.events.get(timeout=0.2))

    def _take(self, event: object) -> None:
        if not isinstance(event, MessageArrived):
            return
        topic = parse(event.topic_name)
        event.ack()
        self.answer(topic, event.payload)
        if self.keeps(topic):
            with self._changed:
                self.seen.append((topic, event.payload))
                self._changed.notify_all()


class PlayedCentral(Peer):
    """Serves models; receipts small updates and pulls large ones, unless told to be deaf."""

    def __init__(self, url) -> None:
        super().__init__(url, "played-central", central_filters())
        self.words = Central()
        self.models: dict[str, tuple[Path, int]] = {}
        self.is_deaf = False
        self.pulling: dict[str, tuple[UpdateManifest, set[int]]] = {}
        self.accepted: dict[str, int] = {}
        self.blocks_given = 0

    def answer(self, topic: Topic, payload: bytes) -> None:
        if topic.kind is Kind.GET:
            self._give_blocks(decode_frame(payload).body(Get))
        elif topic.kind is Kind.MANIFEST and not self.is_deaf:
            self._on_manifest(decode_frame(payload).body(UpdateManifest))
        elif topic.kind is Kind.CHUNK and topic.xfer in self.pulling:
            manifest, missing = self.pulling[topic.xfer]
            missing.discard(topic.k)
            self._pull(manifest, missing)

    def _on_manifest(self, manifest: UpdateManifest) -> None:
        if manifest.object.inline or manifest.xfer in self.accepted:
            self._accept(manifest)
            return
        known = self.pulling.setdefault(
            manifest.xfer, (manifest, set(range(manifest.object.chunks)))
        )
        self._pull(*known)

    def _pull(self, manifest: UpdateManifest, missing: set[int]) -> None:
        if not missing:
            self._accept(manifest)
        elif len(missing) % 4 == 0 or len(missing) == manifest.object.chunks:
            want = tuple(sorted(missing))[:4]
            frame = self.words.need(manifest.xfer, want)
            self.publish(Topic(Kind.NEED, GATEWAY, xfer=manifest.xfer), frame)

    def _accept(self, manifest: UpdateManifest) -> None:
        xfer, sha256 = manifest.xfer, manifest.object.sha256
        self.accepted[xfer] = self.accepted.get(xfer, 0) + 1
        status = "accepted" if self.accepted[xfer] == 1 else "duplicate"
        frame = self.words.receipt(xfer, sha256, status)
        self.publish(Topic(Kind.RECEIPT, GATEWAY, xfer=xfer), frame)

    def _give_blocks(self, get: Get) -> None:
        path, chunk_bytes = self.models[get.sha256]
        with path.open("rb") as file:
            for k in get.want:
                file.seek(k * chunk_bytes)
                topic = Topic(Kind.BLOCK, GATEWAY, sha16=get.sha256[:16], k=k)
                self.publish(topic, file.read(chunk_bytes))
                self.blocks_given += 1


class PlayedDevice(Peer):
    """Publishes what the test says, and gives the chunks that it is asked for."""

    def __init__(self, url, name) -> None:
        super().__init__(url, f"played-{name}", device_filters(REGION, name))
        self.words = Device(name)
        self.objects: dict[str, tuple[Path, int]] = {}
        self.blocks: dict[int, int] = {}

    def born(self) -> None:
        self.publish(Topic(Kind.STATE, self.words.address), self.words.state())

    def answer(self, topic: Topic, payload: bytes) -> None:
        if topic.kind is Kind.BLOCK:
            self.blocks[topic.k] = self.blocks.get(topic.k, 0) + 1
        if topic.kind is not Kind.NEED or topic.xfer not in self.objects:
            return
        path, chunk_bytes = self.objects[topic.xfer]
        with path.open("rb") as file:
            for k in decode_frame(payload).body(Need).want:
                file.seek(k * chunk_bytes)
                place = Topic(Kind.CHUNK, self.words.address, xfer=topic.xfer, k=k)
                self.publish(place, file.read(chunk_bytes))
