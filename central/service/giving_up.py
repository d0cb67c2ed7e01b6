"""What an event was for ends when it cannot be handled: nobody waits for it in vain."""

from collections.abc import Iterator
from dataclasses import replace

from central.core import rounds as core
from central.core import tasks
from central.service.desk import Desk
from central.service.intake import Intake
from central.service.openings import Openings
from central.service.ports import ModelEvaluated, ModelPrepared, RoundAggregated
from central.service.rounds import Rounds
from schemas.envelope import decode_frame
from schemas.errors import WireError
from schemas.topics import Kind, parse
from transport.events import MessageArrived, Outgoing

_MAX_WHY = 300


class GivingUp:
    """Ends a job whose result cannot be used; tells persons of a message that was parked."""

    def __init__(self, desk: Desk, rounds: Rounds, openings: Openings, intake: Intake) -> None:
        self._desk = desk
        self._rounds = rounds
        self._openings = openings
        self._intake = intake

    def of(self, event: object, why: str, now_s: float) -> Iterator[Outgoing]:
        """Do what there is to be done about an event that was just parked."""
        why = why[:_MAX_WHY]
        match event:
            case MessageArrived():
                yield from self._message(event, why, now_s)
            case RoundAggregated(task, number):
                failed = core.AggregationFailed(f"its result could not be handled: {why}")
                yield from self._rounds.on_event(task, number, failed, now_s)
            case ModelPrepared(name):
                found = self._desk.task(name)
                failing = tasks.fail(found.progress, f"its model could not be handled: {why}")
                yield from self._openings.end_if_final(replace(found, progress=failing), now_s)
            case ModelEvaluated(name, number):
                unknown = ModelEvaluated(name, number, problem=why)
                yield from self._rounds.on_evaluated(unknown, now_s)
            case _:
                return

    def _message(self, message: MessageArrived, why: str, now_s: float) -> Iterator[Outgoing]:
        topic = parse(message.topic_name)
        if topic.kind is Kind.TASK_SUBMIT:
            text = f"central could not handle this submission and has parked it: {why}"
            yield from self._intake.not_handled(message.payload, text, now_s)
            return
        task = self._desk.store.task(topic.task or _task_of(message.payload) or "")
        if task is not None and not task.progress.is_final:
            reason = f"a message of {topic.kind.name} could not be handled and is parked: {why}"
            progress = replace(task.progress, reason=reason)
            self._desk.store.save_task(replace(task, progress=progress))
            self._desk.touch(task.task)


def _task_of(payload: bytes) -> str | None:
    try:
        return decode_frame(payload).header.task
    except WireError:
        return None
