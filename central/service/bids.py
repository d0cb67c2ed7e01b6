"""Bids of the open rounds, in memory: a crash loses nothing, devices repeat their manifests."""

from dataclasses import dataclass

from central.core.budget import Candidate, grant
from central.core.rounds import Grant
from central.core.strategies.registry import weighs_examples
from central.service.records import RoundRecord, TaskRecord
from schemas.bids import Bid, decode_bid
from schemas.envelope import Frame
from schemas.errors import WireError
from schemas.messages import UpdateManifest


@dataclass(frozen=True, slots=True)
class HeardBid:
    """One client's bid.

    Attributes:
        region: Through which region it came.
        offer: The manifest that carries it.
        frame: The manifest's frame, for the pull.
        bid: What it says.
    """

    region: str
    offer: UpdateManifest
    frame: Frame
    bid: Bid


class BidError(WireError):
    """An update in a round with an uplink budget does not bid as it must."""

    code = "E_BID"


def read_bid(offer: UpdateManifest) -> Bid:
    """Return the bid in a manifest.

    Raises:
        BidError: There is none, it is of another size, or the update rides inline.
        MessageError: Its gain is not one.
    """
    if offer.bid is None or offer.object.inline:
        text = "bid: the round has an uplink budget, an update needs a bid and is pulled"
        raise BidError(text)
    bid = decode_bid(offer.bid)
    if bid.size_bytes != offer.object.size:
        text = f"bid: {bid.size_bytes} bytes, object.size says {offer.object.size}"
        raise BidError(text)
    return bid


class Bids:
    """Every bid of every round that awaits its grants; the newest word of a device stands."""

    def __init__(self) -> None:
        self._heard: dict[tuple[str, int], dict[str, HeardBid]] = {}
        #: Rounds whose grants stand and whose bidders wait for their answer.
        self._due: list[tuple[str, int]] = []

    def put(self, heard: HeardBid) -> None:
        """Note a bid."""
        offer = heard.offer
        self._heard.setdefault((offer.task, offer.round), {})[offer.device] = heard

    def bidders(self, task: str, number: int) -> frozenset[str]:
        """Return the devices that have bid in a round."""
        return frozenset(self._heard.get((task, number), ()))

    def grants(
        self, task: TaskRecord, record: RoundRecord, candidates: frozenset[str]
    ) -> frozenset[Grant]:
        """Spend a round's budget on the bids of some devices."""
        heard = self._heard.get((task.task, record.state.number), {})
        weighted = weighs_examples(task.submission.strategy)
        asked = task.submission
        devices = grant(
            (_candidate(heard[device], weighted=weighted) for device in candidates),
            record.state.budget_bits or 0,
            asked.budget_max_clock,
        )
        granted = (heard[device].offer for device in devices)
        return frozenset(Grant(one.device, one.xfer, one.object.size) for one in granted)

    def answer_due(self, task: str, number: int) -> None:
        """Note that the grants of a round stand."""
        self._due.append((task, number))

    def take_due(self) -> list[HeardBid]:
        """Return the bids of rounds whose grants stand, in device order, and forget them here."""
        due, self._due = self._due, []
        found = [self._heard.pop(key, {}) for key in due]
        return [heard[device] for heard in found for device in sorted(heard)]

    def forget(self, task: str, number: int) -> None:
        """Forget the bids of a round that has ended, unless their answer is due."""
        if (task, number) not in self._due:
            self._heard.pop((task, number), None)


def _candidate(heard: HeardBid, *, weighted: bool) -> Candidate:
    weight = float(heard.offer.num_examples) if weighted else 1.0
    bid = heard.bid
    return Candidate(heard.offer.device, weight * weight * bid.gain, bid.cost_bits, bid.clock)
