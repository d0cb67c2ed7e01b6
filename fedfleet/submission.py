"""A task as the bytes that a person would publish; only JSON's syntax is looked at here."""

import json
from collections.abc import Iterable, Mapping

from fedfleet.errors import FleetError
from schemas.ids import derived_task_id, is_id


class SubmissionError(FleetError):
    """What was given is not JSON, or a setting is not ``NAME=VALUE``."""


def build(flags: Mapping[str, object], settings: Iterable[str]) -> bytes:
    """Return the message that flags and settings stand for.

    Args:
        flags: Field -> value; ``training.epochs`` is a field of an object; None: not given.
        settings: ``NAME=VALUE`` each, where VALUE is JSON, or else text as it stands.

    Raises:
        SubmissionError: A setting has no ``=``, or one field is both a value and an object.
    """
    fields: dict[str, object] = {}
    for name, value in (*flags.items(), *map(setting, settings)):
        if value is not None:
            _put(fields, name, value)
    return json.dumps(fields, separators=(",", ":")).encode()


def check_json(payload: bytes) -> None:
    """Refuse what is not JSON, before anybody is asked.

    Raises:
        SubmissionError: The text says where it ends to be JSON.
    """
    try:
        json.loads(payload)
    except ValueError as error:
        message = f"the task is not JSON: {error}"
        raise SubmissionError(message) from error


def possible_ids(payload: bytes) -> tuple[str, ...]:
    """Return the ids under which central may answer: the one given, and the derived one."""
    fields = json.loads(payload)
    given = fields.get("task") if isinstance(fields, dict) else None
    derived = derived_task_id(payload)
    return (given, derived) if isinstance(given, str) and is_id(given) else (derived,)


def is_answer(task: str, ids: tuple[str, ...]) -> bool:
    """Tell whether ``task`` is one of ``ids``, or a numbered successor of one: ``t-1-2``."""
    base, _, number = task.rpartition("-")
    return task in ids or (base in ids and number.isdigit())


def setting(text: str) -> tuple[str, object]:
    """Return the name and the value of ``NAME=VALUE``.

    Raises:
        SubmissionError: There is no ``=``, or nothing before it.
    """
    name, equals, value = text.partition("=")
    if not equals or not name:
        message = f"{text!r} is not NAME=VALUE"
        raise SubmissionError(message)
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _put(fields: dict[str, object], name: str, value: object) -> None:
    *path, last = name.split(".")
    for level in path:
        inner = fields.setdefault(level, {})
        if not isinstance(inner, dict):
            message = f"{name}: {level} has a value already"
            raise SubmissionError(message)
        fields = inner
    fields[last] = value
