"""systemd's notify socket: datagrams that tell the service manager how a program is.

The protocol is sd_notify(3): lines ``NAME=VALUE`` in one datagram to the socket that
``NOTIFY_SOCKET`` names; a name that begins with ``@`` is one of Linux's abstract names.
"""

import os
import socket
from collections.abc import Mapping

from typing_extensions import Self

_US = 1_000_000


class NotifySocket:
    """Sends to the service manager, or nowhere when there is none; never blocks, never raises.

    Attributes:
        watchdog_s: How long the manager waits for a sign of life; None: it does not.
    """

    def __init__(self, address: str | None, watchdog_s: float | None = None) -> None:
        """Prepare to send to ``address``, a path or ``@name``; None sends nowhere."""
        self.watchdog_s = watchdog_s
        self._address = _kernel_name(address)

    @classmethod
    def of_environment(cls, environment: Mapping[str, str], pid: int) -> Self:
        """Return the socket that the service manager gave to the process ``pid``.

        The watchdog counts only for the process that ``WATCHDOG_PID`` names, if it names one:
        a child inherits the variables, but is not the one that is watched.
        """
        address = environment.get("NOTIFY_SOCKET") or None
        watchdog_us = environment.get("WATCHDOG_USEC", "")
        is_watched = environment.get("WATCHDOG_PID") in (None, "", str(pid))
        if address is None or not is_watched or not watchdog_us.isdecimal():
            return cls(address)
        return cls(address, int(watchdog_us) / _US or None)

    @property
    def is_open(self) -> bool:
        """Whether there is a service manager to tell."""
        return self._address is not None

    def send(self, **assignments: str | int) -> bool:
        """Send one datagram; return False when it has not left and must be sent again.

        Args:
            assignments: As sd_notify(3) names them: ``READY=1``, ``STATUS="..."``.
        """
        if self._address is None:
            return True
        text = "\n".join(f"{name}={_one_line(value)}" for name, value in assignments.items())
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.sendto(text.encode(), socket.MSG_DONTWAIT, self._address)
        except OSError:
            return False
        return True


def _kernel_name(address: str | None) -> bytes | None:
    if address is None or address[:1] not in ("/", "@"):
        return None  # vsock, say: what runs in a virtual machine's place
    return os.fsencode("\0" + address[1:] if address.startswith("@") else address)


def _one_line(value: str | int) -> str:
    return str(value).replace("\n", " ")
