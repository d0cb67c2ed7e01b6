"""The page that Prometheus reads: ``GET /metrics`` on a thread of its own, and nothing else."""

import socket
import sys
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from transport.measuring import MetricsError

PATH = "/metrics"
#: A client that says nothing for so long is gone.
_PATIENCE_S = 10.0
_POLL_S = 0.1


class MetricsServer:
    """Has its port from the start on, answers from ``start`` to ``close``.

    Requests are answered one after another, whoever asks: a page is made in milliseconds.
    """

    def __init__(self, registry: CollectorRegistry, host: str, port: int) -> None:
        """Take the port.

        Raises:
            MetricsError: It cannot, since the port is in use say.
        """
        handler = type(
            "_Handler", (_PageHandler,), {"registry": registry, "turn": threading.Lock()}
        )
        kind = _V6Server if ":" in host else _Server
        try:
            self._server = kind((host, port), handler)
        except (OSError, OverflowError, UnicodeError) as error:
            why = error.strerror if isinstance(error, OSError) and error.strerror else error
            message = f"metrics_port: cannot listen on {host}, port {port}: {why}; choose another"
            raise MetricsError(message) from error
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_POLL_S,), name="metrics", daemon=True
        )

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def close(self) -> None:
        """Release the port; a page that is being made is given up."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def server_bind(self) -> None:
        """Bind without asking DNS for this machine's name, as the base would."""
        if self.allow_reuse_address:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def handle_error(self, request: object, client_address: object) -> None:
        """Let whoever asked hang up; another fault is printed as the base does."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class _V6Server(_Server):
    address_family = socket.AF_INET6


class _PageHandler(BaseHTTPRequestHandler):
    registry: ClassVar[CollectorRegistry]
    turn: ClassVar[threading.Lock]
    timeout = _PATIENCE_S
    server_version = "fedfleet"
    sys_version = ""

    def do_GET(self) -> None:
        """Answer with the page, or say where it is."""
        if self.path.partition("?")[0] != PATH:
            self.send_error(HTTPStatus.NOT_FOUND, explain=f"There is only {PATH}")
            return
        encode, content_type = choose_encoder(self.headers.get("Accept", ""))
        with self.turn:
            page = encode(self.registry)
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def log_message(self, *_: object) -> None:
        """Say nothing: a line each scrape helps nobody."""
