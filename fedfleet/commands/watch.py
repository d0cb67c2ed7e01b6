"""``watch``: follow one task until nothing more will happen to it."""

import sys

import click

from fedfleet import options
from fedfleet.client import FleetClient, broker_name, open_client
from fedfleet.commands.tasks import UnknownTaskError, print_status, status_topic
from fedfleet.screen import Screen
from fedfleet.statuses import read_status, round_line, state_line
from schemas.tasks import TaskStatus

_POLL_S = 3600.0


@click.command()
@click.argument("task")
@options.connection
@options.wait(10.0, "How long to wait for the task's first status.")
@options.json_output
def watch(
    *,
    task: str,
    broker: str | None,
    mqtt_protocol: str | None,
    wait_s: float,
    as_json: bool,
) -> None:
    """Follow one task until it ends; exit 0 only if it completed.

    With --json every status is one line on stdout.
    """
    settings = options.settings(broker, mqtt_protocol)
    with open_client(settings, (status_topic(task).name,)) as client, Screen() as screen:
        viewer = StatusView(screen)
        last = _first(client, wait_s)
        while last is not None:
            viewer.show(last)
            if as_json:
                click.echo(last.model_dump_json())
            if last.is_final:
                break
            last = _next(client)
    if last is None:
        raise UnknownTaskError(task, broker_name(settings))
    if not as_json:
        print_status(last, as_json=False)
    sys.exit(0 if last.state == "completed" else 1)


class StatusView:
    """Shows a task on a screen: each ended round once, and where the task stands now."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._shown: set[int] = set()

    def show(self, status: TaskStatus) -> None:
        """Show what is new in ``status``."""
        for summary in status.history:
            if summary.round not in self._shown:
                self._shown.add(summary.round)
                self._screen.line(round_line(summary, status.parameters))
        self._screen.block(state_line(status))


def _first(client: FleetClient, wait_s: float) -> TaskStatus | None:
    for message in client.messages(wait_s):
        if (status := read_status(message)) is not None:
            return status
    return None


def _next(client: FleetClient) -> TaskStatus:
    while True:
        message = client.next_message(_POLL_S)
        if message is not None and (status := read_status(message)) is not None:
            return status
