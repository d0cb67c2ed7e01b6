"""Options that several verbs share, and how they become settings."""

import functools
import json
from collections.abc import Callable
from typing import Any, TypeVar

import click

from fedfleet.submission import SubmissionError, setting
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


def codec_params(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--codec-params`` and ``--codec-param`` as one argument, a dict or None."""

    @functools.wraps(command)
    def merged(
        *arguments: object,
        codec_params: dict[str, object] | None,
        codec_param: tuple[tuple[str, object], ...],
        **others: object,
    ) -> object:
        chosen = {**(codec_params or {}), **dict(codec_param)}
        return command(*arguments, codec_params=chosen or None, **others)

    for option in (_CODEC_PARAM, _CODEC_PARAMS):
        merged = option(merged)
    return merged


class _JsonObject(click.ParamType[dict[str, object]]):
    name = "JSON"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> dict[str, object]:
        try:
            found = json.loads(str(value))
        except ValueError as error:
            self.fail(f"{value!r} is not JSON: {error}", param, ctx)
        if not isinstance(found, dict):
            self.fail(f"{value!r} is not a JSON object", param, ctx)
        return found


class _Setting(click.ParamType[tuple[str, object]]):
    name = "NAME=VALUE"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, object]:
        try:
            return setting(str(value))
        except SubmissionError as error:
            self.fail(str(error), param, ctx)


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
_CODEC_PARAMS = click.option(
    "--codec-params",
    type=_JsonObject(),
    metavar="JSON",
    help='The codec\'s settings, as in {"fraction": 0.01}.',
)
_CODEC_PARAM = click.option(
    "--codec-param",
    type=_Setting(),
    multiple=True,
    metavar="NAME=VALUE",
    help="One of them; repeatable.",
)
_PROTOCOL = click.option(
    "--mqtt-protocol",
    type=click.Choice(["auto", "5", "3.1.1"]),
    envvar="FEDFLEET_MQTT_PROTOCOL",
    show_envvar=True,
    help="MQTT version; default auto.",
)
