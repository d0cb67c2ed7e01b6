"""A round with an uplink budget as a state machine: bids, then grants, then their updates."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from central.core.rounds import (
    AbandonRound,
    AnswerBids,
    BidsCollected,
    BidsGranted,
    ClientFailed,
    ClientLost,
    ClientReturned,
    Grant,
    GrantBids,
    ModelAggregated,
    Phase,
    ReplacementsSought,
    RoundState,
    SeekReplacements,
    StartAggregation,
    TellExtension,
    TimePassed,
    UpdateAccepted,
    transition,
)

EARLY_S, SHARE_OVER_S, DEADLINE_S = 50.0, 70.0, 100.0


def a_round(**changes):
    state = RoundState(
        number=1,
        min_clients=2,
        cohort=frozenset("abcd"),
        deadline_s=DEADLINE_S,
        deadline_length_s=60.0,
        budget_bits=1000,
    )
    return replace(state, **changes)


def granted(devices="ab", **changes):
    return a_round(grants=grants(devices), bids=4, **changes)


def grants(devices):
    return frozenset(Grant(device, f"x-{device}", 10) for device in devices)


def after(state, *events):
    told = []
    for event in events:
        state, instructions = transition(state, event)
        told.extend(instructions)
    return state, told


def bids(devices, now_s=EARLY_S):
    return BidsCollected(frozenset(devices), now_s)


def test_bids_are_granted_once_every_client_has_bid():
    assert after(a_round(), bids("abc")) == (a_round(), [])
    assert after(a_round(), bids("abcd"))[1] == [GrantBids(frozenset("abcd"))]


def test_who_has_failed_or_is_away_is_not_awaited_and_gets_nothing():
    events = (ClientFailed("a"), ClientLost("b"))
    assert after(a_round(), *events, bids("bcd"))[1] == [GrantBids(frozenset("cd"))]


def test_who_comes_back_is_awaited_again():
    events = (ClientLost("b"), ClientReturned("b"), bids("acd"))
    assert after(a_round(), *events)[1] == []


def test_after_its_share_of_the_deadline_enough_bids_will_do():
    assert after(a_round(), bids("ab", SHARE_OVER_S - 0.1))[1] == []
    assert after(a_round(), bids("ab", SHARE_OVER_S))[1] == [GrantBids(frozenset("ab"))]
    assert after(a_round(), bids("a", SHARE_OVER_S))[1] == []
    whole = a_round(bid_share=1.0)
    assert after(whole, bids("ab", DEADLINE_S - 0.1))[1] == []


def test_grants_stand_once_for_all():
    state, told = after(a_round(), BidsGranted(grants("ab"), 4))
    assert (state.grants, state.bids, told) == (grants("ab"), 4, [AnswerBids()])
    assert after(state, BidsGranted(grants("cd"), 4), bids("abcd")) == (state, [])
    assert state.may_take("a", "x-a", 10)
    assert not state.may_take("a", "x-another", 10)
    assert not state.may_take("c", "x-c", 10)


def test_nothing_may_be_taken_before_the_grants():
    assert not a_round().may_take("a", "x-a", 10)
    assert after(a_round(), UpdateAccepted("a"), UpdateAccepted("b")) == (a_round(), [])
    assert a_round(budget_bits=None).may_take("a", "x-a", 10)


def test_when_nothing_fits_the_round_is_abandoned_in_words_and_all_are_answered():
    state, told = after(a_round(), BidsGranted(frozenset(), 4))
    assert state.phase is Phase.ABANDONED
    reason = "none of 4 updates is within uplink_budget_bits: 1000"
    assert told == [AnswerBids(), AbandonRound(reason)]


def test_a_round_closes_when_all_granted_updates_are_there():
    state, told = after(granted("abc"), UpdateAccepted("c"), UpdateAccepted("a"))
    assert (state.phase, told) == (Phase.REPORTING, [])  # min_clients is of bids
    state, told = after(state, UpdateAccepted("b"))
    assert told == [StartAggregation(("a", "b", "c"))]
    state, _ = after(granted("a"), UpdateAccepted("a"))
    assert state.phase is Phase.AGGREGATING  # below min_clients


def test_who_was_not_granted_does_not_count():
    assert after(granted("ab"), UpdateAccepted("c")) == (granted("ab"), [])


def test_a_granted_client_that_fails_is_neither_awaited_nor_replaced():
    _, told = after(granted(), UpdateAccepted("a"), ClientFailed("b"))
    assert told == [StartAggregation(("a",))]
    _, told = after(granted(), ClientFailed("b"), ClientFailed("c"), UpdateAccepted("a"))
    assert told == [StartAggregation(("a",))]
    _, told = after(granted(), ClientFailed("a"), ClientFailed("b"))
    assert told == [AbandonRound("all 2 clients that were granted have failed")]


def test_a_granted_client_that_goes_away_is_awaited_until_the_deadline():
    state, told = after(granted(), UpdateAccepted("a"), ClientLost("b"))
    assert told == []
    _, told = after(state, TimePassed(DEADLINE_S))
    assert told == [StartAggregation(("a",))]
    _, told = after(state, ClientReturned("b"), UpdateAccepted("b"))
    assert told == [StartAggregation(("a", "b"))]


def test_at_the_deadline_a_round_without_an_update_ends_as_any_other():
    _, told = after(granted(), TimePassed(DEADLINE_S))
    assert told == [TellExtension(DEADLINE_S + 60.0)]
    _, told = after(granted(on_shortfall="abandon"), TimePassed(DEADLINE_S))
    assert told == [AbandonRound("0 of 2 clients reported by the deadline")]


def test_too_few_bids_by_the_deadline_are_told_in_words():
    state, told = after(a_round(), bids("a", DEADLINE_S), TimePassed(DEADLINE_S))
    assert told == [TellExtension(DEADLINE_S + 60.0)]
    assert state.reason.startswith("fewer than 2 clients have bid by the deadline; extended")
    assert state.bids_due_s == DEADLINE_S + 30.0


def test_while_bids_are_awaited_missing_clients_are_replaced():
    events = (ClientFailed("a"), ClientFailed("b"), ClientFailed("c"))
    state, told = after(a_round(), *events)
    assert told == [SeekReplacements(1)]
    state, _ = after(state, ReplacementsSought(frozenset("e")))
    assert after(state, bids("de"))[1] == [GrantBids(frozenset("de"))]


def test_without_a_budget_nobody_asks_for_bids():
    plain = a_round(budget_bits=None)
    events = (bids("abcd", DEADLINE_S), BidsGranted(grants("a"), 4))
    assert after(plain, *events) == (plain, [])


DEVICES = st.sampled_from("abcdef")
EVENTS = st.one_of(
    st.builds(UpdateAccepted, DEVICES),
    st.builds(ClientFailed, DEVICES),
    st.builds(ClientLost, DEVICES),
    st.builds(ClientReturned, DEVICES),
    st.builds(ReplacementsSought, st.frozensets(DEVICES, max_size=2)),
    st.builds(bids, st.frozensets(DEVICES), st.floats(0, 400)),
    st.builds(BidsGranted, st.frozensets(DEVICES).map(grants), st.integers(0, 6)),
    st.builds(TimePassed, st.floats(0, 400)),
    st.just(ModelAggregated()),
)


@given(st.lists(EVENTS, max_size=30), st.sampled_from(["extend", "abandon"]))
def test_whatever_comes_grants_are_given_once_and_only_they_are_aggregated(events, on_shortfall):
    state, closings, answers, first = a_round(on_shortfall=on_shortfall), 0, 0, None
    for event in events:
        before = state
        state, told = transition(state, event)
        first = first if first is not None else state.grants
        assert state.grants == first
        answers += told.count(AnswerBids())
        for one in told:
            if isinstance(one, GrantBids):
                assert len(one.candidates) >= before.min_clients
                assert one.candidates <= before.hopeful
            if isinstance(one, StartAggregation):
                closings += 1
                assert set(one.contributors) <= state.asked
                assert one.contributors
            if isinstance(one, SeekReplacements):
                assert state.grants is None
        assert state.reported <= state.asked
    assert closings <= 1
    assert answers <= 1
    assert closings <= answers
