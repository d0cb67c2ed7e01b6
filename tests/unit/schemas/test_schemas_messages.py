"""The bodies of frames: strict, frozen, bounded; unknown fields are ignored on read."""

import json
import runpy
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from schemas import messages
from schemas.base import WireMessage
from schemas.envelope import decode_frame, encode_frame
from schemas.limits import (
    DEFAULT_CHUNK_BYTES,
    MAX_CHUNK_BYTES,
    MAX_CHUNKS,
    MAX_COHORT,
    MAX_GRAPH_BYTES,
    MAX_HEADER_BYTES,
    MAX_INLINE_BYTES,
    MAX_OBJECT_BYTES,
    MAX_PAYLOAD_BYTES,
    MAX_SIGNATURE_BYTES,
    MAX_WANT,
    MIN_CHUNK_BYTES,
)
from schemas.messages import (
    BY_TYPE,
    FRAMED,
    Assignment,
    DataDescription,
    JobPhase,
    ObjectManifest,
    Receipt,
    ReceiptStatus,
    TrainingPlan,
)
from schemas.tasks import Parameter, Training

WRITER = runpy.run_path(str(Path(__file__).resolve().parents[2] / "vectors" / "write_schemas.py"))
EXAMPLES = {type(example.body).TYPE: example.body for example in WRITER["EXAMPLES"]}
SHA = "0a" * 32
XFER = "0b" * 16
NAMES = sorted(BY_TYPE)


def changed(name, **values):
    content = json.loads(EXAMPLES[name].model_dump_json())
    for path, value in values.items():
        *above, last = path.split("__")
        part = content
        for level in above:
            part = part[int(level) if level.isdigit() else level]
        part[last] = value
    return json.dumps(content)


def read(name, **values):
    return BY_TYPE[name].model_validate_json(changed(name, **values))


@pytest.mark.parametrize("name", NAMES)
def test_what_is_written_is_read_back(name):
    text = EXAMPLES[name].model_dump_json(exclude_none=True)
    assert BY_TYPE[name].model_validate_json(text) == EXAMPLES[name]


@pytest.mark.parametrize("name", NAMES)
def test_a_message_cannot_be_changed(name):
    message = EXAMPLES[name]
    for field in type(message).model_fields:
        with pytest.raises(ValidationError, match="frozen"):
            setattr(message, field, None)


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_field_is_ignored_and_not_written(name):
    message = read(name, later={"deep": [1]})
    assert message == EXAMPLES[name]
    assert "later" not in message.model_dump_json()


@pytest.mark.parametrize("part", ["training", "privacy", "requires"])
def test_an_unknown_field_in_a_part_that_persons_write_too_is_ignored(part):
    message = read("task.assign", **{f"plan__{part}__later": 1})
    assert message == EXAMPLES["task.assign"]


def test_a_known_field_in_such_a_part_is_still_checked():
    with pytest.raises(ValidationError, match="epochs"):
        read("task.assign", plan__training__epochs=-1)
    with pytest.raises(ValidationError, match="training"):
        read("task.assign", plan__training=3)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("wrong", [[], {"no": "such"}, "1", True, 1.5, 1])
def test_no_field_takes_a_value_of_another_type(name, wrong):
    content = json.loads(EXAMPLES[name].model_dump_json(exclude_none=True))
    for field, value in content.items():
        takes = (int, float) if type(value) is float else (type(value),)
        if type(wrong) in takes:
            continue
        with pytest.raises(ValidationError, match=field):
            read(name, **{field: wrong})


@pytest.mark.parametrize("name", NAMES)
def test_a_required_field_may_not_be_missing(name):
    model = BY_TYPE[name]
    for field, info in model.model_fields.items():
        content = json.loads(changed(name))
        del content[field]
        if info.is_required():
            with pytest.raises(ValidationError, match=field):
                model.model_validate_json(json.dumps(content))
        else:
            model.model_validate_json(json.dumps(content))


def test_every_framed_message_has_a_type_of_its_own():
    assert len(BY_TYPE) == len(FRAMED)
    assert all(name.count(".") == 1 for name in BY_TYPE)
    with_type = {
        value
        for value in vars(messages).values()
        if isinstance(value, type) and issubclass(value, WireMessage) and hasattr(value, "TYPE")
    }
    assert with_type == set(FRAMED)


IDS = [f"dev-{number}" for number in range(MAX_COHORT + 1)]


@pytest.mark.parametrize(
    ("name", "path", "value"),
    [
        ("device.state", "boot", -1),
        ("device.state", "status", "asleep"),
        ("device.state", "why", "w" * 501),
        ("device.state", "profile", "a/b"),
        ("device.state", "versions", {str(number): "1" for number in range(17)}),
        (
            "device.state",
            "data",
            [json.loads(EXAMPLES["device.state"].data[0].model_dump_json())] * 33,
        ),
        ("device.state", "data__0__shape", [1] * 9),
        ("device.state", "data__0__shape", [0]),
        ("device.state", "data__0__shape", [(1 << 20) + 1]),
        ("device.state", "data__0__classes", 0),
        ("device.state", "data__0__examples", -1),
        ("device.state", "data__0__dtype", "float64"),
        ("device.state", "capabilities__battery_percent", 101),
        ("device.state", "capabilities__battery_percent", -1),
        ("device.state", "capabilities__cores", 0),
        ("device.state", "capabilities__memory_bytes", -1),
        ("device.state", "capabilities__backends", ["torch"] * 17),
        ("device.heartbeat", "load", -0.1),
        ("device.heartbeat", "load", float("nan")),
        ("device.heartbeat", "memory_free_bytes", -1),
        ("device.heartbeat", "temperature_c", float("inf")),
        ("gateway.state", "silent", IDS),
        ("gateway.state", "silent", ["gw"]),
        ("gateway.state", "devices_online", -1),
        ("task.assign", "cohort", []),
        ("task.assign", "cohort", IDS),
        ("task.assign", "cohort", ["all"]),
        ("task.assign", "region", "gw"),
        ("task.assign", "round", -1),
        ("task.assign", "round", 1 << 31),
        ("task.assign", "deadline", -1.0),
        ("task.assign", "plan__model", "os:system"),
        ("task.assign", "plan__model", "../../etc/passwd"),
        ("task.assign", "plan__parameters", 0),
        ("task.assign", "plan__parameters", MAX_OBJECT_BYTES // 4 + 1),
        ("task.assign", "plan__input_shape", [1] * 9),
        ("task.assign", "plan__model_params", {f"p{number}": 1 for number in range(33)}),
        ("task.assign", "plan__model_params", {"x": None}),
        ("task.assign", "plan__model_params", {"x": {"y": 1}}),
        ("task.assign", "plan__model_params", {"x": 1 << 53}),
        ("task.assign", "plan__model_params", {"x": [1 << 53]}),
        ("task.assign", "plan__model_params", {"x": [1] * 17}),
        ("task.assign", "plan__model_params", {"x": "y" * 61}),
        ("task.assign", "plan__codec_params", {"x": float("nan")}),
        ("task.assign", "graph__size", 0),
        ("task.assign", "plan__training__frozen", ["x"] * 33),
        ("task.assign", "plan__training__frozen", ["x" * 101]),
        ("task.assign", "plan__training__frozen", ["a b"]),
        ("task.assign", "plan__training__loss", "hinge"),
        ("task.assign", "model__size", 0),
        ("task.assign", "model__size", MAX_OBJECT_BYTES + 1),
        ("task.assign", "model__chunk_bytes", MIN_CHUNK_BYTES - 1),
        ("task.assign", "model__chunk_bytes", MAX_CHUNK_BYTES + 1),
        (
            "task.assign",
            "settled",
            [json.loads(EXAMPLES["task.none"].settled[0].model_dump_json())] * 9,
        ),
        ("task.assign", "settled__0__counted", IDS),
        ("task.none", "keep", [{"task": "t", "round": 1}] * 65),
        ("task.next", "holding", [{"task": "t", "round": 1}] * 65),
        ("job.status", "state", "asleep"),
        ("job.status", "progress", 1.01),
        ("job.status", "progress", -0.01),
        ("job.status", "code", "Not A Name"),
        ("update.manifest", "num_examples", 0),
        ("update.manifest", "num_examples", (1 << 40) + 1),
        ("update.manifest", "xfer", "0" * 31),
        ("update.manifest", "device", "central"),
        ("update.manifest", "metrics", {"loss": float("nan")}),
        ("update.manifest", "metrics", {"loss": float("-inf")}),
        ("update.manifest", "metrics", {f"m{number}": 1.0 for number in range(33)}),
        ("update.manifest", "train_s", -1.0),
        ("update.manifest", "base_model_sha256", "0" * 63),
        ("transfer.need", "want", []),
        ("transfer.need", "want", [0] * (MAX_WANT + 1)),
        ("transfer.need", "want", [MAX_CHUNKS]),
        ("transfer.need", "want", [-1]),
        ("transfer.need", "credit", 0),
        ("transfer.need", "credit", MAX_WANT + 1),
        ("transfer.get", "want", []),
        ("transfer.get", "want", [MAX_CHUNKS]),
        ("transfer.receipt", "status", "lost"),
        ("transfer.receipt", "code", "e_quota"),
        ("transfer.receipt", "code", "E"),
        ("transfer.receipt", "code", "E" * 33),
        ("transfer.receipt", "detail", "d" * 501),
        ("transfer.receipt", "retry_after_s", -1.0),
        ("transfer.receipt", "retry_after_s", 86_401.0),
        ("node.control", "action", "reboot"),
        ("node.control", "boot", -1),
    ],
)
def test_every_limit_holds(name, path, value):
    read(name)
    with pytest.raises(ValidationError, match=path.split("__")[-1]):
        read(name, **{path: value})


def test_the_largest_plan_and_the_longest_cohort_fit_one_frame_with_an_inline_model():
    settings = {f"{number:064d}": "\x01" * 60 for number in range(32)}
    largest = read(
        "task.assign",
        cohort=[f"{number:032d}" for number in range(MAX_COHORT)],
        settled=[],
        plan__model_params=settings,
        plan__codec_params=settings,
        plan__training__frozen=["x" * 100] * 32,
        model__inline=True,
        graph__size=MAX_GRAPH_BYTES,
    )
    header = WRITER["EXAMPLES"][3].build_header()
    assert header.type == "task.assign"
    tail = b"m" * (MAX_INLINE_BYTES + largest.graph.tail_bytes())
    frame = decode_frame(encode_frame(header, largest, tail))
    assert frame.body(Assignment) == largest


def test_the_longest_cohort_fits_with_its_references_and_the_settings_of_any_codec():
    """A codec's settings are few: none has more than these."""
    largest = read(
        "task.assign",
        cohort=[f"{number:032d}" for number in range(MAX_COHORT)],
        references=[(1 << 31) - 1] * MAX_COHORT,
        settled=[],
        plan__model_params={f"{number:064d}": "\x01" * 60 for number in range(32)},
        plan__codec_params={f"{number:064d}": "x" * 60 for number in range(4)},
        plan__training__frozen=["x" * 100] * 32,
    )
    header = WRITER["EXAMPLES"][3].build_header()
    tail = b"m" * largest.model.tail_bytes() + b"g" * largest.graph.tail_bytes()
    assert decode_frame(encode_frame(header, largest, tail)).body(Assignment) == largest


def test_references_are_those_of_the_cohort_in_its_order():
    told = read("task.assign", cohort=["a", "b"], references=[0, 7])
    assert (told.reference("a"), told.reference("b"), told.reference("c")) == (0, 7, 0)
    assert read("task.assign", references=[]).reference("dev-1") == 0
    short = read("task.assign", cohort=["a", "b"], references=[7])
    assert short.fault(0) == "references: 1, the cohort has 2"


def test_the_digests_of_the_largest_model_and_graph_fit_one_frame():
    model = ObjectManifest(sha256=SHA, size=MAX_OBJECT_BYTES)
    graph = ObjectManifest(sha256=SHA, size=MAX_GRAPH_BYTES)
    tails = model.tail_bytes() + graph.tail_bytes()
    assert tails + MAX_HEADER_BYTES + MAX_SIGNATURE_BYTES < MAX_PAYLOAD_BYTES


def test_a_tail_is_the_models_and_then_the_graphs():
    model = ObjectManifest(sha256=SHA, size=5, inline=True)
    graph = ObjectManifest(sha256=SHA, size=DEFAULT_CHUNK_BYTES + 1)
    both = read("task.assign").model_copy(update={"model": model, "graph": graph, "deltas": ()})
    assert both.fault(5 + 64) is None
    assert both.split(b"model" + b"g" * 64) == (b"model", b"g" * 64)
    assert both.fault(5 + 32) == "tail: 37 bytes, must be 69"
    alone = both.model_copy(update={"graph": None})
    assert alone.fault(5) is None
    assert alone.split(b"model") == (b"model", b"")


def test_a_graph_is_pulled_and_bounded():
    good = read("task.assign")
    inline = good.graph.model_copy(update={"inline": True})
    assert good.model_copy(update={"graph": inline}).fault(0) == "graph: inline, it must be pulled"
    huge = good.graph.model_copy(update={"size": MAX_GRAPH_BYTES + 1})
    assert good.model_copy(update={"graph": huge}).fault(0).startswith("graph: 1073741825 bytes")


@given(st.integers(1, MAX_OBJECT_BYTES), st.integers(MIN_CHUNK_BYTES, MAX_CHUNK_BYTES))
def test_chunks_cover_an_object_and_no_more(size, chunk_bytes):
    manifest = ObjectManifest(sha256=SHA, size=size, chunk_bytes=chunk_bytes)
    assert (manifest.chunks - 1) * chunk_bytes < size <= manifest.chunks * chunk_bytes
    assert manifest.tail_bytes() == 32 * manifest.chunks
    assert (manifest.fault() is None) == (manifest.chunks <= MAX_CHUNKS)


@given(st.integers(1, 2 * MAX_INLINE_BYTES))
def test_an_inline_object_is_the_tail_and_at_most_so_large(size):
    manifest = ObjectManifest(sha256=SHA, size=size, inline=True)
    assert manifest.tail_bytes() == size
    fault = manifest.fault()
    assert (fault is None) == (size <= MAX_INLINE_BYTES)
    assert fault is None or fault == f"size: {size} bytes inline, at most {MAX_INLINE_BYTES}"


def test_the_largest_object_travels_in_chunks_whose_digests_fit_a_frame():
    manifest = ObjectManifest(sha256=SHA, size=MAX_OBJECT_BYTES)
    assert manifest.chunk_bytes == DEFAULT_CHUNK_BYTES
    assert manifest.fault() is None
    assert manifest.tail_bytes() < MAX_PAYLOAD_BYTES
    small = ObjectManifest(sha256=SHA, size=MAX_OBJECT_BYTES, chunk_bytes=MIN_CHUNK_BYTES)
    assert small.fault() == f"size: 65536 chunks, at most {MAX_CHUNKS}"


def test_two_devices_share_a_model_when_all_but_the_number_of_examples_is_equal():
    own = DataDescription(name="mnist", shape=(1, 28, 28), classes=10, examples=1)
    assert own.key == own.model_copy(update={"examples": 9}).key
    for change in ({"name": "har"}, {"shape": (28, 28)}, {"classes": 9}):
        assert own.key != own.model_copy(update=change).key


@pytest.mark.parametrize("status", get_args(ReceiptStatus))
def test_a_receipt_is_final_unless_held_or_to_be_tried_again(status):
    receipt = Receipt(xfer=XFER, status=status, sha256=SHA)
    assert receipt.is_final == (status != "held")
    assert not receipt.model_copy(update={"retry_after_s": 0.0}).is_final


def test_the_phases_of_a_job_are_those_of_the_protocol():
    assert set(get_args(JobPhase)) == {
        "accepted", "rejected", "downloading", "training", "uploading", "done", "failed",
    }  # fmt: skip


def test_a_plan_takes_the_parts_of_a_submission_as_they_are():
    training = Training(epochs=3)
    plan = TrainingPlan(
        model="lenet5",
        input_shape=(4,),
        classes=2,
        parameters=10,
        layout_sha256=SHA,
        data="digits",
        training=training,
        codec="none",
    )
    assert plan.training is training


PARAMETERS = (
    st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=60)
    | st.lists(st.integers(-(2**53) + 1, 2**53 - 1), max_size=16).map(tuple)
)


@given(PARAMETERS)
def test_a_parameter_keeps_its_type_through_json(value):
    adapter = TypeAdapter(dict[str, Parameter])
    back = adapter.validate_json(adapter.dump_json({"x": value}), strict=True)["x"]
    assert back == value
    assert type(back) is type(value)
