"""What ``strace`` saw of a program, and whether it promised anything before it was on disk."""

import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

#: Enough for a whole page of a database.
_SHOWN_BYTES = 4200
_CALLS = "fdatasync,fsync,pwrite64,write,sendto,recvfrom"
_SYNCS = frozenset({"fdatasync", "fsync"})
_LINE = re.compile(r"^(\d+) +[\d.]+ (.*)$")
_RESUMED = re.compile(r"^<\.\.\. \w+ resumed>(.*)$")
_CALL = re.compile(r'^(\w+)\(\d+<([^>]*)>(?:, "((?:[^"\\]|\\.)*)")?.* = (\d+)')
_UNFINISHED = " <unfinished ...>"


def traced(command: list[str], trace: Path) -> list[str]:
    """Return the command under strace, which writes to ``trace``; skips where that cannot be."""
    found = shutil.which("strace")
    if found is None:
        pytest.skip("needs strace: apt-get install strace")
    tried = subprocess.run([found, "-qq", "true"], capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        pytest.skip(f"needs ptrace: strace says {tried.stderr.strip()[-200:]}")
    options = ("-f", "-qq", "-ttt", "-y", "-s", str(_SHOWN_BYTES), "-e", f"trace={_CALLS}")
    return [found, *options, "-o", str(trace), *command]


@dataclass(frozen=True, slots=True)
class Call:
    """One call that succeeded; ``began`` and ``ended`` are numbers of lines of the trace."""

    name: str
    file: str
    data: bytes
    began: int
    ended: int


def parse_trace(text: str) -> list[Call]:
    """Return the calls in the order in which they ended."""
    return list(_calls(text.splitlines()))


def _calls(lines: Iterable[str]) -> Iterator[Call]:
    unfinished: dict[str, tuple[int, str]] = {}
    for number, line in enumerate(lines):
        parts = _LINE.match(line)
        if parts is None:
            continue
        thread, said = parts.groups()
        began = number
        if said.endswith(_UNFINISHED):
            unfinished[thread] = (number, said.removesuffix(_UNFINISHED))
            continue
        if (resumed := _RESUMED.match(said)) and thread in unfinished:
            began, start = unfinished.pop(thread)
            said = start + resumed[1]
        call = _CALL.match(said)
        if call is not None:
            name, file, data, _ = call.groups()
            yield Call(name, file, _bytes(data or ""), began, number)


def _bytes(shown: str) -> bytes:
    return shown.encode("latin-1").decode("unicode_escape").encode("latin-1")


@dataclass(frozen=True, slots=True)
class Promise:
    """A message that left the program, and what must have been on disk before.

    Attributes:
        what: For a person.
        arrival: What it answers.
        sent: The call that sent it.
        needles: One of these is part of what had to be written.
    """

    what: str
    arrival: Call
    sent: Call
    needles: tuple[bytes, ...]


def receipts(
    calls: list[Call], arriving: bytes, leaving: bytes, holding: bytes = b""
) -> list[Promise]:
    """Return the receipts that a program sent for what had arrived.

    Args:
        calls: The trace.
        arriving: Part of the topic before the transfer id, of what the receipts answer.
        leaving: The same of the receipts.
        holding: What a receipt must hold to be looked at.
    """
    arrivals = first_by_transfer(calls, "recvfrom", arriving)
    found = []
    for sent in calls:
        xfer = _transfer(sent, "sendto", leaving)
        if xfer is None or holding not in sent.data:
            continue
        assert xfer in arrivals, f"a receipt for {xfer!r}, which never arrived"
        found.append(Promise(f"receipt of {xfer.decode()}", arrivals[xfer], sent, (xfer,)))
    return found


def first_by_transfer(calls: list[Call], name: str, topic: bytes) -> dict[bytes, Call]:
    """Return the first call for each transfer id below a topic."""
    found: dict[bytes, Call] = {}
    for call in calls:
        xfer = _transfer(call, name, topic)
        if xfer is not None:
            found.setdefault(xfer, call)
    return found


def acknowledgements(calls: list[Call], topic: bytes, needle: re.Pattern[bytes]) -> list[Promise]:
    """Return the PUBACKs of messages on one topic; ``needle`` finds what had to be written."""
    found = []
    first: dict[bytes, Call] = {}  # what is sent again is not written again
    for arrival in calls:
        place = arrival.data.find(topic)
        if arrival.name != "recvfrom" or place != 2:  # after the topic's length
            continue
        mid = arrival.data[place + len(topic) : place + len(topic) + 2]
        names = needle.search(arrival.data)
        sent = next((c for c in calls if c.began > arrival.ended and _acks(c, mid)), None)
        if sent is None or names is None:
            continue
        halves = (names[1][:32], names[1][32:])  # a page may end in the middle of it
        since = first.setdefault(names[1], arrival)
        found.append(Promise(f"PUBACK {mid.hex()}", since, sent, halves))
    return found


def _acks(call: Call, mid: bytes) -> bool:
    is_ack = call.name == "sendto" and call.data[:1] == b"\x40" and call.data[2:4] == mid
    return is_ack and call.file.startswith("socket:")


def unproven(calls: list[Call], promises: Iterable[Promise], wal: str) -> list[str]:
    """Return the promises that left before the log with what they promise was synced."""
    writes = [call for call in calls if call.name == "pwrite64" and call.file.endswith(wal)]
    syncs = [call for call in calls if call.name in _SYNCS and call.file.endswith(wal)]
    return [one.what for one in promises if not _is_proven(one, writes, syncs)]


def _is_proven(promise: Promise, writes: list[Call], syncs: list[Call]) -> bool:
    written = [
        call.ended
        for call in writes
        if call.began > promise.arrival.ended
        and any(needle in call.data for needle in promise.needles)
    ]
    return any(
        first < sync.began and sync.ended < promise.sent.began
        for first in written[:1]
        for sync in syncs
    )


def _transfer(call: Call, name: str, topic: bytes) -> bytes | None:
    if call.name != name:
        return None
    found = re.search(re.escape(topic) + rb"([0-9a-f]{32})", call.data[:200])
    return found[1] if found else None
