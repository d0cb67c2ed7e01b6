"""Where a device's bytes go: every MQTT packet of a small fleet, by kind, a device and round.

    python -m benchmarks.wire_bytes --codec topk --codec-param fraction=0.01

A fleet trains on digits through proxies that record what passes between devices and broker; the
packets are MQTT 3.1.1 with the embedded broker. Printed: packets and bytes of each kind for one
device and round, how a frame's bytes divide, and the same total as the task's status tells it.
"""

import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from fedfleet import options
from fedfleet.chaos.proxy import Proxy, Way
from fedfleet.screen import Screen
from fedfleet.tables import table
from fedfleet.testbed.choices import Options
from fedfleet.testbed.demo import free_port
from fedfleet.testbed.plan import Place, make_plan
from fedfleet.testbed.processes import Processes
from fedfleet.testbed.run import Run
from schemas.envelope import decode_frame
from schemas.errors import WireError
from schemas.tasks import TaskStatus

_PUBLISH = 3
_NAMES = {1: "CONNECT", 2: "CONNACK", 4: "PUBACK", 8: "SUBSCRIBE", 9: "SUBACK", 12: "PINGREQ",
          13: "PINGRESP", 14: "DISCONNECT"}  # fmt: skip
_START_S = 120.0
_COLUMNS = ("way", "kind", "packets", "bytes", "topic", "header", "tail")


@dataclass(slots=True)
class Kind:
    """One kind of packet; bytes in all, and of a PUBLISH its topic, header and tail."""

    packets: int = 0
    size: int = 0
    topic: int = 0
    header: int = 0
    tail: int = 0


@dataclass(slots=True)
class Tap:
    """Everything that went through the doors."""

    streams: dict[tuple[str, Way], bytearray] = field(
        default_factory=lambda: defaultdict(bytearray)
    )

    def take(self, door: str, way: Way, data: bytes) -> None:
        """Note one piece."""
        self.streams[door, way] += data

    def kinds(self) -> dict[tuple[Way, str], Kind]:
        """Return what went through, by way and kind."""
        found: dict[tuple[Way, str], Kind] = defaultdict(Kind)
        for (_, way), stream in self.streams.items():
            for first, body, size in packets(bytes(stream)):
                _add(found, way, first, body, size)
        return found


def packets(stream: bytes) -> Iterator[tuple[int, bytes, int]]:
    """Yield the first byte, the body and the whole size of each packet."""
    at = 0
    while at < len(stream):
        length, shift, start = 0, 0, at + 1
        while True:
            length |= (stream[start] & 127) << shift
            shift, start = shift + 7, start + 1
            if stream[start - 1] < 128:
                break
        yield stream[at], stream[start : start + length], start + length - at
        at = start + length


def _add(found: dict[tuple[Way, str], Kind], way: Way, first: int, body: bytes, size: int) -> None:
    if first >> 4 != _PUBLISH:
        kind = found[way, _NAMES.get(first >> 4, str(first >> 4))]
        kind.packets, kind.size = kind.packets + 1, kind.size + size
        return
    topic_end = 2 + int.from_bytes(body[:2], "big")
    payload = body[topic_end + (2 if first & 6 else 0) :]
    try:
        frame = decode_frame(payload)
    except WireError:
        name, header, tail = "chunk", 0, len(payload)
    else:
        name, header, tail = frame.header.type, len(frame.header_bytes), len(frame.tail)
    kind = found[way, name]
    kind.packets, kind.size, kind.topic = (
        kind.packets + 1,
        kind.size + size,
        kind.topic + topic_end,
    )
    kind.header, kind.tail = kind.header + header, kind.tail + tail


def run(chosen: Options, folder: Path) -> tuple[TaskStatus, Tap]:
    """Run one fleet; return its task's last status and what its devices moved."""
    tap, port = Tap(), free_port()
    names = [f"device-{number + 1}" for number in range(chosen.devices)]
    with Proxy(names, port, tap.take) as proxy:
        place = Place(folder, port, doors=proxy.ports)
        plan = make_plan(chosen, place)
        with Processes(folder / "logs") as processes, Screen(sys.stderr) as screen:
            fleet = Run(plan, place, processes, screen)
            fleet.start()
            with fleet.connect() as client:
                fleet.wait_for_births(client, _START_S)
                status = fleet.train(client, 0.0).status
    return status, tap


@click.command()
@click.option("--devices", default=4, show_default=True)
@click.option("--rounds", default=10, show_default=True)
@click.option("--codec", default="topk", show_default=True)
@options.codec_params
def main(devices: int, rounds: int, codec: str, codec_params: dict[str, object] | None) -> None:
    """Measure where a device's bytes go."""
    chosen = Options(
        devices=devices, regions=1, rounds=rounds, codec=codec, codec_params=codec_params or {}
    )
    with TemporaryDirectory() as folder:
        status, tap = run(chosen, Path(folder))
    shares = devices * rounds
    cells = [
        (way, name, *(f"{value / shares:.1f}" for value in
                      (kind.packets, kind.size, kind.topic, kind.header, kind.tail)))
        for (way, name), kind in sorted(tap.kinds().items(), key=lambda item: -item[1].size)
    ]  # fmt: skip
    click.echo(table(_COLUMNS, cells))
    for way, told in (("up", status.uplink_wire_bytes), ("down", status.downlink_wire_bytes)):
        moved = sum(len(stream) for (_, one), stream in tap.streams.items() if one == way)
        click.echo(
            f"{way}: {moved / shares:.1f} through the proxies, {told / shares:.1f} accounted"
        )
    click.echo(f"payload up: {status.uplink_bytes / shares:.1f}; bytes a device and round, all")


if __name__ == "__main__":
    main()
