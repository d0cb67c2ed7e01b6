"""Which bids a round's uplink budget pays for, against the best choice that there is."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from central.core.budget import Candidate, grant, selection_scale

NEVER = 1 << 16


def bid(device, gain, cost_bits, clock=0):
    return Candidate(device, gain, cost_bits, clock)


@st.composite
def some_bids(draw, max_clock=0):
    rows = draw(
        st.lists(
            st.tuples(
                st.floats(0, 1e6) | st.integers(0, 3).map(float),
                st.integers(1, 40),
                st.integers(0, max_clock),
            ),
            max_size=9,
        )
    )
    return [bid(f"d{i}", *row) for i, row in enumerate(rows)]


def best_gain(bids, budget_bits):
    """Return the most gain that there is to be had, by dynamic programming over the bits."""
    best = [0.0] * (budget_bits + 1)
    for one in bids:
        for room in range(budget_bits, one.cost_bits - 1, -1):
            best[room] = max(best[room], best[room - one.cost_bits] + one.gain)
    return best[budget_bits]


def cost(bids, granted):
    return sum(one.cost_bits for one in bids if one.device in granted)


def gain(bids, granted):
    return math.fsum(one.gain for one in bids if one.device in granted)


@given(some_bids(max_clock=6), st.integers(0, 120), st.integers(1, 8))
def test_the_budget_is_never_exceeded(bids, budget_bits, max_clock):
    granted = grant(bids, budget_bits, max_clock)
    assert cost(bids, granted) <= budget_bits
    assert len(set(granted)) == len(granted)


@given(some_bids(), st.integers(0, 120))
def test_at_least_half_of_the_best_possible_gain_is_granted(bids, budget_bits):
    granted = grant(bids, budget_bits, NEVER)
    assert gain(bids, granted) >= best_gain(bids, budget_bits) / 2 * (1 - 1e-12)


@given(some_bids(max_clock=6), st.integers(0, 120))
def test_beside_forced_ones_half_of_the_best_of_the_rest_is_granted(bids, budget_bits):
    granted = set(grant(bids, budget_bits, 4))
    forced = [one for one in bids if one.clock >= 4]
    others = [one for one in bids if one.clock < 4]
    left_bits = budget_bits - cost(forced, granted)
    assert gain(others, granted) >= best_gain(others, left_bits) / 2 * (1 - 1e-12)


@given(some_bids(max_clock=6).flatmap(lambda b: st.tuples(st.just(b), st.permutations(b))))
def test_the_order_of_bids_does_not_matter(both):
    bids, shuffled = both
    assert grant(bids, 60, 4) == grant(shuffled, 60, 4)


@given(some_bids(), st.integers(0, 120))
def test_what_still_fits_beside_a_greedy_choice_is_not_left_out(bids, budget_bits):
    granted = grant(bids, budget_bits, NEVER)
    left_bits = budget_bits - cost(bids, granted)
    left_out = [one for one in bids if one.device not in granted]
    if len(granted) != 1:  # the single best bid is taken alone
        assert all(one.cost_bits > left_bits for one in left_out)


def test_gain_per_bit_decides_and_then_the_device_id():
    bids = [bid("c", 8, 8), bid("b", 8, 8), bid("a", 1, 8), bid("d", 9, 8)]
    assert grant(bids, 16, NEVER) == ("b", "d")


def test_the_single_best_bid_wins_over_many_cheap_ones():
    assert grant([bid("small", 2, 1), bid("large", 100, 100)], 100, NEVER) == ("large",)


def test_who_has_waited_long_enough_goes_first_the_oldest_before_the_others():
    bids = [bid("a", 1e6, 8, 0), bid("b", 0, 8, 3), bid("c", 0, 8, 5), bid("d", 0, 8, 3)]
    assert grant(bids, 16, 3) == ("b", "c")


def test_a_forced_bid_that_no_longer_fits_makes_way_for_the_next():
    bids = [bid("old", 1, 90, 9), bid("older", 1, 20, 10), bid("new", 5, 60, 0)]
    assert grant(bids, 100, 9) == ("new", "older")


def test_nothing_is_granted_when_nothing_fits():
    assert grant([bid("a", 1, 9, 99), bid("b", 1, 9)], 8, 3) == ()
    assert grant([], 8, 3) == ()


@given(st.integers(3, 9), st.integers(1, 3), st.integers(1, 5))
def test_every_device_is_granted_in_bounded_time_whatever_the_gains(devices, fitting, max_clock):
    clocks = dict.fromkeys((f"d{i}" for i in range(devices)), 0)
    bound = max_clock + math.ceil(devices / fitting)
    for _ in range(4 * bound):
        bids = [bid(name, 10.0**i, 8, clocks[name]) for i, name in enumerate(clocks)]
        granted = grant(bids, 8 * fitting, max_clock)
        clocks = {name: 0 if name in granted else clock + 1 for name, clock in clocks.items()}
        assert max(clocks.values()) <= bound


@pytest.mark.parametrize(
    ("selected", "expected", "exponent", "scale"),
    [
        (3, 8, 0.0, 1.0),
        (8, 8, 1.0, 1.0),
        (4, 8, 1.0, 0.5),
        (4, 16, 0.5, 0.5),
        (16, 8, 1.0, 2.0),
        (1, 100, 1.0, 0.25),
        (100, 1, 1.0, 4.0),
    ],
)
def test_the_step_is_scaled_by_the_number_selected_within_a_quarter_and_four(
    selected, expected, exponent, scale
):
    assert selection_scale(selected, expected, exponent) == pytest.approx(scale)
