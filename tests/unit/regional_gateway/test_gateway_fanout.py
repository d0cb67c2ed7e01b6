"""Whom to send an assignment, and whom again."""

from regional_gateway.core import fanout


def test_half_of_the_region_gets_one_message_to_all():
    assert fanout.targets(("a", "b"), {"a", "b", "c", "d"}) == ("all",)


def test_less_than_half_of_the_region_gets_one_message_each():
    assert fanout.targets(("a", "b"), {"a", "b", "c", "d", "e"}) == ("a", "b")


def test_one_device_is_addressed_by_its_name():
    assert fanout.targets(("a",), {"a"}) == ("a",)
    assert not fanout.shares_model(("a",))
    assert fanout.shares_model(("a", "b"))


def test_who_answered_or_is_gone_is_not_asked_again():
    assert fanout.unanswered(("a", "b", "c"), {"a"}, {"c"}) == ("b",)


def test_a_status_counts_when_its_order_is_larger():
    assert fanout.is_newer(None, (0, 0))
    assert fanout.is_newer((1, 9), (2, 0))
    assert not fanout.is_newer((1, 9), (1, 9))
    assert not fanout.is_newer((2, 0), (1, 9))


def test_a_newer_round_replaces_the_older_ones_of_its_task():
    rounds = {"t": {1, 2, 5}, "u": {0}}
    assert fanout.superseded(rounds, "t", 5) == (1, 2)
    assert fanout.superseded(rounds, "new", 5) == ()
    assert fanout.is_outdated(rounds, "t", 4)
    assert not fanout.is_outdated(rounds, "t", 5)
    assert not fanout.is_outdated(rounds, "new", 0)
