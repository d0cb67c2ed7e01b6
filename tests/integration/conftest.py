"""What sessions of paho are tested with."""

from collections.abc import Iterator

import pytest

from tests.support.brokers import (
    HOST,
    ProcessBroker,
    mosquitto_broker,
)
from tests.support.brokers_raw import serving
from tests.support.paho_sessions import FakeBroker, Sessions


@pytest.fixture
def sessions() -> Iterator[Sessions]:
    made = Sessions()
    yield made
    made.close()


@pytest.fixture(scope="module")
def mosquitto() -> Iterator[ProcessBroker]:
    with mosquitto_broker() as broker:
        yield broker


@pytest.fixture
def fake() -> FakeBroker:
    return FakeBroker()


@pytest.fixture
def fake_url(fake: FakeBroker) -> Iterator[str]:
    with serving(fake.serve) as port:
        yield f"mqtt://{HOST}:{port}"
