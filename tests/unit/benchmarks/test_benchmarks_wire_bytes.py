"""How recorded bytes are read as packets."""

import numpy as np

from benchmarks.wire_bytes import Tap, packets
from schemas.messages import Next
from transport.frames import FrameWriter


def publish(topic, payload):
    body = len(topic).to_bytes(2, "big") + topic.encode() + b"\x00\x07" + payload
    length, at = len(body), bytearray()
    while True:
        at.append((length & 127) | (128 if length > 127 else 0))
        length >>= 7
        if not length:
            return b"\x32" + bytes(at) + body


def test_a_stream_is_read_packet_by_packet():
    stream = b"\xc0\x00" + publish("a/b", bytes(300)) + b"\x40\x02\x00\x07"
    found = list(packets(stream))
    assert [first >> 4 for first, _, _ in found] == [12, 3, 4]
    assert sum(size for _, _, size in found) == len(stream)


def test_bytes_are_told_by_kind_and_divided_into_topic_header_and_tail():
    frame = FrameWriter("d1", 1, np.random.default_rng(0), lambda: 1.0).frame(
        Next(), tail=b"12345"
    )
    packet = publish("fl/v1/eu/d1/up/next", frame)
    tap = Tap()
    for start in range(0, len(packet), 7):
        tap.take("device-1", "up", packet[start : start + 7])
    tap.take("device-1", "down", publish("x", b"raw") + b"\xd0\x00")
    kinds = tap.kinds()
    question = kinds["up", "task.next"]
    assert (question.packets, question.size, question.tail) == (1, len(packet), 5)
    assert question.topic == 2 + len("fl/v1/eu/d1/up/next")
    assert question.header == len(frame) - 8 - 5
    assert kinds["down", "chunk"].tail == 3
    assert kinds["down", "PINGRESP"].size == 2
