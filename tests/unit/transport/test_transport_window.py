"""The chunk window: what it asks for, when, and that it never asks for too much."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transport.transfer import ChunkWindow


def ask_times(window, until_s, step_s=0.25):
    """Return when a window that gets no answer asks, and for what."""
    times = [step * step_s for step in range(int(until_s / step_s))]
    return [(now_s, want) for now_s in times if (want := window.want(now_s))]


def test_it_asks_in_order_up_to_its_credit():
    window = ChunkWindow(6, 4)
    assert window.want(0.0) == (0, 1, 2, 3)
    assert window.want(0.0) == ()
    assert window.arrived(1, 0.1)
    assert window.want(0.1) == (4,)
    assert window.in_flight == {0, 2, 3, 4}


def test_silence_is_met_with_one_chunk_after_1_2_4_seconds_up_to_60():
    asked = ask_times(ChunkWindow(8, 4), 200.0)
    assert asked[0] == (0.0, (0, 1, 2, 3))
    assert all(want == (0,) for _, want in asked[1:])
    gaps = [later - earlier for (earlier, _), (later, _) in pairwise(asked)]
    assert gaps[:8] == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]


def test_an_answer_after_silence_restores_the_credit():
    window = ChunkWindow(8, 4)
    window.want(0.0)
    assert window.want(1.0) == (0,)
    assert window.arrived(0, 1.1)
    assert window.want(1.1) == (1, 2, 3, 4)


def test_a_slow_link_is_asked_twice_only_once():
    window = ChunkWindow(40, 4)
    queue = list(window.want(0.0))
    asked = len(queue)
    now_s, next_s = 0.0, 2.6
    while not window.complete:
        now_s += 0.1
        if queue and now_s >= next_s:
            window.arrived(queue.pop(0), now_s)
            next_s = now_s + 2.6
        new = window.want(now_s)
        asked += len(new)
        queue.extend(new)
    assert asked <= 40 + 5


def test_a_dead_counterpart_stops_counting_as_in_flight():
    window = ChunkWindow(8, 4)
    ask_times(window, 40.0)
    assert window.in_flight == frozenset()
    assert window.due_s is not None


def test_a_chunk_that_many_others_overtook_is_asked_again():
    window = ChunkWindow(40, 2)
    window.want(0.0)
    asked = []
    for k in range(1, 8):
        window.arrived(k, 0.1)
        asked.extend(window.want(0.1))
    assert 0 in asked


def test_a_counterpart_that_started_anew_is_asked_for_everything_missing():
    window = ChunkWindow(3, 4)
    window.want(0.0)
    window.arrived(1, 0.1)
    window.reset_flight()
    assert window.want(0.1) == (0, 2)


def test_chunks_that_nobody_asked_for_are_welcome():
    window = ChunkWindow(2, 1)
    assert window.arrived(1, 0.0)
    assert not window.arrived(1, 0.0)
    assert window.want(0.0) == (0,)
    assert window.arrived(0, 0.0)
    assert window.complete
    assert window.due_s is None


def test_what_is_there_is_not_asked_for():
    assert ChunkWindow(4, 4, have={0, 2}).want(0.0) == (1, 3)


@pytest.mark.parametrize("credit", [0, 65])
def test_the_credit_is_bounded(credit):
    with pytest.raises(ValueError, match="credit"):
        ChunkWindow(4, credit)


@given(st.data())
def test_whatever_is_lost_repeated_or_reordered_it_ends_and_stays_within_its_credit(data):
    chunks = data.draw(st.integers(1, 30), label="chunks")
    credit = data.draw(st.integers(1, 6), label="credit")
    window = ChunkWindow(chunks, credit)
    network, now_s, have = [], 0.0, set()
    for _ in range(60):
        now_s += data.draw(st.floats(0.0, 3.0))
        network.extend(window.want(now_s))
        assert len(window.in_flight) <= credit
        assert window.in_flight.isdisjoint(have)
        fate = data.draw(st.sampled_from(["deliver", "lose", "repeat"]))
        if network:
            k = network.pop(data.draw(st.integers(0, len(network) - 1)))
            if fate != "lose":
                assert window.arrived(k, now_s) is (k not in have)
                have.add(k)
            if fate == "repeat":
                network.append(k)
        assert window.missing == set(range(chunks)) - have
        assert window.arrived_count == len(have)
    for _ in range(chunks * 4):
        now_s = max(now_s, window.due_s) if window.due_s is not None else now_s
        for k in window.want(now_s):
            window.arrived(k, now_s)
    assert window.complete
