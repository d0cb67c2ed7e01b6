"""A bad link between two network namespaces: ``netns_link.py NS_A ADDRESS_A NS_B ADDRESS_B SEED``.

It stands in for ``tc netem``, which many kernels lack: a TUN device in each namespace, and this
process between them, which drops, delays, reorders and slows down whole IP packets, so that TCP
at both ends sees what it would see of a radio link. Needs root and /dev/net/tun.

Each line on stdin sets something, ``WAY NAME VALUE``: WAY is ``ab``, ``ba`` or ``both``, NAME a
field of ``Way``. It ends with stdin, and then prints each way's packets and drops as JSON.
"""

import ctypes
import fcntl
import heapq
import json
import os
import random
import selectors
import struct
import subprocess
import sys
import time
from dataclasses import dataclass

_CLONE_NEWNET = 0x40000000
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x1, 0x1000
_MTU = 1400
_PACKET_BYTES = 65535


@dataclass(slots=True)
class Way:
    """One direction.

    Attributes:
        loss: Share of packets that are dropped.
        delay_s: Mean delay of a packet.
        jitter_s: Furthest that a packet's delay is from the mean; packets overtake each other.
        bytes_per_s: Rate; 0: without limit.
        queue_s: Longest that a packet may wait for the rate; it is dropped instead.
        down: 1 while nothing passes.
    """

    loss: float = 0.0
    delay_s: float = 0.0
    jitter_s: float = 0.0
    bytes_per_s: float = 0.0
    queue_s: float = 0.5
    down: float = 0.0
    packets: int = 0
    drops: int = 0
    free_s: float = 0.0

    def leaves_at(self, size: int, now_s: float, rng: random.Random) -> float | None:
        """Return when a packet arrives at the other end; None: never."""
        self.packets += 1
        starts_s = max(now_s, self.free_s)
        if self.down or rng.random() < self.loss or starts_s - now_s > self.queue_s:
            self.drops += 1
            return None
        if self.bytes_per_s:
            self.free_s = starts_s + size / self.bytes_per_s
            starts_s = self.free_s
        return starts_s + max(0.0, self.delay_s + rng.uniform(-1, 1) * self.jitter_s)


def tun_in(namespace: str, address: str) -> int:
    """Return a TUN device made in a namespace, with an address there."""
    libc = ctypes.CDLL(None, use_errno=True)
    home = os.open("/proc/self/ns/net", os.O_RDONLY)
    there = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    if libc.setns(there, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), f"setns {namespace}")
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", b"link0", _IFF_TUN | _IFF_NO_PI))
    for command in (
        ("ip", "addr", "add", address, "dev", "link0"),
        ("ip", "link", "set", "link0", "mtu", str(_MTU), "up"),
    ):
        subprocess.run(command, check=True)
    if libc.setns(home, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns home")
    os.close(there)
    os.close(home)
    return device


class Link:
    """Both ways and the packets that are in the air."""

    def __init__(self, a: int, b: int, seed: int) -> None:
        self.ways = {"ab": Way(), "ba": Way()}
        self._routes = {a: (b, self.ways["ab"]), b: (a, self.ways["ba"])}
        self._rng = random.Random(seed)
        self._air: list[tuple[float, int, int, bytes]] = []
        self._number = 0

    def run(self) -> None:
        """Carry packets until stdin ends."""
        with selectors.DefaultSelector() as selector:
            for end in (*self._routes, sys.stdin.fileno()):
                selector.register(end, selectors.EVENT_READ)
            while True:
                self._deliver(time.monotonic())
                for key, _ in selector.select(self._wait_s()):
                    if key.fd in self._routes:
                        self._take(key.fd)
                    elif not self._set():
                        return

    def _wait_s(self) -> float | None:
        return max(0.0, self._air[0][0] - time.monotonic()) if self._air else None

    def _deliver(self, now_s: float) -> None:
        while self._air and self._air[0][0] <= now_s:
            _, _, end, packet = heapq.heappop(self._air)
            try:
                os.write(end, packet)
            except OSError:
                continue

    def _take(self, end: int) -> None:
        try:
            packet = os.read(end, _PACKET_BYTES)
        except BlockingIOError:
            return
        other, way = self._routes[end]
        leaves_s = way.leaves_at(len(packet), time.monotonic(), self._rng)
        if leaves_s is not None:
            self._number += 1
            heapq.heappush(self._air, (leaves_s, self._number, other, packet))

    def _set(self) -> bool:
        text = os.read(sys.stdin.fileno(), _PACKET_BYTES).decode()
        for line in text.splitlines():
            which, name, value = line.split()
            for key, way in self.ways.items():
                if which in (key, "both"):
                    setattr(way, name, float(value))
        return bool(text)


def main() -> None:
    """Run the link that the command line describes."""
    first, address, second, other_address, seed = sys.argv[1:]
    link = Link(tun_in(first, address), tun_in(second, other_address), int(seed))
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    link.run()
    counts = {name: [way.packets, way.drops] for name, way in link.ways.items()}
    sys.stdout.write(json.dumps(counts))


if __name__ == "__main__":
    main()
