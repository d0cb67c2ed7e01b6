"""The base of every failure that a command reports in one line and with exit code 1."""


class FleetError(Exception):
    """A command could not do what was asked; the text says why and, if known, what helps."""
