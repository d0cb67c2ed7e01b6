import io
import json
import logging
import subprocess
import sys

import structlog

from fedfleet import logs


def events(stream):
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_an_event_is_one_line_of_json_with_level_and_time():
    stream = io.StringIO()
    logs.configure("info", "json", stream)
    structlog.get_logger().info("round_committed", round=3)
    (event,) = events(stream)
    assert (event["event"], event["round"], event["level"]) == ("round_committed", 3, "info")
    assert event["timestamp"].endswith("Z")


def test_events_below_the_level_are_not_written():
    stream = io.StringIO()
    logs.configure("warning", "json", stream)
    structlog.get_logger().info("quiet")
    structlog.get_logger().warning("loud")
    assert [event["event"] for event in events(stream)] == ["loud"]


def test_an_exception_is_part_of_its_line():
    stream = io.StringIO()
    logs.configure("info", "json", stream)
    try:
        1 / 0  # noqa: B018
    except ZeroDivisionError:
        structlog.get_logger().exception("failed")
    (event,) = events(stream)
    assert "ZeroDivisionError" in event["exception"]


def test_libraries_write_the_same_lines_but_only_warnings():
    stream = io.StringIO()
    logs.configure("info", "json", stream)
    logging.getLogger("some.library").info("chatter")
    logging.getLogger("some.library").warning("odd %s", "packet")
    (event,) = events(stream)
    assert (event["event"], event["logger"], event["level"]) == (
        "odd packet",
        "some.library",
        "warning",
    )


def test_console_format_is_for_reading():
    stream = io.StringIO()
    logs.configure("info", "console", stream)
    structlog.get_logger().info("hello", who="world")
    assert "hello" in stream.getvalue()
    assert "who=world" in stream.getvalue()


def test_structlog_is_loaded_without_rich_and_rich_stays_importable():
    code = (
        "import sys; from fedfleet import logs; assert 'rich' not in sys.modules;"
        "import rich; print(rich.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "rich\n"
