"""F1, F4, F5, F8, F9, F21 between hosts: the other one is a network namespace.

What a host hears of another it hears by tcp, so that here a silence can last: after
``node_timeout_s`` the silent node is lost, and must have ended what it ran by then.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actors import Actor, Relay
from cells import Cell, Skip
from faults_of_workers import ANY_LOSS
from history import Outcome as O

import mosaic_like as mosaic

sys.path.append(str(Path(__file__).parents[1] / "system"))
from far_host import FarHost, Unavailable, far_host

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from program import Made, Stage

SILENCE_S = 3.0  # 15 s as it is shipped
LARGE = 64 << 20  # bytes
ROUNDS = 4  # of coming and going
END_S = 20.0  # until a node that was told to end, or that is fenced, is gone
MAY_BE_LOST = (O.VALUE, *ANY_LOSS)


class There:
    """A node on the other host, with one worker and an actor and a relay on it."""

    def __init__(self, host: FarHost, stage: Stage) -> None:
        self.host = host
        self.process = host.join(stage.runtime)
        self.actor: Any = None
        self.relay: Any = None

    async def join(self, stage: Stage) -> None:
        """Wait until it is there, and make what lives on it."""
        runtime = stage.runtime
        await runtime.wait_for_workers(3, 20)
        (self.worker,) = [
            w for w in runtime.workers if not w.uid.startswith("worker:0")
        ]
        (self.node,) = [n for n in runtime.nodes if n.uid != "node:0"]
        self.actor = mosaic.remote(Actor, runtime=self.worker)(stage.folder)
        self.relay = mosaic.remote(Relay, runtime=self.worker)(stage.folder)
        made = (self.actor, self.relay)
        await mosaic.gather(x.pid() for x in made)

    def calls(self, stage: Stage, expect: tuple[O, ...]) -> None:
        """To it from here and from a worker here; from it to a worker here."""
        stage.calls(self.actor, expect)
        stage.relayed(self.actor, stage.rng.randint(1, 20), expect)
        # One that was ended has told nobody how its calls ended.
        count = stage.rng.randint(1, 20)
        stage.relayed(stage.a, count, (O.VALUE,), relay=self.relay)
        if expect != (O.VALUE,):
            stage.unheard = stage.relays

    async def end(
        self, stage: Stage, *, fenced: bool = False, alone: bool = True
    ) -> None:
        """It ends, by itself if it is fenced; all of its processes do.

        Args:
            stage: of the run.
            fenced: it needs not be told.
            alone: no other node is on that host.
        """
        self.actor = self.relay = None
        if not fenced and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        await stage.history.until(
            lambda: self.process.poll() is not None and not (alone and self.host.pids),
            "end of all on the other host",
            END_S,
        )
        await stage.history.until(
            lambda: self.node.uid not in [n.uid for n in stage.runtime.nodes],
            "news of its end",
        )

    def become(self, other: There) -> None:
        """Stand for that one from now on, which has nothing any more."""
        vars(self).update(vars(other))
        other.actor = other.relay = None

    def cut(self, *, heal: bool = False) -> None:
        """The cable is out, or in again."""
        ip("link", "set", self.host.name, "up" if heal else "down")

    def cut_one_way(self, *, heal: bool = False) -> None:
        """What it sends goes nowhere; it hears all."""
        place = f"{self.host.near}/32"
        what = "del" if heal else "add"
        ip("-n", self.host.name, "route", what, "blackhole", place)


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, timeout=20, capture_output=True)


def with_another_host(
    play: Callable[[Stage, There], Awaitable[None]],
) -> Callable[[Stage], None]:
    """Run it in a cluster that has a node there."""

    async def main(stage: Stage) -> None:
        there = There(hosts[0], stage)
        try:
            await there.join(stage)
            await play(stage, there)
        finally:
            if there.process.poll() is None:
                there.process.kill()
            there.process.wait()

    def outer(stage: Stage) -> None:
        try:
            with far_host() as host:
                hosts.append(host)
                options = {"address": host.near, "node_timeout_s": SILENCE_S}
                stage.run(main, **options)
                stage.left += [f"process {pid} over there" for pid in host.pids]
                stage.left += host.left
        except Unavailable as error:
            raise Skip(str(error)) from None

    hosts: list[FarHost] = []
    return outer


async def worker_is_killed(stage: Stage, there: There) -> None:
    """m4: its node tells, over the network."""
    never = f"gate {stage.gate()}"
    running = stage.call(there.actor, never, expect=(O.LOST_MAYBE_RAN,))
    await stage.started(running)
    stage.calls(there.actor, (O.LOST_NOT_STARTED,))
    stage.calls(stage.a)
    await stage.jitter()
    stage.fault()
    os.kill(there.worker.pid, signal.SIGKILL)
    await stage.settled()
    await stage.runtime.wait_for_workers(3, 20)
    await there.end(stage)


async def node_is_killed(stage: Stage, there: There) -> None:
    """m3: its worker dies with it; its kernel ends the connections."""
    running = stage.call(there.actor, f"gate {stage.gate()}", expect=ANY_LOSS)
    await stage.started(running)
    there.calls(stage, MAY_BE_LOST)
    await stage.jitter()
    stage.fault()
    os.kill(there.node.pid, signal.SIGKILL)
    await stage.settled()
    stage.calls(stage.a)
    await there.end(stage)


async def node_is_frozen(stage: Stage, there: There) -> None:
    """m4: for too long; when it goes on it finds itself lost, and ends."""
    running = stage.call(there.actor, f"gate {stage.gate()}", expect=ANY_LOSS)
    await stage.started(running)
    there.calls(stage, MAY_BE_LOST)
    stage.fault()
    os.kill(there.node.pid, signal.SIGSTOP)
    await stage.settled()
    stage.calls(stage.a)
    os.kill(there.node.pid, signal.SIGCONT)
    await there.end(stage, fenced=True)


async def pulled(stage: Stage, there: There, expect: tuple[O, ...]) -> Made:
    """m7: a large result is on its way here from there, and another one there."""
    here = stage.call(stage.a, "", LARGE)
    stage.call(there.actor, "", 0, here.task, expect=expect)
    large = stage.call(there.actor, "", LARGE, expect=expect)
    await large.task
    await stage.jitter(0.1)
    return large


def cut_for_a_moment(how: str, *, pulls: bool = False) -> Callable[[Stage], None]:
    """m2 to m6, or m7: shorter than the limit: nobody is told of anything."""

    async def play(stage: Stage, there: There) -> None:
        there.calls(stage, (O.VALUE,))
        large = await pulled(stage, there, (O.VALUE,)) if pulls else None
        stage.fault()
        getattr(there, how)()
        there.calls(stage, (O.VALUE,))
        await asyncio.sleep(0.2 + stage.rng.random())
        getattr(there, how)(heal=True)
        stage.healed()
        there.calls(stage, (O.VALUE,))
        await stage.settled()
        assert large is None or len(await large.task.result()) == LARGE
        large = None
        await there.end(stage)

    return with_another_host(play)


def cut_for_long(how: str, *, pulls: bool = False) -> Callable[[Stage], None]:
    """m2 to m6, or m7: it is lost, and ends; heard again, it runs nothing twice."""

    async def play(stage: Stage, there: There) -> None:
        there.calls(stage, MAY_BE_LOST)
        if pulls:
            await pulled(stage, there, (*MAY_BE_LOST, O.UPSTREAM))
        else:
            gate = f"gate {stage.gate()}"
            await stage.started(stage.call(there.actor, gate, expect=ANY_LOSS))
        stage.fault()
        getattr(there, how)()
        stage.calls(there.actor, MAY_BE_LOST)
        await stage.settled()
        stage.calls(stage.a)
        getattr(there, how)(heal=True)
        await there.end(stage, fenced=True)

    return with_another_host(play)


async def narrow(stage: Stage, there: There) -> None:
    """m2 to m6: the way back from it takes 1 kB/s for longer than silence may last."""
    words = ("netns", "exec", there.host.name, "tc", "qdisc", "add", "dev")
    rate = ("root", "tbf", "rate", "8kbit", "burst", "1600", "latency", "60s")
    try:
        ip(*words, f"{there.host.name}f", *rate)
    except (subprocess.CalledProcessError, FileNotFoundError) as error:
        raise Skip(f"needs tc with tbf: {error}") from None
    node = there.node.pid
    for _ in range(3):
        stage.call(there.actor)
    await asyncio.sleep(1.5 * SILENCE_S)
    assert [n.pid for n in stage.runtime.nodes if n.uid != "node:0"] == [node]
    ip(*words[:5], "del", *words[6:], f"{there.host.name}f", "root")
    stage.healed()
    await stage.settled()
    await there.end(stage)


async def comes_and_goes(stage: Stage, there: There) -> None:
    """m1, m3, m11: one leaves in order while another comes, with calls all the time."""
    for _ in range(ROUNDS):
        stage.calls(stage.a)
        stage.calls(there.actor)
        # Of those from a worker some may come too late.
        late = (O.VALUE, O.LOST_NOT_STARTED)
        stage.relayed(there.actor, stage.rng.randint(1, 20), late)
        stage.relayed(stage.a, stage.rng.randint(1, 20), relay=there.relay)
        again = There(there.host, stage)
        await there.end(stage, alone=False)
        await again.join(stage)
        there.become(again)
    await stage.settled()
    await there.end(stage)


CELLS = (
    Cell("F1", "far", with_another_host(worker_is_killed), 1.0),
    Cell("F4", "far-long", with_another_host(node_is_frozen), SILENCE_S + 1.0),
    Cell("F5", "far", with_another_host(node_is_killed), 2.0),
    Cell("F8", "far-short", cut_for_a_moment("cut"), after_healing_s=10.0),
    Cell("F8", "far-long", cut_for_long("cut"), SILENCE_S + 1.0),
    Cell("F8", "m7-short", cut_for_a_moment("cut", pulls=True), after_healing_s=10.0),
    Cell("F8", "m7-long", cut_for_long("cut", pulls=True), SILENCE_S + 1.0),
    Cell("F9", "far-short", cut_for_a_moment("cut_one_way"), after_healing_s=10.0),
    Cell("F9", "far-long", cut_for_long("cut_one_way"), SILENCE_S + 1.0),
    Cell(
        *("F9", "m7-short", cut_for_a_moment("cut_one_way", pulls=True)),
        after_healing_s=10.0,
    ),
    Cell("F9", "m7-long", cut_for_long("cut_one_way", pulls=True), SILENCE_S + 1.0),
    Cell("F11", "far-trickle", with_another_host(narrow), after_healing_s=10.0),
    Cell("F21", "far", with_another_host(comes_and_goes), in_ci=True),
)
