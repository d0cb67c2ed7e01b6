"""What a program's composition root asks of its metrics, and the answer where they are off."""

from collections.abc import Callable, Mapping
from typing import Generic, Protocol, TypeVar

from transport.handler import Handler
from transport.loop import ServiceLoop
from transport.traffic import Traffic

S = TypeVar("S")
S_contra = TypeVar("S_contra", contravariant=True)


class MetricsError(Exception):
    """Metrics were asked for and cannot be told; the text says what to do."""


class Metered(Protocol):
    """A session whose bytes are counted."""

    @property
    def is_connected(self) -> bool:
        """Whether it stands."""

    @property
    def traffic(self) -> Traffic:
        """Bytes over all its connections."""


class Measuring(Protocol[S_contra]):
    """Takes what a program has to tell; a snapshot of how it stands is an ``S_contra``."""

    def committed(self, seconds: float) -> None:
        """Take the time of one turn of the loop: its events handled and committed."""

    def observe(self, handler: Handler, take: Callable[[float], S_contra]) -> Handler:
        """Return the handler for the loop.

        Args:
            handler: The program's own.
            take: Says how things stand at a time, unix seconds; called on the loop's thread.
        """

    def serve(self, loop: ServiceLoop, sessions: Mapping[str, Metered]) -> None:
        """Begin to tell."""

    def close(self) -> None:
        """Tell no more."""


class Unmeasured(Generic[S]):
    """The metrics of a program without a ``metrics_port``: nothing is taken and nothing told."""

    def committed(self, seconds: float) -> None:
        """Do nothing."""

    def observe(self, handler: Handler, take: Callable[[float], S]) -> Handler:  # noqa: ARG002 - the port's
        """Return the handler as it is."""
        return handler

    def serve(self, loop: ServiceLoop, sessions: Mapping[str, Metered]) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


def library_missing(error: ImportError) -> MetricsError:
    """Return what to tell a person who wants metrics and has not installed their library."""
    message = (
        f"metrics_port: {error}; install it with pip install 'fedfleet[gateway]'"
        " (the extra central has it too), or leave metrics_port out"
    )
    return MetricsError(message)
