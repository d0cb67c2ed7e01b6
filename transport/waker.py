"""How one thread waits for its connection and for other threads at the same time."""

import contextlib
import selectors
import socket
from typing import Any

from paho.mqtt.client import Client

#: Longest wait, so that keepalive and timeouts are looked at.
TICK_S = 0.5


class Waker:
    """Wakes the thread that waits in a selector; ``wake`` is safe and cheap from any thread."""

    def __init__(self) -> None:
        self._ends: tuple[socket.socket, socket.socket] | None = None
        self._is_set = False

    def open(self) -> None:
        """Take the sockets; before that, and after ``close``, ``wake`` does nothing."""
        receiver, sender = self._ends = socket.socketpair()
        receiver.setblocking(False)  # noqa: FBT003
        sender.setblocking(False)  # noqa: FBT003

    @property
    def receiver(self) -> socket.socket | None:
        """What becomes readable by ``wake``; None while closed."""
        return None if self._ends is None else self._ends[0]

    def wake(self) -> None:
        """Make the next or present wait return at once."""
        ends = self._ends
        if ends is not None and not self._is_set:
            self._is_set = True
            with contextlib.suppress(OSError):  # full: awake already; closed: nobody waits
                ends[1].send(b"w")

    def clear(self) -> None:
        """Forget the calls so far; call it before looking at what they were about."""
        if self._ends is not None:
            with contextlib.suppress(BlockingIOError):
                self._ends[0].recv(4096)
        self._is_set = False

    def close(self) -> None:
        """Release the sockets."""
        ends, self._ends = self._ends, None
        for end in ends or ():
            end.close()


class Watched:
    """The sockets that the loop waits for: the connection's, and the waker's."""

    def __init__(self, selector: selectors.BaseSelector, waker: Waker) -> None:
        if waker.receiver is not None:
            selector.register(waker.receiver, selectors.EVENT_READ)
        self._selector = selector
        self._mask = 0

    def wait(self, client: Client) -> bool:
        """Wait until there is something to do; return whether the connection can be read."""
        opened: Any = client.socket()
        mask = selectors.EVENT_READ | (selectors.EVENT_WRITE if client.want_write() else 0)
        if self._mask == 0:
            self._selector.register(opened, mask)
        elif mask != self._mask:
            self._selector.modify(opened, mask)
        self._mask = mask
        has_decrypted = hasattr(opened, "pending") and opened.pending() > 0
        ready = self._selector.select(0.0 if has_decrypted else TICK_S)
        return has_decrypted or any(
            key.fileobj is opened and events & selectors.EVENT_READ for key, events in ready
        )
