"""A client's mailbox at a broker: order, window, bounds."""

from hypothesis import given
from hypothesis import strategies as st

from transport.mailbox import MAX_PACKET_ID, Mailbox, Message


def mail(number: int, qos: int = 1) -> Message:
    return Message("x", bytes([number]), qos)


def test_messages_leave_in_order_within_the_window() -> None:
    mailbox = Mailbox(max_inflight=2)
    for number in range(3):
        mailbox.put(mail(number))

    assert [mailbox.next(), mailbox.next(), mailbox.next()] == [(1, mail(0)), (2, mail(1)), None]
    assert mailbox.acknowledge(1)
    assert mailbox.next() == (3, mail(2))


def test_qos_0_needs_no_packet_id_and_no_window() -> None:
    mailbox = Mailbox(max_inflight=0)
    mailbox.put(mail(0, qos=0))

    assert mailbox.next() == (None, mail(0, qos=0))


def test_what_finds_no_room_is_dropped_and_counted() -> None:
    few, small = Mailbox(max_queued=1), Mailbox(max_queued_bytes=1)
    for mailbox in (few, small):
        assert mailbox.put(mail(0))
        assert not mailbox.put(mail(1))
        assert mailbox.dropped == 1
        mailbox.next()
        assert mailbox.put(mail(2))


def test_what_is_not_acknowledged_is_kept_with_its_packet_id() -> None:
    mailbox = Mailbox()
    for number in range(3):
        mailbox.put(mail(number))
        mailbox.next()

    mailbox.acknowledge(2)

    assert mailbox.unacknowledged() == [(1, mail(0)), (3, mail(2))]
    assert not mailbox.acknowledge(2)


def test_packet_ids_in_flight_are_never_given_twice() -> None:
    mailbox = Mailbox(_last_id=MAX_PACKET_ID - 1)
    for number in range(3):
        mailbox.put(mail(number))
    mailbox._inflight[1] = mail(9)

    assert [taken[0] for taken in (mailbox.next(), mailbox.next()) if taken] == [MAX_PACKET_ID, 2]


@given(st.lists(st.integers(0, 1), max_size=20))
def test_only_qos_1_waits_for_a_client_that_is_away(levels: list[int]) -> None:
    mailbox = Mailbox()
    for number, qos in enumerate(levels):
        mailbox.put(mail(number, qos))

    mailbox.drop_qos_0()

    assert mailbox.queued == mailbox._queued_bytes == sum(levels)
