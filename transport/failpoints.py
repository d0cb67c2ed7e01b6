"""Named places at the edges of durability where a test may end the program, or fill its disk.

``FEDFLEET_FAILPOINT=name:nth:action`` arms one of them in one process: the action is taken the
``nth`` time the program comes by. ``kill`` is SIGKILL, ``nospace`` a full disk. Nothing is armed
otherwise, and a place that is not armed costs one call of a function that looks at one name.
"""

import errno
import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass

VARIABLE = "FEDFLEET_FAILPOINT"
ACTIONS = ("kill", "nospace")

_hook: Callable[[str], None] | None = None


class FailpointError(ValueError):
    """The environment names a failpoint in a way that cannot be understood."""


def failpoint(name: str) -> None:
    """Come by the place ``name``; whatever is armed happens here."""
    if _hook is not None:
        _hook(name)


def arm(hook: Callable[[str], None] | None) -> None:
    """Call ``hook`` with the name of each place that the program comes by; None: nothing."""
    global _hook  # noqa: PLW0603 - one process has one set of failpoints
    _hook = hook


def arm_from(environment: Mapping[str, str]) -> None:
    """Arm what the environment names; without the variable nothing is armed.

    Raises:
        FailpointError: The variable is not ``name:nth:action``.
    """
    text = environment.get(VARIABLE)
    arm(None if not text else Armed.parse(text))


@dataclass(slots=True)
class Armed:
    """One failpoint that is armed; call it with each name that the program comes by."""

    name: str
    nth: int
    action: str
    passed: int = 0

    @classmethod
    def parse(cls, text: str) -> "Armed":
        """Read ``name:nth:action``.

        Raises:
            FailpointError: It does not have that form; the text names the part and the limit.
        """
        name, nth, action = (*text.split(":"), "", "", "")[:3]
        if text.count(":") != 2 or not name:  # noqa: PLR2004 - three parts
            message = f"{VARIABLE}: {text!r} is not name:nth:action"
            raise FailpointError(message)
        if not nth.isdecimal() or int(nth) < 1:
            message = f"{VARIABLE}: nth is {nth!r}, must be a whole number of at least 1"
            raise FailpointError(message)
        if action not in ACTIONS:
            message = f"{VARIABLE}: action is {action!r}, must be one of {', '.join(ACTIONS)}"
            raise FailpointError(message)
        return cls(name, int(nth), action)

    def __call__(self, name: str) -> None:
        """Count a visit; act when it is the one."""
        if name != self.name:
            return
        self.passed += 1
        if self.passed != self.nth:
            return
        if self.action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
