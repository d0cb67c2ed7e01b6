"""Who is known, online or silent."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regional_gateway.core.roster import (
    Presence,
    StateSeen,
    Verdict,
    adopt,
    judge,
    lacks_birth,
    online,
    silent,
    touched,
)


def presence(*, boot=5, seq=3, is_online=True, seen_s=0.0, device="a"):
    return Presence(device, boot, seq, is_online, seen_s)


@pytest.mark.parametrize(
    ("known", "state", "verdict"),
    [
        (None, ("online", 1, 0), Verdict.NEWER),
        (None, ("offline", 1, 0), Verdict.NEWER),
        (presence(), ("online", 6, 0), Verdict.NEWER),
        (presence(), ("online", 5, 4), Verdict.NEWER),
        (presence(), ("online", 5, 3), Verdict.STALE),
        (presence(), ("online", 4, 9), Verdict.REFUSED),
        (presence(), ("offline", 4, 9), Verdict.STALE),
        (presence(), ("offline", 5, 0), Verdict.NEWER),
        (presence(is_online=False), ("offline", 5, 0), Verdict.STALE),
        (presence(is_online=False), ("online", 5, 3), Verdict.STALE),
        (presence(is_online=False), ("online", 5, 4), Verdict.NEWER),
    ],
)
def test_a_state_counts_by_boot_then_by_seq_and_a_will_needs_no_seq(known, state, verdict):
    status, boot, seq = state
    assert judge(known, StateSeen("a", status, boot, seq)) is verdict


def test_a_death_does_not_take_back_the_seq_of_its_birth():
    dead = adopt(presence(seq=7), StateSeen("a", "offline", 5, 0), 2.0)
    assert (dead.online, dead.seq, dead.seen_s) == (False, 7, 2.0)
    assert adopt(dead, StateSeen("a", "online", 6, 0), 3.0).seq == 0


@pytest.mark.parametrize(
    ("known", "boot", "expected"),
    [
        (None, 1, True),
        (presence(), 5, False),
        (presence(), 6, True),
        (presence(), 4, False),
        (presence(is_online=False), 5, True),
        (presence(is_online=False), 4, False),
    ],
)
def test_a_word_of_an_unborn_or_dead_device_asks_for_its_birth(known, boot, expected):
    assert lacks_birth(known, boot) is expected


def test_silence_begins_at_the_limit_and_only_for_devices_that_are_online():
    found = [
        presence(device="b", seen_s=0.0),
        presence(device="a", seen_s=0.0),
        presence(device="c", seen_s=0.1),
        presence(device="d", is_online=False),
    ]
    assert silent(found, 10.0, 10.0) == ("a", "b")
    assert online(found, 10.0, 10.0) == {"c"}


def test_seen_never_goes_back():
    assert touched(presence(seen_s=5.0), 4.0).seen_s == 5.0


STATES = st.builds(
    StateSeen,
    st.just("a"),
    st.sampled_from(["online", "offline"]),
    st.integers(0, 3),
    st.integers(0, 3),
)


@given(st.lists(STATES, max_size=12))
def test_boot_never_decreases_and_a_repeated_state_changes_nothing(states):
    known = None
    for state in states:
        if judge(known, state) is not Verdict.NEWER:
            continue
        before, known = known, adopt(known, state, 0.0)
        assert before is None or known.boot >= before.boot
        assert judge(known, state) is Verdict.STALE
