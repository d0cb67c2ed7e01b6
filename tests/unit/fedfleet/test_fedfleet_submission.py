import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedfleet import submission
from schemas.ids import derived_task_id


def test_flags_that_were_not_given_are_left_to_central():
    payload = submission.build({"model": "lenet5", "rounds": None}, ())
    assert json.loads(payload) == {"model": "lenet5"}


def test_dotted_names_are_fields_of_an_object():
    payload = submission.build(
        {"training.epochs": 2}, ("training.momentum=0.5", 'target={"value": 0.9}', "data=har")
    )
    assert json.loads(payload) == {
        "training": {"epochs": 2, "momentum": 0.5},
        "target": {"value": 0.9},
        "data": "har",
    }


@pytest.mark.parametrize("text", ["momentum", "=1", ""])
def test_a_setting_without_name_and_value_is_refused(text):
    with pytest.raises(submission.SubmissionError, match="NAME=VALUE"):
        submission.build({}, (text,))


def test_a_field_cannot_be_a_value_and_an_object():
    with pytest.raises(submission.SubmissionError, match="training has a value already"):
        submission.build({"training": 1}, ("training.epochs=2",))


def test_what_is_not_json_is_refused_with_its_place():
    with pytest.raises(submission.SubmissionError, match="line 1 column"):
        submission.check_json(b'{"model": ')


def test_central_may_answer_under_the_given_id_or_the_derived_one():
    payload = b'{"model": "mlp", "task": "mine"}'
    assert submission.possible_ids(payload) == ("mine", derived_task_id(payload))


@pytest.mark.parametrize(
    "payload", [b'{"task": "Not An Id"}', b'{"task": 7}', b"[]", b'"x"', b"1"]
)
def test_without_a_usable_id_only_the_derived_one_is_possible(payload):
    assert submission.possible_ids(payload) == (derived_task_id(payload),)


@settings(max_examples=50)
@given(st.dictionaries(st.from_regex(r"[a-z]{1,8}", fullmatch=True), st.integers(), max_size=5))
def test_built_bytes_are_json_of_exactly_the_flags(flags):
    payload = submission.build(flags, ())
    submission.check_json(payload)
    assert json.loads(payload) == flags
