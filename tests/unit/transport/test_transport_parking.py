"""Parked messages: durable, counted, bounded, and dropped only by a person."""

import hashlib
from contextlib import closing

import pytest

from transport import parking
from transport.database import open_database, transaction
from transport.events import MessageArrived
from transport.parking import MAX_BYTES, MAX_PAYLOAD_BYTES, MAX_ROWS, SHOWN, Parking


@pytest.fixture
def connection(tmp_path):
    with closing(open_database(tmp_path / "s.db", "CREATE TABLE x (y)", 1)) as opened:
        yield opened


@pytest.fixture
def table(connection):
    return Parking(connection)


def message(payload, topic="fl/v1/t"):
    return MessageArrived("main", topic, payload, retained=False, ack=lambda: None)


def test_what_is_parked_is_described_and_kept(table):
    table.park(message(b"bad"), "KeyError: 'x'", 3, 100.0)
    (row,) = table.newest(5)
    assert (row.topic, row.error, row.size, row.tries) == ("fl/v1/t", "KeyError: 'x'", 3, 3)
    assert (row.first_s, row.last_s) == (100.0, 100.0)
    assert row.sha256 == hashlib.sha256(b"bad").hexdigest()
    assert table.payload(row.number) == b"bad"


def test_the_same_message_again_is_counted_on_and_is_the_newest(table):
    table.park(message(b"bad"), "first", 3, 100.0)
    table.park(message(b"other"), "first", 3, 150.0)
    table.park(message(b"bad"), "second", 3, 200.0)
    rows = table.newest(5)
    assert [(row.error, row.tries, row.first_s, row.last_s) for row in rows] == [
        ("second", 6, 100.0, 200.0),
        ("first", 3, 150.0, 150.0),
    ]
    assert table.count() == 2


def test_the_same_bytes_on_another_topic_are_another_message(table):
    table.park(message(b"bad", "fl/v1/a"), "e", 3, 1.0)
    table.park(message(b"bad", "fl/v1/b"), "e", 3, 1.0)
    assert table.count() == 2


def test_of_a_large_message_only_the_beginning_is_kept(table):
    payload = bytes(range(256)) * 1024
    table.park(message(payload), "e", 3, 1.0)
    (row,) = table.newest(1)
    assert row.size == len(payload)
    assert table.payload(row.number) == payload[:MAX_PAYLOAD_BYTES]


def test_the_oldest_go_when_there_are_too_many(table, connection):
    with transaction(connection):
        for number in range(MAX_ROWS + 5):
            table.park(message(b"%d" % number), "e", 3, float(number))
    assert table.count() == MAX_ROWS
    assert min(row.last_s for row in table.newest(1000)) == 5.0


def test_the_oldest_go_when_they_are_too_large_together(table, connection):
    rows = MAX_BYTES // MAX_PAYLOAD_BYTES + 3
    with transaction(connection):
        for number in range(rows):
            table.park(message(number.to_bytes(2) * MAX_PAYLOAD_BYTES), "e", 3, float(number))
    assert table.count() == rows - 3
    (kept,) = connection.execute("SELECT sum(length(payload)) FROM parked").fetchone()
    assert kept <= MAX_BYTES


def test_one_or_all_can_be_dropped(table):
    for text in (b"a", b"b", b"c"):
        table.park(message(text), "e", 3, 1.0)
    number = table.newest(1)[0].number
    assert table.drop(number) == 1
    assert table.drop(number) == 0
    assert table.payload(number) == b""
    assert table.drop(None) == 2
    assert table.summary() == parking.nothing_parked()


def test_the_summary_names_the_newest_few(table):
    for number in range(SHOWN + 2):
        table.park(message(b"%d" % number), "e", 3, float(number))
    found = table.summary()
    assert found.count == SHOWN + 2
    assert [row.last_s for row in found.newest] == [4.0, 3.0, 2.0]


def test_an_error_that_no_database_takes_is_stored_all_the_same(table):
    table.park(message(b"bad"), "KeyError: '\ud800'" + "x" * 1000, 3, 1.0)
    (row,) = table.newest(1)
    assert row.error.startswith("KeyError: '?'")
    assert len(row.error) == parking.MAX_ERROR_CHARACTERS


def test_what_a_transaction_undoes_was_never_parked(table, connection):
    connection.execute("BEGIN")
    table.park(message(b"bad"), "e", 3, 1.0)
    connection.execute("ROLLBACK")
    assert table.count() == 0
