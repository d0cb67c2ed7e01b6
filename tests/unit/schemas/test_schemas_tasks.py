"""What a person may write, what it means by default, and what a misfit is answered."""

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas.errors import FrameError, MessageError, WireError
from schemas.limits import MAX_SUBMIT_BYTES
from schemas.tasks import (
    Privacy,
    Requirements,
    TaskControl,
    TaskSubmission,
    Training,
    parse_control,
    parse_submission,
)

DEFAULTS = {
    "model_params": {},
    "task": None,
    "data": None,
    "rounds": 5,
    "min_clients": None,
    "cohort": None,
    "deadline_s": 600.0,
    "selection_timeout_s": 600.0,
    "on_shortfall": "extend",
    "regions": None,
    "requires": Requirements(),
    "training": Training(),
    "strategy": "fedavg",
    "strategy_params": {},
    "codec": "int8",
    "codec_params": {},
    "error_feedback": None,
    "downlink": None,
    "selection": "random",
    "uplink_budget_bits": None,
    "budget_max_clock": 10,
    "budget_bid_share": 0.5,
    "scale_exponent": 0.0,
    "target": None,
    "privacy": Privacy(),
    "seed": 0,
}
TRAINING_DEFAULTS = {
    "epochs": 1,
    "steps": None,
    "batch_size": 32,
    "optimizer": "sgd",
    "learning_rate": 0.05,
    "momentum": 0.9,
    "nesterov": False,
    "weight_decay": 0.0,
    "loss": "cross_entropy",
    "frozen": (),
    "proximal_mu": 0.0,
    "gradient_clip_norm": None,
    "keep_state": False,
    "seed": 0,
}
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


def submit(**fields):
    return parse_submission(json.dumps({"model": "lenet5", **fields}).encode())


def refusal(**fields):
    with pytest.raises(MessageError) as caught:
        submit(**fields)
    return str(caught.value)


@pytest.mark.parametrize("field", sorted(DEFAULTS))
def test_every_field_but_the_model_has_this_default(field):
    assert getattr(submit(), field) == DEFAULTS[field]


def test_no_field_is_without_a_stated_default():
    assert DEFAULTS.keys() | {"model"} == TaskSubmission.model_fields.keys()
    assert Training().model_dump() == TRAINING_DEFAULTS
    assert set(Requirements().model_dump().values()) == {None}
    assert Privacy().clip_norm is None


def test_the_model_is_required():
    with pytest.raises(MessageError, match=r"^model: required, but missing$"):
        parse_submission(b"{}")


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ("min_client", "min_client: unknown field; did you mean 'min_clients'?"),
        ("modell", "modell: unknown field; did you mean 'model'?"),
        ("learning_rat", "learning_rat: unknown field; did you mean 'learning_rate'?"),
        ("qqqq", "qqqq: unknown field"),
    ],
)
def test_an_unknown_field_is_named_with_the_one_that_was_meant(wrong, text):
    assert refusal(**{wrong: 1}) == text


def test_an_unknown_field_of_a_part_is_named_with_its_place():
    text = refusal(training={"epoch": 3})
    assert text == "training.epoch: unknown field; did you mean 'epochs'?"


@pytest.mark.parametrize(
    "name",
    [
        "os:system",
        "os:path",
        "../secret",
        "/etc/passwd",
        "a/b",
        "a\\b",
        "C:\\model",
        "~/model",
        ".hidden",
        "-flag",
        "model\n",
        "Lenet5",
        "a b",
        "",
        "a" * 65,
        "http://host/model",
    ],
)
@pytest.mark.parametrize("field", ["model", "strategy", "codec", "data"])
def test_no_name_can_be_code_or_a_path(field, name):
    text = refusal(**{field: name})
    assert text.startswith(f"{field}: ")
    assert text.endswith(
        "not a name: use 1 to 64 of a-z, 0-9, '.', '_' and '-', a letter or digit first; "
        "it is looked up among known names, never a path or a module"
    )


@pytest.mark.parametrize("name", ["lenet5", "a", "0", "har-cnn.v2_small", "a" * 64])
def test_a_name_of_a_known_model_is_accepted(name):
    assert submit(model=name).model == name


def test_min_clients_above_the_cohort_reads_as_one_sentence():
    text = refusal(min_clients=3, cohort=2)
    assert text == "min_clients: 3 is above cohort: 2; a round could never end"


def test_min_clients_equal_to_the_cohort_is_allowed():
    assert submit(min_clients=2, cohort=2).cohort_size(2) == 2


@given(st.integers(1, 100_000))
def test_the_cohort_is_the_needed_clients_and_three_tenths_rounded_up(min_clients):
    size = submit().cohort_size(min_clients)
    assert size == -(-13 * min_clients // 10)
    assert size >= math.floor(min_clients * 1.3)


def test_two_mib_of_json_are_refused_before_they_are_parsed():
    payload = b'{"model":"' + b"a" * (2 << 20) + b'"}'
    with pytest.raises(FrameError, match=f"{len(payload)} bytes, at most 65536"):
        parse_submission(payload)
    with pytest.raises(FrameError, match="bytes, at most 65536"):
        parse_control(b"{" * (2 << 20))


def test_the_largest_message_is_read():
    payload = b'{"model":"lenet5"}'.ljust(MAX_SUBMIT_BYTES)
    assert parse_submission(payload).model == "lenet5"
    with pytest.raises(FrameError):
        parse_submission(payload + b" ")


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999"])
@pytest.mark.parametrize(
    "place",
    [
        '"deadline_s":%s',
        '"selection_timeout_s":%s',
        '"training":{"learning_rate":%s}',
        '"training":{"gradient_clip_norm":%s}',
        '"target":{"value":%s}',
        '"privacy":{"clip_norm":%s}',
        '"model_params":{"x":%s}',
        '"strategy_params":{"x":%s}',
        '"codec_params":{"x":%s}',
    ],
)
def test_numbers_that_are_not_finite_are_refused(place, value):
    payload = f'{{"model":"lenet5",{place % value}}}'.encode()
    with pytest.raises(MessageError, match="finite number"):
        parse_submission(payload)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rounds", 0),
        ("rounds", 100_001),
        ("rounds", "5"),
        ("rounds", 5.0),
        ("rounds", True),
        ("rounds", None),
        ("min_clients", 0),
        ("min_clients", 100_001),
        ("cohort", 0),
        ("cohort", 100_001),
        ("deadline_s", 0.9),
        ("deadline_s", 604_801),
        ("deadline_s", "600"),
        ("selection_timeout_s", -1),
        ("selection_timeout_s", 604_801),
        ("on_shortfall", "wait"),
        ("selection", "best"),
        ("seed", -1),
        ("seed", 1 << 53),
        ("task", "My Task"),
        ("task", "t\n"),
        ("regions", []),
        ("regions", ["gw"]),
        ("regions", ["+"]),
        ("regions", "north"),
        ("regions", [f"r{number}" for number in range(257)]),
        ("model_params", {f"p{number}": 1 for number in range(33)}),
        ("model_params", {"Bad Name": 1}),
        ("model_params", {"x": None}),
        ("model_params", {"x": {"y": 1}}),
        ("model_params", {"x": ["a"]}),
        ("strategy_params", []),
        ("codec_params", {"x": 10**400}),
        ("training", None),
        ("training", {"epochs": -1}),
        ("training", {"epochs": 1001}),
        ("training", {"steps": 0}),
        ("training", {"batch_size": 0}),
        ("training", {"batch_size": 65_537}),
        ("training", {"optimizer": "lbfgs"}),
        ("training", {"learning_rate": 0}),
        ("training", {"learning_rate": 101}),
        ("training", {"momentum": 1.0}),
        ("training", {"proximal_mu": -0.1}),
        ("training", {"gradient_clip_norm": 0}),
        ("training", {"seed": -1}),
        ("requires", {"memory_mb": 0}),
        ("requires", {"battery_percent": 101}),
        ("requires", {"backend": "a:b"}),
        ("requires", {"profiles": []}),
        ("requires", {"profiles": ["../x"]}),
        ("requires", {"profiles": "jetson-nano"}),
        ("uplink_budget_bits", 7),
        ("uplink_budget_bits", 1.5),
        ("budget_max_clock", 0),
        ("budget_max_clock", 65_536),
        ("budget_bid_share", 1.1),
        ("scale_exponent", -0.1),
        ("scale_exponent", 1.1),
        ("target", {"metric": "accuracy"}),
        ("target", {"metric": "speed", "value": 1}),
        ("privacy", {"clip_norm": 0}),
    ],
)
def test_every_field_keeps_its_limit_and_is_named(field, value):
    text = refusal(**{field: value})
    assert text.startswith(field)
    assert len(text) < 300


def test_a_wrong_parameter_gives_one_reason_not_one_per_type():
    text = refusal(model_params={"width": None})
    assert text == (
        "model_params.width: None: use true or false, a number, a text or a list of whole numbers"
    )


@pytest.mark.parametrize("value", [True, 3, 0.5, "relu", [1, 2]])
def test_a_parameter_keeps_its_type(value):
    got = submit(model_params={"x": value}).model_params["x"]
    assert got == (tuple(value) if isinstance(value, list) else value)
    assert type(got) is (tuple if isinstance(value, list) else type(value))


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b" ",
        b"null",
        b"[]",
        b"1",
        b'"x"',
        b"{",
        b"{}}",
        b"\xff\xfe",
        b"{'model':'x'}",
        b"\xef\xbb\xbf{}",
    ],
)
def test_what_is_no_json_object_is_refused(payload):
    for parse in (parse_submission, parse_control):
        with pytest.raises(MessageError, match=r"^(message|model|action): "):
            parse(payload)


@given(st.binary(max_size=400))
def test_any_bytes_give_a_message_or_a_wire_error(payload):
    for parse in (parse_submission, parse_control):
        with pytest.raises(WireError):
            parse(payload)


@given(
    st.dictionaries(
        st.sampled_from([*sorted(TaskSubmission.model_fields), "action"]) | st.text(max_size=5),
        json_values | st.sampled_from(["lenet5", "cancel", 1, 2]),
        max_size=4,
    )
)
@settings(max_examples=300)
def test_any_json_object_gives_a_message_or_a_wire_error(fields):
    payload = json.dumps(fields).encode()
    for parse, model in ((parse_submission, TaskSubmission), (parse_control, TaskControl)):
        try:
            found = parse(payload)
        except WireError as error:
            found = error
        assert isinstance(found, (model, WireError))


@pytest.mark.parametrize(
    "deep",
    [b"[" * 60_000, b'{"a":' * 12_000, b"[" * 30_000 + b"]" * 30_000, b"[" * 150 + b"]" * 150],
)
@pytest.mark.parametrize("before", [b"", b'{"model":', b'{"model":"a","training":{"epochs":'])
def test_deeply_nested_json_is_a_wire_error(deep, before):
    payload = before + deep + b"}" * before.count(b"{")
    for parse in (parse_submission, parse_control):
        with pytest.raises(MessageError) as caught:
            parse(payload)
        assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("action", ["cancel", "pause", "resume"])
def test_a_person_may_cancel_pause_and_resume(action):
    assert parse_control(json.dumps({"action": action}).encode()) == TaskControl(action=action)


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        (b"{}", "action: required, but missing"),
        (b'{"action":"stop"}', "action: 'stop': input should be 'cancel', 'pause' or 'resume'"),
        (b'{"action":"pause","task":"t"}', "task: unknown field"),
    ],
)
def test_any_other_action_is_refused(payload, text):
    with pytest.raises(MessageError) as caught:
        parse_control(payload)
    assert str(caught.value) == text


def test_what_a_person_submitted_cannot_be_changed():
    task = submit()
    for field in TaskSubmission.model_fields:
        with pytest.raises(ValidationError, match="frozen"):
            setattr(task, field, None)
    with pytest.raises(ValidationError, match="frozen"):
        task.training.epochs = 3


@pytest.mark.parametrize(
    ("epochs", "steps", "drill"), [(0, None, True), (0, 5, False), (1, None, False)]
)
def test_a_drill_trains_nothing(epochs, steps, drill):
    assert Training(epochs=epochs, steps=steps).is_drill is drill
