"""When to repeat what was not answered: 1, 2, 4 ... 60 s, with jitter so that no herd forms."""

from dataclasses import dataclass

import numpy as np

_MAX_DOUBLINGS = 32


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential delays with jitter.

    Attributes:
        first_s: Delay after the first try.
        cap_s: Longest delay.
    """

    first_s: float = 1.0
    cap_s: float = 60.0

    def delay_s(self, tries: int, rng: np.random.Generator) -> float:
        """Return the wait before the next try: between half and whole of the full delay.

        Args:
            tries: How often it was repeated already, counted from 0.
            rng: Source of the jitter.
        """
        whole = min(self.cap_s, self.first_s * 2.0 ** min(tries, _MAX_DOUBLINGS))
        return whole * (0.5 + 0.5 * float(rng.random()))
