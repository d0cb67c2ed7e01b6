"""``submit``: publish a task exactly as ``mosquitto_pub`` would, and show central's answer."""

import sys
import time
from typing import BinaryIO

import click

from fedfleet import options, submission
from fedfleet.client import FleetClient, Message, open_client
from fedfleet.commands.tasks import print_status
from fedfleet.errors import FleetError
from fedfleet.statuses import newest, read_status
from schemas.tasks import CentralState, TaskStatus
from schemas.topics import Kind, Topic, status_filter
from transport.settings import ConnectionSettings

#: Central answers a task that it knows already with the status that is retained.
_KNOWN_TASK_WAIT_S = 2.0
_KIB_BITS = 8 * 1024
_SUBMIT = Topic(Kind.TASK_SUBMIT)
_CENTRAL = Topic(Kind.CENTRAL_STATE)


class NoAnswerError(FleetError):
    """Central did not answer in time."""


@click.command()
@click.argument("task_json", required=False)
@click.option("-f", "--file", "source", type=click.File("rb"), help="JSON file; - reads stdin.")
@click.option("--task", help="Id; a repeated id is the same task.")
@click.option("--model", help="Name of a model that central knows.")
@click.option("--data", help="Name of the data source that devices must have.")
@click.option("--rounds", type=int)
@click.option("--min-clients", type=int, help="Updates that end a round.")
@click.option("--cohort", type=int, help="Devices asked in each round.")
@click.option("--codec", help="How updates are encoded.")
@options.codec_params
@click.option(
    "--downlink",
    "downlink__codec",
    help="Codec of new models on their way down; left out, they are sent whole.",
)
@click.option("--strategy", help="How updates are aggregated.")
@click.option("--region", "regions", multiple=True, help="Only this region; repeatable.")
@click.option("--epochs", "training__epochs", type=int)
@click.option("--batch-size", "training__batch_size", type=int)
@click.option("--learning-rate", "training__learning_rate", type=float)
@click.option("--deadline-s", type=float, help="Seconds until a round is late.")
@click.option("--uplink-budget-bits", type=int, help="What a round's updates may cost together.")
@click.option("--uplink-budget-kib", type=int, help="The same in KiB of 8192 bits.")
@click.option(
    "--set",
    "sets",
    multiple=True,
    metavar="NAME=VALUE",
    help="Any other field, as in training.momentum=0.5; repeatable.",
)
@options.connection
@options.wait(10.0, "How long to wait for central's answer.")
@options.json_output
def submit(  # noqa: PLR0913  (one argument an option)
    *,
    task_json: str | None,
    source: BinaryIO | None,
    sets: tuple[str, ...],
    broker: str | None,
    mqtt_protocol: str | None,
    wait_s: float,
    as_json: bool,
    **flags: object,
) -> None:
    """Hand a task to central: as TASK_JSON, as a file, or by flags.

    What does not fit is refused by central; its reason is printed and the exit code is 1.
    """
    flags["regions"] = flags["regions"] or None
    _merge_budgets(flags)
    payload = _payload(task_json, source, flags, sets)
    status = _ask(options.settings(broker, mqtt_protocol), payload, wait_s)
    print_status(status, as_json=as_json)
    sys.exit(1 if status.state == "rejected" else 0)


def _merge_budgets(flags: dict[str, object]) -> None:
    kib = flags.pop("uplink_budget_kib")
    if not isinstance(kib, int):
        return
    if flags["uplink_budget_bits"] is not None:
        message = "give the budget once: --uplink-budget-bits or --uplink-budget-kib"
        raise click.UsageError(message)
    flags["uplink_budget_bits"] = kib * _KIB_BITS


def _payload(
    task_json: str | None,
    source: BinaryIO | None,
    flags: dict[str, object],
    sets: tuple[str, ...],
) -> bytes:
    by_flags = bool(sets) or any(value is not None for value in flags.values())
    if [task_json is not None, source is not None, by_flags].count(True) != 1:
        message = "give the task once: as JSON, or with -f, or by flags such as --model"
        raise click.UsageError(message)
    try:
        if by_flags:
            fields = {name.replace("__", "."): value for name, value in flags.items()}
            return submission.build(fields, sets)
        payload = task_json.encode() if task_json is not None else source.read()  # type: ignore[union-attr]
        submission.check_json(payload)
    except submission.SubmissionError as error:
        raise click.UsageError(str(error)) from error
    return payload


def _ask(settings: ConnectionSettings, payload: bytes, wait_s: float) -> TaskStatus:
    ids = submission.possible_ids(payload)
    with open_client(settings, (status_filter(), _CENTRAL.name)) as client:
        before = client.collect(wait_s)
        client.publish(_SUBMIT, payload)
        status = _answer(client, ids, newest(before), wait_s)
    if status is not None:
        return status
    message = f"central has not answered within {wait_s:g} s; {_central(before)}"
    raise NoAnswerError(message)


def _answer(
    client: FleetClient, ids: tuple[str, ...], before: dict[str, TaskStatus], wait_s: float
) -> TaskStatus | None:
    known = [status for status in before.values() if submission.is_answer(status.task, ids)]
    newest_known = max(known, key=lambda status: status.ts, default=None)
    # A task that has ended may get a numbered successor, which takes central its usual time.
    is_running = newest_known is not None and not newest_known.is_final
    end = time.monotonic() + (min(wait_s, _KNOWN_TASK_WAIT_S) if is_running else wait_s)
    while (message := client.next_message(end - time.monotonic())) is not None:
        status = read_status(message)
        if status and not message.retained and submission.is_answer(status.task, ids):
            return status
    return newest_known


def _central(before: list[Message]) -> str:
    states = [message for message in before if message.topic == _CENTRAL and message.payload]
    if not states:
        return "no central has ever been seen at this broker"
    try:
        status = CentralState.model_validate_json(states[-1].payload).status
    except ValueError:
        return "its state cannot be read"
    return f"it is {status}"
