"""What central says of an update that is offered: the refusal as an error, and the receipts."""

from central.service.records import ContributionRecord, Refusal
from schemas.errors import WireError
from schemas.messages import Receipt, UpdateManifest


class UpdateRefusedError(WireError):
    """An update is well-formed, but it may not count.

    Attributes:
        status: ``late`` or ``rejected``, as in the receipt.
        retry_after_s: When it may be offered again; None: the refusal is final.
    """

    def __init__(
        self,
        text: str,
        code: str,
        status: str = "rejected",
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(text)
        self.code = code
        self.status = status
        self.retry_after_s = retry_after_s


def duplicate(offer: UpdateManifest, known: ContributionRecord) -> Receipt:
    """Return the receipt of an offer whose device has an update in the round already."""
    if known.xfer == offer.xfer:
        return final(offer, "duplicate")
    text = f"another update of {offer.device!r} is counted for round {offer.round}"
    return final(offer, "duplicate", text)


def final(offer: UpdateManifest, status: str, detail: str | None = None) -> Receipt:
    """Return a receipt that ends the transfer."""
    return Receipt.model_validate(
        {
            "xfer": offer.xfer,
            "status": status,
            "sha256": offer.object.sha256,
            "detail": detail,
        }
    )


def refused(refusal: Refusal, offer: UpdateManifest) -> Receipt:
    """Return the receipt that a final no gives, as often as it is asked for."""
    return Receipt.model_validate(
        {
            "xfer": offer.xfer,
            "status": refusal.status,
            "sha256": offer.object.sha256,
            "code": refusal.code,
            "detail": refusal.detail,
        }
    )


def not_now(offer: UpdateManifest, code: str, text: str, retry_after_s: float) -> Receipt:
    """Return the receipt that asks to offer again later."""
    return Receipt(
        xfer=offer.xfer,
        status="rejected",
        sha256=offer.object.sha256,
        code=code,
        detail=text,
        retry_after_s=retry_after_s,
    )
