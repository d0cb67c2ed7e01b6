"""Where the embedded broker listens, and with which library."""

import asyncio
from collections.abc import Iterator

import pytest

from tests.support.brokers import free_port
from tests.support.brokers_thread import running
from transport import embedded


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with running() as listening:
        yield listening


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.7", "::", "example.com", ""])
def test_an_address_that_others_reach_is_refused(host: str) -> None:
    with pytest.raises(embedded.EmbeddedBrokerError, match="loopback only"):
        asyncio.run(embedded.serve(host, 0))


def test_a_taken_port_is_a_clear_error(port: int) -> None:
    with pytest.raises(embedded.EmbeddedBrokerError, match=f"127.0.0.1:{port}"):
        asyncio.run(embedded.serve(port=port))


@pytest.mark.parametrize("version", ["0.11.4", "0.13.0", "1.0", ""])
def test_another_version_of_amqtt_is_refused(version: str) -> None:
    with pytest.raises(embedded.EmbeddedBrokerError, match="amqtt"):
        embedded.check_amqtt(version)


def test_the_broker_says_which_port_it_has_chosen() -> None:
    wanted = free_port()
    chosen: list[int] = []

    async def main() -> None:
        stop = asyncio.Event()
        await embedded.serve(
            port=wanted, ready=lambda p: (chosen.append(p), stop.set()), stop=stop
        )

    asyncio.run(main())
    assert chosen == [wanted]
