"""The outbox: what is added once, offered when due, and removed by nothing but its receipt."""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from transport.database import open_database
from transport.outbox import OUTBOX_SCHEMA, Outbox, OutboxEntry


def xfer(number):
    return f"{number:032x}"


def entry(number, **changes):
    plain = OutboxEntry(
        xfer=xfer(number),
        task="t-1",
        round_number=3,
        device="dev-a",
        frame=b"frame" * (number + 1),
        sha256=f"{number:064x}",
        size=100 + number,
        created_s=5.0,
        next_try_s=float(number),
    )
    return replace(plain, **changes)


@pytest.fixture
def connection(tmp_path):
    opened = open_database(tmp_path / "state.db", OUTBOX_SCHEMA, 1)
    yield opened
    opened.close()


@pytest.fixture
def outbox(connection):
    return Outbox(connection)


def test_a_row_comes_back_as_it_went_in(outbox, tmp_path):
    inline = entry(1)
    large = entry(2, path=tmp_path / "object", chunk_bytes=65536, held=True, tries=4)
    assert outbox.add(inline)
    assert outbox.add(large)
    assert outbox.get(xfer(1)) == inline
    assert outbox.get(xfer(2)) == large
    assert outbox.get(xfer(3)) is None


def test_the_same_transfer_is_added_once(outbox):
    assert outbox.add(entry(1))
    assert not outbox.add(entry(1, frame=b"other"))
    assert outbox.get(xfer(1)) == entry(1)


def test_a_rolled_back_row_was_never_there(outbox, connection):
    connection.execute("BEGIN")
    outbox.add(entry(1))
    connection.execute("ROLLBACK")
    assert outbox.count() == 0


def test_rows_come_in_the_order_in_which_they_are_due(outbox):
    for number in (3, 1, 2, 9):
        outbox.add(entry(number))
    assert [row.xfer for row in outbox.due(3.0, 10)] == [xfer(1), xfer(2), xfer(3)]
    assert [row.xfer for row in outbox.due(3.0, 2)] == [xfer(1), xfer(2)]
    assert [row.xfer for row in outbox.due(3.0, 2, [xfer(1)])] == [xfer(2), xfer(3)]
    assert outbox.next_due_s() == 1.0
    assert outbox.next_due_s([xfer(1), xfer(2)]) == 3.0


def test_an_empty_outbox_is_never_due(outbox):
    assert outbox.next_due_s() is None
    assert outbox.due(1e12, 10) == []
    assert outbox.total_bytes() == 0


def test_a_try_counts_and_a_delay_does_not(outbox):
    outbox.add(entry(1))
    outbox.attempted(xfer(1), 50.0)
    assert (outbox.get(xfer(1)).tries, outbox.get(xfer(1)).next_try_s) == (1, 50.0)
    outbox.postpone(xfer(1), 70.0)
    assert (outbox.get(xfer(1)).tries, outbox.get(xfer(1)).next_try_s) == (1, 70.0)


def test_another_object_s_digest_removes_nothing(outbox):
    outbox.add(entry(1))
    assert outbox.remove(xfer(1), "f" * 64) is None
    assert outbox.remove(xfer(2), f"{1:064x}") is None
    assert outbox.count() == 1
    assert outbox.remove(xfer(1), f"{1:064x}") == entry(1)
    assert outbox.remove(xfer(1), f"{1:064x}") is None


def test_a_returning_counterpart_makes_all_rows_due_and_held_ones_soon(outbox):
    for number in (1, 2):
        outbox.add(entry(number))
        outbox.attempted(xfer(number), 500.0)
    outbox.hold(xfer(2), 600.0)
    outbox.wake(10.0, 70.0)
    assert [row.xfer for row in outbox.due(10.0, 10)] == [xfer(1)]
    assert outbox.get(xfer(1)).tries == 0
    assert (outbox.get(xfer(2)).held, outbox.get(xfer(2)).next_try_s) == (True, 70.0)


def test_sizes_are_summed(outbox):
    for number in (1, 2):
        outbox.add(entry(number))
    assert outbox.total_bytes() == 203
    assert outbox.count() == 2


numbers = st.integers(0, 5)
times = st.floats(0.0, 100.0)


class OutboxLaws(RuleBasedStateMachine):
    """The table behaves as a dictionary would, and a rollback is as if nothing had been said."""

    def __init__(self):
        super().__init__()
        self.directory = TemporaryDirectory()
        self.connection = open_database(Path(self.directory.name) / "o.db", OUTBOX_SCHEMA, 1)
        self.outbox = Outbox(self.connection)
        self.model = {}

    def teardown(self):
        self.connection.close()
        self.directory.cleanup()

    @rule(number=numbers)
    def add(self, number):
        assert self.outbox.add(entry(number)) is (xfer(number) not in self.model)
        self.model.setdefault(xfer(number), entry(number))

    @rule(number=numbers, at_s=times)
    def attempted(self, number, at_s):
        self.outbox.attempted(xfer(number), at_s)
        if row := self.model.get(xfer(number)):
            self.model[row.xfer] = replace(row, tries=row.tries + 1, next_try_s=at_s)

    @rule(number=numbers, at_s=times)
    def hold(self, number, at_s):
        self.outbox.hold(xfer(number), at_s)
        if row := self.model.get(xfer(number)):
            self.model[row.xfer] = replace(row, held=True, next_try_s=at_s)

    @rule(now_s=times)
    def wake(self, now_s):
        self.outbox.wake(now_s, now_s + 60.0)
        for row in list(self.model.values()):
            at_s = min(row.next_try_s, now_s + 60.0) if row.held else now_s
            tries = row.tries if row.held else 0
            self.model[row.xfer] = replace(row, tries=tries, next_try_s=at_s)

    @rule(number=numbers, digest=numbers)
    def remove(self, number, digest):
        expected = self.model.get(xfer(number)) if number == digest else None
        assert self.outbox.remove(xfer(number), f"{digest:064x}") == expected
        if expected:
            del self.model[xfer(number)]

    @rule(number=numbers)
    def rolled_back(self, number):
        self.connection.execute("BEGIN")
        self.outbox.add(entry(number))
        self.outbox.remove(xfer(number), f"{number:064x}")
        self.outbox.wake(0.0, 60.0)
        self.connection.execute("ROLLBACK")

    @invariant()
    def it_is_as_the_model_says(self):
        rows = sorted(self.model.values(), key=lambda row: (row.next_try_s, row.xfer))
        assert self.outbox.due(1000.0, 100) == rows
        assert self.outbox.total_bytes() == sum(row.size for row in rows)
        assert self.outbox.next_due_s() == (rows[0].next_try_s if rows else None)


TestOutboxLaws = OutboxLaws.TestCase
TestOutboxLaws.settings = settings(max_examples=20, stateful_step_count=20, deadline=None)
