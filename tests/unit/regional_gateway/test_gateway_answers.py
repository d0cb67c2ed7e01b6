"""The answer to a question for work."""

from hypothesis import given
from hypothesis import strategies as st

from regional_gateway.core.answers import (
    MAX_SETTLED,
    Give,
    Nothing,
    Open,
    answer,
    dropped,
    settled_for,
    unknown,
)
from schemas.messages import JobRef, Settlement

A0 = Open(("t", 0), frozenset("ab"))
B0 = Open(("u", 0), frozenset("a"))


def test_the_oldest_assignment_that_is_neither_held_nor_ended_is_given():
    assert answer("a", set(), [A0, B0], set()) == Give(("t", 0))
    assert answer("a", {("t", 0)}, [A0, B0], set()) == Give(("u", 0))
    assert answer("a", set(), [A0, B0], {("t", 0)}) == Give(("u", 0))


def test_a_device_outside_the_cohort_gets_nothing():
    assert answer("c", set(), [A0, B0], set()) == Nothing(())


def test_what_is_held_and_still_wanted_is_kept_and_the_rest_has_ended():
    found = answer("a", {("t", 0), ("u", 0), ("old", 3)}, [A0, B0], set())
    assert found == Nothing((JobRef(task="t", round=0), JobRef(task="u", round=0)))


def test_a_device_learns_only_its_own_settlements():
    settled = Settlement(task="t", round=0, counted=("a", "b"), discarded=("c",), reason="why")
    expected = Settlement(task="t", round=0, discarded=("c",), reason="why")
    assert settled_for("c", [settled]) == (expected,)
    assert settled_for("d", [settled]) == ()


def test_only_the_newest_settlements_are_told():
    many = [Settlement(task="t", round=i, counted=("a",)) for i in range(MAX_SETTLED + 2)]
    assert [s.round for s in settled_for("a", many)] == list(range(2, MAX_SETTLED + 2))


def test_what_a_device_asks_for_is_told_however_old_it_is():
    many = [Settlement(task="t", round=i, counted=("a",)) for i in range(MAX_SETTLED + 5)]
    told = settled_for("a", many, {("t", 1), ("t", 99)})
    assert len(told) == MAX_SETTLED
    assert told[-1].round == 1
    assert unknown([("t", 1), ("t", 99)], many) == (("t", 99),)


def test_central_ends_what_it_was_asked_about_and_does_not_keep():
    held = [("t", 1), ("u", 0), ("new", 0)]
    assert dropped(held, {("t", 1), ("u", 0)}, {("u", 0)}) == (("t", 1),)


KEYS = st.tuples(st.sampled_from("tu"), st.integers(0, 2))
OPENS = st.builds(Open, KEYS, st.frozensets(st.sampled_from("abc")))


@given(st.lists(OPENS, max_size=5, unique_by=lambda a: a.key), st.sets(KEYS), st.sets(KEYS))
def test_what_is_given_is_new_and_what_is_kept_was_held(opens, holding, ended):
    found = answer("a", holding, opens, ended)
    own = {a.key for a in opens if "a" in a.cohort}
    if isinstance(found, Give):
        assert found.key in own - holding - ended
    else:
        assert {(k.task, k.round) for k in found.keep} == own & holding
        assert own <= holding | ended
