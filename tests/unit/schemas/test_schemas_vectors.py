"""The golden vectors: today's code reads every stored frame and writes the newest bit for bit."""

import json
import runpy
from pathlib import Path

import pytest

from schemas.envelope import Header, decode_frame
from schemas.messages import BY_TYPE
from schemas.tasks import (
    CentralState,
    TaskControl,
    TaskStatus,
    TaskSubmission,
    parse_control,
    parse_submission,
)

VECTORS = Path(__file__).resolve().parents[2] / "vectors"
WRITER = runpy.run_path(str(VECTORS / "write_schemas.py"))
EXAMPLES = {type(example.body).TYPE: example for example in WRITER["EXAMPLES"]}
PLAIN = WRITER["PLAIN"]
STORED = sorted((VECTORS / "schemas").glob("*.json"))
READERS = {
    "plain.submission": parse_submission,
    "plain.control": parse_control,
    "plain.status": TaskStatus.model_validate_json,
    "plain.central": CentralState.model_validate_json,
}
PLAIN_MODELS = {
    "plain.submission": TaskSubmission,
    "plain.control": TaskControl,
    "plain.status": TaskStatus,
    "plain.central": CentralState,
}


def type_of(path: Path) -> str:
    return path.stem.rpartition("-")[0]


def newest(name: str) -> dict:
    stored = WRITER["numbered"](name)
    assert stored, f"no vector of {name}; write it with `make vectors`"
    return json.loads(stored[-1].read_text())


def is_framed(path: Path) -> bool:
    return not type_of(path).startswith("plain.")


def test_every_frame_type_and_no_other_has_an_example():
    assert EXAMPLES.keys() == BY_TYPE.keys()


def test_every_stored_vector_belongs_to_a_type_that_is_still_read():
    assert {type_of(path) for path in STORED} == BY_TYPE.keys() | PLAIN.keys()


@pytest.mark.parametrize("name", sorted(BY_TYPE.keys() | PLAIN.keys()))
def test_no_vector_of_a_type_is_missing(name):
    numbers = [int(path.stem.rpartition("-")[2]) for path in WRITER["numbered"](name)]
    assert numbers
    assert numbers == list(range(1, len(numbers) + 1))


@pytest.mark.parametrize("name", sorted(BY_TYPE))
def test_the_newest_vector_decodes_to_the_example(name):
    frame = decode_frame(bytes.fromhex(newest(name)["frame_hex"]))
    example = EXAMPLES[name]
    assert frame.body(BY_TYPE[name]) == example.body
    assert (frame.tail, frame.signature) == (example.tail, example.signature)
    sent = example.build_header()
    assert frame.header == sent.model_copy(update={"tail_sha256": frame.header.tail_sha256})


@pytest.mark.parametrize("name", sorted(BY_TYPE))
def test_the_example_encodes_to_the_newest_vector(name):
    assert EXAMPLES[name].encode().hex() == newest(name)["frame_hex"]


@pytest.mark.parametrize(
    "path", [path for path in STORED if is_framed(path)], ids=lambda path: path.stem
)
def test_every_stored_frame_decodes_to_what_its_file_says(path):
    content = json.loads(path.read_text())
    data = bytes.fromhex(content["frame_hex"])
    frame = decode_frame(data)
    model = BY_TYPE[frame.header.type]
    assert frame.body(model) == model.model_validate_json(json.dumps(content["body"]))
    header = Header.model_validate_json(json.dumps(content["header"]))
    assert frame.header.model_copy(update={"tail_sha256": None}) == header
    assert frame.tail.hex() == content["tail_hex"]
    assert frame.encode() == data


@pytest.mark.parametrize("name", sorted(PLAIN))
def test_a_plain_message_decodes_to_the_example(name):
    payload = bytes.fromhex(newest(name)["payload_hex"])
    assert READERS[name](payload) == PLAIN[name]


@pytest.mark.parametrize(
    "path", [path for path in STORED if not is_framed(path)], ids=lambda path: path.stem
)
def test_every_stored_plain_message_decodes_to_what_its_file_says(path):
    content = json.loads(path.read_text())
    model = PLAIN_MODELS[type_of(path)]
    expected = model.model_validate_json(json.dumps(content["body"]))
    assert READERS[type_of(path)](bytes.fromhex(content["payload_hex"])) == expected
