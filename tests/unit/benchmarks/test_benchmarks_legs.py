"""From what passed the broker to the legs of a round."""

import numpy as np
import pytest

from benchmarks.legs import LEGS, legs, medians, traffic
from benchmarks.sightings import Sighting, read
from schemas.messages import Receipt
from transport.frames import FrameWriter

ROUND_S = 0.100
GATEWAY = "fl/v1/gw/r1"


def sighting(topic: str, frame_type: str, times_s: tuple[float, float], **fields) -> Sighting:
    made_s, at_s = times_s
    given = {"src": "central", "round": 1, **fields}
    return Sighting(at_s, made_s, topic, frame_type, size=1000, **given)


def one_round(number: int, began_s: float, *, slow_s: float = 0.0) -> list[Sighting]:
    """Two devices; the second one takes its job ``slow_s`` later."""
    down = {"round": number}
    return [
        sighting(f"{GATEWAY}/dn/task", "task.assign", (began_s, began_s + 0.010), **down),
        sighting("fl/v1/r1/all/dn/task", "task.assign", (began_s, began_s + 0.020), **down),
        *one_device("d1", number, began_s),
        *one_device("d2", number, began_s + slow_s),
    ]


def one_device(src: str, number: int, began_s: float) -> list[Sighting]:
    xfer, own = f"{number:016x}{int(src[1:]):016x}", f"fl/v1/r1/{src}"

    def after(made_s: float, at_s: float) -> tuple[float, float]:
        return began_s + made_s, began_s + at_s

    up = {"src": src, "round": number}
    offer = {**up, "xfer": xfer}
    answer = {"round": None, "xfer": xfer}
    return [
        sighting(f"{own}/up/task/noop/status", "job.status", after(0.025, 0.030), **up),
        sighting(f"{own}/up/m/{xfer}", "update.manifest", after(0.035, 0.045), **offer),
        sighting(f"{GATEWAY}/up/m/{xfer}", "update.manifest", after(0.035, 0.055), **offer),
        sighting(f"{GATEWAY}/dn/rcpt/{xfer}", "transfer.receipt", after(0.060, 0.070), **answer),
    ]


def test_the_legs_of_a_round_add_up_to_the_time_until_the_next() -> None:
    seen = one_round(1, 5.0) + one_round(2, 5.0 + ROUND_S) + one_round(3, 5.0 + 2 * ROUND_S)
    found = legs(seen)
    assert set(found) == {1, 2}
    assert all(sum(leg) == pytest.approx(ROUND_S) for leg in found.values())
    assert all(len(leg) == len(LEGS) for leg in found.values())


def test_each_leg_ends_when_the_last_device_has_passed_it() -> None:
    found = legs(one_round(1, 5.0, slow_s=0.020) + one_round(2, 5.0 + ROUND_S))
    took = dict(zip(LEGS, found[1], strict=True))
    assert took[LEGS[2]] == pytest.approx(0.025)  # 5 ms, and 20 ms for the slow one
    assert took[LEGS[-1]] == pytest.approx(0.010)


def test_a_repeated_message_does_not_count() -> None:
    first = one_round(1, 5.0)
    again = [sighting(first[0].topic, "task.assign", (5.0, 9.0))]
    found = legs(first + again + one_round(2, 5.0 + ROUND_S))
    assert found[1][0] == pytest.approx(0.010)


def test_a_round_that_was_not_seen_whole_is_left_out() -> None:
    seen = [one for one in one_round(1, 5.0) if one.type != "transfer.receipt"]
    assert legs(seen + one_round(2, 5.0 + ROUND_S)) == {}
    assert legs(one_round(1, 5.0)) == {}


def test_no_leg_is_negative_when_an_observer_saw_things_late() -> None:
    seen = one_round(1, 5.0)
    seen[0] = sighting(seen[0].topic, "task.assign", (5.0, 5.040))
    found = legs(seen + one_round(2, 5.0 + ROUND_S))
    assert min(found[1]) == 0.0
    assert sum(found[1]) == pytest.approx(ROUND_S)


def test_the_median_of_each_leg_is_taken_over_the_rounds() -> None:
    assert medians([(1.0, 10.0), (2.0, 30.0), (3.0, 20.0)]) == [2.0, 20.0]


def test_a_receipt_is_counted_to_the_round_of_its_transfer() -> None:
    rows = {name: (count, size) for name, count, size in traffic(one_round(1, 5.0), [1])}
    assert rows["central-gateway down: transfer.receipt"] == (2.0, 2000.0)
    assert rows["gateway-device up: update.manifest"] == (2.0, 2000.0)
    assert traffic(one_round(1, 5.0), []) == []


def test_a_real_frame_is_read_from_its_header() -> None:
    writer = FrameWriter("central", 7, np.random.default_rng(0), lambda: 12.5)
    receipt = Receipt(xfer="a" * 32, status="accepted", sha256="b" * 64)
    frame = writer.frame(receipt, task="noop", round_number=4)
    found = read(f"{GATEWAY}/dn/rcpt/{'a' * 32}", frame, 13.0)
    assert found == Sighting(
        13.0,
        12.5,
        f"{GATEWAY}/dn/rcpt/{'a' * 32}",
        "transfer.receipt",
        "central",
        4,
        len(frame),
        "a" * 32,
    )


@pytest.mark.parametrize("payload", [b"", b"\x00", b'{"status":"online"}', b"\x00\x00\x00\x02{}"])
def test_what_is_no_frame_is_not_seen(payload: bytes) -> None:
    assert read("fl/v1/ctl/central/state", payload, 1.0) is None
