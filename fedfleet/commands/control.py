"""``cancel``, ``pause`` and ``resume``: a person's word to central on one task."""

from typing import Literal

import click

from fedfleet import options
from fedfleet.client import FleetClient, broker_name, open_client
from fedfleet.commands.tasks import UnknownTaskError, print_status, status_topic
from fedfleet.errors import FleetError
from fedfleet.statuses import newest, read_status
from schemas.tasks import TaskControl, TaskState, TaskStatus
from schemas.topics import Kind, Topic
from transport.settings import ConnectionSettings

Action = Literal["cancel", "pause", "resume"]

#: States in which the action has been done.
DONE: dict[Action, frozenset[TaskState]] = {
    "cancel": frozenset({"cancelled"}),
    "pause": frozenset({"paused"}),
    "resume": frozenset({"running", "waiting"}),
}


class RefusedError(FleetError):
    """Central did not do what was asked, or nobody answered."""


def _verb(action: Action, summary: str) -> click.Command:
    @click.command(action, help=summary)
    @click.argument("task")
    @options.connection
    @options.wait(10.0, "How long to wait for central.")
    @options.json_output
    def verb(
        *,
        task: str,
        broker: str | None,
        mqtt_protocol: str | None,
        wait_s: float,
        as_json: bool,
    ) -> None:
        settings = options.settings(broker, mqtt_protocol)
        print_status(_ask(settings, task, action, wait_s), as_json=as_json)

    return verb


cancel = _verb("cancel", "End a task without a result; what was committed stays.")
pause = _verb("pause", "Start no further round of a task until it is resumed.")
resume = _verb("resume", "Go on with a paused task.")


def _ask(settings: ConnectionSettings, task: str, action: Action, wait_s: float) -> TaskStatus:
    with open_client(settings, (status_topic(task).name,)) as client:
        before = newest(client.collect(wait_s)).get(task)
        if before is None:
            raise UnknownTaskError(task, broker_name(settings))
        if before.state in DONE[action]:
            return before
        if before.is_final:
            message = f"{task} cannot be asked to {action}: it is {before.state}"
            raise RefusedError(message)
        note = TaskControl(action=action).model_dump_json().encode()
        client.publish(Topic(Kind.TASK_CONTROL, task=task), note)
        return _follow(client, before, action, wait_s)


def _follow(client: FleetClient, before: TaskStatus, action: Action, wait_s: float) -> TaskStatus:
    last = before
    for message in client.messages(wait_s):
        last = read_status(message) or last
        if last.state in DONE[action]:
            return last
        if last.is_final:
            break
    message_text = f"{last.task} is {last.state} after {wait_s:g} s: {action} was not done"
    raise RefusedError(message_text)
