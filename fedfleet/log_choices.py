"""What a person may choose of the logs; apart from ``fedfleet.logs``, which loads structlog."""

LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("json", "console")
