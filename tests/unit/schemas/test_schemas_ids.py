"""The grammar of ids, and the two ids that are digests."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from schemas.ids import (
    RESERVED,
    DeviceId,
    RegionId,
    Sha256,
    TaskId,
    TransferId,
    derived_task_id,
    is_hex,
    is_id,
    transfer_id,
)

ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789-"
IDS = st.text(ALPHABET, min_size=1, max_size=32).filter(lambda text: text[0] != "-")
ADAPTERS = {
    "device": TypeAdapter(DeviceId),
    "region": TypeAdapter(RegionId),
    "task": TypeAdapter(TaskId),
}
MISFITS = [
    "",
    "-a",
    "a" * 33,
    "A",
    "a/b",
    "a+",
    "#",
    "+",
    "a b",
    "a\n",
    "\na",
    "a\x00",
    "a.b",
    "a_b",
    "\N{LATIN SMALL LETTER A WITH DIAERESIS}",
    "\N{ARABIC-INDIC DIGIT ONE}",
    "$sys",
]


@given(IDS)
def test_every_text_of_the_grammar_is_an_id(text):
    assert is_id(text)
    assert ADAPTERS["task"].validate_python(text) == text


@given(st.text(max_size=40))
def test_an_id_has_only_characters_of_one_topic_level(text):
    expected = 1 <= len(text) <= 32 and set(text) <= set(ALPHABET) and text[0] != "-"
    assert is_id(text) == expected


@pytest.mark.parametrize("text", MISFITS)
@pytest.mark.parametrize("kind", sorted(ADAPTERS))
def test_what_breaks_the_grammar_is_refused_everywhere(kind, text):
    assert not is_id(text)
    with pytest.raises(ValidationError, match="not an id"):
        ADAPTERS[kind].validate_python(text)


def test_the_shortest_and_the_longest_id_fit():
    assert is_id("0")
    assert is_id("a" * 32)
    assert is_id("a-")


@pytest.mark.parametrize("text", ["gw", "all", "ctl", "central"])
@pytest.mark.parametrize("kind", ["device", "region"])
def test_reserved_names_are_no_regions_and_no_devices(kind, text):
    assert text in RESERVED
    with pytest.raises(ValidationError, match="reserved"):
        ADAPTERS[kind].validate_python(text)


@pytest.mark.parametrize("text", sorted(RESERVED))
def test_a_task_may_have_a_reserved_name(text):
    assert ADAPTERS["task"].validate_python(text) == text


@pytest.mark.parametrize(("kind", "length"), [(Sha256, 64), (TransferId, 32)])
@pytest.mark.parametrize("change", [str.upper, lambda t: t + "\n", lambda t: t[1:], "0".__add__])
def test_digests_are_exactly_so_many_lower_case_hex_digits(kind, length, change):
    adapter = TypeAdapter(kind)
    text = ("0123456789abcdef" * 4)[:length]
    assert adapter.validate_python(text) == text
    assert is_hex(text, length)
    assert not is_hex(change(text), length)
    with pytest.raises(ValidationError):
        adapter.validate_python(change(text))


def test_hex_is_not_any_unicode_digit():
    assert not is_hex("\N{FULLWIDTH DIGIT ONE}" * 16, 16)


def test_a_transfer_id_is_the_same_after_a_restart():
    digest = hashlib.sha256(b"update").hexdigest()
    assert transfer_id("dev-1", "t-1", 3, digest) == "069aa4045bc1e8443ba4805a9ee4432b"


@given(IDS, IDS, st.integers(0, 1 << 30))
def test_a_transfer_id_depends_on_source_task_round_and_object(source, task, number):
    digest = "0" * 64
    own = transfer_id(source, task, number, digest)
    assert is_hex(own, 32)
    others = {
        transfer_id(source + "x", task, number, digest),
        transfer_id(source, task + "x", number, digest),
        transfer_id(source, task, number + 1, digest),
        transfer_id(source, task, number, "1" * 64),
    }
    assert len(others) == 4
    assert own not in others


@given(st.binary(max_size=100))
def test_a_derived_task_id_is_an_id_and_stable(payload):
    assert is_id(derived_task_id(payload))
    assert derived_task_id(payload) == derived_task_id(bytes(payload))
    assert derived_task_id(payload) != derived_task_id(payload + b" ")
    assert derived_task_id(payload).startswith("t-")
