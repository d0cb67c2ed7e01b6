"""A device's bid for a round's uplink budget: 8 bytes that ride in the update's manifest.

Wire layout, most significant byte first, written as 16 hex digits:

- ``gain``, 2 bytes: the upper half of a float32 (bfloat16), rounded to nearest, halves to even.
  It has the range of float32 and 8 significant bits: two gains within 0.4 % may tie.
- ``clock``, 2 bytes: bids of this device in a row that were not granted; 65535 and more are one.
- ``size_bytes``, 4 bytes: the encoded update's size less one, since an object has 1 to 2^32 bytes.
"""

import re
import struct
from dataclasses import dataclass

from schemas.errors import MessageError, shown
from schemas.limits import MAX_OBJECT_BYTES

MAX_CLOCK = 0xFFFF
_LAYOUT = struct.Struct(">HHI")
_HEX = re.compile(r"[0-9a-f]{16}")
#: The largest finite bfloat16, and the first word that is none: infinity.
_MAX_WORD, _INFINITY = 0x7F7F, 0x7F80
_MAX_FLOAT32 = struct.unpack(">f", b"\x7f\x7f\xff\xff")[0]


@dataclass(frozen=True, slots=True)
class Bid:
    """What an update is worth and what it costs.

    Attributes:
        gain: Squared Euclidean norm of the decoded update, unweighted, 0 or more.
        clock: Bids in a row of this device for this task that were not granted.
        size_bytes: Size of the encoded update; 8 times as many bits are its cost.
    """

    gain: float
    clock: int
    size_bytes: int

    @property
    def cost_bits(self) -> int:
        """What a grant takes from the budget."""
        return 8 * self.size_bytes

    def encode(self) -> str:
        """Return the bid as 16 hex digits; a gain or clock above the largest is that one.

        Raises:
            ValueError: The gain is negative or NaN, the clock negative, or the size not one.
        """
        if not self.gain >= 0 or self.clock < 0 or not 1 <= self.size_bytes <= MAX_OBJECT_BYTES:
            message = (
                f"bid: gain {self.gain}, clock {self.clock}, size_bytes {self.size_bytes}: "
                f"must be 0 or more, 0 or more, and 1 to {MAX_OBJECT_BYTES}"
            )
            raise ValueError(message)
        clock = min(self.clock, MAX_CLOCK)
        return _LAYOUT.pack(_word_of(self.gain), clock, self.size_bytes - 1).hex()


def decode_bid(text: str) -> Bid:
    """Return the bid that 16 hex digits stand for.

    Raises:
        MessageError: They are none, or the gain is negative, infinite or NaN.
    """
    if _HEX.fullmatch(text) is None:
        message = f"bid: {shown(text)}: must be 16 digits 0-9 a-f"
        raise MessageError(message)
    word, clock, less_one = _LAYOUT.unpack(bytes.fromhex(text))
    if word >= _INFINITY:
        message = f"bid: {text}: its gain is negative, infinite or NaN"
        raise MessageError(message)
    (gain,) = struct.unpack(">f", struct.pack(">I", word << 16))
    return Bid(gain, clock, less_one + 1)


def _word_of(gain: float) -> int:
    if gain >= _MAX_FLOAT32:
        return _MAX_WORD
    (bits,) = struct.unpack(">I", struct.pack(">f", abs(gain)))
    rounded = (int(bits) + 0x7FFF + (int(bits) >> 16 & 1)) >> 16
    return min(rounded, _MAX_WORD)
