"""The frame: every limit holds before anything is parsed, and a relay changes no byte."""

import hashlib
import json
import struct
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.envelope import (
    PROTOCOL_VERSION,
    Frame,
    Header,
    decode_frame,
    encode_frame,
    join,
)
from schemas.errors import FrameError, MessageError, UnsupportedVersionError, WireError
from schemas.limits import (
    MAX_COHORT,
    MAX_HEADER_BYTES,
    MAX_PAYLOAD_BYTES,
    MAX_SIGNATURE_BYTES,
)
from schemas.messages import BY_TYPE, Heartbeat, JobRef, Next, NoJob, Settlement

ID = "0123456789abcdef"
FIELDS = {"v": 1, "type": "task.next", "id": ID, "ts": 1.5, "src": "dev-1", "boot": 2, "seq": 3}
BODY = Next(holding=(JobRef(task="t-1", round=2),))
ids = st.from_regex(r"[a-z0-9][a-z0-9-]{0,31}", fullmatch=True)

headers = st.builds(
    Header,
    type=st.sampled_from(sorted(BY_TYPE)),
    id=st.from_regex(r"[0-9a-f]{16,64}", fullmatch=True),
    ts=st.floats(0, 1e12),
    src=ids | st.builds("gw/{}".format, ids),
    aud=st.none() | ids,
    boot=st.integers(0, (1 << 53) - 1),
    seq=st.integers(0, (1 << 53) - 1),
    task=st.none() | ids,
    round=st.none() | st.integers(0, (1 << 31) - 1),
    corr=st.none() | st.text(st.characters(codec="utf-8"), max_size=64),
    reply=st.none() | st.text(st.characters(codec="utf-8"), max_size=256),
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def framed(fields=None, *, body=BODY, tail=b"", signature=b"", drop=()):
    """Return a frame made by hand, so that its header may break the rules."""
    values = {**FIELDS, **(fields or {})}
    kept = {name: value for name, value in values.items() if name not in drop}
    kept.setdefault("body", json.loads(body.model_dump_json()))
    return join(json.dumps(kept).encode(), signature, tail)


def header(**fields):
    return Header(**{**FIELDS, **fields})


@given(headers, st.binary(max_size=200), st.binary(max_size=100))
def test_what_is_encoded_is_decoded(sent, tail, signature):
    data = encode_frame(sent, BODY, tail, signature)
    frame = decode_frame(data)
    digest = hashlib.sha256(tail).hexdigest() if tail else None
    assert frame.header == sent.model_copy(update={"tail_sha256": digest})
    assert frame.body(Next) == BODY
    assert (frame.tail, frame.signature) == (tail, signature)
    assert frame.encode() == data


def test_a_relay_forwards_unknown_fields_and_spacing_byte_for_byte():
    text = json.dumps({**FIELDS, "body": {}, "later": [1, {"x": None}]}, indent=3).encode()
    data = join(text, b"sig", b"")
    frame = decode_frame(data)
    assert frame.header_bytes == text
    assert frame.encode() == data
    assert not hasattr(frame.header, "later")


def test_the_layout_is_length_header_length_signature_tail():
    data = encode_frame(header(), Heartbeat(load=0.0, memory_free_bytes=1), b"tail", b"sig")
    (length,) = struct.unpack_from(">I", data)
    head = json.loads(data[4 : 4 + length])
    assert data[4 + length :] == struct.pack(">I", 3) + b"sig" + b"tail"
    assert head["tail_sha256"] == hashlib.sha256(b"tail").hexdigest()
    assert head["body"] == {"load": 0.0, "memory_free_bytes": 1}
    assert head["v"] == PROTOCOL_VERSION


def test_what_is_absent_is_not_written():
    data = encode_frame(header(), Heartbeat(load=0.0, memory_free_bytes=1))
    assert b"null" not in data
    assert b"tail_sha256" not in data


@given(st.binary(max_size=300))
def test_any_bytes_give_a_frame_or_a_wire_error(data):
    with pytest.raises(WireError):
        decode_frame(data)


@given(st.binary(max_size=200), st.binary(max_size=50), st.binary(max_size=50))
def test_any_header_bytes_give_a_frame_or_a_wire_error(head, signature, tail):
    with pytest.raises(WireError):
        decode_frame(join(head, signature, tail))


@given(st.dictionaries(st.sampled_from([*sorted(FIELDS), "body", "tail_sha256"]), json_values))
def test_any_json_header_gives_a_message_or_a_wire_error(fields):
    data = framed(fields)
    try:
        frame = decode_frame(data)
        bodies = [frame.body(model) for model in (Next, Heartbeat)]
    except WireError:
        return
    assert len(bodies) == 2


@given(st.data())
@settings(max_examples=200)
def test_a_damaged_frame_is_a_frame_or_a_wire_error(data):
    good = encode_frame(header(), BODY, b"tail", b"sig")
    at = data.draw(st.integers(0, len(good) - 1))
    bad = good[:at] + data.draw(st.binary(max_size=4)) + good[at + 1 :]
    try:
        frame = decode_frame(bad)
        frame.body(Next)
    except WireError:
        return
    assert frame.encode() == bad


@given(st.sampled_from(sorted(BY_TYPE)), json_values)
def test_any_body_gives_a_message_or_a_message_error(name, body):
    model = BY_TYPE[name]
    frame = decode_frame(framed({"body": body, "type": name}))
    try:
        message = frame.body(model)
    except MessageError as error:
        message = error
    assert isinstance(message, (model, MessageError))


@pytest.mark.parametrize("name", sorted(BY_TYPE))
@pytest.mark.parametrize("text", [b'{"x":' * 9000, b"[" * 60_000, b"[" * 100 + b"]" * 100])
def test_a_deeply_nested_body_is_a_wire_error_or_ignored(name, text):
    start = json.dumps(FIELDS).encode()[:-1]
    head = start + b',"body":{"deep":' + text + b"}}"
    try:
        decode_frame(join(head, b"", b"")).body(BY_TYPE[name])
    except WireError as error:
        found = str(error)
    else:
        found = "read"
    assert len(found) < 2000


def test_a_truncated_frame_is_refused_at_every_length():
    good = encode_frame(header(), BODY, b"tail", b"sig")
    for length in range(len(good)):
        with pytest.raises(FrameError):
            decode_frame(good[:length])


@pytest.mark.parametrize("announced", [MAX_HEADER_BYTES + 1, 1 << 31, (1 << 32) - 1])
@pytest.mark.parametrize("place", ["header", "signature"])
def test_a_huge_announced_length_is_refused_without_allocating(announced, place):
    length = struct.pack(">I", announced)
    data = length if place == "header" else struct.pack(">I", 2) + b"{}" + length
    tracemalloc.start()
    try:
        with pytest.raises(FrameError, match=f"{place}: {announced} bytes, at most"):
            decode_frame(data + b"x" * 100)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000


def test_a_length_beyond_the_end_is_refused():
    with pytest.raises(FrameError, match="header: 100 bytes announced, 3 there"):
        decode_frame(struct.pack(">I", 100) + b"abc")


def test_every_limit_holds_when_joining_and_allows_its_own_value():
    assert len(join(b"x" * MAX_HEADER_BYTES, b"y" * MAX_SIGNATURE_BYTES, b"")) > MAX_HEADER_BYTES
    full = MAX_PAYLOAD_BYTES - 8 - 2
    assert len(join(b"{}", b"", b"t" * full)) == MAX_PAYLOAD_BYTES
    with pytest.raises(FrameError, match="header: 65537 bytes, at most 65536"):
        join(b"x" * (MAX_HEADER_BYTES + 1), b"", b"")
    with pytest.raises(FrameError, match="signature: 4097 bytes, at most 4096"):
        join(b"", b"x" * (MAX_SIGNATURE_BYTES + 1), b"")
    with pytest.raises(FrameError, match="frame: "):
        join(b"{}", b"", b"t" * (full + 1))


def test_a_payload_above_one_packet_is_refused_before_it_is_read():
    with pytest.raises(FrameError, match=f"frame: {MAX_PAYLOAD_BYTES + 1} bytes"):
        decode_frame(b"\xff" * (MAX_PAYLOAD_BYTES + 1))


def test_the_largest_header_is_decoded():
    start = json.dumps({**FIELDS, "body": {}}).encode()[:-1]
    pad = b"z" * (MAX_HEADER_BYTES - len(start) - len(b',"pad":""}'))
    head = start + b',"pad":"' + pad + b'"}'
    assert len(head) == MAX_HEADER_BYTES
    assert decode_frame(join(head, b"", b"")).body(Next) == Next()


@pytest.mark.parametrize("tail", [b"other", b""])
def test_a_tail_that_is_not_the_announced_one_is_refused(tail):
    digest = hashlib.sha256(b"tail").hexdigest()
    with pytest.raises(FrameError, match="tail_sha256"):
        decode_frame(framed({"tail_sha256": digest}, tail=tail))


def test_a_tail_that_the_header_does_not_announce_is_refused():
    with pytest.raises(FrameError, match="the header says None"):
        decode_frame(framed(tail=b"tail"))


def test_a_wrong_digest_given_by_the_caller_is_replaced():
    wrong = header(tail_sha256="0" * 64)
    assert decode_frame(encode_frame(wrong, BODY)).header.tail_sha256 is None


@pytest.mark.parametrize("version", [0, 2, -1, 10**100])
def test_another_major_version_is_refused_clearly(version):
    with pytest.raises(UnsupportedVersionError) as caught:
        decode_frame(framed({"v": version, "type": 7}))
    assert caught.value.version == version
    assert caught.value.code == "E_VERSION"
    assert "is not supported; this side speaks 1" in str(caught.value)
    assert len(str(caught.value)) < 130


@pytest.mark.parametrize("version", ["1", 1.0, True, None, [1]])
def test_a_version_that_is_no_whole_number_does_not_fit(version):
    with pytest.raises(MessageError, match="v: "):
        decode_frame(framed({"v": version}))


@pytest.mark.parametrize("name", sorted(FIELDS))
def test_a_header_without_a_required_field_is_refused(name):
    with pytest.raises(MessageError, match=f"{name}: required, but missing"):
        decode_frame(framed(drop=(name,)))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("type", "next"),
        ("type", "task.next\n"),
        ("type", "Task.next"),
        ("type", "a." + "b" * 31),
        ("id", "0" * 15),
        ("id", "0" * 65),
        ("id", "g" * 16),
        ("id", ID + "\n"),
        ("ts", -1.0),
        ("ts", float("nan")),
        ("ts", float("inf")),
        ("ts", "1"),
        ("src", ""),
        ("src", "a/b/c"),
        ("src", "+"),
        ("src", "Dev"),
        ("src", "dev-1\n"),
        ("aud", "#"),
        ("boot", -1),
        ("boot", 1 << 53),
        ("boot", 1.0),
        ("seq", "3"),
        ("seq", 1 << 53),
        ("task", "T"),
        ("round", -1),
        ("round", 1 << 31),
        ("corr", "c" * 65),
        ("reply", "r" * 257),
        ("tail_sha256", "A" * 64),
    ],
)
def test_every_field_of_a_header_keeps_its_limit(name, value):
    with pytest.raises(MessageError, match=f"^{name}: "):
        decode_frame(framed({name: value}))


@pytest.mark.parametrize("body", [None, 1, "x", []])
def test_a_body_that_is_no_object_is_refused(body):
    frame = decode_frame(framed({"body": body}))
    with pytest.raises(MessageError, match="body"):
        frame.body(Next)


def test_a_frame_without_a_body_is_refused_when_it_is_read():
    data = join(json.dumps(FIELDS).encode(), b"", b"")
    with pytest.raises(MessageError, match="body: required, but missing"):
        decode_frame(data).body(Next)


def test_the_text_names_the_field_of_the_body():
    frame = decode_frame(framed({"body": {"holding": [{"task": "T", "round": 1}]}}))
    with pytest.raises(MessageError, match=r"^body\.holding\.0\.task: 'T': not an id"):
        frame.body(Next)


def test_a_header_larger_than_its_limit_cannot_be_encoded():
    counted = tuple(f"{number:032d}" for number in range(MAX_COHORT))
    full = Settlement(task="t-1", round=1, counted=counted)
    encode_frame(header(), NoJob(settled=(full, full)))
    with pytest.raises(FrameError, match=r"header: [0-9]+ bytes, at most 65536"):
        encode_frame(header(), NoJob(settled=(full, full, full)))


def test_a_frame_and_its_header_cannot_be_changed():
    frame = decode_frame(encode_frame(header(), BODY))
    with pytest.raises(AttributeError):
        frame.tail = b"x"
    with pytest.raises(ValueError, match="frozen"):
        frame.header.seq = 4
    assert isinstance(frame, Frame)
