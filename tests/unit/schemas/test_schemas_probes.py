"""Where the doctor proves rights: under the program's own filters, and no topic of the protocol."""

import pytest

from schemas import probes
from schemas.topics import (
    Address,
    TopicError,
    central_filters,
    device_filters,
    downlink_filters,
    parse,
    uplink_filters,
)
from transport.topic_filters import matches

NONCE = "0123456789abcdef"
#: Session: its paths, its filters, those of whom it speaks to.
SESSIONS = {
    "device": (
        probes.of_device("north", "d1"),
        device_filters("north", "d1"),
        downlink_filters("north"),
    ),
    "uplink": (probes.of_uplink("north"), uplink_filters("north"), central_filters()),
    "downlink": (probes.of_downlink("north"), downlink_filters("north"), None),
    "central": (probes.of_central(), central_filters(), None),
}


def heard_by(filters, topic):
    return any(matches(one, topic) for one in filters)


@pytest.mark.parametrize("session", SESSIONS.values(), ids=SESSIONS)
def test_a_probe_is_heard_where_the_program_listens_and_not_where_it_publishes(session):
    paths, own, others = session
    assert heard_by(own, f"{paths.listens}/{NONCE}")
    assert not heard_by(own, f"{paths.publishes}/{NONCE}")
    if others is not None:
        assert heard_by(others, f"{paths.publishes}/{NONCE}")


def test_what_a_gateway_or_central_sends_to_prove_itself_nobody_hears():
    for paths in (probes.of_downlink("north"), probes.of_central()):
        topic = f"{paths.publishes}/{NONCE}"
        for filters in (device_filters("north", "d1"), uplink_filters("north"), central_filters()):
            assert not heard_by(filters, topic)


@pytest.mark.parametrize("session", SESSIONS.values(), ids=SESSIONS)
def test_a_probe_is_no_topic_of_the_protocol(session):
    for prefix in (session[0].publishes, session[0].listens):
        with pytest.raises(TopicError):
            parse(f"{prefix}/{NONCE}")
        assert f"{prefix}/{NONCE}".count("/") <= 7


@pytest.mark.parametrize("region", ["gw", "all", "a/b", "+", ""])
def test_a_region_that_is_none_is_refused(region):
    for of in (probes.of_uplink, probes.of_downlink, lambda it: probes.of_device(it, "d1")):
        with pytest.raises(TopicError):
            of(region)


def test_nobody_can_have_the_level_that_stands_for_nobody():
    with pytest.raises(TopicError):
        _ = Address("north", "ctl").prefix
