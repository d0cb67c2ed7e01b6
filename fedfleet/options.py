"""Options that several verbs share, and how they become settings."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from transport.broker_url import BrokerUrlError, parse_broker_url
from transport.settings import ConnectionSettings, SettingsError

CommandT = TypeVar("CommandT", bound=Callable[..., Any])


def connection(command: CommandT) -> CommandT:
    """Add ``--broker`` and ``--mqtt-protocol`` to a verb."""
    for option in (_PROTOCOL, _BROKER):
        command = option(command)
    return command


def json_output(command: CommandT) -> CommandT:
    """Add ``--json`` as the argument ``as_json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def wait(default_s: float, text: str) -> Callable[[CommandT], CommandT]:
    """Add ``--wait`` as the argument ``wait_s``."""
    return click.option(
        "--wait",
        "wait_s",
        type=click.FloatRange(min=0),
        default=default_s,
        show_default=True,
        metavar="SECONDS",
        help=text,
    )


def settings(broker: str | None, mqtt_protocol: str | None) -> ConnectionSettings:
    """Return how to reach the broker: flags, else the environment, else the defaults.

    Raises:
        click.UsageError: A value does not fit.
    """
    try:
        loaded = ConnectionSettings.load(broker=broker, mqtt_protocol=mqtt_protocol)
        address = parse_broker_url(loaded.broker)
        address.with_tls_files(loaded.ca_file, loaded.cert_file, loaded.key_file)
    except (SettingsError, BrokerUrlError) as error:
        raise click.UsageError(str(error)) from error
    return loaded


_BROKER = click.option(
    "--broker",
    envvar="FEDFLEET_BROKER",
    show_envvar=True,
    metavar="URL",
    help="mqtt[s]://[user:password@]host[:port]; default mqtt://127.0.0.1:1883.",
)
_PROTOCOL = click.option(
    "--mqtt-protocol",
    type=click.Choice(["auto", "5", "3.1.1"]),
    envvar="FEDFLEET_MQTT_PROTOCOL",
    show_envvar=True,
    help="MQTT version; default auto.",
)
