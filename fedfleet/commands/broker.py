"""``broker``: the embedded broker as a process of its own, for tests and one machine."""

import json

import click

from fedfleet import options
from fedfleet.errors import FleetError

_MAX_PORT = 65535


class BrokerError(FleetError):
    """The embedded broker cannot run here."""


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="A loopback address.")
@click.option(
    "--port",
    type=click.IntRange(0, _MAX_PORT),
    default=1883,
    show_default=True,
    help="0 takes any free one.",
)
@options.json_output
def broker(*, host: str, port: int, as_json: bool) -> None:
    """Run the embedded MQTT 3.1.1 broker until it is interrupted.

    It is for tests and a fleet on one machine; it forgets everything when it ends. One line on
    stdout says when clients can connect.
    """
    from transport import embedded  # noqa: PLC0415  (so that --help works without amqtt)

    def ready(taken: int) -> None:
        found = {"host": host, "port": taken}
        click.echo(json.dumps(found) if as_json else f"listening on mqtt://{host}:{taken}")

    try:
        embedded.run(port, ready, host=host)
    except embedded.EmbeddedBrokerError as error:
        raise BrokerError(str(error)) from error
