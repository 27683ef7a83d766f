"""A way for bytes that is not to be trusted: a proxy between sockets, on a thread.

It listens on a unix path or a tcp port and hands on to another; what a ``Toxic`` says
is done to what passes: a connection is cut, also in the middle of a frame, bytes are
changed, doubled or in another order, which no network does but a bad box in it, nothing
passes for a while in one direction or both, or all is slow.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from dataclasses import dataclass
from typing import Any

_PIECE = 1 << 16


@dataclass(frozen=True)
class Toxic:
    """What is done to what passes.

    Args:
        cut_every_s: seconds between cuts of all connections, from and to; none if 0.
        delay_s: what passes is so late, from and to.
        bytes_per_s: no more passes; 0 for no bound.
        flip: chance that one bit of a piece is changed.
        double: chance that a piece passes twice.
        swap: chance that the second half of a piece passes before the first.
        truncate: a cut leaves only a part of the last piece.
        hold: nothing passes, towards the server, towards the client.
    """

    cut_every_s: tuple[float, float] = (0.0, 0.0)
    delay_s: tuple[float, float] = (0.0, 0.0)
    bytes_per_s: int = 0
    flip: float = 0.0
    double: float = 0.0
    swap: float = 0.0
    truncate: bool = False
    hold: tuple[bool, bool] = (False, False)


class Proxy:
    """Between those who connect to ``listen`` and who listens at ``target``.

    Args:
        listen: the path of a unix socket, or a host; a port is then chosen.
        target: a path, or host and port.
        toxic: may be exchanged for another at any time.
        seed: of what is left to chance.
    """

    def __init__(self, listen: str, target: Any, toxic: Toxic, seed: int) -> None:
        self.toxic = toxic
        self.port = 0
        self.connections = 0
        self.cuts = 0
        self.changes = 0  # pieces that were flipped, doubled or swapped
        self.listen = listen
        self.target = target
        self._rng = random.Random(seed)
        self._open: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._over = asyncio.Event()
        self._thread = threading.Thread(target=self._serve, name="toxic proxy")

    def __enter__(self) -> Proxy:
        self._thread.start()
        assert self._ready.wait(10), "the proxy does not listen"
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(10)

    def _serve(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._main())

    async def _main(self) -> None:
        if isinstance(self.target, str):
            server = await asyncio.start_unix_server(self._pass, self.listen)
        else:
            server = await asyncio.start_server(self._pass, self.listen)
            self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        cutting = asyncio.ensure_future(self._cut_now_and_then())
        await self._over.wait()
        cutting.cancel()
        server.close()
        self.cut()

    async def _cut_now_and_then(self) -> None:
        while True:
            least, most = self.toxic.cut_every_s
            await asyncio.sleep(self._rng.uniform(least, most) or 0.05)
            if most:
                self.cut()

    def cut(self) -> None:
        """End all connections, without order; on the loop's thread."""
        self.cuts += bool(self._open)
        for writer in list(self._open):
            writer.transport.abort()
        self._open.clear()

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.connections += 1
        self._open.add(writer)
        onward = None
        # Whatever breaks on the one side breaks on the other.
        with contextlib.suppress(OSError, asyncio.CancelledError):
            if isinstance(self.target, str):
                there, onward = await asyncio.open_unix_connection(self.target)
            else:
                there, onward = await asyncio.open_connection(*self.target)
            self._open.add(onward)
            ways = self._way(reader, onward, 0), self._way(there, writer, 1)
            tasks = [asyncio.ensure_future(way) for way in ways]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for end in (writer, onward):
            if end is not None:
                end.transport.abort()
                self._open.discard(end)

    async def _way(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: int
    ) -> None:
        rng = self._rng
        while piece := await reader.read(_PIECE):
            toxic = self.toxic
            if toxic.delay_s[1]:
                await asyncio.sleep(rng.uniform(*toxic.delay_s))
            while self.toxic.hold[way]:  # noqa: ASYNC110 -- seldom, and not for long
                await asyncio.sleep(0.005)
            piece = self._changed(piece)
            if toxic.truncate and rng.random() < 0.05:
                writer.write(piece[: rng.randrange(len(piece))])
                with contextlib.suppress(OSError):
                    await writer.drain()
                self.cuts += 1
                return
            if toxic.bytes_per_s:
                step = max(1, toxic.bytes_per_s // 20)
                for start in range(0, len(piece), step):
                    writer.write(piece[start : start + step])
                    await writer.drain()
                    if self.toxic.bytes_per_s:
                        await asyncio.sleep(0.05)
            else:
                writer.write(piece)
                await writer.drain()

    def _changed(self, piece: bytes) -> bytes:
        """What passes in its place."""
        toxic, rng = self.toxic, self._rng
        before = piece
        if rng.random() < toxic.flip:
            changed = bytearray(piece)
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
            piece = bytes(changed)
        if rng.random() < toxic.swap:
            middle = len(piece) // 2
            piece = piece[middle:] + piece[:middle]
        if rng.random() < toxic.double:
            piece += piece
        self.changes += piece != before
        return piece
