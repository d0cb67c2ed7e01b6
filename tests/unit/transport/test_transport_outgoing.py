"""What a session has taken on: its budget, its window, and what outlives a connection."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from schemas.limits import MAX_PAYLOAD_BYTES
from schemas.topics import Address, Kind, Topic, TopicError
from transport.events import Outgoing
from transport.outgoing import OutgoingQueue, check_size

DEVICE = Address("eu", "d1")
STATE = Topic(Kind.STATE, DEVICE)
HEARTBEAT = Topic(Kind.HEARTBEAT, DEVICE)
NEXT = Topic(Kind.NEXT, DEVICE)
NAME_BYTES = len(STATE.name)


def state(payload: bytes = b"x") -> Outgoing:
    return Outgoing(STATE, payload)


def send_all(queue: OutgoingQueue, window: int = 20, first_mid: int = 1) -> list[Outgoing]:
    sent = []
    while (pending := queue.next(window)) is not None:
        queue.sent(first_mid + len(sent), pending)
        sent.append(pending.message)
    return sent


def test_what_does_not_fit_the_bytes_is_not_taken() -> None:
    queue = OutgoingQueue(2 * (NAME_BYTES + 10), 100)

    assert [queue.offer(state(bytes(10)), 0.0) for _ in range(3)] == [True, True, False]


def test_what_does_not_fit_the_count_is_not_taken() -> None:
    queue = OutgoingQueue(10_000, 2)
    queue.offer(state(), 0.0)
    send_all(queue)

    assert [queue.offer(state(), 0.0) for _ in range(2)] == [True, False]


def test_an_acknowledgement_frees_the_budget_once() -> None:
    queue = OutgoingQueue(NAME_BYTES + 1, 100)
    queue.offer(state(), 0.0)
    send_all(queue)

    assert queue.acknowledged(1) == state()
    assert queue.acknowledged(1) is None
    assert queue.used_bytes == 0
    assert queue.offer(state(), 0.0)


def test_the_window_counts_qos_1_only() -> None:
    queue = OutgoingQueue(10_000, 100)
    for message in (state(), Outgoing(HEARTBEAT, b"h"), state(), state()):
        queue.offer(message, 0.0)

    assert len(send_all(queue, window=2)) == 3
    queue.acknowledged(1)
    assert len(send_all(queue, window=2, first_mid=10)) == 1


def test_a_lost_connection_puts_back_what_is_worth_another_one_in_order() -> None:
    queue = OutgoingQueue(10_000, 100)
    for number in range(4):
        queue.offer(state(bytes([number])), 0.0)
    queue.offer(Outgoing(HEARTBEAT, b"h"), 0.0)
    send_all(queue, window=2)
    queue.acknowledged(1)

    queue.connection_lost(1.0)

    assert [message.payload for message in send_all(queue)] == [b"\1", b"\2", b"\3"]
    assert queue.used_bytes == 3 * (NAME_BYTES + 1)


def test_what_has_expired_is_not_put_back() -> None:
    queue = OutgoingQueue(10_000, 100)
    queue.offer(Outgoing(NEXT, b"question"), 0.0)
    queue.offer(state(), 0.0)
    send_all(queue)

    queue.connection_lost(60.0)

    assert send_all(queue) == [state()]


def test_what_was_lost_with_two_connections_is_given_up() -> None:
    queue = OutgoingQueue(10_000, 100)
    queue.offer(state(), 0.0)
    for _ in range(2):
        send_all(queue)
        queue.connection_lost(0.0)

    assert send_all(queue) == []
    assert queue.used_bytes == 0


def test_a_last_word_goes_first_and_needs_no_budget() -> None:
    queue = OutgoingQueue(NAME_BYTES + 1, 1)
    queue.offer(state(b"a"), 0.0)

    done = queue.offer_last(state(b"farewell"), 0.0)

    assert [message.payload for message in send_all(queue)] == [b"farewell", b"a"]
    assert not done.is_set()
    queue.acknowledged(1)
    assert done.is_set()


def test_the_size_limit_is_exact() -> None:
    check_size(state(bytes(MAX_PAYLOAD_BYTES)))
    with pytest.raises(ValueError, match=f"limit {MAX_PAYLOAD_BYTES}"):
        check_size(state(bytes(MAX_PAYLOAD_BYTES + 1)))


def test_a_topic_that_does_not_exist_is_refused_and_costs_nothing() -> None:
    queue = OutgoingQueue(10_000, 100)

    with pytest.raises(TopicError):
        queue.offer(Outgoing(Topic(Kind.TASK_STATUS, DEVICE), b"x"), 0.0)

    assert queue.used_bytes == 0


class AnyOrder(RuleBasedStateMachine):
    """Whatever happens, the bytes in use are those of what is waiting or out."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = OutgoingQueue(1000, 12)
        self.mid = 0
        self.out: set[int] = set()

    @rule(size=st.integers(0, 300), topic=st.sampled_from([STATE, HEARTBEAT, NEXT]))
    def offer(self, size: int, topic: Topic) -> None:
        self.queue.offer(Outgoing(topic, bytes(size)), 0.0)

    @rule(window=st.integers(0, 4))
    def send(self, window: int) -> None:
        pending = self.queue.next(window)
        if pending is not None:
            self.mid += 1
            self.out.add(self.mid)
            self.queue.sent(self.mid, pending)

    @rule()
    def refuse(self) -> None:
        pending = self.queue.next(20)
        if pending is not None:
            self.queue.refused(pending)

    @precondition(lambda self: self.out)
    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        mid = data.draw(st.sampled_from(sorted(self.out)))
        self.out.discard(mid)
        assert self.queue.acknowledged(mid) is not None

    @rule(now_s=st.sampled_from([0.0, 100.0]))
    def lose(self, now_s: float) -> None:
        self.queue.connection_lost(now_s)
        self.out.clear()

    @invariant()
    def bytes_are_counted(self) -> None:
        held = [*self.queue._waiting, *self.queue._sent.values()]
        assert self.queue.used_bytes == sum(pending.size for pending in held) <= 1000
        assert len(held) <= 12
        assert self.queue._unacknowledged == sum(one.qos for one in self.queue._sent.values())


AnyOrder.TestCase.settings = settings(max_examples=50, stateful_step_count=30)
TestAnyOrder = AnyOrder.TestCase


XFER = "0" * 32
CHUNK = Outgoing(Topic(Kind.CHUNK, DEVICE, xfer=XFER, k=1), b"chunk")


def test_a_chunk_that_is_on_its_way_is_not_taken_on_again() -> None:
    queue = OutgoingQueue(10_000, 100)

    assert queue.offer(CHUNK, 0.0)
    assert queue.offer(CHUNK, 1.0)
    assert send_all(queue) == [CHUNK]
    assert queue.offer(CHUNK, 2.0)
    assert send_all(queue, first_mid=2) == []
    assert queue.offer(Outgoing(Topic(Kind.CHUNK, DEVICE, xfer=XFER, k=2), b"chunk"), 2.0)


def test_a_chunk_that_has_arrived_at_the_broker_may_be_asked_for_again() -> None:
    queue = OutgoingQueue(10_000, 100)
    queue.offer(CHUNK, 0.0)
    send_all(queue)
    queue.acknowledged(1)

    assert queue.offer(CHUNK, 1.0)
    assert send_all(queue) == [CHUNK]


def test_a_chunk_that_was_given_up_with_its_connection_may_be_sent_again() -> None:
    queue = OutgoingQueue(10_000, 100)
    queue.offer(CHUNK, 0.0)
    for _ in range(2):
        send_all(queue)
        queue.connection_lost(1.0)

    assert queue.used_bytes == 0
    assert queue.offer(CHUNK, 2.0)
    assert send_all(queue) == [CHUNK]


def test_a_chunk_that_waits_for_the_next_connection_is_sent_once_on_it() -> None:
    queue = OutgoingQueue(10_000, 100)
    queue.offer(CHUNK, 0.0)
    send_all(queue)
    queue.connection_lost(1.0)

    assert queue.offer(CHUNK, 2.0)
    assert send_all(queue) == [CHUNK]


def test_a_piece_whose_arrival_is_awaited_by_its_token_is_taken_on_each_time() -> None:
    queue = OutgoingQueue(10_000, 100)
    block = Topic(Kind.BLOCK, DEVICE, sha16="0" * 16, k=0)

    assert queue.offer(Outgoing(block, b"x", token=1), 0.0)
    assert queue.offer(Outgoing(block, b"x", token=2), 0.0)
    assert [message.token for message in send_all(queue)] == [1, 2]


def test_other_bytes_under_the_same_topic_are_taken_on() -> None:
    queue = OutgoingQueue(10_000, 100)
    queue.offer(CHUNK, 0.0)

    assert queue.offer(Outgoing(CHUNK.topic, b"other"), 0.0)
    assert [message.payload for message in send_all(queue)] == [b"chunk", b"other"]


def test_the_same_word_twice_is_sent_twice() -> None:
    queue = OutgoingQueue(10_000, 100)
    queue.offer(state(), 0.0)
    queue.offer(state(), 0.0)

    assert len(send_all(queue)) == 2
