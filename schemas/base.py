"""The two bases of every message, and how a misfit is told to a person."""

from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from schemas.errors import MAX_SHOWN_CHARACTERS, shown

_MAX_SHOWN = 5
#: The level that pydantic adds when a key of a mapping, not its value, is wrong.
_KEY_LEVEL = "[key]"


class WireMessage(BaseModel):
    """What one program sends another: fields that it does not know are ignored."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", allow_inf_nan=False)


class PersonMessage(BaseModel):
    """What a person writes: a field that is not known is an error that names it."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


def without_unknown(model: type[BaseModel]) -> BeforeValidator:
    """Read a part that persons write too as a program's: unknown fields are ignored."""

    def keep(value: object) -> object:
        if not isinstance(value, dict):
            return value
        return {name: part for name, part in value.items() if name in model.model_fields}

    return BeforeValidator(keep)


def explain(error: ValidationError, known: tuple[str, ...] = ()) -> str:
    """Return one line that names each wrong field, its value and the limit.

    Args:
        error: What pydantic found.
        known: Names of the fields that exist, to suggest the one that was meant.
    """
    found = _causes([dict(item) for item in error.errors(include_url=False)])
    parts = [_explain_one(item, known) for item in found[:_MAX_SHOWN]]
    if len(found) > _MAX_SHOWN:
        parts.append(f"and {len(found) - _MAX_SHOWN} more")
    return "; ".join(parts)


def _causes(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leave out what only follows: a list is "too short" because its one entry was wrong."""
    above = {item["loc"][:depth] for item in found for depth in range(len(item["loc"]))}
    return [item for item in found if item["loc"] not in above]


def _explain_one(item: dict[str, Any], known: tuple[str, ...]) -> str:
    field = _field(item["loc"])
    if item["type"] == "extra_forbidden":
        close = get_close_matches(str(item["loc"][-1]), known, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        return f"{field}: unknown field{hint}"
    if item["type"] == "missing":
        return f"{field}: required, but missing"
    reason = str(item["msg"]).removeprefix("Value error, ")
    reason = f"{reason[:1].lower()}{reason[1:]}"
    if item["type"] == "value_error" and not item["loc"]:
        return reason
    return f"{field}: {shown(item.get('input'))}: {reason}"


def _field(loc: tuple[int | str, ...]) -> str:
    levels = [_level(str(level)) for level in loc if level != _KEY_LEVEL]
    return ".".join(levels) or "message"


def _level(level: str) -> str:
    if level.isprintable() and len(level) <= MAX_SHOWN_CHARACTERS:
        return level
    return shown(level)
