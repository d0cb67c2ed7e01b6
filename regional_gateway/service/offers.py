"""Large updates that devices offer and that are not yet in custody; in memory.

A crash loses nothing: the device has no receipt, offers again, and a pull goes on where its part
file ends.
"""

from dataclasses import dataclass

from schemas.envelope import Frame
from schemas.messages import Need, UpdateManifest


@dataclass(slots=True)
class Offered:
    """One large update.

    Attributes:
        device: Whose it is.
        manifest: The frame's body.
        frame: The device's frame as it came.
        offered_s: When it first came.
        need: Central's newest question for its chunks, if any: the pull must begin.
        is_pulled: Whether a pull was begun.
        is_taken: Whether its row was written.
    """

    device: str
    manifest: UpdateManifest
    frame: Frame
    offered_s: float
    need: Need | None = None
    is_pulled: bool = False
    is_taken: bool = False


class Offers:
    """The offers of a region, by transfer id."""

    def __init__(self) -> None:
        self._offers: dict[str, Offered] = {}

    def put(self, offered: Offered) -> Offered:
        """Note an offer; a repeated one stays as it is, and is returned."""
        return self._offers.setdefault(offered.manifest.xfer, offered)

    def get(self, xfer: str) -> Offered | None:
        """Return one, or None."""
        return self._offers.get(xfer)

    def drop(self, xfer: str) -> None:
        """Forget one; an unknown one is no error."""
        self._offers.pop(xfer, None)

    def unpulled(self) -> list[Offered]:
        """Return those whose pull has not begun, oldest first."""
        return [offered for offered in self._offers.values() if not offered.is_pulled]

    def promised_bytes(self) -> int:
        """Return the size of all that is to be pulled and has no row yet."""
        return sum(o.manifest.object.size for o in self._offers.values() if not o.is_taken)

    def names(self, sha256: str) -> bool:
        """Tell whether one of them is of this object."""
        return any(o.manifest.object.sha256 == sha256 for o in self._offers.values())
