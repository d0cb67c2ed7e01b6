"""The service loop: one commit for all that arrived, and nothing lost when something fails."""

import queue
import sqlite3
import threading
import time

import pytest
import structlog

from schemas.errors import MessageError
from schemas.topics import Kind, Topic
from transport.database import open_database
from transport.events import MessageArrived, Outgoing
from transport.loop import ServiceLoop, SessionDeadError, steady_clock
from transport.parking import Parking

SCHEMA = "CREATE TABLE note (text TEXT NOT NULL)"
TOPIC = Topic(Kind.CENTRAL_STATE)


class FakeSession:
    name = "main"
    is_connected = True
    is_alive = True

    def __init__(self, diary):
        self.diary = diary
        self.refuses = False

    def publish(self, message):
        if message.payload == b"too large":
            reason = "payload: too large"
            raise ValueError(reason)
        self.diary.append(("published", message.payload))
        return not self.refuses


class FakeHandler:
    """Writes each payload down and echoes it; some payloads make trouble."""

    def __init__(self, connection, diary):
        self.connection = connection
        self.diary = diary
        self.trouble = {}
        self.due_s = None
        self.ticks = []
        self.tick_error = None
        self.given_up = []
        self.give_up_error = None

    def handle(self, event, now_s):
        text = event.payload.decode() if isinstance(event, MessageArrived) else str(event)
        self.connection.execute("INSERT INTO note VALUES (?)", (text,))
        yield Outgoing(TOPIC, text.encode())
        error = self.trouble.get(text)
        if error is not None:
            raise error

    def tick(self, now_s):
        self.ticks.append(now_s)
        if self.tick_error:
            self.connection.execute("INSERT INTO note VALUES ('tick')")
            raise self.tick_error
        return []

    def next_due_s(self, now_s):
        return self.due_s

    def give_up(self, event, why, now_s):
        self.given_up.append((event.payload.decode(), why))
        self.connection.execute("INSERT INTO note VALUES ('given up')")
        yield Outgoing(TOPIC, b"given up")
        if self.give_up_error:
            raise self.give_up_error

    def after_commit(self):
        self.diary.append(("after_commit", not self.connection.in_transaction))


class Rig:
    def __init__(self, tmp_path):
        self.connection = open_database(tmp_path / "state.db", SCHEMA, 1)
        self.diary = []
        self.events = queue.SimpleQueue()
        self.session = FakeSession(self.diary)
        self.handler = FakeHandler(self.connection, self.diary)
        self.now_s = 1000.0
        self.pauses = []
        self.loop = ServiceLoop(
            self.connection,
            self.events,
            {"main": self.session},
            self.handler,
            lambda: self.now_s,
            pause=self.pauses.append,
        )

    def arrive(self, *texts):
        for text in texts:
            self.events.put(
                MessageArrived(
                    "main",
                    "fl/v1/x",
                    text.encode(),
                    retained=False,
                    ack=lambda t=text: self.acked(t),
                )
            )

    def acked(self, text):
        self.diary.append(("acked", text))

    def of(self, what):
        return [value for kind, value in self.diary if kind == what]

    def notes(self):
        return [
            text for (text,) in self.connection.execute("SELECT text FROM note ORDER BY rowid")
        ]


@pytest.fixture
def rig(tmp_path):
    made = Rig(tmp_path)
    yield made
    made.connection.close()


@pytest.fixture
def logs():
    """Every line of the loop."""
    with structlog.testing.capture_logs() as captured:
        yield captured


def test_all_that_arrived_is_committed_once_then_published_then_acknowledged(rig):
    statements = []
    rig.connection.set_trace_callback(statements.append)
    rig.arrive("a", "b", "c")
    rig.loop.turn()
    assert rig.notes() == ["a", "b", "c"]
    assert sum(statement == "COMMIT" for statement in statements) == 1
    assert rig.diary == [
        *(("published", text) for text in (b"a", b"b", b"c")),
        *(("acked", text) for text in ("a", "b", "c")),
        ("after_commit", True),
    ]
    assert rig.loop.counts["handled"] == 3


def test_events_of_workers_are_handled_too(rig):
    rig.events.put("trained")
    rig.loop.turn()
    assert rig.notes() == ["trained"]
    assert rig.of("acked") == []


def test_a_broken_message_is_undone_acknowledged_and_spoils_no_other(rig, logs):
    rig.handler.trouble["bad"] = MessageError("rounds: -1")
    rig.arrive("a", "bad", "b")
    rig.loop.turn()
    assert rig.notes() == ["a", "b"]
    assert rig.of("published") == [b"a", b"b"]
    assert rig.of("acked") == ["a", "bad", "b"]
    assert rig.loop.counts["refused:E_SCHEMA"] == 1
    assert [line["event"] for line in logs] == ["message_refused"]


def test_a_flood_of_broken_messages_makes_one_line(rig, logs):
    rig.handler.trouble["bad"] = MessageError("rounds: -1")
    rig.arrive(*["bad"] * 50)
    rig.loop.turn()
    assert len(logs) == 1
    assert rig.loop.counts["refused"] == 50


def test_a_poisonous_message_is_tried_three_times_then_parked(rig, logs):
    rig.handler.trouble["poison"] = KeyError("bug")
    rig.arrive("a", "poison", "b")
    rig.loop.turn()
    assert rig.notes() == ["a", "b"]
    assert rig.of("acked") == ["a", "b"]
    rig.now_s += 0.5
    rig.loop.turn()
    assert rig.loop.counts["failed"] == 1
    for _ in range(2):
        rig.now_s += 1.0
        rig.loop.turn()
    assert rig.of("acked") == ["a", "b", "poison"]
    assert (rig.loop.counts["failed"], rig.loop.counts["parked"]) == (3, 1)
    assert rig.notes() == ["a", "b", "given up"]
    assert rig.of("published") == [b"a", b"b", b"given up"]
    assert rig.handler.given_up == [("poison", "KeyError: 'bug'")]
    (row,) = Parking(rig.connection).newest(10)
    assert (row.topic, row.error, row.tries) == ("fl/v1/x", "KeyError: 'bug'", 3)
    assert Parking(rig.connection).payload(row.number) == b"poison"
    failed = [line for line in logs if line["event"] == "event_failed"]
    assert len(failed) == 1
    assert failed[0]["exc_info"] is not None


def poisoned(rig, turns=3):
    rig.handler.trouble["poison"] = KeyError("bug")
    rig.arrive("poison")
    for _ in range(turns):
        rig.loop.turn()
        rig.now_s += 1.0


def test_a_message_is_acknowledged_only_after_it_is_parked_durably(rig, logs):
    poisoned(rig, turns=2)
    assert rig.diary == [("after_commit", True)] * 2
    (pages,) = rig.connection.execute("PRAGMA page_count").fetchone()
    rig.connection.execute(f"PRAGMA max_page_count = {pages}")
    rig.connection.execute("PRAGMA max_page_count = 1")
    rig.handler.handle = lambda event, now_s: rig.connection.execute(
        "INSERT INTO note VALUES (?)", ("x" * 100_000,)
    )
    rig.loop.turn()
    assert rig.of("acked") == []
    assert Parking(rig.connection).count() == 0
    rig.connection.execute(f"PRAGMA max_page_count = {pages + 1000}")
    rig.handler.handle = FakeHandler.handle.__get__(rig.handler)
    rig.loop.turn()
    assert rig.of("acked") == ["poison"]
    assert Parking(rig.connection).count() == 1


def test_giving_up_that_fails_is_undone_and_the_message_is_parked_all_the_same(rig, logs):
    rig.handler.give_up_error = ValueError("another bug")
    poisoned(rig)
    assert rig.of("acked") == ["poison"]
    assert rig.of("published") == []
    assert rig.notes() == []
    assert Parking(rig.connection).count() == 1
    assert "give_up_failed" in [line["event"] for line in logs]


def test_a_result_of_a_worker_that_cannot_be_handled_is_parked_too(rig, logs):
    rig.handler.trouble["trained"] = KeyError("bug")
    rig.handler.give_up = lambda event, why, now_s: []
    rig.events.put("trained")
    for _ in range(3):
        rig.loop.turn()
        rig.now_s += 1.0
    (row,) = Parking(rig.connection).newest(10)
    assert (row.topic, row.size) == ("event:str", 0)


def test_a_message_that_fails_only_once_is_handled_at_the_second_try(rig, logs):
    rig.handler.trouble["late"] = KeyError("not yet")
    rig.arrive("late")
    rig.loop.turn()
    rig.handler.trouble.clear()
    rig.now_s += 1.0
    rig.loop.turn()
    assert rig.notes() == ["late"]
    assert rig.of("acked") == ["late"]


def test_a_full_disk_loses_nothing_and_sends_nothing(rig, logs):
    (pages,) = rig.connection.execute("PRAGMA page_count").fetchone()
    rig.connection.execute(f"PRAGMA max_page_count = {pages}")
    texts = ["small", "x" * 100_000, "last"]
    rig.arrive(*texts)
    for _ in range(3):
        rig.loop.turn()
    assert rig.notes() == []
    assert rig.diary == []
    assert rig.pauses == [0.1, 0.2, 0.4]
    rig.connection.execute(f"PRAGMA max_page_count = {pages + 1000}")
    rig.arrive("newer")
    rig.loop.turn()
    assert rig.notes() == [*texts, "newer"]
    assert rig.of("acked") == [*texts, "newer"]
    assert rig.loop.counts["storage_failures"] == 3
    assert rig.loop.counts["failed"] == 0
    assert [line["event"] for line in logs] == ["storage_unavailable", "storage_recovered"]


def test_a_locked_database_is_waited_for(rig, logs, tmp_path):
    rig.connection.execute("PRAGMA busy_timeout = 0")
    other = sqlite3.connect(tmp_path / "state.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    rig.arrive("a")
    rig.loop.turn()
    assert rig.diary == []
    other.execute("ROLLBACK")
    other.close()
    rig.loop.turn()
    assert rig.of("acked") == ["a"]


def test_damage_ends_the_program(rig):
    rig.handler.trouble["a"] = sqlite3.DatabaseError("database disk image is malformed")
    rig.arrive("a")
    with pytest.raises(sqlite3.DatabaseError, match="malformed"):
        rig.loop.turn()
    assert rig.diary == []


def test_a_refused_or_impossible_publish_stops_nothing(rig, logs):
    rig.session.refuses = True
    rig.arrive("a", "too large", "b")
    rig.loop.turn()
    assert rig.of("published") == [b"a", b"b"]
    assert rig.of("acked") == ["a", "too large", "b"]
    assert [line["event"] for line in logs] == ["publish_failed"]


def test_a_tick_that_fails_is_undone_and_does_not_undo_the_events(rig, logs):
    rig.handler.tick_error = KeyError("bug")
    rig.arrive("a")
    rig.loop.turn()
    assert rig.notes() == ["a"]
    assert rig.of("acked") == ["a"]
    assert [line["event"] for line in logs] == ["tick_failed"]


def test_ticks_come_when_they_are_due_and_at_least_every_second(rig):
    rig.arrive("a")
    rig.loop.turn()
    assert rig.handler.ticks == [1000.0]
    rig.now_s = 1000.3
    rig.arrive("b")
    rig.loop.turn()
    assert rig.handler.ticks == [1000.0]
    rig.handler.due_s = 1000.4
    rig.now_s = 1000.4
    rig.arrive("c")
    rig.loop.turn()
    rig.handler.due_s = None
    rig.now_s = 1001.4
    rig.arrive("d")
    rig.loop.turn()
    assert rig.handler.ticks == [1000.0, 1000.4, 1001.4]


def test_a_dead_session_ends_the_loop(rig):
    rig.session.is_alive = False
    rig.arrive("a")
    with pytest.raises(SessionDeadError, match="main"):
        rig.loop.run()


def test_a_session_name_that_does_not_exist_is_logged(rig, logs):
    rig.handler.handle = lambda event, now_s: [Outgoing(TOPIC, b"x", session="nowhere")]
    rig.arrive("a")
    rig.loop.turn()
    assert [line["event"] for line in logs] == ["publish_failed"]


def real_loop(rig):
    return ServiceLoop(rig.connection, rig.events, {"main": rig.session}, rig.handler)


def test_stop_ends_the_loop_at_once(rig):
    loop = real_loop(rig)
    thread = threading.Thread(target=loop.run)
    thread.start()
    time.sleep(0.05)
    began_s = time.monotonic()
    loop.stop()
    thread.join(5.0)
    assert not thread.is_alive()
    assert time.monotonic() - began_s < 0.5


def test_an_event_is_handled_at_once_and_not_at_the_next_poll(rig):
    loop = real_loop(rig)
    thread = threading.Thread(target=loop.run)
    thread.start()
    time.sleep(0.1)
    delays = []
    for number in range(5):
        done = threading.Event()
        sent_s = time.monotonic()
        rig.events.put(
            MessageArrived("main", "t", str(number).encode(), retained=False, ack=done.set)
        )
        assert done.wait(5.0)
        delays.append(time.monotonic() - sent_s)
    loop.stop()
    thread.join(5.0)
    assert min(delays) < 0.1


def test_the_steady_clock_tells_the_time_of_day():
    clock = steady_clock()
    assert abs(clock() - time.time()) < 5.0
    assert clock() <= clock()
