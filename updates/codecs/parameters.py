"""Checks of codec parameters: what a task gives is not trusted to have the declared type."""

from collections.abc import Sequence

from updates.errors import CodecParameterError


def check_int(field: str, value: object, low: int, high: int) -> None:
    """Refuse what is not a whole number from ``low`` to ``high``.

    Raises:
        CodecParameterError: It is not.
    """
    if type(value) is not int or not low <= value <= high:
        limit = f"must be a whole number, {low} to {high}"
        raise CodecParameterError(field=field, value=value, limit=limit)


def check_number(field: str, value: object, low: float, high: float) -> None:
    """Refuse what is not a number from ``low`` to ``high``.

    Raises:
        CodecParameterError: It is not, or it is NaN.
    """
    number = value if isinstance(value, (int, float)) and type(value) is not bool else None
    if number is None or not low <= number <= high:
        limit = f"must be a number, {low:g} to {high:g}"
        raise CodecParameterError(field=field, value=value, limit=limit)


def check_flag(field: str, value: object) -> None:
    """Refuse what is neither true nor false.

    Raises:
        CodecParameterError: It is something else.
    """
    if type(value) is not bool:
        raise CodecParameterError(field=field, value=value, limit="must be true or false")


def check_choice(field: str, value: object, choices: Sequence[str]) -> None:
    """Refuse what is not one of the choices.

    Raises:
        CodecParameterError: It is something else.
    """
    if value not in choices:
        limit = f"must be one of {', '.join(choices)}"
        raise CodecParameterError(field=field, value=value, limit=limit)
