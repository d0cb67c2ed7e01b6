"""A way through TCP that can be cut: a small proxy in front of a broker, for one program.

Cut, it drops what is connected and refuses whoever tries again: a radio that is off, a cable that
is pulled. What was under way in its buffers is lost.
"""

import contextlib
import socket
import threading
from collections.abc import Iterator

from tests.support.brokers import HOST, free_port

_PIECE_BYTES = 64 * 1024
_ACCEPT_S = 0.2


class CuttableLink:
    """Listens on a port of its own and passes everything on to another while it is whole.

    Attributes:
        port: Where it listens, also after it was cut.
    """

    def __init__(self, target_port: int) -> None:
        self.port = free_port()
        self._target_port = target_port
        self._lock = threading.Lock()
        self._is_cut = False
        self._is_closed = False
        self._sockets: set[socket.socket] = set()
        self._listener = socket.create_server((HOST, self.port))
        self._listener.settimeout(_ACCEPT_S)
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"mqtt://{HOST}:{self.port}"

    def cut(self) -> None:
        """End every connection, and let none be made."""
        with self._lock:
            self._is_cut = True
            for one in self._sockets:
                _end(one)
            self._sockets.clear()

    def heal(self) -> None:
        """Let connections be made again."""
        with self._lock:
            self._is_cut = False

    def close(self) -> None:
        self._is_closed = True
        self.cut()
        self._thread.join()
        self._listener.close()

    def _accept(self) -> None:
        while not self._is_closed:
            with contextlib.suppress(TimeoutError):
                near, _ = self._listener.accept()
                self._join(near)

    def _join(self, near: socket.socket) -> None:
        far = None
        with contextlib.suppress(OSError):
            far = socket.create_connection((HOST, self._target_port))
        with self._lock:
            if far is None or self._is_cut:
                for one in (near, far):
                    if one is not None:
                        one.close()
                return
            self._sockets |= {near, far}
        for source, sink in ((near, far), (far, near)):
            threading.Thread(target=self._pass_on, args=(source, sink), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(_PIECE_BYTES):
                sink.sendall(piece)
        with self._lock:
            for one in (source, sink):
                self._sockets.discard(one)
                _end(one)


@contextlib.contextmanager
def cuttable_link(target_port: int) -> Iterator[CuttableLink]:
    """Yield a link to a port of this machine; it is gone at the end."""
    link = CuttableLink(target_port)
    try:
        yield link
    finally:
        link.close()


def _end(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()
