"""F8 to F13: what lies between two runtimes cuts, delays, holds, truncates or changes.

Within a host there is no network: the sockets of a cluster are moved aside, and a proxy
takes their place. Over tcp, with keys, two ends in this process stand for two hosts.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cells import Cell
from history import Event
from history import Outcome as O
from toxic import Proxy, Toxic

from mosaic_like.comms import messages as wire
from mosaic_like.comms.zeromq import ZmqTransport, new_keys
from mosaic_like.runtimes.peers import Peers

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from program import Stage

    from mosaic_like.runtimes.peer import Peer

NOTHING = Toxic()
GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x01NULL" + bytes(16) + bytes(32)

# -- within a host ---------------------------------------------------------------------


@contextlib.contextmanager
def between(stage: Stage, toxic: Toxic) -> Iterator[list[Proxy]]:
    """Proxies in place of the sockets of the head and of all workers.

    They are passed by connections made from now on: so those there are now are closed.
    """
    folder = Path(stage.runtime.hold.cluster.directory.path)
    with contextlib.ExitStack() as stack:
        proxies = []
        for path in sockets(folder):
            if path.name == "head" or path.name[0] == "w":
                aside = path.with_name(path.name + ".aside")
                path.rename(aside)
                seed = stage.rng.randrange(1 << 30)
                proxy = Proxy(str(path), str(aside), toxic, seed)
                proxies.append(stack.enter_context(proxy))
        assert len(proxies) == 3, [p.name for p in folder.iterdir()]
        yield proxies
        for proxy in proxies:
            Path(proxy.listen).unlink(missing_ok=True)
            Path(proxy.target).rename(proxy.listen)


def sockets(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if path.is_socket()]


def close_connections(runtime: Any) -> None:
    """As if each had broken: they are opened again, now through the proxy."""
    for peer in list(runtime.peers.by_token.values()):
        if peer._channel is not None:
            peer._channel.close()
            peer._broken("a test closes it")


def heal(proxies: list[Proxy]) -> None:
    for proxy in proxies:
        proxy.toxic = NOTHING


def assert_met(toxic: Toxic, proxies: list[Proxy]) -> None:
    """What was to happen did."""
    assert sum(p.connections for p in proxies), "nothing went through it"
    if toxic.truncate or toxic.cut_every_s[1]:
        assert sum(p.cuts for p in proxies), "nothing was cut"
    if toxic.flip:
        assert sum(p.flips for p in proxies), "nothing was changed"


class Breaker:
    """Does the same in a worker."""

    async def close_connections(self) -> None:
        import mosaic_like as mosaic

        runtime = mosaic.runtime()
        runtime.loop.call_later(0.01, close_connections, runtime)


def through(
    toxic: Toxic, seconds: float, calls: int
) -> Callable[[Stage], Awaitable[None]]:
    """Calls from here and from a worker while that is between them."""

    async def play(stage: Stage) -> None:
        import mosaic_like as mosaic

        breakers = [mosaic.remote(Breaker, runtime=w)() for w in stage.runtime.workers]
        for peer in stage.runtime.peers.by_token.values():
            peer.link.stall_s = 0.3
        await mosaic.gather(p.stall_after(0.3) for p in stage.probes())
        with between(stage, toxic) as proxies:
            await mosaic.gather(b.close_connections() for b in breakers)
            close_connections(stage.runtime)
            stage.fault()
            end_s = time.monotonic() + seconds
            stage.relayed(stage.a, calls)
            for _ in range(calls):
                stage.call(stage.a, "", stage.rng.choice((0, 0, 0, 100_000)))
                stage.call(stage.b)
                await asyncio.sleep(
                    max(0.0, (end_s - time.monotonic()) / calls * stage.rng.random())
                )
            heal(proxies)
            stage.healed()
            await stage.settled()
            assert_met(toxic, proxies)
        # The proxies are gone: links are made again without them.
        for made in stage.calls(stage.a):
            await made.task

    return play


# -- between hosts ---------------------------------------------------------------------


class End:
    """One of two runtimes, as far as links go: it notes what is delivered to it."""

    def __init__(self, stage: Stage, keys: Any, incarnation: int, stream: int) -> None:
        loop = asyncio.get_running_loop()
        self._stage = stage
        self._stream = stream
        self.incarnation = incarnation
        self.token = secrets.token_bytes(8)
        self.transport = ZmqTransport(loop, keys=keys)
        self.peers = Peers(loop, self.transport, self.token, self._deliver, _nobody)
        self.address = self.transport.bind("tcp://127.0.0.1:*")
        self.received = 0

    def _deliver(self, peer: Peer, batch: list[Any], buffers: list[Any]) -> None:
        log = self._stage.log
        for message in batch:
            number = int(message.why.partition(" ")[0])
            log.note(Event.STARTED, self._stream, number)
            log.note(Event.ENDED, self._stream, number)
            log.note(Event.OUTCOME, self._stream, number, O.VALUE)
            self.received += 1

    def meet(self, other: End, port: int) -> Peer:
        """Know the other end as one that is reached through the proxy."""
        address = f"tcp://127.0.0.1:{port}"
        uid = f"worker:{other.incarnation}:0"
        member = wire.Member(other.incarnation, uid, other.token, address, "far", 1)
        peer = self.peers.announce(member)
        peer.link.stall_s = 0.3
        return peer


def _nobody(token: bytes, batch: list[Any]) -> None:
    raise AssertionError(f"a stranger: {token!r}")


def over_tcp(toxic: Toxic, seconds: float, count: int) -> Callable[[Stage], None]:
    """Messages both ways while that is between them; each comes once, in order."""

    def play(stage: Stage) -> None:
        asyncio.run(two_ends(stage))

    async def two_ends(stage: Stage) -> None:
        keys = new_keys()
        ends = [End(stage, keys, 2, 2), End(stage, keys, 3, 1)]
        with contextlib.ExitStack() as stack:
            proxies = []
            for end in ends:
                port = int(end.address.rpartition(":")[2])
                target = "127.0.0.1", port
                seed = stage.rng.randrange(1 << 30)
                proxy = Proxy("127.0.0.1", target, toxic, seed)
                proxies.append(stack.enter_context(proxy))
            ways = [
                (1, ends[0].meet(ends[1], proxies[1].port)),
                (2, ends[1].meet(ends[0], proxies[0].port)),
            ]
            end_s = time.monotonic() + seconds
            stage.fault()
            for number in range(count):
                for stream, peer in ways:
                    stage.log.note(Event.SUBMITTED, stream, number)
                    size = stage.rng.choice((1, 1, 1, 20_000))
                    peer.send(wire.Stop(f"{number} {'x' * size}"))
                if stage.rng.random() < 0.3:
                    rest_s = max(0.0, end_s - time.monotonic())
                    await asyncio.sleep(3 * rest_s / count * stage.rng.random())
            heal(proxies)
            stage.healed()
            await stage.history.until(
                lambda: all(end.received >= count for end in ends), "last message", 30
            )
            assert_met(toxic, proxies)
            for end in ends:
                end.peers.close()

    return play


# -- strangers -------------------------------------------------------------------------


async def garbage(stage: Stage) -> None:
    """m11: into each socket noise, half a handshake, a length of 2**60."""
    folder = Path(stage.runtime.hold.cluster.directory.path)
    ways = (
        lambda: stage.rng.randbytes(stage.rng.randrange(1, 2000)),
        lambda: GREETING[: stage.rng.randrange(len(GREETING))],
        lambda: GREETING + b"\x04\x26\x05READY" + bytes(31),
        lambda: GREETING + b"\x02" + (1 << 60).to_bytes(8, "big") + b"x",
        lambda: b"",
    )
    paths = sockets(folder)
    with contextlib.ExitStack() as stack:
        for _ in range(30):
            for path in paths:
                stranger = socket.socket(socket.AF_UNIX)
                stack.callback(stranger.close)
                stranger.connect(str(path))
                with contextlib.suppress(OSError):  # it is not heard to the end
                    stranger.sendall(stage.rng.choice(ways)())
            stage.calls(stage.a, most=5)
            stage.relayed(stage.a, 3)
            await asyncio.sleep(0)
        await stage.settled()
    pids = {stage.first.pid, stage.second.pid}
    assert {w.pid for w in stage.runtime.workers} == pids, "a worker was ended"


HELD = Toxic(hold=(True, True))
ONE_WAY = Toxic(hold=(False, True))
SLOW = Toxic(delay_s=(0.02, 0.1))
CUTS = Toxic(cut_every_s=(0.1, 0.5))
TRUNCATED = Toxic(truncate=True, cut_every_s=(0.2, 0.5))

TRICKLE = Toxic(bytes_per_s=20_000)
FLIPS = Toxic(flip=0.03)
HEAL_S = 5.0  # from the end of it until all has arrived

CELLS = (
    Cell("F8", "held", over_tcp(HELD, 1.5, 300), after_healing_s=HEAL_S, in_ci=True),
    Cell("F8", "calls", through(HELD, 1.5, 100), after_healing_s=HEAL_S),
    Cell("F9", "held", over_tcp(ONE_WAY, 1.5, 300), after_healing_s=HEAL_S, in_ci=True),
    Cell("F9", "calls", through(ONE_WAY, 1.5, 100), after_healing_s=HEAL_S),
    Cell("F10", "tcp", over_tcp(CUTS, 3.0, 2000), after_healing_s=HEAL_S),
    Cell("F10", "calls", through(CUTS, 3.0, 500), after_healing_s=HEAL_S, in_ci=True),
    Cell("F11", "delay", over_tcp(SLOW, 2.0, 200), after_healing_s=HEAL_S, in_ci=True),
    Cell("F11", "calls", through(SLOW, 1.0, 50), after_healing_s=HEAL_S),
    Cell("F11", "trickle", over_tcp(TRICKLE, 2.0, 60), after_healing_s=10.0),
    Cell(
        "F12",
        "truncate",
        over_tcp(TRUNCATED, 2.0, 500),
        after_healing_s=HEAL_S,
        in_ci=True,
    ),
    Cell("F12", "flip", over_tcp(FLIPS, 2.0, 500), after_healing_s=HEAL_S),
    Cell("F12", "calls", through(TRUNCATED, 2.0, 200), after_healing_s=HEAL_S),
    Cell("F13", "garbage", garbage, in_ci=True),
)
