"""The embedded broker on a thread of the test's own process, where a test can reach into it."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from transport import embedded


@contextmanager
def running(users: dict[str, str] | None = None) -> Iterator[int]:
    """Run the broker on a thread of this process; yield its port."""
    ports: list[int] = []
    started = threading.Event()
    loops: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def main() -> None:
        stop = asyncio.Event()
        loops.append((asyncio.get_running_loop(), stop))

        def ready(port: int) -> None:
            ports.append(port)
            started.set()

        await embedded.serve(port=0, ready=ready, stop=stop, users=users)

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    assert started.wait(10.0)
    try:
        yield ports[0]
    finally:
        loop, stop = loops[0]
        loop.call_soon_threadsafe(stop.set)
        thread.join(10.0)
        assert not thread.is_alive()
