"""The id that a device draws for itself, kept in its state directory.

An id belongs to the state: the outbox, the memories of codecs and the receipts are of the device
that has them. So a container or a machine that keeps its volume keeps its id, whatever its name.
"""

from collections.abc import Callable
from pathlib import Path

from schemas.ids import RESERVED, is_id
from transport.syncing import sync

#: The setting ``id`` that asks for one.
AUTO = "auto"
#: File in the state directory.
FILE = "device-id"
_LONGEST = 64


class IdentityError(ValueError):
    """The file with the device's id does not hold one."""


def own_id(given: str, state_dir: Path, draw: Callable[[], str]) -> str:
    """Return the device's id: ``given``, or for ``auto`` the kept one, drawn at the first start.

    Args:
        given: The setting.
        state_dir: Where the id is kept; the caller holds its lock.
        draw: Returns some hex digits, other ones for every device.

    Raises:
        IdentityError: The file was changed into something that is no id.
    """
    if given != AUTO:
        return given
    path = state_dir / FILE
    if not path.exists():
        _write(path, f"d-{draw()}")
    with path.open(encoding="utf-8", errors="replace") as stream:
        found = stream.read(_LONGEST).strip()
    if not is_id(found) or found in RESERVED | {AUTO}:
        message = f"{path}: {found!r} is not a device's id; remove the file to draw another one"
        raise IdentityError(message)
    return found


def _write(path: Path, text: str) -> None:
    """Write a file that after a power cut is there whole, or not at all."""
    fresh = path.with_suffix(".new")
    fresh.write_text(f"{text}\n", encoding="ascii")
    sync(fresh)
    fresh.replace(path)
    sync(path.parent)
