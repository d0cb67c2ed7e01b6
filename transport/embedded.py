"""A broker for tests and for a testbed on one machine: amqtt, hardened, on loopback only.

Run it as a process of its own. It keeps nothing over a restart; beyond one machine, use
Mosquitto or a clustered broker. What is hardened is listed in ``embedded_broker``.
"""

import asyncio
import contextlib
import ipaddress
import logging
import signal
from collections.abc import Callable, Mapping
from importlib import metadata

_OLDEST, _TOO_NEW = (0, 12), (0, 13)


class EmbeddedBrokerError(Exception):
    """The embedded broker cannot run here; the text says what to change."""


def check_amqtt(version: str) -> None:
    """Refuse a version of amqtt that the hardening was not written for.

    Raises:
        EmbeddedBrokerError: The version is outside of 0.12.
    """
    parts = version.split(".")[:2]
    numbers = tuple(int(part) for part in parts if part.isdigit())
    if not _OLDEST <= numbers < _TOO_NEW:
        message = f"amqtt {version} is installed; the embedded broker needs amqtt>=0.12,<0.13"
        raise EmbeddedBrokerError(message)


def _installed() -> str:
    try:
        return metadata.version("amqtt")
    except metadata.PackageNotFoundError as error:
        message = "amqtt is not installed: pip install 'fedfleet[testbed]'"
        raise EmbeddedBrokerError(message) from error


check_amqtt(_installed())

from transport.embedded_broker import HardenedBroker  # noqa: E402 - only after the check


def check_loopback(host: str) -> None:
    """Refuse an address that other machines reach.

    Raises:
        EmbeddedBrokerError: ``host`` is not a loopback address.
    """
    with contextlib.suppress(ValueError):
        if host == "localhost" or ipaddress.ip_address(host).is_loopback:
            return
    message = f"host {host!r}: the embedded broker listens on loopback only; use Mosquitto"
    raise EmbeddedBrokerError(message)


async def serve(
    host: str = "127.0.0.1",
    port: int = 1883,
    *,
    ready: Callable[[int], None] | None = None,
    stop: asyncio.Event | None = None,
    users: Mapping[str, str] | None = None,
) -> None:
    """Serve until ``stop`` is set.

    Args:
        host: A loopback address.
        port: 0 for any free one.
        ready: Called with the port when clients can connect.
        stop: None: serve until cancelled.
        users: Passwords by user name; None admits everyone.

    Raises:
        EmbeddedBrokerError: The address is not loopback, or cannot be listened on.
    """
    check_loopback(host)
    for name in ("amqtt", "transitions"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    broker = HardenedBroker(host, port, users)
    try:
        await broker.start()
    except Exception as error:
        message = f"cannot listen on {host}:{port}: {error}"
        raise EmbeddedBrokerError(message) from error
    try:
        if ready is not None:
            ready(broker.port)
        await (stop or asyncio.Event()).wait()
    finally:
        await broker.shutdown()


def run(
    port: int = 1883,
    ready: Callable[[int], None] | None = None,
    *,
    host: str = "127.0.0.1",
    users: Mapping[str, str] | None = None,
) -> None:
    """Serve in this process until SIGINT or SIGTERM; see ``serve``.

    Raises:
        EmbeddedBrokerError: As ``serve``.
    """
    asyncio.run(_serve_until_signal(host, port, ready, users))


async def _serve_until_signal(
    host: str,
    port: int,
    ready: Callable[[int], None] | None,
    users: Mapping[str, str] | None,
) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await serve(host, port, ready=ready, stop=stop, users=users)
