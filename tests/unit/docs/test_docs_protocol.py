"""docs/protocol.md says what the code does: its tables are compared with the contract itself."""

import re
from pathlib import Path

import pytest

from schemas import errors, limits, topics
from schemas.messages import BY_TYPE
from schemas.tasks import TaskSubmission, Training, parse_submission
from schemas.topics import RULES, Address, Kind, Topic, TopicError

ROOT = Path(__file__).resolve().parents[3]
TEXT = (ROOT / "docs" / "protocol.md").read_text()
PROGRAMS = ("central", "regional_gateway", "device_agent", "transport", "updates", "schemas")
SAMPLE = {"task": "t-1", "xfer": "0a" * 16, "sha16": "0b" * 8, "k": 7, "device": "dev-2"}
PLACES = {
    "D": Address("north", "dev-1"),
    "A": Address.of_everyone("north"),
    "G": Address.of_gateway("north"),
}


def table(name):
    """Return a table's rows as dicts of column to text, code marks taken off."""
    found = re.search(rf"<!-- table: {name} -->\n(.*?)\n<!-- end -->", TEXT, re.DOTALL)
    assert found, f"docs/protocol.md has no table {name}"
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in found[1].splitlines()
    ]
    return [dict(zip(lines[0], row, strict=True)) for row in lines[2:]]


def code(cell):
    return re.findall(r"`([^`]+)`", cell)


def sources(*packages):
    return [path for package in packages for path in sorted((ROOT / package).rglob("*.py"))]


def test_the_topics_table_has_every_rule_and_no_other():
    documented = {}
    for row in table("topics"):
        expiry = None if row["expiry, s"] == "-" else int(row["expiry, s"])
        rule = topics.Rule(int(row["QoS"]), row["retained"] == "yes", expiry)
        documented[Kind[code(row["kind"])[0]]] = rule
    assert documented == RULES


@pytest.mark.parametrize("row", table("topics"), ids=lambda row: code(row["kind"])[0])
def test_a_topic_exists_exactly_where_the_table_says(row):
    kind = Kind[code(row["kind"])[0]]
    levels = {name: SAMPLE[name] for name in re.findall(r"{(\w+)}", kind.value)}
    stated = {letter for letter in re.split(r"[,; ]+", row["where"]) if letter in PLACES}
    actual = {letter for letter, place in PLACES.items() if exists(kind, place, levels)}
    assert stated == actual
    prefix = "" if stated else "fl/v1/"
    assert code(row["topic"]) == [prefix + kind.value]
    assert exists(kind, None, levels) == (not stated)


def exists(kind, address, levels):
    try:
        return bool(Topic(kind, address, **levels).name)
    except TopicError:
        return False


@pytest.mark.parametrize("row", table("topics"), ids=lambda row: code(row["kind"])[0])
def test_the_bodies_of_the_topics_table_are_messages(row):
    framed = [name for name in code(row["body"]) if "." in name]
    assert set(framed) <= BY_TYPE.keys()
    assert framed or "raw bytes" in row["body"] or "plain JSON" in row["body"]


def test_every_message_travels_on_some_topic():
    assert {name for row in table("topics") for name in code(row["body"]) if "." in name} == set(
        BY_TYPE
    )


def test_the_filters_table_is_what_sessions_subscribe_to():
    documented = {row["session"]: tuple(code(row["filters"])) for row in table("filters")}
    actual = {
        "central": topics.central_filters(),
        "gateway, uplink": topics.uplink_filters("north"),
        "gateway, downlink": topics.downlink_filters("north"),
        "device": topics.device_filters("north", "dev-1"),
        "who watches tasks": (topics.status_filter(),),
        "who watches the fleet": (topics.state_filter(),),
    }
    named = {
        session: tuple(f.format(region="north", device="dev-1") for f in filters)
        for session, filters in documented.items()
    }
    assert named == actual


def test_the_limits_table_has_the_numbers_of_the_code():
    for row in table("limits"):
        assert int(row["bytes"]) == getattr(limits, code(row["limit"])[0])
    documented = {code(row["limit"])[0] for row in table("limits")}
    assert documented == {name for name in vars(limits) if name.endswith("_BYTES")}
    for count in (limits.MAX_CHUNKS, limits.MAX_WANT, limits.MAX_COHORT):
        assert re.search(rf"\b{count}\b", TEXT)


def test_the_messages_table_has_every_type_and_field():
    documented = {
        code(row["type"])[0]: (code(row["model"])[0], code(row["fields"]))
        for row in table("messages")
    }
    assert documented == {
        name: (model.__name__, list(model.model_fields)) for name, model in BY_TYPE.items()
    }


def test_the_errors_table_has_every_error_of_the_wire():
    documented = {code(row["raised as"])[0]: code(row["code"])[0] for row in table("errors")}
    classes = [*vars(errors).values(), topics.TopicError]
    actual = {
        value.__name__: value.code
        for value in classes
        if isinstance(value, type) and issubclass(value, errors.WireError)
    }
    assert documented == actual


def test_every_code_that_a_program_uses_is_documented_and_no_other():
    documented = {
        code(row["code"])[0] for name in ("errors", "receipt codes") for row in table(name)
    }
    used = {
        found
        for path in sources(*PROGRAMS)
        for found in re.findall(r'"(E_[A-Z_]+)"', path.read_text())
    }
    assert used == documented


def test_every_cause_of_a_refused_or_failed_job_is_documented_and_no_other():
    documented = {code(row["code"])[0] for row in table("job codes")}
    used = {
        found
        for path in sources("device_agent")
        for found in re.findall(r'Refusal\(\s*"([a-z]+)"', path.read_text())
    }
    assert used == documented


def stated_defaults(name):
    return {code(row["field"])[0]: row["default"] for row in table(name)}


def written(value):
    """Return a default as the tables write it."""
    if value is None:
        return "none"
    if isinstance(value, str):
        return f'`"{value}"`'
    if isinstance(value, tuple):
        return "`[]`"
    if isinstance(value, bool):
        return str(value).lower()
    return "`{}`" if not isinstance(value, int | float) else str(value)


def test_the_submission_table_has_every_field_and_default():
    task = parse_submission(b'{"model":"lenet5"}')
    actual = {name: written(getattr(task, name)) for name in TaskSubmission.model_fields}
    assert stated_defaults("submission") == actual | {"model": "required"}


def test_the_training_table_has_every_field_and_default():
    actual = {name: written(getattr(Training(), name)) for name in Training.model_fields}
    assert stated_defaults("training") == actual


def test_the_command_of_the_page_is_a_task():
    (message,) = re.findall(r"task/submit -m '([^']+)'", TEXT)
    assert parse_submission(message.encode()).min_clients == 2
