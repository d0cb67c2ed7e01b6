"""Spreads, intervals and aims."""

import pytest

from benchmarks.figures import AIMS, Aim, Spread, intervals, ms


def test_a_spread_has_the_median_and_the_extremes() -> None:
    assert Spread.of([0.3, 0.1, 0.2]) == Spread(0.2, 0.1, 0.3, 3)


def test_a_spread_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing"):
        Spread.of([])


def test_a_spread_is_told_in_milliseconds() -> None:
    assert str(Spread(0.1234, 0.01234, 0.001234, 3)) == "123 [12.3-1.23] ms"


def test_intervals_lie_between_neighbours() -> None:
    assert intervals([1.0, 3.0, 6.0]) == [2.0, 3.0]
    assert intervals([1.0]) == []


def test_an_aim_grows_with_the_disk() -> None:
    aim = Aim(2, fixed_s=0.030, durable_writes=15)
    assert aim.limit_s(0.0) == pytest.approx(0.030)
    assert aim.limit_s(0.002) == pytest.approx(0.060)


def test_the_aims_are_for_two_and_for_ten_devices() -> None:
    assert {devices: str(aim) for devices, aim in AIMS.items()} == {
        2: "30.0 ms + 15 durable writes",
        10: "100 ms + 40 durable writes",
    }


def test_milliseconds_keep_three_digits() -> None:
    assert [ms(s) for s in (0.0012345, 0.012345, 0.12345, 1.2345)] == [
        "1.23",
        "12.3",
        "123",
        "1234",
    ]
