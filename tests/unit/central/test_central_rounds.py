from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from central.core.rounds import (
    MAX_AGGREGATIONS,
    AbandonRound,
    AggregationFailed,
    AggregationInterrupted,
    ClientFailed,
    ClientLost,
    ClientReturned,
    CommitRound,
    ModelAggregated,
    Phase,
    ReplacementsSought,
    RoundState,
    SeekReplacements,
    StartAggregation,
    TaskEnded,
    TellExtension,
    TimePassed,
    UpdateAccepted,
    transition,
)


def a_round(**changes):
    state = RoundState(
        number=1,
        min_clients=2,
        cohort=frozenset({"a", "b", "c"}),
        deadline_s=100.0,
        deadline_length_s=60.0,
    )
    return replace(state, **changes)


def after(state, *events):
    told = []
    for event in events:
        state, instructions = transition(state, event)
        told.extend(instructions)
    return state, told


def test_a_round_closes_when_min_clients_have_reported_in_device_order():
    state, told = after(a_round(), UpdateAccepted("c"), UpdateAccepted("a"))
    assert state.phase is Phase.AGGREGATING
    assert told == [StartAggregation(("a", "c"))]


def test_repeated_update_of_one_device_counts_once():
    state, told = after(a_round(), UpdateAccepted("a"), UpdateAccepted("a"))
    assert state.phase is Phase.REPORTING
    assert told == []


def test_an_update_after_closing_changes_nothing():
    closed, _ = after(a_round(), UpdateAccepted("a"), UpdateAccepted("b"))
    assert transition(closed, UpdateAccepted("c")) == (closed, ())


def test_an_update_of_a_stranger_changes_nothing():
    assert after(a_round(), UpdateAccepted("z"), UpdateAccepted("z")) == (a_round(), [])


def test_a_model_commits_only_a_closed_round():
    assert after(a_round(), ModelAggregated()) == (a_round(), [])
    state, told = after(
        a_round(), UpdateAccepted("a"), UpdateAccepted("b"), ModelAggregated(), ModelAggregated()
    )
    assert state.phase is Phase.COMMITTED
    assert told[-1] == CommitRound()
    assert told.count(CommitRound()) == 1


def test_a_strategy_that_fails_abandons_the_round():
    state, told = after(
        a_round(), UpdateAccepted("a"), UpdateAccepted("b"), AggregationFailed("bad")
    )
    assert state.phase is Phase.ABANDONED
    assert told[-1] == AbandonRound("bad")


def test_missing_clients_are_replaced_as_soon_as_too_few_can_report():
    state, told = after(a_round(), ClientFailed("a"))
    assert told == []
    state, told = after(state, ClientLost("b"))
    assert told == [SeekReplacements(1)]
    state, told = after(state, ReplacementsSought(frozenset({"d"})))
    assert told == []
    assert state.cohort == {"a", "b", "c", "d"}
    assert state.shortfall == 0


def test_with_nobody_to_replace_them_the_task_says_whether_the_round_is_abandoned():
    events = (ClientFailed("a"), ClientFailed("b"), ReplacementsSought(frozenset()))
    state, told = after(a_round(on_shortfall="abandon"), *events)
    assert state.phase is Phase.ABANDONED
    assert told[-1] == AbandonRound("1 of 3 clients can still report, 2 are needed")
    state, told = after(a_round(on_shortfall="extend"), *events)
    assert state.phase is Phase.REPORTING
    assert state.reason == "1 of 3 clients can still report, 2 are needed"


def test_a_lost_client_that_returns_can_still_report():
    state, _ = after(a_round(), ClientLost("a"), ClientLost("b"), ClientReturned("a"))
    assert state.hopeful == {"a", "c"}
    state, told = after(state, UpdateAccepted("a"), UpdateAccepted("c"))
    assert told == [StartAggregation(("a", "c"))]


def test_a_client_that_has_reported_cannot_be_lost():
    state, _ = after(a_round(), UpdateAccepted("a"), ClientLost("a"), ClientFailed("a"))
    assert state.lost == state.failed == frozenset()


def test_at_the_deadline_a_round_extends_twice_and_is_then_abandoned():
    state, told = after(a_round(), TimePassed(99.9))
    assert told == []
    for now_s in (100.0, 160.0):
        state, told = after(state, TimePassed(now_s))
        assert told == [TellExtension(now_s + 60.0)]
    assert "extended, 2 of 2 times" in state.reason
    state, told = after(state, TimePassed(219.9))
    assert told == []
    state, told = after(state, TimePassed(220.0))
    assert state.phase is Phase.ABANDONED
    assert told == [AbandonRound("0 of 2 clients reported by the deadline, after 2 extensions")]


def test_at_the_deadline_a_round_that_may_not_extend_is_abandoned():
    state, told = after(a_round(on_shortfall="abandon"), UpdateAccepted("a"), TimePassed(100.0))
    assert state.phase is Phase.ABANDONED
    assert told == [AbandonRound("1 of 2 clients reported by the deadline")]


def test_an_aggregating_round_has_no_deadline():
    closed, _ = after(a_round(), UpdateAccepted("a"), UpdateAccepted("b"))
    assert transition(closed, TimePassed(1e9)) == (closed, ())


def test_a_cancelled_task_ends_its_round_in_any_phase():
    closed, _ = after(a_round(), UpdateAccepted("a"), UpdateAccepted("b"))
    for state in (a_round(), closed):
        ended, told = after(state, TaskEnded("cancelled"))
        assert ended.phase is Phase.ABANDONED
        assert told == [AbandonRound("cancelled")]
        assert transition(ended, TaskEnded("again")) == (ended, ())


devices = st.sampled_from(["a", "b", "c", "d", "e"])
events = st.one_of(
    st.builds(UpdateAccepted, devices),
    st.builds(ClientFailed, devices),
    st.builds(ClientLost, devices),
    st.builds(ClientReturned, devices),
    st.builds(ReplacementsSought, st.frozensets(devices, max_size=2)),
    st.builds(TimePassed, st.floats(0, 500)),
    st.just(ModelAggregated()),
    st.just(AggregationFailed("x")),
    st.builds(AggregationInterrupted, st.booleans()),
    st.just(TaskEnded("y")),
)


@given(st.lists(events, max_size=40), st.integers(1, 4), st.sampled_from(["extend", "abandon"]))
def test_any_sequence_of_events_closes_a_round_at_most_once_and_ends_it_at_most_once(
    sequence, min_clients, on_shortfall
):
    state = a_round(min_clients=min_clients, on_shortfall=on_shortfall)
    closings, ends = [], []
    for event in sequence:
        before = state
        state, told = transition(state, event)
        closings += [i for i in told if isinstance(i, StartAggregation)]
        ends += [i for i in told if isinstance(i, CommitRound | AbandonRound)]
        assert state.reported >= before.reported
        assert state.reported <= state.cohort
    assert len(set(closings)) <= 1
    assert len(closings) <= MAX_AGGREGATIONS or any(e.was_clean for e in _interruptions(sequence))
    assert len(ends) <= 1
    for closing in closings:
        assert len(closing.contributors) == min_clients
        assert list(closing.contributors) == sorted(set(closing.contributors))
    assert state.has_ended == bool(ends)


def _interruptions(sequence):
    return [event for event in sequence if isinstance(event, AggregationInterrupted)]


def test_an_aggregation_that_was_interrupted_begins_again_with_the_same_list():
    closed, _ = after(a_round(), UpdateAccepted("c"), UpdateAccepted("a"))
    again, told = after(closed, AggregationInterrupted(was_clean=False))
    assert told == [StartAggregation(("a", "c"))]
    assert again.aggregations == 2


def test_one_start_too_many_of_an_aggregation_abandons_the_round():
    closed, _ = after(a_round(), UpdateAccepted("c"), UpdateAccepted("a"))
    crash = AggregationInterrupted(was_clean=False)
    state, told = after(closed, *[crash] * MAX_AGGREGATIONS)
    assert state.phase is Phase.ABANDONED
    assert [type(one) for one in told] == [StartAggregation] * (MAX_AGGREGATIONS - 1) + [
        AbandonRound
    ]


def test_ends_in_order_are_not_held_against_an_aggregation():
    closed, _ = after(a_round(), UpdateAccepted("c"), UpdateAccepted("a"))
    state, told = after(closed, *[AggregationInterrupted(was_clean=True)] * 10)
    assert state == closed
    assert told == [StartAggregation(("a", "c"))] * 10


def test_a_restart_while_updates_are_awaited_changes_nothing():
    assert after(a_round(), AggregationInterrupted(was_clean=False)) == (a_round(), [])


def test_a_deadline_further_away_than_it_ever_was_is_counted_anew():
    """The clock was set back by years between two starts of central."""
    state, told = after(a_round(deadline_s=1e9), TimePassed(100.0))
    assert (state.deadline_s, told) == (160.0, [])
    assert after(state, TimePassed(159.9)) == (state, [])
    assert after(state, TimePassed(160.0))[0].extensions == 1
