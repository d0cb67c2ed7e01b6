"""Errors of updates.

- ``schemas.errors.PayloadError``: bytes or arrays that do not fit the layout or the codec
    - ``NonFiniteError``: a NaN or an infinity where every value must be finite
- ``CodecParameterError``: a task asks for a codec, or a setting of one, that does not exist
"""

from schemas.errors import PayloadError

_MAX_VALUE_CHARACTERS = 60


class NonFiniteError(PayloadError):
    """A value is NaN or infinite; one such value would spoil the whole aggregate."""

    code = "E_NONFINITE"


class CodecParameterError(ValueError):
    """A codec or one of its parameters is not known, or out of its range.

    Attributes:
        field: The parameter, or ``codec``.
        value: What was given.
        limit: What would be accepted.
    """

    def __init__(self, field: str, value: object, limit: str) -> None:
        shown = repr(value)
        if len(shown) > _MAX_VALUE_CHARACTERS:
            shown = shown[:_MAX_VALUE_CHARACTERS] + "..."
        super().__init__(f"{field}: {shown}: {limit}")
        self.field = field
        self.value = value
        self.limit = limit
