"""Frames, retries and the log gate."""

import numpy as np
import pytest

from schemas.envelope import decode_frame
from schemas.messages import Heartbeat, Next
from transport.frames import FrameWriter
from transport.log_gate import LogGate
from transport.retry import Backoff


def writer(seed=1):
    return FrameWriter("dev-a", 7, np.random.default_rng(seed), lambda: 12.5)


def test_a_frame_says_who_when_and_in_which_life():
    data = writer().frame(Next(), task="t-1", round_number=2, aud="gw/eu", corr="abc", tail=b"raw")
    frame = decode_frame(data)
    header = frame.header
    assert (header.src, header.boot, header.ts, header.type) == ("dev-a", 7, 12.5, "task.next")
    assert (header.task, header.round, header.aud, header.corr) == ("t-1", 2, "gw/eu", "abc")
    assert frame.tail == b"raw"
    assert frame.body(Next) == Next()


def test_frames_are_numbered_and_their_ids_differ():
    frames = writer()
    body = Heartbeat(load=0.5, memory_free_bytes=1)
    headers = [decode_frame(frames.frame(body)).header for _ in range(3)]
    assert [header.seq for header in headers] == [0, 1, 2]
    assert len({header.id for header in headers}) == 3
    assert all(len(header.id) == 32 for header in headers)


def test_a_new_boot_shows_in_the_next_frame():
    frames = writer()
    frames.boot = 9
    assert decode_frame(frames.frame(Next())).header.boot == 9


@pytest.mark.parametrize(("tries", "whole_s"), [(0, 1), (1, 2), (5, 32), (6, 60), (10_000, 60)])
def test_delays_double_up_to_a_minute_and_vary_by_half(tries, whole_s):
    rng = np.random.default_rng(3)
    delays = [Backoff().delay_s(tries, rng) for _ in range(200)]
    assert whole_s / 2 <= min(delays) < 0.6 * whole_s
    assert 0.9 * whole_s < max(delays) <= whole_s


def test_the_log_gate_admits_one_line_a_minute_and_counts_the_rest():
    gate = LogGate(60.0)
    assert gate.admit("a", 0.0) == 0
    assert gate.admit("a", 1.0) is None
    assert gate.admit("b", 1.0) == 0
    assert gate.admit("a", 59.0) is None
    assert gate.admit("a", 60.0) == 2
    assert gate.admit("a", 120.0) == 0
