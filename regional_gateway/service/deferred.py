"""What must not happen before the commit: removing a file, forgetting a pull.

A transaction may be undone after something was put here; so each action looks again whether it
still applies, and doing it twice is harmless.
"""

from collections.abc import Callable

from transport.failpoints import failpoint


class Deferred:
    """Actions that wait for the next commit."""

    def __init__(self) -> None:
        self._actions: list[Callable[[], None]] = []

    def add(self, action: Callable[[], None]) -> None:
        """Run ``action`` once, after the next commit."""
        self._actions.append(action)

    def run(self) -> None:
        """Run what waits; called after a commit."""
        actions, self._actions = self._actions, []
        for action in actions:
            action()
            failpoint("gateway.deferred.done")
