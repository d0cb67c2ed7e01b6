"""Which of the bytes that a device counts belong to one update.

A device tells in an update's manifest what its session sent and received for its jobs since its
boot began. What is new since its last accepted update, and the packets of this update, which come
after the manifest was written, belong to this one. So every byte is counted once, and the sum over
rounds lacks only what follows the last update: its receipt and the last word on its job.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Counted:
    """Up to where a device's bytes in one life are counted.

    Attributes:
        boot: Number of the device's life.
        sent_bytes: Sent in it.
        received_bytes: Received in it.
    """

    boot: int
    sent_bytes: int
    received_bytes: int


@dataclass(frozen=True, slots=True)
class Share:
    """What one update took on the wire, bytes."""

    uplink_bytes: int
    downlink_bytes: int


#: What an update that is not accepted takes: its bytes fall to the next one that is.
NOTHING = Share(0, 0)


def attribute(known: Counted | None, told: Counted, own_bytes: int) -> tuple[Share, Counted]:
    """Return the share of one update, and up to where its device's bytes are now counted.

    Nothing is ever negative: a device that was restarted counts from zero in a new life, one
    whose update is of an older life than the newest known adds only the update itself.

    Args:
        known: Up to where they were counted; None: this device is new.
        told: The manifest's counters, and the life it was written in.
        own_bytes: The packets of the update itself.
    """
    if known is not None and known.boot > told.boot:
        return Share(own_bytes, 0), known
    if known is None or known.boot < told.boot:
        known = Counted(told.boot, 0, 0)
    sent = max(known.sent_bytes, told.sent_bytes)
    received = max(known.received_bytes, told.received_bytes)
    share = Share(sent - known.sent_bytes + own_bytes, received - known.received_bytes)
    return share, Counted(told.boot, sent + own_bytes, received)
