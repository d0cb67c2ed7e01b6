"""What a person sees while something goes on: lines that stay, and a block that changes.

On a terminal the block is redrawn in place; elsewhere only the lines are written.
"""

import sys
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

from typing_extensions import Self

if TYPE_CHECKING:
    from rich.live import Live

_REFRESHES_PER_S = 8


class Screen:
    """A context manager; ``line`` and ``block`` write only inside it."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._live: Live | None = None

    @property
    def is_terminal(self) -> bool:
        """Whether somebody watches."""
        return self._stream.isatty()

    def __enter__(self) -> Self:
        """Take over the bottom of the terminal, if there is one."""
        if self.is_terminal:
            from rich.console import Console  # noqa: PLC0415  (60 ms that a pipe does not need)
            from rich.live import Live  # noqa: PLC0415

            console = Console(file=self._stream)
            self._live = Live(console=console, refresh_per_second=_REFRESHES_PER_S, transient=True)
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Take the block away; the lines stay."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def line(self, text: str) -> None:
        """Write one line that stays."""
        if self._live is not None:
            self._live.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            print(text, file=self._stream, flush=True)

    def block(self, text: str) -> None:
        """Show ``text`` below the lines, in the place of the block before."""
        if self._live is not None:
            from rich.text import Text  # noqa: PLC0415

            self._live.update(Text(text))
