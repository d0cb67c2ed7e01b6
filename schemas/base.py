"""The two bases of every message, and how a misfit is told to a person."""

from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

_MAX_SHOWN = 5
_MAX_VALUE_CHARACTERS = 60


class WireMessage(BaseModel):
    """What one program sends another: fields that it does not know are ignored."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", allow_inf_nan=False)


class PersonMessage(BaseModel):
    """What a person writes: a field that is not known is an error that names it."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


def explain(error: ValidationError, known: tuple[str, ...] = ()) -> str:
    """Return one line that names each wrong field, its value and the limit.

    Args:
        error: What pydantic found.
        known: Names of the fields that exist, to suggest the one that was meant.
    """
    found = error.errors(include_url=False)
    parts = [_explain_one(dict(item), known) for item in found[:_MAX_SHOWN]]
    if len(found) > _MAX_SHOWN:
        parts.append(f"and {len(found) - _MAX_SHOWN} more")
    return "; ".join(parts)


def _explain_one(item: dict[str, Any], known: tuple[str, ...]) -> str:
    field = ".".join(str(level) for level in item["loc"]) or "message"
    if item["type"] == "extra_forbidden":
        close = get_close_matches(field.rpartition(".")[2], known, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        return f"{field}: unknown field{hint}"
    if item["type"] == "missing":
        return f"{field}: required, but missing"
    reason = str(item["msg"]).removeprefix("Value error, ")
    shown = repr(item.get("input"))
    if len(shown) > _MAX_VALUE_CHARACTERS:
        shown = shown[:_MAX_VALUE_CHARACTERS] + "..."
    return f"{field}: {shown}: {reason[:1].lower()}{reason[1:]}"
