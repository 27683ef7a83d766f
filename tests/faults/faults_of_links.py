"""F8 to F12, F20: what lies between two runtimes cuts, delays, holds or changes bytes.

Within a host there is no network: the sockets of a cluster are moved aside, and a proxy
takes their place. Over tcp, with keys, two ends in this process stand for two hosts.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actors import Actor
from cells import Cell
from faults_of_workers import kill, others_go_on
from history import Event
from history import Outcome as O
from toxic import Proxy, Toxic

import mosaic_like as mosaic
from mosaic_like.comms import messages as wire
from mosaic_like.comms.zeromq import ZmqTransport, new_keys
from mosaic_like.runtimes.base import Base
from mosaic_like.runtimes.peers import Peers

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from program import Stage

    from mosaic_like.runtimes.peer import Peer

NOTHING = Toxic()

# -- within a host ---------------------------------------------------------------------


def is_callers(path: Path) -> bool:
    """The socket of the head or of a worker."""
    return path.name == "head" or path.name[0] == "w"


def is_monitors(path: Path) -> bool:
    return path.name == "monitor"


@contextlib.contextmanager
def between(
    stage: Stage, toxic: Toxic, chosen: Callable[[Path], bool] = is_callers
) -> Iterator[list[Proxy]]:
    """Proxies in place of the sockets that are chosen.

    They are passed by connections made from now on: so those there are now are closed.
    """
    folder = Path(stage.runtime.hold.cluster.directory.path)
    with contextlib.ExitStack() as stack:
        proxies = []
        for path in sockets(folder):
            if chosen(path):
                aside = path.with_name(path.name + ".aside")
                path.rename(aside)
                seed = stage.rng.randrange(1 << 30)
                proxy = Proxy(str(path), str(aside), toxic, seed)
                proxies.append(stack.enter_context(proxy))
        assert proxies, [p.name for p in folder.iterdir()]
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
    if toxic.flip or toxic.double or toxic.swap:
        assert sum(p.changes for p in proxies), "nothing was changed"


class Breaker:
    """Does the same in a worker."""

    async def close_connections(self) -> None:
        runtime = mosaic.runtime()
        runtime.loop.call_later(0.01, close_connections, runtime)


def through(
    toxic: Toxic, seconds: float, calls: int
) -> Callable[[Stage], Awaitable[None]]:
    """Calls from here and from a worker while that is between them."""

    async def play(stage: Stage) -> None:
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


async def drained_while_cut(stage: Stage) -> None:
    """F20 under F10: all that ran is known to have, and what moves runs once."""
    moving = mosaic.remote(Actor, runtime=stage.first, max_restarts=1)(stage.folder)
    breakers = [mosaic.remote(Breaker, runtime=w)() for w in stage.runtime.workers]
    await mosaic.gather(moving.pid(), *(b.close_connections() for b in breakers))
    with between(stage, OFTEN) as proxies:
        close_connections(stage.runtime)
        stage.calls(stage.a)
        # Of those from a worker some may come too late.
        stage.relayed(stage.a, 50, (O.VALUE, O.LOST_NOT_STARTED))
        stage.relayed(moving, 50)
        for _ in range(50):
            stage.call(moving)
        await stage.jitter(0.2)
        draining = asyncio.ensure_future(stage.runtime.drain(stage.first, timeout=20))
        while not draining.done():
            stage.call(moving)
            stage.call(stage.b)
            await asyncio.sleep(0.01)
        await draining
        heal(proxies)
        stage.healed()
        await stage.settled()
        assert_met(OFTEN, proxies)
    del moving, breakers


async def joins_slowly(stage: Stage) -> None:
    """m1: who takes the place of a lost worker says its hello through it."""
    calls = stage.calls(stage.b)
    with between(stage, SLOW, is_monitors) as proxies:
        kill(stage)
        await others_go_on(stage)
        assert_met(SLOW, proxies)
    for made in calls:
        await made.task


async def says_hello_to_nobody(stage: Stage) -> None:
    """m1: what it connects to takes the connection, and nothing comes back."""
    cluster = stage.runtime.hold.cluster
    with between(stage, HELD, is_monitors) as proxies:
        stranger = Base(asyncio.get_running_loop(), stage.runtime.config)
        stranger.bind(cluster.directory.socket("stranger"))
        began_s = time.monotonic()
        try:
            await stranger.join(
                *("head", cluster.monitor_address, cluster.monitor_token), timeout_s=1.0
            )
        except mosaic.ConnectError as error:
            if "did not answer in 1 s" not in str(error):
                stage.left.append(f"it does not say what was waited for: {error}")
        else:
            stage.left.append("it was let in by nobody")
        finally:
            stranger.close()
        taken_s = time.monotonic() - began_s
        if taken_s > 1.0 + stage.slack:
            stage.left.append(f"it was told after {taken_s:.1f} s")
        assert_met(HELD, proxies)
    stage.calls(stage.a)


async def late_behind_delays(stage: Stage) -> None:
    """m2 to m6: time that the way takes is time of the call."""
    with between(stage, SLOW) as proxies:
        close_connections(stage.runtime)
        late = (O.LATE_NOT_STARTED, O.LATE_RUNNING)
        for _ in range(stage.rng.randint(1, 10)):
            stage.call(stage.b, expect=(O.VALUE, *late), timeout=stage.rng.random())
        stage.call(stage.a, "gate never", expect=late, timeout=1.0)
        stage.fault()
        await stage.settled()
        assert_met(SLOW, proxies)


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


HELD = Toxic(hold=(True, True))
ONE_WAY = Toxic(hold=(False, True))
SLOW = Toxic(delay_s=(0.05, 0.5))
CUTS = Toxic(cut_every_s=(0.1, 0.5))
OFTEN = Toxic(cut_every_s=(0.02, 0.1))
TRUNCATED = Toxic(truncate=True, cut_every_s=(0.2, 0.5))

TRICKLE = Toxic(bytes_per_s=1000)
FLIPS = Toxic(flip=0.03)
DOUBLES = Toxic(double=0.03)
SWAPS = Toxic(swap=0.03)
HEAL_S = 5.0  # from the end of it until all has arrived

CELLS = (
    Cell("F8", "held", over_tcp(HELD, 1.5, 300), after_healing_s=HEAL_S, in_ci=True),
    Cell("F8", "calls", through(HELD, 1.5, 100), after_healing_s=HEAL_S),
    Cell("F9", "held", over_tcp(ONE_WAY, 1.5, 300), after_healing_s=HEAL_S, in_ci=True),
    Cell("F9", "calls", through(ONE_WAY, 1.5, 100), after_healing_s=HEAL_S),
    Cell("F10", "tcp", over_tcp(CUTS, 3.0, 2000), after_healing_s=HEAL_S),
    Cell("F10", "calls", through(CUTS, 3.0, 500), after_healing_s=HEAL_S, in_ci=True),
    Cell(
        *("F20", "drain-cuts", drained_while_cut),
        after_healing_s=HEAL_S,
        options=(("num_workers", 3),),
    ),
    Cell("F11", "delay", over_tcp(SLOW, 2.0, 200), after_healing_s=HEAL_S, in_ci=True),
    Cell("F11", "calls", through(SLOW, 1.0, 50), after_healing_s=HEAL_S),
    Cell("F11", "trickle", over_tcp(TRICKLE, 5.0, 60), after_healing_s=10.0),
    Cell("F11", "m1", joins_slowly, 3.0),
    Cell("F11", "m1-nobody", says_hello_to_nobody),
    # Late by its second, by two delays, and by the second until it is given up.
    Cell("F11", "late", late_behind_delays, 3.5),
    Cell(
        "F12",
        "truncate",
        over_tcp(TRUNCATED, 2.0, 500),
        after_healing_s=HEAL_S,
        in_ci=True,
    ),
    Cell("F12", "flip", over_tcp(FLIPS, 2.0, 500), after_healing_s=HEAL_S),
    Cell("F12", "double", over_tcp(DOUBLES, 2.0, 500), after_healing_s=HEAL_S),
    Cell("F12", "swap", over_tcp(SWAPS, 2.0, 500), after_healing_s=HEAL_S),
    Cell("F12", "calls", through(TRUNCATED, 2.0, 200), after_healing_s=HEAL_S),
)
