"""Identifiers and their grammar.

An id is one MQTT topic level: ``[a-z0-9][a-z0-9-]{0,31}``, so it can carry neither a wildcard
(``+ #``) nor a separator (``/``). A transfer id is 32 hex digits, an object's name is its SHA-256.
"""

import hashlib
import re
from typing import Annotated

from pydantic import AfterValidator, StringConstraints

ID_PATTERN = r"^[a-z0-9][a-z0-9-]{0,31}$"
#: Names with a meaning of their own; no region or device may be called so.
RESERVED = frozenset({"gw", "all", "ctl", "central"})

_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_HEX = re.compile(r"[0-9a-f]+")

TRANSFER_ID_LENGTH = 32
SHA16_LENGTH = 16
MARK_LENGTH = 6


def is_id(value: str) -> bool:
    """Tell whether ``value`` fits the grammar of ids; a trailing newline does not."""
    return _ID.fullmatch(value) is not None


def is_hex(value: str, length: int) -> bool:
    """Tell whether ``value`` is exactly ``length`` lower-case hex digits."""
    return len(value) == length and _HEX.fullmatch(value) is not None


def _fits(value: str) -> str:
    if not is_id(value):
        message = "not an id: use 1 to 32 of a-z, 0-9 and '-', not '-' first"
        raise ValueError(message)
    return value


def _not_reserved(value: str) -> str:
    if value in RESERVED:
        message = "reserved; choose another name"
        raise ValueError(message)
    return value


TaskId = Annotated[str, AfterValidator(_fits)]
DeviceId = Annotated[str, AfterValidator(_fits), AfterValidator(_not_reserved)]
RegionId = Annotated[str, AfterValidator(_fits), AfterValidator(_not_reserved)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}\z")]
TransferId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}\z")]


def transfer_id(source: str, task: str, round_number: int, object_sha256: str) -> str:
    """Return the transfer id of one object sent by one source for one round.

    It is a digest, so a restarted sender finds the same id without having stored it.
    """
    text = f"{source}|{task}|{round_number}|{object_sha256}"
    return hashlib.sha256(text.encode()).hexdigest()[:TRANSFER_ID_LENGTH]


def contribution_mark(xfer: str, reference: int) -> str:
    """Return what tells one update of a device from another one for the same round, 6 hex digits.

    Args:
        xfer: The update's transfer id.
        reference: The round that it builds on; the same bytes on another one leave other things.
    """
    return hashlib.sha256(f"{xfer}|{reference}".encode()).hexdigest()[:MARK_LENGTH]


def derived_task_id(payload: bytes) -> str:
    """Return the id of a task that was submitted without one: ``t-`` and a digest's prefix."""
    return "t-" + hashlib.sha256(payload).hexdigest()[:12]
