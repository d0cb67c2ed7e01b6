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
        heard_s: When it came last.
        need: Central's newest question for its chunks, if any: the pull must begin.
        is_pulled: Whether a pull was begun.
        is_taken: Whether its row was written.
    """

    device: str
    manifest: UpdateManifest
    frame: Frame
    offered_s: float
    heard_s: float
    need: Need | None = None
    is_pulled: bool = False
    is_taken: bool = False

    @property
    def is_bid(self) -> bool:
        """Whether it is pulled only once central asks for it: a bid for its round's budget."""
        return self.manifest.bid is not None

    @property
    def is_bid_only(self) -> bool:
        """Whether it is a bid that central has not asked for: no room is kept for it."""
        return self.is_bid and self.need is None and not self.is_pulled


class Offers:
    """The offers of a region, by transfer id."""

    def __init__(self) -> None:
        self._offers: dict[str, Offered] = {}

    def put(self, offered: Offered) -> Offered:
        """Note an offer; a repeated one stays as it is, and is returned."""
        known = self._offers.setdefault(offered.manifest.xfer, offered)
        known.heard_s = offered.heard_s
        return known

    def get(self, xfer: str) -> Offered | None:
        """Return one, or None."""
        return self._offers.get(xfer)

    def drop(self, xfer: str) -> None:
        """Forget one; an unknown one is no error."""
        self._offers.pop(xfer, None)

    def unpulled(self) -> list[Offered]:
        """Return those whose pull has not begun and may, oldest first."""
        return [
            offered
            for offered in self._offers.values()
            if not offered.is_pulled and not offered.is_bid_only
        ]

    def bids(self) -> list[Offered]:
        """Return the bids whose object is not here yet, granted or not, oldest first."""
        return [one for one in self._offers.values() if one.is_bid and not one.is_taken]

    def count(self) -> int:
        """Return how many there are."""
        return len(self._offers)

    def promised_bytes(self) -> int:
        """Return the size of all that is to be pulled and has no row yet."""
        return sum(
            offered.manifest.object.size
            for offered in self._offers.values()
            if not offered.is_taken and not offered.is_bid_only
        )

    def names(self, sha256: str) -> bool:
        """Tell whether one of them is of this object."""
        return any(o.manifest.object.sha256 == sha256 for o in self._offers.values())
