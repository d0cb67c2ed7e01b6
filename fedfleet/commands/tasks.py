"""``tasks`` and ``status``: what central says, as it is retained at the broker."""

import json
from pathlib import Path

import click

from fedfleet import options
from fedfleet.client import broker_name, open_client
from fedfleet.errors import FleetError
from fedfleet.statuses import bytes_lines, newest, rounds_table, state_line
from fedfleet.tables import number, table
from fedfleet.testbed.plot import save_plot
from schemas.tasks import TaskStatus
from schemas.topics import Kind, Topic, TopicError, status_filter
from transport.settings import ConnectionSettings

COLUMNS = ("task", "state", "model", "committed", "rounds", "accuracy", "reason")


class UnknownTaskError(FleetError):
    """No status of this task is retained at the broker."""

    def __init__(self, task: str, broker: str) -> None:
        super().__init__(f"task: {task!r} is not known at {broker}; `fedfleet tasks` lists them")
        self.task = task


@click.command()
@options.connection
@options.wait(5.0, "How long to read, at most.")
@options.json_output
def tasks(*, broker: str | None, mqtt_protocol: str | None, wait_s: float, as_json: bool) -> None:
    """List the tasks that central knows, the newest last."""
    settings = options.settings(broker, mqtt_protocol)
    found = read_statuses(settings, status_filter(), wait_s)
    ordered = sorted(found.values(), key=lambda status: (status.ts, status.task))
    if as_json:
        click.echo(json.dumps([status.model_dump(mode="json") for status in ordered]))
    elif ordered:
        click.echo(table(COLUMNS, [_cells(status) for status in ordered]))
    else:
        click.echo(f"no tasks at {broker_name(settings)}", err=True)


@click.command()
@click.argument("task")
@options.connection
@options.wait(5.0, "How long to read, at most.")
@click.option(
    "--plot",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Draw accuracy against rounds and bytes as PNG.",
)
@options.json_output
def status(  # noqa: PLR0913 - one argument an option
    *,
    task: str,
    broker: str | None,
    mqtt_protocol: str | None,
    wait_s: float,
    plot: Path | None,
    as_json: bool,
) -> None:
    """Show one task and its newest rounds."""
    settings = options.settings(broker, mqtt_protocol)
    found = read_statuses(settings, status_topic(task).name, wait_s)
    if task not in found:
        raise UnknownTaskError(task, broker_name(settings))
    shown = found[task]
    if plot is not None:
        save_plot(shown.history, f"{shown.model} ({task})", plot)
    print_status(shown, as_json=as_json)
    if as_json:
        return
    if shown.history:
        click.echo(rounds_table(shown.history, shown.parameters))
    if shown.updates_accepted:
        click.echo("\n".join(bytes_lines(shown)))
    if shown.model_sha256:
        click.echo(f"model {shown.model} {shown.model_sha256}")


def print_status(status: TaskStatus, *, as_json: bool) -> None:
    """Write one status to stdout: all of it as JSON, or one line."""
    click.echo(status.model_dump_json() if as_json else state_line(status))


def status_topic(task: str) -> Topic:
    """Return the topic of a task's status.

    Raises:
        click.UsageError: ``task`` is not an id.
    """
    topic = Topic(Kind.TASK_STATUS, task=task)
    try:
        _ = topic.name
    except TopicError as error:
        message = f"task: {task!r} is not an id: 1 to 32 of a-z, 0-9 and '-', not '-' first"
        raise click.UsageError(message) from error
    return topic


def read_statuses(
    settings: ConnectionSettings, topic_filter: str, wait_s: float
) -> dict[str, TaskStatus]:
    """Return the retained statuses under one filter, by task id."""
    with open_client(settings, (topic_filter,)) as client:
        return newest(client.collect(wait_s))


def _cells(status: TaskStatus) -> tuple[str, ...]:
    return (
        status.task,
        status.state,
        status.model or "-",
        str(status.committed),
        str(status.rounds),
        number(status.metrics.get("accuracy")),
        status.reason or "",
    )
