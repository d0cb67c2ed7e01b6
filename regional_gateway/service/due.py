"""When something is due: unix seconds, with words for at once and never."""

NOW_S = float("-inf")
NEVER_S = float("inf")


def earliest(*times_s: float | None) -> float:
    """Return the earliest time; None and nothing at all mean never."""
    return min((time_s for time_s in times_s if time_s is not None), default=NEVER_S)
