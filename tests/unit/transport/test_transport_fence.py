"""A database has one owner: who claimed it before writes, publishes and acknowledges no more."""

import queue
import sqlite3

import pytest
from test_transport_loop import SCHEMA, FakeHandler, FakeSession

from transport.database import open_database, transaction
from transport.events import MessageArrived
from transport.fence import Fence, FencedError
from transport.loop import ServiceLoop


def opened(path):
    return open_database(path / "state.db", SCHEMA, 1)


def notes(connection):
    return [text for (text,) in connection.execute("SELECT text FROM note")]


class Started:
    """One start of a program on a database that others may use as well."""

    def __init__(self, path):
        self.connection = opened(path)
        self.fence = Fence.claim(self.connection)
        self.diary = []
        self.events = queue.SimpleQueue()
        self.handler = FakeHandler(self.connection, self.diary)
        session = FakeSession(self.diary)
        self.loop = ServiceLoop(
            self.connection, self.events, {"main": session}, self.handler, fence=self.fence
        )

    def arrive(self, text):
        ack = lambda: self.diary.append(("acked", text))  # noqa: E731
        self.events.put(MessageArrived("main", "t", text.encode(), retained=False, ack=ack))


@pytest.fixture
def start(tmp_path):
    made = []

    def begin():
        made.append(Started(tmp_path))
        return made[-1]

    yield begin
    for one in made:
        one.connection.close()


def test_the_owner_works_as_ever(start):
    only = start()
    only.arrive("a")
    only.loop.turn()
    assert notes(only.connection) == ["a"]
    assert ("acked", "a") in only.diary


def test_a_newer_claim_ends_the_older_one_before_anything_happens(start):
    first = start()
    first.arrive("a")
    second = start()
    with pytest.raises(FencedError, match="E_FENCED"):
        first.loop.turn()
    assert first.diary == []
    assert notes(second.connection) == []
    second.arrive("b")
    second.loop.turn()
    assert notes(second.connection) == ["b"]


def test_a_claim_in_the_middle_of_a_turn_lets_nothing_of_that_turn_be_committed(start):
    first = start()
    handle = first.handler.handle

    def claimed_meanwhile(event, now_s):
        start()
        return handle(event, now_s)

    first.handler.handle = claimed_meanwhile
    first.arrive("a")
    first.loop.turn()  # SQLite refuses the write as that of an outdated view: it is tried again
    assert first.diary == []
    assert first.loop.counts["storage_failures"] == 1
    first.handler.handle = handle
    with pytest.raises(FencedError):
        first.loop.turn()
    assert first.diary == []
    assert notes(first.connection) == []


def test_a_turn_that_has_begun_to_write_is_committed_before_the_next_claim(start, tmp_path):
    first = start()
    other = sqlite3.connect(tmp_path / "state.db", timeout=0.05, isolation_level=None)
    with transaction(first.connection):
        first.fence.check()
        first.connection.execute("INSERT INTO note VALUES ('a')")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            Fence.claim(other)
    assert notes(first.connection) == ["a"]
    Fence.claim(other)
    with pytest.raises(FencedError):
        first.fence.check()
    other.close()


def test_a_turn_in_which_nothing_is_written_is_fenced_too(start):
    first = start()
    first.handler.handle = lambda event, now_s: []
    start()
    first.arrive("a")
    with pytest.raises(FencedError):
        first.loop.turn()
    assert first.diary == []


def test_an_end_in_order_is_noted_for_the_next_start(start):
    first = start()
    assert first.fence.was_clean
    first.loop.stop()
    first.loop.run()
    second = start()
    assert second.fence.was_clean
    assert not start().fence.was_clean


def test_a_fenced_program_does_not_claim_to_have_ended_in_order(start):
    first = start()
    start()
    first.loop.stop()
    with pytest.raises(FencedError):
        first.loop.run()
    assert not start().fence.was_clean


def test_a_full_disk_does_not_keep_a_program_from_ending(start):
    only = start()
    only.connection.execute("PRAGMA query_only = ON")
    only.loop.stop()
    only.loop.run()
    only.connection.execute("PRAGMA query_only = OFF")
    assert not start().fence.was_clean


def test_an_owner_row_that_is_gone_fences_as_well(start):
    only = start()
    only.connection.execute("DELETE FROM owner")
    only.arrive("a")
    with pytest.raises(FencedError):
        only.loop.turn()
