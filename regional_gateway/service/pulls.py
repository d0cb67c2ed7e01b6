"""Large updates from devices: pulled when it is time, and in custody once they are whole."""

from functools import partial

import structlog

from regional_gateway.core.custody import Refuse, is_due
from regional_gateway.service.custody import Custody
from regional_gateway.service.deferred import Deferred
from regional_gateway.service.due import NEVER_S, NOW_S, earliest
from regional_gateway.service.links import Links
from regional_gateway.service.offers import Offered, Offers
from schemas.errors import IdentityError
from schemas.messages import Need
from schemas.topics import Kind
from transport.assembly import ObjectMismatchError
from transport.events import Outgoing
from transport.puller import Puller, PullProgress, PullRefusedError
from transport.sender import Sender

_log = structlog.get_logger()

#: How long central has to say that it does not want an object before it is pulled.
PULL_AFTER_S = 2.0
#: A device repeats its bid within a minute; so long after the last one it is gone.
_BID_KEPT_S = 600.0


class Pulls:
    """The way of a large update from its device into custody, and of its chunks to central."""

    def __init__(  # noqa: PLR0913, PLR0917 - collaborators, named by the composition root
        self,
        offers: Offers,
        custody: Custody,
        puller: Puller,
        sender: Sender,
        links: Links,
        deferred: Deferred,
    ) -> None:
        """Begin without pulls.

        Args:
            offers: What is to be pulled.
            custody: Takes what is whole.
            puller: Fetches from devices.
            sender: Serves central out of custody.
            links: Makes messages.
            deferred: What waits for the commit.
        """
        self._offers = offers
        self._custody = custody
        self._puller = puller
        self._sender = sender
        self._links = links
        self._deferred = deferred

    def on_offer(self, xfer: str, now_s: float) -> list[Outgoing]:
        """Take a repeated manifest as a sign that its device is there."""
        offered = self._offers.get(xfer)
        return self._pull(offered, now_s) if offered and offered.is_pulled else []

    def on_need(self, need: Need, now_s: float) -> list[Outgoing]:
        """Serve central out of custody; what is not there yet is pulled at once."""
        offered = self._offers.get(need.xfer)
        if offered is None or offered.is_taken:
            return self._serve(need, now_s)
        if offered.is_bid_only and not self._custody.has_room(offered):
            _log.warning("no_room_for_granted_update", xfer=need.xfer)
            return []  # central asks again
        offered.need = need
        return [] if offered.is_pulled else self._pull(offered, now_s)

    def on_chunk(
        self, device: str, xfer: str, k: int, data: bytes, now_s: float
    ) -> list[Outgoing]:
        """Take one chunk from a device; one that nobody asked for is ignored.

        Raises:
            IdentityError: Another device offered this transfer.
            PayloadError: It is not the chunk that the manifest names.
        """
        offered = self._offers.get(xfer)
        if offered is None:
            return []
        if offered.device != device:
            raise IdentityError(device, offered.device)
        try:
            progress = self._puller.chunk(xfer, k, data, now_s)
        except ObjectMismatchError as error:
            return self._give_up(offered, Refuse("E_DIGEST", str(error)))
        return self._go_on(offered, progress, now_s)

    def on_end(self, xfer: str) -> None:
        """Forget a pull that central's final receipt has made needless, after the commit."""
        self._deferred.add(partial(self._forget, xfer))

    def due(self, now_s: float, *, uplink_up: bool) -> list[Outgoing]:
        """Begin the pulls whose time has come, and ask again for what is overdue."""
        outgoing: list[Outgoing] = []
        for offered in self._offers.unpulled():
            wanted = offered.need is not None
            since_s = offered.offered_s
            if is_due(since_s, now_s, wanted=wanted, uplink_up=uplink_up, after_s=PULL_AFTER_S):
                outgoing += self._pull(offered, now_s)
        return outgoing + self._puller.due(now_s)

    def next_due_s(self, *, uplink_up: bool) -> float:
        """Return when ``due`` may have something to say; infinity: not before an event."""
        first_s = min((o.offered_s for o in self._offers.unpulled()), default=NEVER_S)
        begins_s = first_s + PULL_AFTER_S
        if not uplink_up and first_s < NEVER_S:
            begins_s = NOW_S
        return earliest(begins_s, self._puller.next_due_s())

    def wake(self, now_s: float) -> list[Outgoing]:
        """The downlink is back: ask for everything again."""
        return self._puller.wake(now_s)

    def bid_again(self) -> list[Outgoing]:
        """Central is back: tell it the bids, which it kept in memory."""
        return [
            self._links.up_transfer(Kind.MANIFEST, one.manifest.xfer, one.frame.encode())
            for one in self._offers.bids()
        ]

    def count(self) -> int:
        """Return how many large updates are offered and not in custody."""
        return self._offers.count()

    def expire(self, now_s: float) -> None:
        """Forget pulls and bids of devices that are gone; they offer again when they are back."""
        for xfer in self._puller.expire(now_s):
            self._offers.drop(xfer)
        for offered in self._offers.bids():
            if offered.is_bid_only and now_s - offered.heard_s >= _BID_KEPT_S:
                self._offers.drop(offered.manifest.xfer)

    def _pull(self, offered: Offered, now_s: float) -> list[Outgoing]:
        xfer, described = offered.manifest.xfer, offered.manifest.object
        ask = partial(self._ask, offered)
        try:
            progress = self._puller.start(xfer, described, offered.frame.tail, ask, now_s)
        except PullRefusedError as error:
            refusal = Refuse("E_BUSY", str(error), error.retry_after_s)
            return self._give_up(offered, refusal)
        offered.is_pulled = True
        return self._go_on(offered, progress, now_s)

    def _ask(self, offered: Offered, want: tuple[int, ...], credit: int) -> Outgoing:
        xfer = offered.manifest.xfer
        need = Need(xfer=xfer, want=want, credit=credit)
        frame = self._links.frames.frame(need, aud=offered.device)
        return self._links.down_transfer(offered.device, Kind.NEED, xfer, frame)

    def _go_on(self, offered: Offered, progress: PullProgress, now_s: float) -> list[Outgoing]:
        outgoing = list(progress.outgoing)
        if progress.completed is None:
            return outgoing
        outgoing += self._custody.take_large(offered, now_s)
        offered.is_taken = True
        if offered.need is not None:
            outgoing += self._serve(offered.need, now_s)
        self._deferred.add(partial(self._forget, offered.manifest.xfer))
        return outgoing

    def _serve(self, need: Need, now_s: float) -> list[Outgoing]:
        try:
            return self._sender.on_need(need, now_s)
        except FileNotFoundError:  # the device offers again and gives the object once more
            _log.error("custody_file_missing", xfer=need.xfer)
            return []

    def _give_up(self, offered: Offered, refusal: Refuse) -> list[Outgoing]:
        self._offers.drop(offered.manifest.xfer)
        return [self._custody.refused(offered, refusal)]

    def _forget(self, xfer: str) -> None:
        self._puller.forget(xfer)
        self._offers.drop(xfer)
