"""Topic filters: grammar, matching, and the tree that finds holders."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transport.topic_filters import FilterError, FilterTree, check_filter, matches

LEVELS = st.sampled_from(["a", "b", "", "$x"])
NAMES = st.lists(LEVELS, min_size=1, max_size=4).map("/".join).filter(bool)
FILTERS = (
    st.tuples(
        st.lists(st.sampled_from(["a", "b", "", "+", "$x"]), min_size=1, max_size=4),
        st.booleans(),
    )
    .map(lambda made: "/".join([*made[0], *(["#"] if made[1] else [])]))
    .filter(bool)
)


@pytest.mark.parametrize(
    ("topic_filter", "name"),
    [
        ("a/b", "a/b"),
        ("a/+", "a/b"),
        ("a/+", "a/"),
        ("+/+", "/a"),
        ("a/#", "a"),
        ("a/#", "a/b/c"),
        ("#", "a/b"),
        ("$x/#", "$x/a"),
        ("$x/+", "$x/a"),
    ],
)
def test_a_filter_matches_as_section_4_7_says(topic_filter: str, name: str) -> None:
    assert matches(topic_filter, name)


@pytest.mark.parametrize(
    ("topic_filter", "name"),
    [
        ("a/b", "a/b/c"),
        ("a/b/c", "a/b"),
        ("a/+", "a/b/c"),
        ("a/+", "a"),
        ("+", "/a"),
        ("a", "A"),
        ("#", "$x/a"),
        ("+/a", "$x/a"),
        ("a/b/#", "a"),
    ],
)
def test_a_filter_does_not_match_what_it_must_not(topic_filter: str, name: str) -> None:
    assert not matches(topic_filter, name)


@pytest.mark.parametrize(
    "topic_filter", ["", "a+", "a/b#", "#/a", "a/#/b", "++", "$share/g/a", "a\0", "é" * 32768]
)
def test_a_malformed_or_shared_filter_is_refused(topic_filter: str) -> None:
    with pytest.raises(FilterError, match="topic filter"):
        check_filter(topic_filter)


@pytest.mark.parametrize("topic_filter", ["#", "+", "a/+/b/#", "/", "$SYS/#"])
def test_a_valid_filter_is_taken(topic_filter: str) -> None:
    check_filter(topic_filter)


@given(
    held=st.lists(st.tuples(FILTERS, st.integers(0, 3), st.integers(0, 1)), max_size=8),
    removed=st.lists(st.integers(0, 7), max_size=4),
    name=NAMES,
)
@settings(max_examples=200)
def test_the_tree_finds_whom_trying_every_filter_finds(
    held: list[tuple[str, int, int]], removed: list[int], name: str
) -> None:
    tree: FilterTree[int] = FilterTree()
    holders: dict[tuple[str, int], int] = {}
    for topic_filter, key, qos in held:
        tree.add(topic_filter, key, qos)
        holders[topic_filter, key] = qos
    for i in removed:
        if i < len(held):
            tree.remove(held[i][0], held[i][1])
            holders.pop(held[i][:2], None)
    expected: dict[int, int] = {}
    for (topic_filter, key), qos in holders.items():
        if matches(topic_filter, name):
            expected[key] = max(qos, expected.get(key, 0))

    assert tree.match(name) == expected


@given(held=st.lists(st.tuples(FILTERS, st.integers(0, 3)), max_size=8))
def test_an_emptied_tree_keeps_nothing(held: list[tuple[str, int]]) -> None:
    tree: FilterTree[int] = FilterTree()
    for topic_filter, key in held:
        tree.add(topic_filter, key, 1)
    for topic_filter, key in held:
        tree.remove(topic_filter, key)
    tree.remove("never/held", 0)

    assert not tree._root.children
    assert not tree._root.holders
