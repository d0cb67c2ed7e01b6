"""Logging, configured once for every program: events on stderr, results stay on stdout."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO


@contextmanager
def _without(module: str) -> Iterator[None]:
    """Let imports believe that ``module`` is not installed, unless it is loaded already.

    structlog loads rich for pretty tracebacks; that is a third of a device's start-up time.
    """
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[module]


with _without("rich"):
    import structlog


def configure(level: str, log_format: str, stream: TextIO | None = None) -> None:
    """Send every event of structlog and of the standard library to one stream.

    Args:
        level: Lowest level that is written, see ``log_choices``. Libraries are one step quieter.
        log_format: ``json`` writes one object a line, ``console`` is for reading.
        stream: Where to; stderr unless given.
    """
    stream = stream or sys.stderr
    number = getattr(logging, level.upper())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    final = _final_processors(log_format, colors=stream.isatty())
    structlog.configure(
        processors=[*shared, *final],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *final],
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
        )
    )
    quieter = number if level == "debug" else max(number, logging.WARNING)
    logging.basicConfig(handlers=[handler], level=quieter, force=True)


def _final_processors(log_format: str, *, colors: bool) -> list[structlog.typing.Processor]:
    if log_format == "console":
        return [
            structlog.dev.ConsoleRenderer(
                colors=colors, exception_formatter=structlog.dev.plain_traceback
            )
        ]
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
