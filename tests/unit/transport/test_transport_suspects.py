"""A message that ends the process itself is parked at the start after the third end."""

import pytest
from test_transport_fence import Started, notes

from transport.parking import Parking
from transport.suspects import CAREFUL_S


class ProcessEnded(BaseException):
    """Stands for SIGKILL: nothing of the program runs after it."""


class Life(Started):
    """One life of a program whose handling of ``lethal`` ends it."""

    def __init__(self, path, now_s=1000.0):
        super().__init__(path)
        self.now_s = now_s
        self.loop._clock = lambda: self.now_s
        handle = self.handler.handle

        def guarded(event, now_s):
            if event.payload == b"lethal":
                raise ProcessEnded
            return handle(event, now_s)

        self.handler.handle = guarded

    def live(self, *texts, turns=None):
        """Handle messages; return whether the program outlived them."""
        for text in texts:
            self.arrive(text)
        try:
            for _ in range(turns or len(texts)):
                self.loop.turn()
        except ProcessEnded:
            return False
        finally:
            self.connection.close()
        return True

    def acked(self):
        return [text for kind, text in self.diary if kind == "acked"]


def test_a_lethal_message_is_parked_after_three_ends_and_the_others_are_handled(tmp_path):
    for _ in range(3):
        life = Life(tmp_path)
        assert not life.live("a", "lethal", "b")
        assert "lethal" not in life.acked()
    last = Life(tmp_path)
    parking = Parking(last.connection)
    for text in ("a", "lethal", "b"):
        last.arrive(text)
    for _ in range(3):
        last.loop.turn()
    assert last.acked() == ["a", "lethal", "b"]
    (row,) = parking.newest(5)
    assert row.error == "LethalMessageError: the program ended 3 times with this message in hand"
    assert "b" in notes(last.connection)
    assert last.connection.execute("SELECT count(*) FROM suspects").fetchone() == (0,)
    last.connection.close()


def test_a_life_after_an_end_in_order_costs_no_further_commit(tmp_path):
    life = Life(tmp_path)
    statements = []
    life.connection.set_trace_callback(statements.append)
    assert life.live("a", "b", turns=1)
    assert sum(statement == "COMMIT" for statement in statements) == 1
    assert life.acked() == ["a", "b"]


def test_after_a_short_life_messages_are_noted_one_by_one_for_a_while(tmp_path):
    assert not Life(tmp_path).live("lethal")
    life = Life(tmp_path)
    statements = []
    life.connection.set_trace_callback(statements.append)
    for text in ("a", "b"):
        life.arrive(text)
    life.loop.turn()
    assert life.acked() == ["a"]
    life.loop.turn()
    assert life.acked() == ["a", "b"]
    assert sum(statement == "COMMIT" for statement in statements) == 4
    statements.clear()
    life.now_s += CAREFUL_S + 1.0
    for text in ("c", "d"):
        life.arrive(text)
    life.loop.turn()
    assert life.acked() == ["a", "b", "c", "d"]
    assert sum(statement == "COMMIT" for statement in statements) == 1
    life.connection.close()


def test_a_long_life_is_not_suspected_whatever_ended_it(tmp_path):
    life = Life(tmp_path)
    life.arrive("a")
    life.loop.turn()
    life.now_s += 61.0
    life.arrive("b")
    life.loop.turn()
    life.connection.close()
    after = Life(tmp_path)
    assert not after.fence.was_clean
    assert not after.fence.was_short
    after.connection.close()


def test_a_message_that_was_in_hand_by_chance_is_handled_all_the_same(tmp_path):
    """Two kills from outside with the same message in hand are not yet three."""
    for _ in range(2):
        assert not Life(tmp_path).live("lethal")
    life = Life(tmp_path)
    life.handler.handle = lambda event, now_s: []
    life.arrive("lethal")
    life.loop.turn()
    assert life.acked() == ["lethal"]
    assert Parking(life.connection).count() == 0
    life.connection.close()


@pytest.mark.parametrize("kept", [b"a" * 10, b""])
def test_messages_keep_their_order_while_they_are_handled_one_by_one(tmp_path, kept):
    assert not Life(tmp_path).live("lethal")
    life = Life(tmp_path)
    texts = [f"{kept.decode()}{number}" for number in range(20)]
    for text in texts[:10]:
        life.arrive(text)
    life.loop.turn()
    for text in texts[10:]:
        life.arrive(text)
    for _ in range(19):
        life.loop.turn()
    assert life.acked() == texts
    life.connection.close()
