import pytest

from fedfleet.client import BrokerUnreachableError, open_client
from schemas.topics import Kind, Topic
from transport.settings import ConnectionSettings

STATUS = "fl/v1/ctl/task/t-1/status"
SUBMIT = Topic(Kind.TASK_SUBMIT)


def connect(filters=("fl/v1/ctl/task/+/status",)):
    return open_client(ConnectionSettings.load(), filters)


def test_a_broker_that_does_not_answer_is_named_and_the_session_is_stopped(world):
    world.is_reachable = False
    with pytest.raises(BrokerUnreachableError, match=r"mqtt://127\.0\.0\.1:1883"):
        connect()
    assert world.stopped == 1


def test_retained_messages_are_collected_until_it_is_quiet(world):
    world.retained = {STATUS: b"{}", "fl/v1/ctl/task/t-2/status": b"[]", "fl/v1/other": b""}
    with connect() as client:
        found = client.collect(5.0)
    assert [(m.topic.task, m.payload, m.retained) for m in found] == [
        ("t-1", b"{}", True),
        ("t-2", b"[]", True),
    ]
    assert (world.acked, world.stopped) == (2, 1)


def test_a_foreign_topic_under_the_filter_is_acknowledged_and_ignored(world):
    world.retained = {"fl/v1/ctl/task/Not An Id/status": b"x"}
    with connect() as client:
        assert client.collect(1.0) == []
    assert world.acked == 1


def test_messages_that_come_before_the_acknowledgement_are_kept(world):
    world.later = [(STATUS, b"early")]
    with connect() as client:
        client.publish(SUBMIT, b"x", timeout_s=0.2)
        message = client.next_message(0.2)
    assert message is not None
    assert message.payload == b"early"


def test_a_publish_without_acknowledgement_is_an_error(world):
    world.acknowledges = False
    with connect() as client, pytest.raises(BrokerUnreachableError, match="task/submit"):
        client.publish(SUBMIT, b"x", timeout_s=0.05)


def test_no_message_within_the_time_given_is_none(world):
    with connect() as client:
        assert client.next_message(0.01) is None
        assert list(client.messages(0.01)) == []


def test_messages_are_yielded_in_the_order_they_came(world):
    world.later = [(STATUS, b"1"), (STATUS, b"2")]
    with connect() as client:
        assert [message.payload for message in client.messages(0.05)] == [b"1", b"2"]
