"""The terminal that a machine is set up from: it may go away, and the work is ended all the same.

A connection that breaks between the stop and the start of a program would else leave it stopped.
"""

import contextlib
import signal

import click


def outlive() -> None:
    """Go on when the terminal hangs up; Ctrl-C still ends the work."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def say(text: str) -> None:
    """Tell a step on stderr, to whoever is still there."""
    with contextlib.suppress(OSError):
        click.echo(text, err=True)
