"""The reader of traces finds a promise that came too early: else it would prove nothing."""

import re

import pytest

from tests.support.syscalls import acknowledgements, parse_trace, receipts, unproven

X = "0123456789abcdef" * 2
WAL = "/s/central.db-wal"
RECV = f'7 1.0 recvfrom(5<socket:[1]>, "\\0\\37fl/v1/gw/eu/up/m/{X}\\0\\1{{}}", 90, 0, NULL, NULL) = 90'
WRITE = f'8 1.1 pwrite64(9<{WAL}>, "\\0\\377{X}"..., 4096, 32) = 4096'
SYNC = f"8 1.2 fdatasync(9<{WAL}>) = 0"
SEND = f'7 1.3 sendto(5<socket:[1]>, "2\\5fl/v1/gw/eu/dn/rcpt/{X}\\0\\2held", 60, 0, NULL, 0) = 60'
BEGUN = f"8 1.2 fdatasync(9<{WAL}> <unfinished ...>"
ENDED = "8 1.4 <... fdatasync resumed>) = 0"


def fails(*lines):
    calls = parse_trace("\n".join(lines))
    promised = receipts(calls, b"gw/eu/up/m/", b"gw/eu/dn/rcpt/")
    assert len(promised) == 1
    return unproven(calls, promised, WAL)


def test_a_receipt_after_the_sync_of_what_it_promises_is_proven():
    assert fails(RECV, WRITE, SYNC, SEND) == []
    assert fails(RECV, WRITE, BEGUN, ENDED, SEND) == []


@pytest.mark.parametrize(
    "lines",
    [
        (RECV, WRITE, SEND, SYNC),
        (RECV, WRITE, SEND),
        (RECV, SYNC, WRITE, SEND),
        (WRITE, SYNC, RECV, SEND),
        (RECV, SYNC, SEND),
        (RECV, WRITE, BEGUN, SEND, ENDED),
        (RECV, BEGUN, WRITE, ENDED, SEND),
        (RECV, WRITE, SYNC.replace("central.db-wal", "central.db"), SEND),
        (RECV, WRITE.replace("0123", "9999"), SYNC, SEND),
        (RECV, WRITE, SYNC.replace("= 0", "= -1 EIO (Input/output error)"), SEND),
    ],
    ids=lambda lines: "-".join(line.split()[2].split("(")[0] for line in lines),
)
def test_a_receipt_before_the_sync_of_what_it_promises_is_found(lines):
    assert fails(*lines) == [f"receipt of {X}"]


def test_only_the_receipts_that_were_asked_for_are_looked_at():
    calls = parse_trace(f"{RECV}\n{WRITE}\n{SYNC}\n{SEND}")
    assert receipts(calls, b"gw/eu/up/m/", b"gw/eu/dn/rcpt/", b"late") == []
    assert len(receipts(calls, b"gw/eu/up/m/", b"gw/eu/dn/rcpt/", b"held")) == 1


def test_a_receipt_for_what_never_arrived_is_found():
    with pytest.raises(AssertionError, match="never arrived"):
        fails(WRITE, SYNC, SEND)


MODEL = "ab" * 32
TOPIC = "fl/v1/eu/d/dn/task"
JOB = f'7 1.0 recvfrom(5<socket:[1]>, "\\0\\22{TOPIC}\\0\\7{{\\"sha256\\":\\"{MODEL}\\"}}", 9, 0) = 9'
ROW = f'8 1.1 pwrite64(9<{WAL}>, "{MODEL[:32]}", 4096, 32) = 4096'
ACK = '7 1.3 sendto(5<socket:[1]>, "@\\2\\0\\7", 4, 0, NULL, 0) = 4'
OTHER = '7 1.3 sendto(5<socket:[1]>, "@\\2\\0\\10", 4, 0, NULL, 0) = 4'


def unproven_acks(*lines):
    calls = parse_trace("\n".join(lines))
    promised = acknowledgements(calls, TOPIC.encode(), re.compile(rb'"sha256":"([0-9a-f]{64})"'))
    assert len(promised) == 1
    return unproven(calls, promised, WAL)


def test_an_acknowledgement_belongs_to_its_own_message():
    assert unproven_acks(JOB, OTHER, ROW, SYNC, ACK) == []
    assert unproven_acks(JOB, ROW, ACK, SYNC) == ["PUBACK 0007"]
    assert unproven_acks(JOB, OTHER, ROW, ACK, SYNC) == ["PUBACK 0007"]
