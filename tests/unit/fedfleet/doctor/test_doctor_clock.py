"""What other clocks tell of this one."""

import json

import numpy as np
import pytest

from central.service.announcements import state_message
from fedfleet.doctor import clock_checks
from fedfleet.doctor.clock_checks import CENTRAL_TOPIC, UPTIME_TOPIC, Sighting, judge_clock
from schemas.messages import Heartbeat
from transport.frames import FrameWriter
from transport.probe_answers import Heard

NOW_S = 1_700_000_000.0
DAY_S = 86_400.0
BEAT = "fl/v1/north/d1/up/hb"


def central(ts, status="online"):
    return Heard(CENTRAL_TOPIC, state_message(status, 1, ts).payload, retained=True)


def uptime(seconds):
    return Heard(UPTIME_TOPIC, f"{seconds} seconds".encode(), retained=True)


def judged(*heard, synchronized=False, more=()):
    sightings = [*clock_checks.of_messages(heard), *more]
    return judge_clock(NOW_S, sightings, is_synchronized=synchronized)


def test_a_clock_behind_a_retained_word_of_central_is_found():
    found = judged(central(NOW_S + DAY_S))
    assert (found.status, found.seen) == ("failed", "1.0 days or more behind central")


def test_an_old_retained_word_alone_proves_nothing():
    found = judged(central(NOW_S - 30 * DAY_S))
    assert (found.status, "nothing tells whether it is ahead" in found.seen) == ("warning", True)


def test_a_clock_that_is_ahead_is_found_by_the_uptime_of_the_broker():
    found = judged(central(NOW_S - DAY_S), uptime(600))
    assert (found.status, "1.0 days or more ahead of central" in found.seen) == ("failed", True)
    assert judged(central(NOW_S - DAY_S), uptime(2 * 86_400)).status == "ok"


def test_right_after_the_start_of_a_broker_central_may_not_be_back_yet():
    assert judged(central(NOW_S - DAY_S), uptime(20)).status == "warning"


def test_a_central_that_went_away_may_have_spoken_long_before_its_broker_began():
    assert judged(central(NOW_S - DAY_S, "offline"), uptime(600)).status == "warning"


def said_by(source, days):
    writer = FrameWriter(source, 1, np.random.default_rng(1), lambda: NOW_S - days * DAY_S)
    return Heard(BEAT, writer.frame(Heartbeat(load=0.0, memory_free_bytes=1)), retained=False)


@pytest.mark.parametrize(("days", "status"), [(-1, "failed"), (0, "ok"), (1, "failed")])
def test_a_word_that_a_gateway_has_just_said_tells_both_ways(days, status):
    assert judged(said_by("gw/north", days)).status == status


def test_the_clocks_of_devices_may_be_wrong_and_count_for_nothing():
    assert clock_checks.of_messages([said_by("d1", 1)]) == []


def test_a_hardware_clock_may_keep_any_zone_but_no_other_day(tmp_path):
    path = tmp_path / "since_epoch"
    for hours, status in ((0, "ok"), (14, "ok"), (-12, "ok"), (24, "failed"), (-24, "failed")):
        path.write_text(f"{NOW_S + hours * 3600:.0f}\n")
        assert judged(more=clock_checks.of_hardware(path)).status == status
    assert clock_checks.of_hardware(tmp_path / "none") == []


def test_a_file_of_tomorrow_shows_that_the_clock_went_back(tmp_path):
    (tmp_path / "file").touch()
    (sighting,) = clock_checks.of_files([tmp_path, tmp_path / "none"])
    assert sighting.offset_s(sighting.earliest_s - DAY_S) == -DAY_S
    assert sighting.offset_s(sighting.earliest_s + DAY_S) == 0.0


def test_where_this_clock_is_synchronized_the_other_one_is_blamed():
    found = judged(central(NOW_S + DAY_S), synchronized=True)
    assert (found.status, "look at the clock of central" in found.advice) == ("failed", True)
    assert judged(synchronized=True).status == "ok"


def test_a_small_difference_is_none():
    assert Sighting("central", NOW_S + 100.0, NOW_S - 100.0).offset_s(NOW_S) == 0.0


def test_what_is_no_message_tells_nothing():
    for payload in (b"", b"[]", b"\xff", json.dumps({"ts": "now"}).encode()):
        for name in (CENTRAL_TOPIC, BEAT, UPTIME_TOPIC):
            assert clock_checks.of_messages([Heard(name, payload, retained=True)]) == []


def test_the_kernel_says_whether_something_keeps_the_clock():
    assert clock_checks.is_synchronized() in {True, False}
