"""Which MQTT version comes next, and how long a session waits between connections."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transport.dialect import Dialect, reconnect_delay_s


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_fixed_version_stays(protocol: str) -> None:
    dialect = Dialect(protocol)

    assert not dialect.refused()
    assert dialect.version == protocol


def test_auto_tries_5_then_at_once_3_1_1_then_5_again_after_a_wait() -> None:
    dialect = Dialect("auto")
    assert dialect.version == "5"

    assert dialect.refused()
    assert dialect.version == "3.1.1"
    assert not dialect.refused()
    assert dialect.version == "5"


def test_an_accepted_version_gets_a_second_chance() -> None:
    dialect = Dialect("auto")
    dialect.accepted()

    assert not dialect.refused()
    assert dialect.version == "5"
    assert dialect.refused()
    assert dialect.version == "3.1.1"


@given(failures=st.integers(0, 10_000), jitter=st.floats(0, 0.999))
def test_the_wait_is_between_half_and_whole_and_never_above_the_longest(
    failures: int, jitter: float
) -> None:
    whole = min(5.0, 0.2 * 2 ** min(failures, 20))

    assert whole / 2 <= reconnect_delay_s(failures, jitter) <= whole
