"""TCP proxies between programs and their broker, which can be shut, held up and slowed down.

One door for each session, all on one asyncio loop in a thread of its own; on loopback only.
"""

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Literal

from typing_extensions import Self

_HOST = "127.0.0.1"
_PIECE_BYTES = 1 << 16
_START_S = 10.0

Way = Literal["up", "down"]
BOTH: tuple[Way, ...] = ("up", "down")


class Door:
    """One program's way to the broker. Its methods belong to the proxies' thread.

    Attributes:
        port: Where the program connects.
        moved_bytes: Bytes that went through, each way: ``up`` is towards the broker.
        delay_s: How long each piece of at most 64 KiB waits.
    """

    def __init__(
        self, broker_port: int, watch: Callable[[Way, bytes], None] | None = None
    ) -> None:
        """Prepare a door.

        Args:
            broker_port: Where it leads.
            watch: Told every piece that goes through, on the proxies' thread.
        """
        self.port = 0
        self.moved_bytes: dict[Way, int] = {"up": 0, "down": 0}
        self.delay_s = 0.0
        self._broker_port = broker_port
        self._watch = watch
        self._is_shut = False
        self._passable = {way: asyncio.Event() for way in BOTH}
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Begin to listen on a free port."""
        self.let_through()
        self._server = await asyncio.start_server(self._serve, _HOST, 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stop listening and drop every connection."""
        if self._server is not None:
            self._server.close()
        self.drop()

    def drop(self) -> None:
        """Break every connection off; what was under way in the proxy is gone."""
        for writer in tuple(self._writers):
            writer.transport.abort()

    def shut(self) -> None:
        """Drop what there is and refuse what comes, until ``let_through``."""
        self._is_shut = True
        self.drop()

    def hold(self, ways: Sequence[Way]) -> None:
        """Let nothing through in these directions, while connections stay."""
        for way in ways:
            self._passable[way].clear()

    def let_through(self) -> None:
        """Take everything back: let connections and bytes through at once."""
        self._is_shut = False
        self.delay_s = 0.0
        for passable in self._passable.values():
            passable.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            broker_reader, broker_writer = await asyncio.open_connection(_HOST, self._broker_port)
        except OSError:
            writer.transport.abort()
            return
        except asyncio.CancelledError:
            writer.transport.abort()
            raise
        ends = {writer, broker_writer}
        self._writers |= ends
        if self._is_shut:
            self.drop()
        pumps = (
            asyncio.create_task(self._pump("up", reader, broker_writer)),
            asyncio.create_task(self._pump("down", broker_reader, writer)),
        )
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            self._writers -= ends
            for end in ends:
                end.transport.abort()

    async def _pump(
        self, way: Way, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            while data := await reader.read(_PIECE_BYTES):
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                await self._passable[way].wait()
                self.moved_bytes[way] += len(data)
                if self._watch is not None:
                    self._watch(way, data)
                writer.write(data)
                await writer.drain()
        except OSError:
            return


class Proxy:
    """All doors of a fleet; a context manager that opens and closes them."""

    def __init__(
        self,
        names: Sequence[str],
        broker_port: int,
        watch: Callable[[str, Way, bytes], None] | None = None,
    ) -> None:
        """Prepare the doors.

        Args:
            names: Of the programs' doors.
            broker_port: Where they lead.
            watch: Told the door, the way and the bytes of every piece that goes through.
        """
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._broker_port = broker_port
        self._names = tuple(names)
        self._watch = watch
        self._doors: dict[str, Door] = {}

    def __enter__(self) -> Self:
        """Open every door."""
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._open(), self._loop).result(_START_S)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close every door and end the thread."""
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(_START_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_START_S)
        self._loop.close()

    @property
    def ports(self) -> Mapping[str, int]:
        """Where each door listens."""
        return {name: door.port for name, door in self._doors.items()}

    @property
    def moved_bytes(self) -> int:
        """Bytes that went through all doors, both ways."""
        return sum(sum(door.moved_bytes.values()) for door in self._doors.values())

    def moved(self, name: str) -> Mapping[Way, int]:
        """Return the bytes that went through one door, by way."""
        return dict(self._doors[name].moved_bytes)

    def tell(self, name: str, what: Callable[[Door], None]) -> None:
        """Do something to one door, on the proxies' thread; returns at once."""
        self._loop.call_soon_threadsafe(what, self._doors[name])

    async def _open(self) -> None:
        for name in self._names:
            watch = None if self._watch is None else partial(self._watch, name)
            door = self._doors[name] = Door(self._broker_port, watch)
            await door.open()

    async def _close(self) -> None:
        for door in self._doors.values():
            await door.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await asyncio.sleep(0)  # aborted transports close their sockets in the next turn
