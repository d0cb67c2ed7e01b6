"""How a misfit is told: every field by name, no value longer than a person reads."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError, model_validator

from schemas.base import PersonMessage, WireMessage, explain
from schemas.errors import (
    MAX_SHOWN_CHARACTERS,
    FrameError,
    IdentityError,
    MessageError,
    PayloadError,
    UnsupportedVersionError,
    WireError,
    shown,
)
from schemas.ids import TaskId
from schemas.topics import TopicError


class Inner(PersonMessage):
    size: int = Field(default=1, ge=1)


class Outer(PersonMessage):
    name: TaskId = "t-1"
    a: int = 0
    b: int = 0
    c: int = 0
    d: int = 0
    e: int = 0
    f: int = 0
    inner: Inner = Inner()
    many: tuple[TaskId, ...] = Field(default=("t-1",), min_length=1)

    @model_validator(mode="after")
    def _a_covers_b(self):
        if self.a > self.b + 1:
            message = f"a: {self.a} is above b: {self.b}"
            raise ValueError(message)
        return self


def told(known=(), **fields):
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate_json(json.dumps(fields))
    return explain(caught.value, known)


def test_a_rule_over_several_fields_is_told_by_its_own_text():
    assert told(a=3) == "a: 3 is above b: 0"


def test_a_field_is_told_with_value_and_limit():
    assert told(inner={"size": 0}) == ("inner.size: 0: input should be greater than or equal to 1")


def test_the_fifth_field_is_the_last_that_is_named():
    wrong = dict.fromkeys("abcdef", "x")
    text = told(**wrong)
    assert text.count("valid integer") == 5
    assert text.endswith("; and 1 more")


def test_what_only_follows_from_another_error_is_left_out():
    assert told(many=["T"]).startswith("many.0: 'T': not an id")
    assert ";" not in told(many=["T"])
    assert told(many=[]).startswith("many: []: ")


def test_a_suggestion_is_made_only_for_a_similar_name():
    assert told(("name", "inner"), nam="x") == "nam: unknown field; did you mean 'name'?"
    assert told(("name", "inner"), zzz="x") == "zzz: unknown field"


@given(
    st.text(st.characters(codec="utf-8"), max_size=300).filter(
        lambda t: t not in Outer.model_fields
    )
)
def test_an_unknown_field_of_any_name_is_told_in_one_short_printable_line(name):
    text = told(("name",), **{name: 1})
    assert text.isprintable()
    assert "unknown field" in text
    assert len(text) < 120


@given(st.text(st.characters(codec="utf-8"), min_size=33, max_size=3000))
def test_a_long_value_is_cut(value):
    text = told(name=value)
    assert text.isprintable()
    assert len(text) <= len("name: ") + MAX_SHOWN_CHARACTERS + len(": ") + 70


@given(st.text() | st.binary() | st.integers() | st.lists(st.text()))
def test_a_shown_value_has_at_most_sixty_characters(value):
    text = shown(value)
    assert len(text) <= 60
    assert text == repr(value) or text.endswith("...")


def test_a_value_of_sixty_characters_is_shown_whole():
    assert shown("x" * 58) == repr("x" * 58)
    assert shown("x" * 59) == "'" + "x" * 56 + "..."


def test_programs_ignore_unknown_fields_and_persons_are_told():
    class Lax(WireMessage):
        a: int = 0

    assert Lax.model_validate_json('{"a":1,"z":2}') == Lax(a=1)
    with pytest.raises(ValidationError, match="extra"):
        Outer.model_validate_json('{"z":2}')


@pytest.mark.parametrize("base", [WireMessage, PersonMessage])
def test_both_bases_are_strict_frozen_and_finite(base):
    config = base.model_config
    assert config["strict"]
    assert config["frozen"]
    assert config["allow_inf_nan"] is False


def test_every_error_of_the_wire_has_a_code_of_its_own():
    leaves = [
        FrameError,
        IdentityError,
        MessageError,
        PayloadError,
        UnsupportedVersionError,
        TopicError,
    ]
    codes = {leaf.code for leaf in leaves}
    assert codes == {"E_FORMAT", "E_IDENTITY", "E_SCHEMA", "E_PAYLOAD", "E_VERSION", "E_TOPIC"}
    assert all(issubclass(leaf, WireError) for leaf in leaves)
    assert WireError.code == "E_WIRE"


def test_an_identity_error_names_both_sides_and_no_long_word():
    error = IdentityError("dev-1", "x" * 1000)
    assert (error.expected, error.got) == ("dev-1", "x" * 1000)
    assert len(str(error)) < 120
