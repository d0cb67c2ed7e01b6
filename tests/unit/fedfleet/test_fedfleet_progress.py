import io
from pathlib import Path

import pytest

from fedfleet.client import Message
from fedfleet.screen import Screen
from fedfleet.testbed.choices import Options
from fedfleet.testbed.plan import Place, make_plan
from fedfleet.testbed.progress import Progress, bar, name
from schemas.envelope import Header, encode_frame
from schemas.messages import DeviceState, GatewayState, JobStatus
from schemas.tasks import CentralState, RoundSummary, TaskStatus
from schemas.topics import parse


@pytest.fixture
def progress():
    plan = make_plan(Options(devices=2, regions=1), Place(Path("/runs/one"), 2883))
    return Progress(plan)


def message(topic_name, payload):
    return Message(parse(topic_name), payload, retained=False)


def frame(topic_name, src, body):
    header = Header(type=body.TYPE, id="0" * 16, ts=1.0, src=src, boot=1, seq=1)
    return message(topic_name, encode_frame(header, body))


def central(status):
    state = CentralState(status=status, boot=1, ts=1.0)
    return message("fl/v1/ctl/central/state", state.model_dump_json().encode())


def device(number, status="online"):
    name_ = f"device-{number}"
    return frame(f"fl/v1/region-1/{name_}/up/state", name_, DeviceState(status=status, boot=1))


def gateway():
    return frame(
        "fl/v1/gw/region-1/up/state", "gw/region-1", GatewayState(status="online", boot=1)
    )


def task(*rounds, **fields):
    status = TaskStatus(**{"task": "demo", "state": "running", "history": rounds, **fields})
    return message("fl/v1/ctl/task/demo/status", status.model_dump_json().encode())


def committed(number):
    return RoundSummary(round=number, outcome="committed")


def job(**fields):
    body = JobStatus(task="demo", round=1, **fields)
    return frame("fl/v1/region-1/device-1/up/task/demo/status", "device-1", body)


def test_at_first_everybody_is_missing(progress):
    assert progress.missing() == ("central", "gateway-region-1", "device-1", "device-2")


def test_births_shorten_the_list_until_nobody_is_missing(progress):
    progress.take(device(2))
    assert progress.missing() == ("central", "gateway-region-1", "device-1")
    assert "1 of 4 up; waiting for central, gateway-region-1, device-1" in progress.start_block()
    for born in (central("online"), gateway(), device(1)):
        progress.take(born)
    assert progress.missing() == ()


@pytest.mark.parametrize("gone", [central("offline"), device(1, "offline")])
def test_who_is_offline_is_missing(progress, gone):
    for born in (central("online"), gateway(), device(1), device(2), gone):
        progress.take(born)
    assert len(progress.missing()) == 1


def test_each_round_is_told_once_and_none_is_forgotten(progress):
    assert [item.round for item in progress.take(task(committed(0)))] == [0]
    assert [item.round for item in progress.take(task(committed(0), committed(1)))] == [1]
    assert progress.take(task(committed(1))) == ()
    assert sorted(progress.rounds) == [0, 1]


def test_the_block_shows_the_task_and_what_each_device_does(progress):
    progress.take(task(committed(0), rounds=2, committed=1))
    progress.take(job(state="training", progress=0.25))
    lines = progress.block().splitlines()
    assert "[###############...............] demo: running" in lines[0]
    assert "device-1" in lines[1]
    assert "round 1 training 25 %" in lines[1]
    assert lines[2].endswith("idle")


def test_a_refusal_is_shown_with_its_reason(progress):
    progress.take(job(state="rejected", code="policy", reason="only at night"))
    assert "round 1 rejected: only at night" in progress.block()


def test_what_cannot_be_read_changes_nothing(progress):
    for name_ in (
        "fl/v1/ctl/central/state",
        "fl/v1/ctl/task/demo/status",
        "fl/v1/region-1/device-1/up/state",
        "fl/v1/region-1/device-1/up/task/demo/status",
    ):
        assert progress.take(message(name_, b"?")) == ()
    assert len(progress.missing()) == 4
    assert progress.jobs == {}


@pytest.mark.parametrize(("share", "filled"), [(0.0, 0), (0.5, 15), (1.0, 30)])
def test_a_bar_is_as_full_as_its_share(share, filled):
    assert bar(share).count("#") == filled
    assert len(bar(share)) == 32


def test_long_lists_of_names_are_cut_with_their_number():
    assert name(tuple("abcdef"), 4) == "a, b, c, d and 2 more"
    assert name(("a",)) == "a"
    assert name(()) == "nobody"


def test_without_a_terminal_only_lines_are_written():
    stream = io.StringIO()
    with Screen(stream) as screen:
        screen.block("changes")
        screen.line("stays")
    assert stream.getvalue() == "stays\n"


def test_on_a_terminal_the_block_is_drawn_and_taken_away():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    stream = Terminal()
    with Screen(stream) as screen:
        screen.block("the [block]")
        screen.line("the [line]")
    assert "the [block]" in stream.getvalue()
    assert "the [line]\n" in stream.getvalue()
